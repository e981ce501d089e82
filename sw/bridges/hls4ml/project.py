"""A folder with hls4ml's project of an integer graph."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sw.bridges.errors import BridgeError
from sw.bridges.hls.bench import check_images, random_inputs
from sw.bridges.hls.names import DEFAULT_PART, check_part, check_period, check_top
from sw.bridges.hls4ml.convert import BACKEND, convert, library, quiet, settled, version
from sw.bridges.hls4ml.lower import HlsNetwork, Port, to_hls4ml
from sw.bridges.hls4ml.readme import README, readme
from sw.bridges.hls4ml.values import values_of
from sw.bridges.results import Kind, check_free, hashes, manifest, sha256, write_folder
from sw.graph import IntegerGraph

__all__ = ["MANIFEST", "save_hls4ml"]

MANIFEST = "bitloom.json"
"""What the ports are, and what was written."""

KIND = Kind(command="bitloom hls4ml", mark="bitloom_hls4ml", manifest=MANIFEST)

CONFIG = "hls4ml_config.yml"
"""What hls4ml's ``link_existing_project`` reads."""

_TAKEN = re.compile(r"nnet|weights|defines|parameters|myproject|.*_t|(layer|config|table|[wbs])[0-9].*")
"""Names of hls4ml's own files, types and variables."""


def save_hls4ml(
    graph: IntegerGraph, folder: str | Path, *, name: str = "network", inputs: Mapping[str, np.ndarray] | None = None,
    part: str = DEFAULT_PART, period: float = 5.0, reuse: int = 1, overwrite: bool = False,
) -> Path:
    """Write hls4ml's project of a graph (backend Vitis, io_parallel, strategy Latency) into a folder; returns the folder.

    Parameters
    ----------
    name : of the project and its top function
    inputs : codes (N, C, H, W) of every input, for hls4ml's test bench with the graph's results; a few random images if left out
    part, period : device and clock period in ns
    reuse : hls4ml's reuse factor, at least 1 and at most the weights of the largest layer
    overwrite : also replace an earlier result in which files were changed or added, as in `sw.bridges.results`

    BridgeError, before anything is written, with all layers that hls4ml does not compute exactly; where hls4ml is not installed,
    an option is no good, or the folder is not free.
    """
    _check_name(name)
    check_part(part), check_period(period)
    if isinstance(reuse, bool) or not isinstance(reuse, int) or reuse < 1:
        raise BridgeError(f"the reuse factor must be an integer of at least 1, not {reuse!r}")
    target = Path(folder).absolute()
    check_free(target, KIND, overwrite=overwrite)
    network = to_hls4ml(graph)
    _check_reuse(network, reuse)
    library()
    codes = random_inputs(graph) if inputs is None else inputs
    check_images(graph.inputs, codes)
    lines = _lines(network.inputs, codes), _lines(network.outputs, graph(codes))
    digest = sha256(graph.to_bytes())

    def make(new: Path) -> None:
        _write(network, new, target, digest[:8], name=name, part=part, period=period, reuse=reuse)
        for file, text in zip(("tb_input_features.dat", "tb_output_predictions.dat"), lines, strict=True):
            (new / "tb_data" / file).write_text(text)
        (new / README).write_text(readme(network, name, digest), encoding="utf-8")
        (new / MANIFEST).write_text(_manifest(network, name, digest, new))

    write_folder(target, KIND, make, overwrite=overwrite)
    return target


def _check_name(name: str) -> None:
    check_top(name)
    if _TAKEN.fullmatch(name):
        raise BridgeError(f"the name must be none that hls4ml uses itself (nnet, weights, defines, parameters, ..._t), not {name!r}: "
                          "use 'network'")


def _check_reuse(network: HlsNetwork, reuse: int) -> None:
    """A multiplier cannot be used for more products than a layer has."""
    counts = {layer.name: max((int(value.size) for key, value in layer.attributes.items() if key in _WEIGHTS), default=0)
              for layer in network.layers}
    most = max(counts.values(), default=0)
    if reuse > max(most, 1):
        largest = next(name for name, count in counts.items() if count == most)
        told = f"the largest layer, {largest}, has {most} weights" if most else "no layer has weights"
        raise BridgeError(f"the reuse factor, products that one multiplier makes, must be at most {max(most, 1)}, not {reuse}: {told}")


_WEIGHTS = ("weight_data", "depthwise_data", "scale_data")


def _write(network: HlsNetwork, temporary: Path, target: Path, stamp: str, **options: Any) -> None:
    """hls4ml writes into the temporary folder; what it knows of the place, and its random stamp, become the final ones."""
    try:
        model = convert(network, folder=str(temporary), **options)
        with quiet():
            model.write()
    except BridgeError:
        raise
    except Exception as error:  # of any kind: hls4ml raises Exception itself
        raise BridgeError(f"hls4ml {version()} cannot make the project ({type(error).__name__}: {error})") from error
    random, script = str(model.config.get_config_value("Stamp")), temporary / "build_lib.sh"
    script.write_text(script.read_text().replace(random, stamp))
    (temporary / CONFIG).write_text(settled(model.config.config, OutputDir=str(target), Stamp=stamp))


def _lines(ports: Sequence[Port], codes: Mapping[str, np.ndarray]) -> str:
    """Values of all ports, a line for each image."""
    rows = np.concatenate([values_of(port, codes[port.tensor]).reshape(len(codes[port.tensor]), -1) for port in ports], axis=1)
    return "".join(" ".join(map(repr, row)) + "\n" for row in rows.tolist())


def _manifest(network: HlsNetwork, name: str, digest: str, new: Path) -> str:
    facts = {
        "top": name,
        "graph_sha256": digest,
        "hls4ml": version(),
        "backend": BACKEND,
        "inputs": [_port(port) for port in network.inputs],
        "outputs": [_port(port) for port in network.outputs],
    }
    built = [f"firmware/{name}-{digest[:8]}.so", f"{name}.o", f"{name}_bridge.o", f"{name}_test", *_LOGS]
    return manifest(KIND, facts, hashes(new), built)


_LOGS = ("tb_data/csim_results.log", "tb_data/rtl_cosim_results.log")


def _port(port: Port) -> dict[str, Any]:
    """A port's shape as hls4ml has it, and its binary point: a value is a code times 2**-frac."""
    channels, height, width = port.shape
    shape = [height, width, channels]
    return {"tensor": port.tensor, "layer": port.layer, "shape": shape, "type": str(port.type), "frac": port.type.frac}
