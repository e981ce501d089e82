"""Proves training: the graph, the programs in the interpreter and the Verilog, equal after every step, counted.

==============  =============================================================================================================
link            what is equal
==============  =============================================================================================================
graph_machine   the graph's step and the programs in the interpreter: logits, every parameter, velocity and statistic
machine_rtl     the interpreter and the Verilog: every byte that every instruction writes, in memory and on chip
memory          all of the device's memory after the step
timing          the timing model and the Verilog, cycles of every instruction
==============  =============================================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw.spec.program import Program
from hw.spec.training import DEFINITION, Hyper, Products
from hw.spec.training_program import TrainingProgram
from sw.flow.link import Link
from sw.flow.machine_rtl import Describer, PredictCycles, Recorded, RtlTally, compare_runs
from sw.runtime import Device, Launch
from sw.runtime.records import InstructionTime
from sw.runtime.training import StepReport, TrainingSession
from sw.training_graph import TrainingGraph, TrainingState

DIRT = 12
"""Seed of what the memory holds before."""

Batch = tuple[np.ndarray, np.ndarray]
"""Images float16 (N, H, W, C) and labels (N,)."""

Predictor = Callable[[Program, TrainingSession], PredictCycles | None]


@dataclass(kw_only=True)
class TrainingReport:
    """What was compared over some steps; ``times`` and ``counters`` of the last step's programs on the core."""

    links: dict[str, Link]
    losses: list[float] = field(default_factory=list)
    times: dict[str, tuple[InstructionTime, ...]] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    state: TrainingState | None = None
    """Of the graph, after the last step."""

    @property
    def ok(self) -> bool:
        return bool(self.links) and all(link.ok for link in self.links.values())

    @property
    def first(self) -> list[str]:
        """The first differences in words; a link that compared nothing says so."""
        silent = [f"{link.name}: nothing was compared" for link in self.links.values() if not link.compared]
        return silent + [f"{link.name}: {words}" for link in self.links.values() for words in link.first]

    def to_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok, "links": {name: link.to_dict() for name, link in self.links.items()}, "losses": self.losses,
            "counters": self.counters, "first_mismatches": self.first,
        }  # fmt: skip


def verify_training(
    graph: TrainingGraph,
    program: TrainingProgram,
    batches: Sequence[Batch],
    hyper: Hyper,
    machine: Device,
    *,
    core: Device | None = None,
    products: Products = DEFINITION,
    predictor: Predictor | None = None,
    progress: Callable[[int], None] = lambda step: None,
) -> TrainingReport:
    """Train on the batches, on the graph, on ``machine`` and, where one is given, on ``core``; compare after every step.

    ``products``: compiled kernels for the graph. Memory is dirty to begin with, the same on both devices.
    """
    links = {"graph_machine": Link(name="graph_machine", unit="values")}
    if core is not None:
        links |= {"machine_rtl": Link(name="machine_rtl", unit="bytes"), "memory": Link(name="memory", unit="bytes")}
        links |= {"timing": Link(name="timing", unit="instructions")} if predictor is not None else {}
    report = TrainingReport(links=links, state=graph.state)
    sessions = [_session(device, program, graph) for device in (machine, core) if device is not None]
    for number, batch in enumerate(batches):
        steps = [session.step(batch, hyper, record=core is not None) for session in sessions]
        _compare_graph(report, graph, number, batch, hyper, sessions[0], steps[0], products)
        if core is not None:
            _compare_core(report, program, number, sessions, steps, predictor)
        progress(number + 1)
    return report


def _session(device: Device, program: TrainingProgram, graph: TrainingGraph) -> TrainingSession:
    longest = max(program.images, key=lambda name: len(program.images[name]))
    device.dirty(program.program(longest), DIRT)
    return device.open_session(program, graph.state.arrays())


def _compare_graph(
    report: TrainingReport, graph: TrainingGraph, number: int, batch: Batch, hyper: Hyper, session: TrainingSession,
    step: StepReport, products: Products,
) -> None:  # fmt: skip
    assert report.state is not None
    expected = graph.step(report.state, *batch, hyper, products)
    report.state = expected.state
    report.losses.append(step.loss)
    link, got = report.links["graph_machine"], session.state()
    link.codes(f"step {number}: logits", expected.logits.view(np.uint16).astype(np.int64), step.logits.view(np.uint16).astype(np.int64))
    for name, array in expected.state.arrays().items():
        link.codes(f"step {number}: {name}", array.view(np.uint32).astype(np.int64), got[name].view(np.uint32).astype(np.int64))


def _compare_core(
    report: TrainingReport, program: TrainingProgram, number: int, sessions: list[TrainingSession], steps: list[StepReport],
    predictor: Predictor | None,
) -> None:  # fmt: skip
    mine, theirs = steps
    for name, launch in mine.launches.items():
        part = program.program(name)
        tally = RtlTally(link=report.links["machine_rtl"], timing=report.links.get("timing", Link(name="timing", unit="instructions")))
        predict = None if predictor is None else predictor(part, sessions[1])
        got = theirs.launches.get(name)
        if got is None:
            tally.link.differ(f"step {number}: the core did not run {name}")
            continue
        compare_runs(tally, Describer(part), number, _recorded(launch), _recorded(got), predict)
        report.times[name], report.counters[name] = tally.times, tally.counters
    first = sessions[0].placement
    size = first.end - sessions[0].device.memory_base
    one, other = (np.frombuffer(s.device.read_memory(s.device.memory_base, size), np.uint8) for s in sessions)
    link = report.links["memory"]
    wrong = np.flatnonzero(one != other)
    link.add(size, len(wrong))
    for at in wrong[:5]:
        link.show(f"step {number}: memory {sessions[0].device.memory_base + int(at):#x}: {one[at]:#04x} and {other[at]:#04x}")


def _recorded(launch: Launch) -> Recorded:
    return Recorded(launch=launch, outputs=None)


__all__ = ["Batch", "TrainingReport", "verify_training"]
