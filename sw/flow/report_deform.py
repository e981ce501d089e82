"""What the inference core reaches on CoDeNet's five configurations, beside what its publication measured.

Networks have random weights in the formats of the recipe (4-bit weights, 8-bit activations, first layer 8-bit weights): cycles do not
depend on values. They come from the timing model or, with ``simulate``, from the counters of the Verilog, whose every written byte is
then compared with the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from boards.board import load_board_arch
from hw.sim.loop import MemoryTiming
from hw.spec.deform import DeformArch
from hw.spec.deform.timing.program import program_cycles
from hw.spec.program import Program
from sw.compiler import compile_graph
from sw.flow.chain import Report
from sw.flow.layers import LayerCycles, layer_cycles
from sw.flow.predict import model_timing, predictor
from sw.flow.resources import core_resources
from sw.flow.verify import Simulation, verify
from sw.graph import IntegerGraph
from sw.runtime.placement import place
from sw.runtime.records import InstructionTime

if TYPE_CHECKING:
    from torch import Tensor

    from sw.quant import QuantModel

BOARD = "ultra96v2"
CLOCK_MHZ = 250
MEMORY = MemoryTiming(read_latency=40, write_latency=40, read_interval=5, read_beats=4, write_interval=5, write_beats=4)
"""12.8 bytes a cycle each way: 3.2 GB/s at 250 MHz, of the 4.26 GB/s that the Ultra96's memory has."""

PUBLISHED_FPS = {"a": 32.2, "b": 26.9, "c": 9.3, "d": 5.2, "e": 4.6}
"""Measured on an Ultra96 without the flip test: "CoDeNet", FPGA'21."""

PROPOSED_FPS = {"a": 148.0, "b": 137.0, "c": 39.0, "d": 18.2, "e": 17.5}
"""What a model of this array foresaw, layer by layer, one engine at a time."""

MODEL, VERILOG = "timing model", "Verilog"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A configuration. ``macs`` are the network's multiply-accumulates, ``core_macs`` those that the core does. Cycles are those of one
    image, fetches of instructions included; ``array_limit`` those of the array alone at its peak. ``compared`` bytes of the Verilog,
    0 where it did not run, ``mismatches`` among them and in the instructions' cycles. ``logic_levels`` of the core's longest path, as
    modelled (``boards.levels``), None where it was not synthesised."""

    name: str
    size: int
    macs: int
    core_macs: int
    cycles: int
    array_limit: int
    load: int
    array: int
    depthwise: int
    store: int
    fetch: int
    published_fps: float
    proposed_fps: float
    source: str
    compared: int
    mismatches: int
    layers: tuple[LayerCycles, ...]
    logic_levels: float | None = None

    @property
    def fps(self) -> float:
        """Images per second at the assumed clock."""
        return CLOCK_MHZ * 1e6 / self.cycles

    @property
    def utilisation(self) -> float:
        """Part of the array's multiply-accumulates that are used over all cycles."""
        return self.array_limit / self.cycles

    def to_dict(self) -> dict[str, Any]:
        plain = asdict(self)
        return {
            "config": plain.pop("name"), "clock_mhz": CLOCK_MHZ, "fps": self.fps, "mac_utilisation": self.utilisation, "cached": False,
            **plain,
        }  # fmt: skip


def quantised(name: str, classes: int = 20, seed: int = 0) -> QuantModel:
    """The network of a configuration in fixed point, random weights, calibrated, alive."""
    import torch

    from sw.models.codenet import CONFIGURATIONS, codenet
    from sw.models.settled import settle, smooth_images
    from sw.quant import Recipe, quantize_model

    size = CONFIGURATIONS[name].size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = codenet(name, classes)
    model = quantize_model(settle(net, smooth_images(4, size, seed + 1)), Recipe())
    model.calibrate([smooth_images(2, size, seed + 2)])
    return model


