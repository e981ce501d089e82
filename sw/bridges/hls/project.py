"""What stands beside the generated C++: Makefile, script for Vitis HLS, README."""

from __future__ import annotations

from collections.abc import Sequence

from sw.bridges.hls.cpp import of_format
from sw.bridges.hls.function import Function
from sw.bridges.hls.names import comment
from sw.bridges.hls.plan import Network, Tensor

__all__ = ["makefile", "readme", "script"]


def makefile(name: str) -> str:
    return _MAKEFILE.lstrip().replace("@NAME@", name)


_MAKEFILE = r"""
# make test AP_INCLUDE=FOLDER   compiles with the headers of that folder (ap_fixed.h), runs input.txt, compares with expected.txt
# make test ... SANITIZE=1      the same with the address and undefined-behaviour sanitizers
AP_INCLUDE ?=
SANITIZE ?=
EXTRA ?=
CXX ?= g++

comma := ,
NAME := @NAME@
PROGRAM := $(NAME)_test$(if $(SANITIZE),_sanitized)
# Pragmas and loop labels are for HLS; a C++ compiler does not know the ones and does not use the others. The headers' constructors
# leave values uninitialised, which is seen where they are used, and shift negative numbers to the left.
FLAGS := -std=c++14 -O1 -Wall -Wextra -Wno-unknown-pragmas -Wno-unused-label
FLAGS += -Wno-uninitialized -Wno-maybe-uninitialized $(EXTRA)
FLAGS += $(if $(SANITIZE),-g -fsanitize=address$(comma)undefined -fno-sanitize=shift-base -fno-sanitize-recover=all)

.PHONY: test clean
test: $(PROGRAM)
	./$(PROGRAM) input.txt output.txt expected.txt

$(PROGRAM): $(NAME).cpp $(NAME)_test.cpp $(NAME).h $(NAME)_weights.h
	$(if $(AP_INCLUDE),,$(error AP_INCLUDE must name the folder with ap_fixed.h and ap_int.h: make test AP_INCLUDE=FOLDER))
	$(CXX) $(FLAGS) -isystem $(AP_INCLUDE) -o $@ $(NAME).cpp $(NAME)_test.cpp

clean:
	rm -f $(NAME)_test $(NAME)_test_sanitized output.txt
"""


def script(name: str, part: str, period: float) -> str:
    return _SCRIPT.lstrip().replace("@NAME@", name).replace("@PART@", part).replace("@PERIOD@", f"{period:g}")


_SCRIPT = r"""
# vitis_hls -f project.tcl                            C simulation and synthesis
# vitis_hls -f project.tcl "part=NAME period=NS csim=0 export=1"
set part @PART@
set period @PERIOD@
set csim 1
set export 0
foreach argument [split [join $argv]] {
    if {[regexp {^(part|period|csim|export)=(.+)$} $argument -> key value]} { set $key $value }
}
set here [file dirname [file normalize [info script]]]

open_project -reset @NAME@_project
set_top @NAME@
add_files [file join $here @NAME@.cpp] -cflags "-std=c++14 -I$here"
add_files -tb [file join $here @NAME@_test.cpp] -cflags "-std=c++14 -I$here"
open_solution -reset solution -flow_target vivado
set_part $part
create_clock -period $period -name default
if {$csim} {
    csim_design -argv "[file join $here input.txt] output.txt [file join $here expected.txt]"
}
csynth_design
if {$export} { export_design -format ip_catalog }
exit
"""


def readme(network: Network, made: Sequence[Function], name: str) -> str:
    values = {
        "NAME": name,
        "PORTS": "\n".join(_port(t, way) for t, way in [*((t, "input") for t in network.inputs),
                                                         *((t, "output") for t in network.outputs)]),
        "LAYERS": "\n".join(_layer(function) for function in made),
    }
    text = _README
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text.lstrip()


def _port(tensor: Tensor, way: str) -> str:
    suffix = "in" if way == "input" else "out"
    return (f"| `{tensor.identifier}_{suffix}` | {way} | {comment(tensor.name)} | {' x '.join(map(str, tensor.shape))} | "
            f"{tensor.fmt} | `{of_format(tensor.fmt)}` |")


def _layer(function: Function) -> str:
    layer = function.layer
    sums = [text.split()[1:-1] for text in function.typedefs if text.endswith("_sum_t;")]
    width = " ".join(sums[0]) if sums else "none"
    return f"| `{function.name}` | {comment(layer.node.name)} | {layer.operation.op} | `{width}` | `{of_format(layer.output.fmt)}` |"


_README = r"""
# @NAME@: a fixed-point network in HLS C++

Written by Bitloom from an integer graph. The top function `@NAME@` computes the same codes as the graph, all of them: a tensor's
type is its format, sums have proven widths and are exact, and rounding and saturation are those of the `ap_fixed` types.

| file | what |
|---|---|
| `@NAME@.h` | types of all tensors, declaration of the top function |
| `@NAME@_weights.h` | weights, biases, tables as integer codes, in C++'s own types; their use takes the bits that they need |
| `@NAME@.cpp` | one function for each layer, and the top function |
| `@NAME@_test.cpp` | test bench: codes from a file, codes to a file |
| `input.txt`, `expected.txt` | codes to run it on, and what the graph gives for them |
| `Makefile`, `project.tcl` | compile and run with any C++14 compiler; C simulation and synthesis with Vitis HLS |

## Run it
    make test AP_INCLUDE=FOLDER              # the folder with ap_fixed.h and ap_int.h
    make test AP_INCLUDE=FOLDER SANITIZE=1   # with sanitizers
    vitis_hls -f project.tcl "part=NAME period=NS"

`FOLDER` is the `include` folder of Vitis HLS, or that of the vendor's open headers.

## Ports
Codes lie in the order [channels][rows][columns]; a code is the type's bits. Each port is an AXI manager; start and done are on
AXI-Lite.

| port | way | tensor | shape | format | type |
|---|---|---|---|---|---|
@PORTS@

## Layers
They run one after the other; feature maps lie in memories on the chip.

| function | layer | operation | sums | output |
|---|---|---|---|---|
@LAYERS@
"""
