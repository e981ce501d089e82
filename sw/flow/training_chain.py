"""Proves training: the graph, the programs in the interpreter and the Verilog, equal after every step, counted.

==============  =============================================================================================================
link            what is equal
==============  =============================================================================================================
graph_machine   the graph and the programs in the interpreter: logits, every parameter, velocity and statistic
machine_rtl     the interpreter and the Verilog: every byte that every instruction writes, in memory and on chip
memory          all of the device's memory afterwards
timing          the timing model and the Verilog, cycles of every instruction
==============  =============================================================================================================

They hold after the weights were prepared, after every step, and after an inference with what the steps left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from hw.spec.program import Program
from hw.spec.training import DEFINITION, Hyper, Products
from hw.spec.training_program import TrainingProgram
from sw.flow.link import Link
from sw.flow.machine_rtl import Describer, PredictCycles, Recorded, RtlTally, compare_runs
from sw.runtime import Device, DeviceError, Launch
from sw.runtime.records import InstructionTime
from sw.runtime.training import TrainingSession
from sw.training_graph import TrainingGraph, TrainingState

DIRT = 12
"""Seed of what the memory holds before."""

Batch = tuple[np.ndarray, np.ndarray]
"""Images float16 (N, H, W, C) and labels (N,)."""

T = TypeVar("T")
Predictor = Callable[[Program, TrainingSession], PredictCycles | None]


@dataclass(kw_only=True)
class TrainingReport:
    """What was compared over some steps; ``times`` and ``counters`` of the last run of each program on the core.

    ``programs``: how often each was run and compared, on the interpreter and, where there is one, on the core.
    """

    links: dict[str, Link]
    losses: list[float] = field(default_factory=list)
    times: dict[str, tuple[InstructionTime, ...]] = field(default_factory=dict)
    counters: dict[str, dict[str, int]] = field(default_factory=dict)
    programs: Counter[str] = field(default_factory=Counter)
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
            "programs": dict(self.programs), "counters": self.counters, "first_mismatches": self.first,
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
    """Train on the batches, on the graph, on ``machine`` and, where one is given, on ``core``, then infer; compare after each.

    ``products``: compiled kernels for the graph. Memory is dirty to begin with, the same on both devices. A core that fails ends it.
    """
    links = {"graph_machine": Link(name="graph_machine", unit="values")}
    if core is not None:
        links |= {"machine_rtl": Link(name="machine_rtl", unit="bytes"), "memory": Link(name="memory", unit="bytes")}
        links |= {"timing": Link(name="timing", unit="instructions")} if predictor is not None else {}
    run = _Run(graph, program, TrainingReport(links=links, state=graph.state), predictor, products)
    try:
        run.open(machine, core)
        for number, batch in enumerate(batches):
            run.step(number, batch, hyper)
            progress(number + 1)
        run.infer(batches[-1][0])
    except _CoreFailure as failure:
        links["machine_rtl"].differ(str(failure))
    return run.report


class _CoreFailure(RuntimeError):
    """The core did not do what the machine did; nothing after it can be compared."""


class _Run:
    """A training on graph, machine and core side by side."""

    def __init__(
        self, graph: TrainingGraph, program: TrainingProgram, report: TrainingReport, predictor: Predictor | None, products: Products
    ) -> None:
        self.graph, self.program, self.report, self._predictor, self._products = graph, program, report, predictor, products

    def open(self, machine: Device, core: Device | None) -> None:
        """Sessions on both; the weights are prepared."""
        self.machine = self._session(machine, record=core is not None)
        self.core = None
        if core is not None:
            self.core = self._on_core("weights", lambda: self._session(core, record=True))
        self._compare_core("weights", 0, self.machine.launches, self.core.launches if self.core else {})

    def step(self, number: int, batch: Batch, hyper: Hyper) -> None:
        where, core = f"step {number}", self.core
        mine = self.machine.step(batch, hyper)
        theirs = None if core is None else self._on_core(where, lambda: core.step(batch, hyper))
        assert self.report.state is not None
        expected = self.graph.step(self.report.state, *batch, hyper, self._products)
        self.report.state = expected.state
        self.report.losses.append(mine.loss)
        self._compare_logits(where, expected.logits, mine.logits)
        self._compare_state(where)
        self._compare_core(where, number, mine.launches, theirs.launches if theirs else {})

    def infer(self, images: np.ndarray) -> None:
        where, core = "inference", self.core
        found = self.machine.infer(images)
        if core is not None:
            self._on_core(where, lambda: core.infer(images))
        assert self.report.state is not None
        self._compare_logits(where, self.graph.infer(self.report.state, images, self._products).reshape(found.shape), found)
        launches = [{"infer": session.launches["infer"]} for session in (self.machine, core) if session is not None]
        self._compare_core(where, self.machine.steps, launches[0], launches[-1])

    def _session(self, device: Device, *, record: bool) -> TrainingSession:
        longest = max(self.program.images, key=lambda name: len(self.program.images[name]))
        device.dirty(self.program.program(longest), DIRT)
        return device.open_session(self.program, self.graph.state.arrays(), record=record)

    def _on_core(self, where: str, action: Callable[[], T]) -> T:
        try:
            return action()
        except DeviceError as error:
            raise _CoreFailure(f"{where}: the core: {error}") from error

    def _compare_logits(self, where: str, expected: np.ndarray, found: np.ndarray) -> None:
        self.report.links["graph_machine"].codes(f"{where}: logits", *(a.view(np.uint16).astype(np.int64) for a in (expected, found)))

    def _compare_state(self, where: str) -> None:
        assert self.report.state is not None
        got = self.machine.state()
        for name, array in self.report.state.arrays().items():
            pair = (a.view(np.uint32).astype(np.int64) for a in (array, got[name]))
            self.report.links["graph_machine"].codes(f"{where}: {name}", *pair)

    def _compare_core(self, where: str, number: int, mine: Mapping[str, Launch], theirs: Mapping[str, Launch]) -> None:
        """What the programs wrote on machine and core, and all of their memories afterwards."""
        self.report.programs.update(mine.keys())
        if self.core is None:
            return
        if mine.keys() != theirs.keys():
            raise _CoreFailure(f"{where}: the machine ran {list(mine)}, the core {list(theirs)}")
        for name, launch in mine.items():
            self._compare_program(name, number, launch, theirs[name], self.core)
        first = self.machine.placement
        base = self.machine.device.memory_base
        size = first.end - base
        one, other = (np.frombuffer(s.device.read_memory(base, size), np.uint8) for s in (self.machine, self.core))
        link = self.report.links["memory"]
        wrong = np.flatnonzero(one != other)
        link.add(size, len(wrong))
        for at in wrong[:5]:
            link.show(f"{where}: memory {base + int(at):#x}: {one[at]:#04x} and {other[at]:#04x}")

    def _compare_program(self, name: str, number: int, mine: Launch, theirs: Launch, core: TrainingSession) -> None:
        part, links = self.program.program(name), self.report.links
        tally = RtlTally(link=links["machine_rtl"], timing=links.get("timing", Link(name="timing", unit="instructions")))
        predict = None if self._predictor is None else self._predictor(part, core)
        compare_runs(tally, Describer(part), number, _recorded(mine), _recorded(theirs), predict)
        self.report.times[name], self.report.counters[name] = tally.times, tally.counters


def _recorded(launch: Launch) -> Recorded:
    return Recorded(launch=launch, outputs=None)


__all__ = ["Batch", "TrainingReport", "verify_training"]
