"""The link from the interpreter to the Verilog: every byte that every instruction writes, in memory and on chip, and its time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from hw.spec.machine import Outcome
from hw.spec.program import Program
from hw.spec.regs import ErrorCode
from sw.flow.link import Link, compare_writes
from sw.runtime import Device, DeviceError, Launch, RunRecord
from sw.runtime.device import Tensors
from sw.runtime.placement import Placement
from sw.runtime.records import MEMORY, InstructionTime, WriteLog

Images = Sequence[Mapping[str, np.ndarray]]
PredictCycles = Callable[[int], int]
"""From an instruction's index to the cycles that the timing model gives it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Recorded:
    """A run with everything that it wrote; ``outputs`` are None where it did not end well, ``problem`` says why."""

    launch: Launch | None
    outputs: Tensors | None
    problem: str = ""

    @property
    def record(self) -> RunRecord:
        assert self.launch is not None and self.launch.record is not None, "only recorded runs are compared"
        return self.launch.record


@dataclass(kw_only=True)
class RtlTally:
    """What the runs of the Verilog add up to."""

    link: Link
    timing: Link
    counters: dict[str, int] = field(default_factory=dict)
    times: tuple[InstructionTime, ...] = ()
    """Of the first image."""
    outputs: list[Tensors] = field(default_factory=list)


def run_recorded(
    device: Device, program: Program, placement: Placement, image: Mapping[str, np.ndarray], *, strict: bool
) -> Recorded:
    """One image, recorded. A device that fails raises if ``strict``, else the failure becomes ``problem``."""
    for layout in program.inputs:
        device.write_memory(placement.tensor_address(layout), layout.pack(image[layout.name]))
    try:
        launch = device.launch(program, placement, record=True)
    except DeviceError as error:
        if strict:
            raise
        return Recorded(launch=None, outputs=None, problem=str(error))
    if launch.outcome.error is not ErrorCode.NONE:
        return Recorded(launch=launch, outputs=None, problem=_ending(launch.outcome))
    outputs = {t.name: t.unpack(device.read_memory(placement.tensor_address(t), t.size)) for t in program.outputs}
    return Recorded(launch=launch, outputs=outputs)


def compare_devices(
    tally: RtlTally,
    program: Program,
    machine: Device,
    core: Device,
    images: Images,
    predict: PredictCycles | None,
    progress: Callable[[int], None] = lambda done: None,
) -> Iterator[Recorded]:
    """Run each image on both devices, add what differs to the tally, and yield the machine's run.

    The core runs one image ahead in a thread of its own. After a failure of the core no further image is run on it.
    """
    places = machine.load(program), core.load(program)
    if places[0].regions != places[1].regions:
        raise ValueError("machine and core must have one memory base, so that their addresses can be compared")
    describe = Describer(program)
    with ThreadPoolExecutor(1) as pool:
        run = functools.partial(run_recorded, core, program, places[1], strict=False)
        ahead = pool.submit(run, images[0])
        for number, image in enumerate(images):
            expected = run_recorded(machine, program, places[0], image, strict=True)
            got = ahead.result()
            if number + 1 < len(images) and not got.problem:
                ahead = pool.submit(run, images[number + 1])
            yield expected
            compare_runs(tally, describe, number, expected, got, predict)
            progress(number + 1)
            if got.problem:
                return


def compare_runs(
    tally: RtlTally, describe: Describer, number: int, expected: Recorded, got: Recorded, predict: PredictCycles | None
) -> None:
    """Add one image's comparison: endings, all writes, outputs, times."""
    if got.launch is None or got.launch.outcome.error is not expected.record.outcome.error:
        tally.link.differ(f"image {number}: the machine {_ending(expected.record.outcome)}, the core: {got.problem}")
        if got.launch is None:
            return
    record = got.record
    for space in sorted({*expected.record.writes, *record.writes}):
        mine, theirs = _retired(expected.record, space), _retired(record, space)
        compare_writes(tally.link, mine, theirs, functools.partial(describe, number, space))
    for name, codes in (got.outputs or {}).items():
        assert expected.outputs is not None
        tally.link.codes(f"image {number}: output {name}", expected.outputs[name], codes)
    if got.outputs is not None:
        tally.outputs.append(got.outputs)
    _compare_times(tally, describe, number, record, predict)
    for name, value in got.launch.counters.items():
        tally.counters[name] = tally.counters.get(name, 0) + value
    tally.times = tally.times or record.times


def _compare_times(tally: RtlTally, describe: Describer, number: int, record: RunRecord, predict: PredictCycles | None) -> None:
    if predict is None or record.outcome.error is not ErrorCode.NONE:
        return
    for time in record.times:
        wanted = predict(time.index)
        tally.timing.add(1, int(wanted != time.cycles))
        if wanted != time.cycles:
            name = describe.instruction(time.index)
            tally.timing.show(f"image {number}: {name}: the model says {wanted} cycles, the core took {time.cycles}")


def _retired(record: RunRecord, space: str) -> WriteLog:
    """Writes of instructions that retired: what a failing one wrote before it failed is not defined."""
    log = record.writes.get(space, WriteLog.empty())
    return log.where(log.index < record.outcome.retired)


def _ending(outcome: Outcome) -> str:
    if outcome.error is ErrorCode.NONE:
        return "ended well"
    return f"ended with {outcome.error.name} at instruction {outcome.index}"


class Describer:
    """Names instructions and words of a program for people."""

    def __init__(self, program: Program) -> None:
        self.operations = [instruction.name for instruction in program.instructions()]
        self.layers = program.layers

    def instruction(self, index: int) -> str:
        if not 0 <= index < len(self.operations):
            return "before the first instruction"
        layer = f", layer {self.layers[index]}" if index < len(self.layers) else ""
        return f"instruction {index} ({self.operations[index]}{layer})"

    def __call__(self, image: int, space: str, index: int, address: int) -> str:
        place = f"memory {address:#x}" if space == MEMORY else f"{space} word {address}"
        return f"image {image}: {self.instruction(index)}: {place}"
