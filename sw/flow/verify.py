"""Proves a program: the chain from the trained model to the Verilog, equal at every link, counted.

===========  ================================================================================
link         what is equal
===========  ================================================================================
torch_graph  the model's frozen fixed-point forward and the integer graph, every tensor
graph_ops    the graph read back from its file and direct calls of the golden operations
ops_machine  the graph and the program in the interpreter, every tensor that it stores, of every image
machine_rtl  the interpreter and the Verilog, every byte that every instruction writes
timing       the timing model and the Verilog, cycles of every instruction
===========  ================================================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hw.spec.arch import Arch
from hw.spec.program import Program
from sw.flow.alive import tensor_lives
from sw.flow.chain import Report, graph_ops, ops_machine, torch_graph
from sw.flow.link import Link
from sw.flow.machine_rtl import Images, Recorded, RtlTally, compare_devices, run_recorded
from sw.flow.predict import predictor
from sw.flow.stored import stored_tensors
from sw.graph import IntegerGraph
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.placement import Placement

if TYPE_CHECKING:
    from hw.sim.build import SimulationBuild
    from hw.sim.loop import MemoryTiming, Stalls
    from sw.runtime.sim import SimDevice

MAX_CYCLES = 100_000_000
"""Most cycles of one image: a faulty core that does not end is stopped here."""

DIRT = 12
"""Seed of what memories hold before the first program."""

STATE_SEED, STALL_SEED, STALL_PROBABILITY = 2024, 7, 96
"""Of the further runs that a record holds; stalls are of 256 cycles, on every channel."""

Progress = Callable[[str, int, int], None]
"""Told (step, images done, images in all)."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A further run of the Verilog: other random contents at power-up, or random stalls. The bytes must be the same."""

    name: str
    images: int
    state_seed: int = 1
    stalls: Stalls | None = None


def power_up_and_stalls(runs: int) -> tuple[Variant, ...]:
    """The further runs that a record holds, of so many images each: another state at power-up, and stalls on every channel."""
    from hw.sim.loop import Stalls

    stalls = Stalls.everywhere(STALL_PROBABILITY, seed=STALL_SEED)
    return (
        Variant(name="other state at power-up", images=runs, state_seed=STATE_SEED),
        Variant(name="random stalls on every channel", images=runs, state_seed=STALL_SEED, stalls=stalls),
    )


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """How the Verilog is run.

    Parameters
    ----------
    rtl : a Verilog file to check in place of the generated one
    build : a simulator that has been built already; then ``rtl`` is not read
    timing : of the memory; None takes the simulator's default
    variants : further runs
    """

    rtl: Path | None = None
    build: SimulationBuild | None = None
    timing: MemoryTiming | None = None
    variants: Sequence[Variant] = ()


