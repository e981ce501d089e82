"""Where a program's cycles go: by layer, split into loads, computing and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hw.spec.deform import DeformArch
from hw.spec.program import Program
from sw.compiler.simplify import simplified
from sw.graph import IntegerGraph, node_macs
from sw.runtime.records import InstructionTime

_PART = {"LOAD": "load", "STORE": "store", "PW": "compute", "DW": "compute"}


@dataclass(frozen=True, kw_only=True)
class LayerCycles:
    """One layer of one image: cycles of its instructions from issue to retirement, and its multiply-accumulates as the core does them:
    a 1 x 1 convolution that the compiler moved before an upsampling does a fourth of those that the network counts.

    ``unit`` names the engine; ``utilisation`` is the part of the array's multiply-accumulates that were used while a PW layer
    computed, None for layers that run elsewhere.
    """

    layer: str
    unit: str
    load: int
    compute: int
    store: int
    macs: int
    utilisation: float | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def layer_cycles(
    program: Program, graph: IntegerGraph, arch: DeformArch, times: Sequence[InstructionTime]
) -> tuple[LayerCycles, ...]:
    """Cycles of each layer in the order of the program; ``times`` of one image."""
    operations = [instruction.name for instruction in program.instructions()]
    simple = simplified(graph)
    macs = {node.name: node_macs(node, simple.tensors[node.output].shape) for node in simple.nodes}
    found = []
    for layer in dict.fromkeys(program.layers):
        mine = [time for time in times if program.layers[time.index] == layer]
        parts = {"load": 0, "compute": 0, "store": 0}
        for time in mine:
            parts[_PART[operations[time.index]]] += time.cycles
        on_array = any(operations[time.index] == "PW" for time in mine)
        peak = parts["compute"] * arch.rows * arch.columns
        found.append(
            LayerCycles(
                layer=layer,
                unit="array" if on_array else "depthwise",
                macs=macs.get(layer, 0),
                utilisation=macs.get(layer, 0) / peak if on_array and peak else None,
                **parts,
            )
        )
    return tuple(found)