def report_deform(
    names: Sequence[str] = (),
    *,
    simulate: bool = False,
    levels: bool = False,
    arch: DeformArch | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> list[Row]:
    """Rows of the configurations called ``names``, or of all; with ``levels`` the core is synthesised too. ValueError for another
    name."""
    if unknown := sorted(set(names) - set(PUBLISHED_FPS)):
        raise ValueError(f"configuration must be one of {', '.join(PUBLISHED_FPS)}, not {', '.join(unknown)}")
    core, chosen = arch or load_board_arch(BOARD), [name for name in PUBLISHED_FPS if not names or name in names]
    rows = []
    for number, name in enumerate(chosen, 1):
        rows.append(_simulated(name, core) if simulate else _modelled(name, core))
        if progress:
            progress("configurations", number, len(chosen))
    if not levels:
        return rows
    found = core_resources(core, tell=tell).synthesis.levels
    return [replace(row, logic_levels=found) for row in rows]


def compiled(name: str, arch: DeformArch) -> tuple[QuantModel, Tensor, IntegerGraph, Program]:
    """A configuration, an image for it, its graph and its program."""
    from sw.models.settled import smooth_images
    from sw.quant import export

    model, image = quantised(name), smooth_images(1, _size(name), 3)
    graph = export(model, image)
    return model, image, graph, compile_graph(graph, arch, windows=True)


def _modelled(name: str, arch: DeformArch) -> Row:
    _, _, graph, program = compiled(name, arch)
    where, memory = place(program, base=0, size=1 << 32), model_timing(MEMORY)
    assert memory is not None
    times = modelled_times(program)
    bases = [region.base for region in where.regions]
    return _row(name, graph, program, times, program_cycles(program.instructions(), arch, memory, bases), None)


def modelled_times(program: Program) -> list[InstructionTime]:
    """Cycles of each instruction of a program on ``MEMORY``, by the timing model."""
    predict = predictor(program, place(program, base=0, size=1 << 32), MEMORY)
    assert predict is not None
    return [InstructionTime(index=index, issue=0, retire=predict(index)) for index in range(program.instruction_count)]


def _simulated(name: str, arch: DeformArch) -> Row:
    graph, program, report, _ = verified(name, arch)
    return _row(name, graph, program, report.times, report.counters["CYCLES"], report)


def verified(name: str, arch: DeformArch) -> tuple[IntegerGraph, Program, Report, dict[str, np.ndarray]]:
    """A configuration at full size through every link of the chain, one image; the codes (1, C, H, W) of all tensors come last."""
    from hw.sim.core import build_core
    from sw.quant import codes_of

    model, image, graph, program = compiled(name, arch)
    trace = {tensor: codes.numpy() for tensor, codes in model.trace(image).items()}
    simulation = Simulation(build=build_core(arch), timing=MEMORY)
    report = verify(graph, program, {graph.inputs[0]: codes_of(model, image)}, torch_trace=trace, simulation=simulation)
    return graph, program, report, trace


def _size(name: str) -> int:
    from sw.models.codenet import CONFIGURATIONS

    return CONFIGURATIONS[name].size


def _row(
    name: str, graph: IntegerGraph, program: Program, times: Sequence[InstructionTime], cycles: int, report: Report | None
) -> Row:
    arch = program.arch
    assert isinstance(arch, DeformArch)
    operations = [instruction.name for instruction in program.instructions()]
    kinds = {kind: sum(time.cycles for time in times if operations[time.index] == kind) for kind in ("LOAD", "PW", "DW", "STORE")}
    layers = layer_cycles(program, graph, arch, times)
    core_macs = sum(layer.macs for layer in layers)
    links = [] if report is None else [*report.links.values(), *([report.timing] if report.timing else [])]
    return Row(
        name=name, size=_size(name), macs=graph.macs(), core_macs=core_macs, cycles=cycles,
        array_limit=-(-core_macs // (arch.rows * arch.columns)),
        load=kinds["LOAD"], array=kinds["PW"], depthwise=kinds["DW"], store=kinds["STORE"], fetch=cycles - sum(kinds.values()),
        published_fps=PUBLISHED_FPS[name], proposed_fps=PROPOSED_FPS[name], source=MODEL if report is None else VERILOG,
        compared=0 if report is None else report.links["machine_rtl"].compared, mismatches=sum(link.mismatches for link in links),
        layers=layers,
    )  # fmt: skip


def to_dict(rows: Sequence[Row]) -> dict[str, Any]:
    """The report as JSON."""
    return {
        "ok": bool(rows) and not any(row.mismatches for row in rows),
        "rows": [row.to_dict() for row in rows],
        "board": BOARD,
        "clock_mhz": CLOCK_MHZ,
        "memory": asdict(MEMORY),
    }