def verify(
    graph: IntegerGraph,
    program: Program,
    inputs: Mapping[str, np.ndarray],
    *,
    arch: Arch | None = None,
    rtl: Path | None = None,
    torch_trace: Mapping[str, np.ndarray] | None = None,
    images: int | None = None,
    simulation: Simulation | None = None,
    interpreter_only: bool = False,
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Compare every link of the chain.

    Parameters
    ----------
    graph, program : the network, and the program compiled from it
    inputs : integer codes (N, C, H, W) of each input
    arch : the core's architecture; None takes the program's, another one is refused
    rtl : short for ``simulation=Simulation(rtl=rtl)``
    torch_trace : codes (N, C, H, W) of the frozen model by tensor name, for the link torch_graph
    images : compare only the first so many
    interpreter_only : leave the Verilog out, and with it the links machine_rtl and timing; needs no simulator and is much faster
    """
    if interpreter_only and (rtl is not None or simulation is not None):
        raise ValueError("a Verilog file or simulation was given, and interpreter_only leaves them out: give one or the other")
    if arch is not None and arch.arch_id != program.arch.arch_id:
        raise ValueError(
            f"the program was compiled for arch_id {program.arch.arch_id:016x}, not for the given {arch.arch_id:016x}: "
            "compile it for that architecture"
        )
    _check_same_network(graph, program)
    codes = _first(inputs, graph, images)
    trace = graph.trace(codes)
    report = Report(links={}, images=len(next(iter(codes.values()))), hashes=_hashes(graph, program))
    report.alive = tensor_lives(graph, trace)
    if torch_trace is not None:
        report.links["torch_graph"] = torch_graph(graph, trace, {k: v[:images] for k, v in torch_trace.items()})
    report.links["graph_ops"] = graph_ops(graph, trace, codes)
    singles = [{name: array[i] for name, array in codes.items()} for i in range(report.images)]
    if interpreter_only:
        _run_interpreter(report, program, singles, trace, progress)
    else:
        _run_devices(report, program, singles, trace, simulation or Simulation(rtl=rtl), progress)
    return report


def _check_same_network(graph: IntegerGraph, program: Program) -> None:
    """ValueError where the program's inputs or outputs are not the graph's: it was compiled from another one."""
    for what, layouts, names in (("input", program.inputs, graph.inputs), ("output", program.outputs, graph.outputs)):
        theirs = {layout.name: (tuple(layout.shape), layout.fmt) for layout in layouts}
        ours = {name: (graph.tensors[name].shape, graph.tensors[name].fmt) for name in names}
        for name in sorted(theirs.keys() | ours.keys()):
            if theirs.get(name) != ours.get(name):
                raise ValueError(
                    f"the program was compiled from another graph: {what} {name} is {_words(theirs.get(name))} in the program and "
                    f"{_words(ours.get(name))} in the graph"
                )


def _words(found: tuple[tuple[int, ...], object] | None) -> str:
    return "missing" if found is None else f"{found[0]} {found[1]}"


def _run_interpreter(
    report: Report, program: Program, images: Images, trace: Mapping[str, np.ndarray], progress: Progress
) -> None:
    """The interpreter alone; fills the link ops_machine of the report."""
    machine = InterpreterDevice(program.arch, seed=DIRT)
    machine.dirty(program, DIRT)
    link = report.links["ops_machine"] = Link(name="ops_machine", unit="codes")
    where = machine.load(program)
    for number, image in enumerate(images):
        run = run_recorded(machine, program, where, image, strict=True)
        if run.problem:
            link.differ(f"image {number}: the program {run.problem}")
        else:
            ops_machine(link, number, trace, _tensors(program, where, run))
        progress("interpreter", number + 1, len(images))


def _run_devices(
    report: Report,
    program: Program,
    images: Images,
    trace: Mapping[str, np.ndarray],
    simulation: Simulation,
    progress: Progress,
) -> None:
    """Interpreter and Verilog side by side; fills the links ops_machine, machine_rtl and timing of the report."""
    machine = InterpreterDevice(program.arch, seed=DIRT)
    machine.dirty(program, DIRT)
    link = report.links["ops_machine"] = Link(name="ops_machine", unit="codes")
    report.links["machine_rtl"] = Link(name="machine_rtl", unit="bytes")
    timing = _timing(simulation)
    with _open(program, simulation, 1, None) as core:
        where = core.load(program)
        predict = predictor(program, where, timing)
        report.timing = Link(name="timing", unit="instructions") if predict else None
        tally = RtlTally(link=report.links["machine_rtl"], timing=report.timing or Link(name="timing", unit="instructions"))
        told = lambda done: progress("all images", done, len(images))  # noqa: E731
        for number, run in enumerate(compare_devices(tally, program, machine, core, images, predict, told)):
            ops_machine(link, number, trace, _tensors(program, where, run))
        _fill(report, tally, core, len(images))
    for variant in simulation.variants:
        _run_variant(report, variant, program, machine, images, simulation, progress)


def _tensors(program: Program, where: Placement, run: Recorded) -> dict[str, np.ndarray]:
    """What the machine stored: outputs and every intermediate; one that it did not write whole raises."""
    stored = stored_tensors(program, where, run.record)
    if missing := {i.layout.name for i in program.intermediates} - set(stored):
        raise ValueError(f"the program says that it stores {sorted(missing)}, and does not: compile it again")
    return {**stored, **(run.outputs or {})}


def _open(program: Program, simulation: Simulation, state_seed: int, stalls: Stalls | None) -> SimDevice:
    """The Verilog in a simulator whose memory holds dirt."""
    from sw.runtime.sim import SimDevice

    core = SimDevice(
        program.arch,
        verilog=simulation.rtl,
        build=simulation.build,
        timing=_timing(simulation),
        stalls=stalls,
        state_seed=state_seed,
        max_cycles=MAX_CYCLES,
    )
    core.dirty(program, DIRT + state_seed)
    return core


def _timing(simulation: Simulation) -> MemoryTiming:
    from hw.sim.loop import MemoryTiming

    return simulation.timing or MemoryTiming()


def _fill(report: Report, tally: RtlTally, core: SimDevice, images: int) -> None:
    report.counters, report.times = tally.counters, tally.times
    if len(tally.outputs) == images:
        report.rtl_outputs = {name: np.stack([o[name] for o in tally.outputs]) for name in tally.outputs[0]}
    report.simulated_cycles_per_second = core.simulation.cycles / max(core.simulation.seconds, 1e-9)
    report.hashes["verilog"] = core.build.verilog_sha256


def _run_variant(
    report: Report,
    variant: Variant,
    program: Program,
    machine: InterpreterDevice,
    images: Images,
    simulation: Simulation,
    progress: Progress,
) -> None:
    """The first few images again under other circumstances; counts to the link machine_rtl too."""
    chosen = images[: variant.images]
    link, timing = Link(name=variant.name, unit="bytes"), Link(name="timing", unit="instructions")
    with _open(program, simulation, variant.state_seed, variant.stalls) as core:
        told = lambda done: progress(variant.name, done, len(chosen))  # noqa: E731
        for _ in compare_devices(RtlTally(link=link, timing=timing), program, machine, core, chosen, None, told):
            pass
        stalled = sum(core.loop.stall_counts().values())
    if variant.stalls is not None and not stalled:
        link.differ("no stall happened, so the run tested nothing")
    report.variants[variant.name] = link.to_dict() | {"images": len(chosen), "stall_cycles": stalled}
    whole = report.links["machine_rtl"]
    whole.add(link.compared, link.mismatches)
    for words in link.first:
        whole.show(f"{variant.name}: {words}")


def _first(inputs: Mapping[str, np.ndarray], graph: IntegerGraph, images: int | None) -> dict[str, np.ndarray]:
    """The first images of each input, as the graph names them."""
    if sorted(inputs) != sorted(graph.inputs):
        raise ValueError(f"the graph's inputs are {sorted(graph.inputs)}, not {sorted(inputs)}")
    codes = {name: np.asarray(array)[:images] for name, array in inputs.items()}
    counts = {len(array) for array in codes.values()}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(f"inputs must have one common number of images, at least 1, not {sorted(counts)}")
    return codes


def _hashes(graph: IntegerGraph, program: Program) -> dict[str, str]:
    return {
        "arch_id": f"{program.arch.arch_id:016x}",
        "graph": hashlib.sha256(graph.to_bytes()).hexdigest(),
        "program": program.digest,
    }
