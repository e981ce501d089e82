"""What stands beside hls4ml's project: what it is and how it is run, used from Python and synthesised."""

from __future__ import annotations

from sw.bridges.hls.names import comment
from sw.bridges.hls4ml.lower import HlsNetwork, Port

__all__ = ["README", "readme"]

README = "README.md"


def readme(network: HlsNetwork, name: str, digest: str) -> str:
    """The README's text; ``digest`` is the hash of the graph."""
    values = {
        "NAME": name,
        "DIGEST": digest,
        "STAMP": digest[:8],
        "INPUTS": ", ".join(f"{port.tensor!r}: codes{k}" for k, port in enumerate(network.inputs)),
        "CODES": "; ".join(f"codes{k} = np.zeros({(1, *port.shape)}, int)" for k, port in enumerate(network.inputs)),
        "PORTS": "\n".join([*(_port(port, "input") for port in network.inputs), *(_port(port, "output") for port in network.outputs)]),
    }
    text = _README
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.lstrip()


def _port(port: Port, way: str) -> str:
    channels, height, width = port.shape
    return f"| `{port.layer}` | {way} | {comment(port.tensor)} | {height} x {width} x {channels} | `{port.type}` | {port.type.frac} |"


_README = r"""
# @NAME@: a project of hls4ml

Written by Bitloom (`bitloom hls4ml`) from an integer graph, for hls4ml's backend Vitis. The compiled project gives the graph's
results in every code.

| file | what |
|---|---|
| `firmware/@NAME@.cpp`, `.h` | the top function `@NAME@`, a call for each layer |
| `firmware/defines.h`, `parameters.h`, `weights/` | types, sizes and weights of the layers |
| `firmware/nnet_utils/`, `ap_types/` | hls4ml's layers, and the vendor's open headers for a C++ compiler |
| `@NAME@_test.cpp`, `tb_data/` | test bench: inputs as values, and the graph's results for them |
| `@NAME@_bridge.cpp`, `build_lib.sh` | the library that hls4ml compiles and calls from Python |
| `build_prj.tcl`, `build_opt.tcl`, `project.tcl` | synthesis with Vitis HLS: steps, which of them, part and clock |
| `hls4ml_config.yml` | what hls4ml knows of the project |
| `bitloom.json` | ports, the graph's hash, and the hash of every file here |

## Run the test bench
In this folder, with any C++14 compiler:

```sh
g++ -std=c++14 -O1 -Ifirmware/ap_types -DWEIGHTS_DIR="\"$PWD/firmware/weights\"" -o @NAME@_test firmware/@NAME@.cpp @NAME@_test.cpp
./@NAME@_test
```

Without `WEIGHTS_DIR` the program stops with "file weights/... does not exist": it reads the weights' text files when
it runs, and this says where they are (`build_lib.sh` says it too). Results come into `tb_data/csim_results.log`, a line for each image;
the graph's are in `tb_data/tb_output_predictions.dat`. They are the same numbers, written differently (`3` and `3.0`; the log may have
six digits of each):

```sh
python3 - <<'END'
import numpy as np
found, wanted = (np.array(open(f"tb_data/{name}").read().split(), float) for name in ("csim_results.log", "tb_output_predictions.dat"))
print(found.size, "values,", int((abs(found - wanted) > 1e-5 * abs(wanted)).sum()), "differ")
END
```

## Use it from Python
With hls4ml and Bitloom (`pip install 'bitloom[hls4ml]'`), in this folder; compiling writes `firmware/@NAME@-@STAMP@.so`:

```python
import hls4ml, numpy as np
from sw.bridges.hls4ml import predict, to_hls4ml
from sw.graph import IntegerGraph

graph = IntegerGraph.load("FILE")  # the graph that this was made of
model = hls4ml.converters.link_existing_project(".")
model.compile()
@CODES@  # integer codes (N, C, H, W)
print(predict(to_hls4ml(graph), model, {@INPUTS@}))  # the codes that graph(...) gives
```

Without Bitloom, `model.predict` takes and gives values, channels last: a value is a code times 2^-frac of its port.

## Synthesise it
    vitis_hls -f build_prj.tcl

`build_opt.tcl` says which steps are run (csim, synth, cosim, validation, export, vsynth: 1 or 0), `project.tcl` the part and the clock
period. Vitis HLS writes to `@NAME@_prj`. Nothing was synthesised when this was written: every layer is unrolled (io_parallel), and
whether that fits the part was not asked.

## If you move or change it
`hls4ml_config.yml` names this folder by its absolute path, and hls4ml compiles there: do not move the project, write it
again with `bitloom hls4ml` where it shall be. Written again into this folder it is replaced if nothing was changed or added; else that
is refused with the files' names, and `--overwrite` replaces what was written and lets added files stay.

## Ports
The graph's SHA-256 is `@DIGEST@`. Shapes are rows x columns x channels.

| port | way | tensor | shape | type | frac |
|---|---|---|---|---|---|
@PORTS@
"""
