"""Cycles of LOAD and STORE from start to done, and of fetches, run alone on a memory of fixed latency: exact recurrences over bursts.

Every core's shell and transfer engines are the same, so this is part of every core's timing model.

The memory: addresses are always accepted; the first beat of a read whose address was accepted in cycle t is valid in cycle
t + read_latency, or when the slot of the beat before is over if that is later. A beat has a slot of ``beat_interval / beats`` cycles.
Slots follow each other without rounding: a beat comes in the first whole cycle behind the end of the slot before, and one that comes a
cycle or more later begins a slot anew. A write's response is valid ``write_latency`` cycles after its last beat was accepted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hw.spec.arch import WORD_BYTES, Arch
from hw.spec.isa import INSTRUCTION_BYTES, Instruction

BOUNDARY_WORDS = 4096 // WORD_BYTES
"""No burst crosses a 4 KB boundary."""

REQUEST = 2
"""Start, or the acceptance of the run before, to a run's request: step the loops, check the on-chip range."""

LOOKUP = 1
"""A run's acceptance to the end of its place: find the region."""

BURST = 2
"""Between two bursts, and from a run's lookup to its first burst: check or measure, then offer."""

ADDRESS = 1
"""From a burst's issue to its address on the bus."""

LOAD_END = 4
"""Last beat to done: data register, idle, judge, done; a memory that takes a word in parts holds it longer in the data register."""

STORE_BEAT = 2
"""From a burst's issue to the cycle in which its first word is taken."""

STORE_END = 2
"""Last response to done: idle, done."""

FETCH_END = 5
"""Last beat to issue: data register, fetch done, two cycles of checks, issue."""

HEADER_SAVES = 1
"""The header's checks end in the cycle in which an instruction would be judged, one before its issue."""


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Latencies in cycles, at least 1; ``beats`` beats take ``beat_interval`` cycles, each of them at least one."""

    read_latency: int
    write_latency: int
    beat_interval: int = 1
    beats: int = 1

    def __post_init__(self) -> None:
        for name in ("read_latency", "write_latency", "beat_interval", "beats"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"memory timing {name} must be at least 1, not {value}")
        if self.beat_interval < self.beats:
            raise ValueError(f"memory timing beat_interval must be at least beats = {self.beats}, not {self.beat_interval}")


class _Slots:
    """Slots of the beats of one direction, in units of 1 / beats of a cycle."""

    def __init__(self, memory: MemoryTiming) -> None:
        self._interval, self._beats = memory.beat_interval, memory.beats
        self._free = 0

    def take(self, due: int, beats: int) -> int:
        """The cycle of the last of so many beats, of which the first comes in cycle ``due`` or when its slot begins."""
        if due * self._beats >= self._free + self._beats:
            self._free = due * self._beats
        self._free += beats * self._interval
        return -((self._interval - self._free) // self._beats)


class Issue:
    """When bursts are issued: the request, lookup and split stages that LOAD and STORE share.

    ``retired`` is given the cycle in which each burst ends on the bus; so many may be in flight, and no more.
    """

    def __init__(self, arch: Arch) -> None:
        self._in_flight: deque[int] = deque(maxlen=arch.outstanding)
        self._burst_beats = arch.burst_beats
        self._accepted = 0
        self._lookup = 0
        self._issued = 0

    def run(self, word: int, words: int) -> Iterator[tuple[int, int]]:
        """(cycle of issue, beats) of each burst of a run from 16-byte word ``word`` of the address space."""
        self._accepted = max(self._accepted + REQUEST, self._lookup)
        self._lookup = max(self._accepted + LOOKUP, self._issued)
        ready = self._lookup
        while words:
            beats = min(words, self._burst_beats, BOUNDARY_WORDS - word % BOUNDARY_WORDS)
            ready += BURST
            if len(self._in_flight) == self._in_flight.maxlen:
                ready = max(ready, self._in_flight[0] + 1)
            self._issued = ready
            yield ready, beats
            word, words = word + beats, words - beats

    def retired(self, cycle: int) -> None:
        self._in_flight.append(cycle)


class _Beats:
    """When the beats of reads are accepted: each stays in the data register for ``hold`` cycles. ``last``: of the last beat."""

    def __init__(self, memory: MemoryTiming, hold: int) -> None:
        self._slots, self._hold = _Slots(memory), hold
        self.last = -hold

    def burst(self, due: int, beats: int) -> None:
        """A burst whose first beat is valid in cycle ``due``, if those before it are over."""
        if self._hold == 1:
            # Each beat is accepted when it is valid.
            self.last = self._slots.take(due, beats)
            return
        for _ in range(beats):
            valid = self._slots.take(max(due, self.last + 1), 1)
            self.last = max(valid, self.last + self._hold)


def load_cycles(
    instruction: Instruction, arch: Arch, memory: MemoryTiming, bases: Sequence[int], *, hold: int = 1
) -> int:
    """Cycles of a LOAD that ends without an error; ``bases`` are the regions' base addresses in bytes.

    ``hold``: cycles in which the on-chip memory takes a word.
    """
    runs = _runs(instruction, "LOAD", bases)
    issue, received = Issue(arch), _Beats(memory, hold)
    for word in runs:
        for issued, beats in issue.run(word, instruction["n0"]):
            received.burst(issued + ADDRESS + memory.read_latency, beats)
            issue.retired(received.last)
    return received.last + hold - 1 + LOAD_END


def store_cycles(instruction: Instruction, arch: Arch, memory: MemoryTiming, bases: Sequence[int]) -> int:
    """Cycles of a STORE that ends without an error; ``bases`` are the regions' base addresses in bytes.

    Words never wait for the on-chip memory: the first of a run is there before its first burst can be issued, and the
    prefetch covers the memory's latency.
    """
    issue, slots, sent, answered = Issue(arch), _Slots(memory), -1, -1
    for word in _runs(instruction, "STORE", bases):
        for issued, beats in issue.run(word, instruction["n0"]):
            taken = max(issued + STORE_BEAT, sent)
            sent = slots.take(taken + 1, beats)
            answered = max(sent + memory.write_latency, answered + 1)
            issue.retired(answered)
    return answered + STORE_END


def fetch_cycles(arch: Arch, memory: MemoryTiming) -> int:
    """Cycles from one instruction's retirement to the next one's issue."""
    issue, slots, last = Issue(arch), _Slots(memory), 0
    for issued, beats in issue.run(0, INSTRUCTION_BYTES // WORD_BYTES):
        last = slots.take(issued + ADDRESS + memory.read_latency, beats)
        issue.retired(last)
    return last + FETCH_END


def serial_cycles(fetch: int, instructions: Iterable[int]) -> int:
    """Cycles from START to the end of a program that ends well: each instruction is fetched after the one before has retired.

    Parameters: ``fetch`` as :func:`fetch_cycles` gives it; ``instructions``: each one's cycles from issue to retirement.
    """
    return fetch - HEADER_SAVES + sum(fetch + cycles for cycles in instructions)


def _runs(instruction: Instruction, name: str, bases: Sequence[int]) -> Iterator[int]:
    """First 16-byte word of each run in the address space."""
    if instruction.name != name:
        raise ValueError(f"the instruction must be a {name}, not a {instruction.name}")
    start = bases[instruction["region"]] // WORD_BYTES + instruction["offset"]
    planes, runs = range(instruction["n2"]), range(instruction["n1"])
    return (start + plane * instruction["stride2"] + run * instruction["stride1"] for plane in planes for run in runs)
