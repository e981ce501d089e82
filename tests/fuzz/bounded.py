"""The spec's machine with what a campaign must know about a program that nobody compiled: whether it is long, or undefined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from hw.spec.deform import addresses
from hw.spec.deform.instructions import SPACES
from hw.spec.deform.machine import DeformMachine
from hw.spec.deform.timing import MemoryTiming, instruction_cycles
from hw.spec.isa import Instruction
from hw.spec.machine import CoreError, Memory, OpenRegion, Outcome, Writes
from hw.spec.regs import ErrorCode
from tests.fuzz.programs import Case
from tests.sim.core_bench import ARCH

MOST_WORDS, MOST_RUNS, MOST_TAPS, MOST_MACS = 20_000, 4_000, 8_192, 20_000
"""What the machine carries out of one instruction: words and runs of a transfer; taps of all pixels; taps times channel words."""

LONG_WATCHDOG = 2_000
"""Watchdog for a long instruction: fewer cycles than MOST_RUNS, so no core gets beyond what was looked at here."""


@dataclass(kw_only=True)
class Run:
    """One program in the machine.

    ``possible``: the codes with which a core may end it at ``outcome.index`` (one, but for a long instruction). ``long``: its last
    instruction needs a watchdog, which may also end the program at an instruction from ``slow_from`` on. ``undefined_from``: first
    instruction whose contents are undefined. ``loose``: from there on, what an instruction does depends on undefined contents,
    the outcome too. ``between_clips``: bytes that PW and DW wrote and that are none of their clips, so that a wrong sum would show.
    """

    outcome: Outcome
    possible: frozenset[ErrorCode]
    writes: list[Writes] = field(default_factory=list)
    long: bool = False
    slow_from: int | None = None
    undefined_from: int | None = None
    loose: bool = False
    between_clips: int = 0


class TooLong(Exception):
    """The instruction does more than the campaign carries out; ``possible`` is how a core may end it."""

    def __init__(self, possible: frozenset[ErrorCode]) -> None:
        super().__init__("the instruction is too long for this machine")
        self.possible = possible


class BoundedMachine(DeformMachine):
    """Refuses long instructions (TooLong) and watches for undefined ones.

    ``slow_cycles``: an instruction of more cycles without stalls may meet LONG_WATCHDOG on the core that runs beside this machine.
    """

    slow_cycles = LONG_WATCHDOG // 2
    undefined_from: int | None = None
    slow_from: int | None = None
    loose = False
    between_clips = 0

    def start(self, memory: Memory, case: Case) -> Run:
        """The case's program, from START to its end, a long instruction, or an error."""
        self.undefined_from, self.slow_from, self.loose, self.between_clips = None, None, False, 0
        writes: list[Writes] = []
        try:
            outcome = self.run(memory, case.regions, case.address, case.length, writes.append)
            run = Run(outcome=outcome, possible=frozenset({outcome.error}), writes=writes)
        except TooLong as long:
            index = self.writes.index
            outcome = Outcome(error=ErrorCode.WATCHDOG, index=index, retired=index)
            run = Run(outcome=outcome, possible=long.possible, writes=writes, long=True)
        run.undefined_from, run.slow_from, run.loose = self.undefined_from, self.slow_from, self.loose
        run.between_clips = self.between_clips
        return run

    def execute(self, instruction: Instruction) -> None:
        if is_long(instruction):
            raise TooLong(self._ends(instruction))
        if self.slow_from is None and _cycles(instruction, self.regions) > self.slow_cycles:
            self.slow_from = self.writes.index
        if self.undefined_from is None and overlaps(instruction):
            self.undefined_from = self.writes.index
        self.loose |= self.undefined_from is not None and _depends_on_contents(instruction)
        super().execute(instruction)
        self.between_clips += _between_clips(instruction, self.writes)

    def _ends(self, i: Instruction) -> frozenset[ErrorCode]:
        """How a core with LONG_WATCHDOG may end a long instruction: that of the first runs, or the watchdog."""
        if i.name in ("PW", "DW"):
            return frozenset({ErrorCode.WATCHDOG, ErrorCode.BUFFER_RANGE})
        try:
            for number, (word, _) in enumerate(self._runs(i, SPACES[i["space"]] if i.name == "LOAD" else "fm")):
                address = self.region_address(i["region"], word, i["n0"])
                self.memory.read(address, i["n0"] * 16)
                if number >= MOST_RUNS:
                    break
        except CoreError as error:
            code = ErrorCode.AXI_WRITE if error.code == ErrorCode.AXI_READ and i.name == "STORE" else error.code
            return frozenset({ErrorCode.WATCHDOG, code})
        return frozenset({ErrorCode.WATCHDOG})


def is_long(i: Instruction) -> bool:
    """Whether the instruction does more than the campaign's limits."""
    if i.name in ("LOAD", "STORE"):
        runs = i["n1"] * i["n2"]
        return runs > MOST_RUNS or runs * i["n0"] > MOST_WORDS
    pixels = i["out_rows"] * i["out_cols"]
    taps, words = pixels * i["kernel_h"] * i["kernel_w"], i["words"] if i.name == "DW" else i["out_words"]
    if i.name == "PW":
        taps *= i["in_words"]
    return taps > MOST_TAPS or max(taps, pixels) * words > MOST_MACS


def _cycles(i: Instruction, regions: Sequence[OpenRegion]) -> int:
    """Cycles of a short instruction on the loop's memory without stalls, if it ends well."""
    bases = [region.base for region in regions] + [0] * 16
    return instruction_cycles(i, ARCH, MemoryTiming(read_latency=20, write_latency=10, beat_interval=1), bases)


def overlaps(i: Instruction) -> bool:
    """Whether a short PW or DW instruction writes a feature word twice, or one that it reads: its contents are undefined."""
    if i.name in ("LOAD", "STORE"):
        return False
    writes = addresses.feature_writes(i)
    return len(np.unique(writes)) < len(writes) or bool(np.isin(writes, addresses.feature_reads(i)).any())


def _between_clips(i: Instruction, writes: Writes) -> int:
    if i.name in ("LOAD", "STORE"):
        return 0
    _, data = writes.sorted("fm")
    return int(np.count_nonzero((data != i["clip_lo"] & 0xFF) & (data != i["clip_hi"] & 0xFF)))


def _depends_on_contents(i: Instruction) -> bool:
    """Whether the contents of memories decide what the instruction does, not only what it computes."""
    return (i.name == "DW" and i["mode"] in addresses.OFFSET_MODES) or (i.name == "LOAD" and bool(i["check_crc"]))
