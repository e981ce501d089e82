"""Cycles of whole programs: what the CYCLES counter reads after a program that ran alone on a memory of fixed latency."""

from __future__ import annotations

from collections.abc import Sequence

from hw.spec.arch import WORD_BYTES, Arch
from hw.spec.deform.arch import DeformArch
from hw.spec.deform.timing import instruction_cycles
from hw.spec.deform.timing.transfer import ADDRESS, MemoryTiming, _Issue
from hw.spec.isa import INSTRUCTION_BYTES, Instruction

FETCH_END = 5
"""Last beat to issue: data register, fetch done, two cycles of checks, issue."""

HEADER_SAVES = 1
"""The header's checks end in the cycle in which an instruction would be judged, one before its issue."""


def fetch_cycles(arch: Arch, memory: MemoryTiming) -> int:
    """Cycles from one instruction's retirement to the next one's issue."""
    issue, free, last = _Issue(arch), 0, 0
    for issued, beats in issue.run(0, INSTRUCTION_BYTES // WORD_BYTES):
        first = max(issued + ADDRESS + memory.read_latency, free)
        free = first + beats * memory.beat_interval
        last = free - memory.beat_interval
        issue.retired(last)
    return last + FETCH_END


def program_cycles(
    instructions: Sequence[Instruction], arch: DeformArch, memory: MemoryTiming, bases: Sequence[int]
) -> int:
    """Cycles from START to the end of a program that ends well."""
    fetch = fetch_cycles(arch, memory)
    return fetch - HEADER_SAVES + sum(fetch + instruction_cycles(i, arch, memory, bases) for i in instructions)
