"""On-chip memories: latency, contents, the crossbar of the row memory, and accesses outside."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from hw.rtl.deform.memories import FeatureMemory, ParameterMemory, RowMemory, WeightMemory
from hw.rtl.deform.row_copies import RowCopies
from hw.spec.deform import ROW_BANKS, DeformArch
from hw.spec.deform.latency import MEMORY_READ
from tests.rtl.axi_model import Agent, simulate

SIZES = {"feature_words": 50, "row_words": 19, "weight_words": 21, "parameter_words": 16}
ARCH = DeformArch(columns=64, **SIZES)
NARROW = DeformArch(columns=32, **SIZES)

Access = tuple[int, ...]
"""(bank, address), or (address,)."""


class Script(Agent):
    """Writes and reads of every cycle, against a dictionary; an access outside must only raise ``out_of_range``.

    ``cycles``: per cycle a write (address, value) or None, and a list of read addresses, one per tap or none.
    """

    def __init__(self, dut: Any, cycles: Sequence[tuple[tuple[Access, int] | None, list[Access | None]]], *,
                 size: Access, units: int = 1) -> None:
        self._dut, self._cycles, self._size, self._units = dut, cycles, size, units
        self._words: dict[Access, int] = {}
        self._expected: dict[tuple[int, int], int | None] = {}
        self._missed = {-1: False}
        self.compared = self.misses = self.cycle = 0
        self._banked = len(size) == 2
        taps = list(dut.read.data) if self._banked else [dut.read.data]
        self.inputs = [*taps, dut.out_of_range]

    def _inside(self, access: Access, units: int = 1) -> bool:
        return all(at < size * units for at, size in zip(access, (*self._size[:-1], self._size[-1]), strict=True))

    def _read(self, access: Access) -> int | None:
        """The word now; None if a unit of it was never written."""
        units = [self._words.get((*access[:-1], access[-1] * self._units + unit)) for unit in range(self._units)]
        return None if None in units else sum(value << 128 * i for i, value in enumerate(units))

    def drive(self, ctx: Any, cycle: int) -> None:
        write, reads = self._cycles[cycle] if cycle < len(self._cycles) else (None, [])
        missed = False
        for tap in range(3 if self._banked else 1):
            access = reads[tap] if tap < len(reads) else None
            at = access or next((other for other in reads if other), (0, 0))  # a bank that is named has one address
            if self._banked:
                ctx.set(self._dut.read.en[tap], access is not None)
                ctx.set(self._dut.read.bank[tap], at[0])
                ctx.set(self._dut.read.addr[tap], at[1])
            else:
                ctx.set(self._dut.read.en, access is not None)
                ctx.set(self._dut.read.addr, at[0])
            if access is not None and self._inside(access):
                self._expected[cycle + MEMORY_READ, tap] = self._read(access)
            missed |= access is not None and not self._inside(access)
        ctx.set(self._dut.write.en, write is not None)
        if write is not None:
            access, value = write
            ctx.set(self._dut.write.addr, access[-1])
            ctx.set(self._dut.write.data, value)
            if self._banked:
                ctx.set(self._dut.write.bank, access[0])
            if self._inside(access, self._units):
                self._words[access] = value
            missed |= not self._inside(access, self._units)
        self._missed[cycle] = missed

    def observe(self, values: Sequence[int], cycle: int) -> None:
        *taps, out_of_range = values
        assert out_of_range == self._missed[cycle - 1], cycle
        self.misses += out_of_range
        for tap, value in enumerate(taps):
            expected = self._expected.get((cycle, tap))
            if expected is not None:
                assert value == expected, (cycle, tap)
                self.compared += 1
        self.cycle = cycle

    def finished(self) -> bool:
        return self.cycle == len(self._cycles) + MEMORY_READ


def words(rng: random.Random) -> int:
    return rng.getrandbits(128)


@pytest.mark.parametrize(("memory", "arch", "size"), [
    (FeatureMemory, ARCH, 50), (ParameterMemory, ARCH, 16), (WeightMemory, ARCH, 21), (WeightMemory, NARROW, 21),
])  # fmt: skip
def test_word_memories(memory: type, arch: DeformArch, size: int) -> None:
    rng = random.Random(size)
    units = arch.weight_word_units if memory is WeightMemory else 1
    last = size * units - 1
    cycles = [(((at,), words(rng)), []) for at in range(last + 1)]
    cycles += [(None, [(at,)]) for at in range(size)]
    # A write is seen in the next cycle, not before; the ends; then random traffic that never reads what it writes.
    cycles += [(((0,), words(rng)), []), (None, [(0,)]), (((last,), words(rng)), [(0,)]), (None, [(size - 1,)])]
    for access in (size, size + 1, 64, 0x80000, 0xFFFFF):
        cycles += [(None, [(access,)]), (None, [])]
    outside = (last + 1, 64 * units, 0x80000 + last, 0xFFFFF) if memory is FeatureMemory else ()  # LOAD never does that
    for access in outside:
        cycles += [(((access,), words(rng)), [])]
    cycles += [(None, [(at,)]) for at in range(size)]
    for _ in range(60):
        at = rng.randrange(size)
        cycles.append((((rng.randrange(last + 1),), words(rng)), [(at,)]))
        if cycles[-1][0][0][0] // units == at:
            cycles.pop()
    dut = memory(arch)
    script = Script(dut, cycles, size=(size,), units=units)
    simulate(dut, [script], script.finished)
    assert script.compared > 2 * size + 30 and script.misses == 5 + len(outside)


def taps(rng: random.Random, count: int) -> list[Access | None]:
    """``count`` reads of different banks, in a random order of taps."""
    reads: list[Access | None] = [(bank, rng.randrange(19)) for bank in rng.sample(range(ROW_BANKS), count)]
    reads += [None] * (3 - count)
    rng.shuffle(reads)
    return reads


@pytest.mark.parametrize("kind", [RowMemory, RowCopies])
def test_row_memory(kind: type[RowMemory]) -> None:
    rng = random.Random(1)
    cycles = [(((bank, at), words(rng)), []) for bank in range(ROW_BANKS) for at in range(19)]
    cycles += [(None, taps(rng, rng.randrange(4))) for _ in range(150)]
    cycles += [(None, [(bank, 7)] * 3) for bank in range(ROW_BANKS)]
    for access in ((0, 19), (8, 0xFFFFF), (3, 32), (9, 0), (15, 18)):
        for tap in range(3):
            cycles += [(None, [access if tap == i else (i, 2) for i in range(3)]), (None, [])]
    cycles += [(None, [(bank, at), None, None]) for bank in range(ROW_BANKS) for at in range(19)]
    dut = kind(ARCH)
    script = Script(dut, cycles, size=(ROW_BANKS, 19))
    simulate(dut, [script], script.finished)
    assert script.compared > 350 and script.misses == 5 * 3


def test_bad_sizes_raise() -> None:
    with pytest.raises(ValueError, match=r"architecture parameter feature_words must be in 16\.\.1048576, not 8"):
        FeatureMemory(DeformArch(feature_words=8))
    with pytest.raises(ValueError, match="architecture parameter columns must be 32 or 64, not 48"):
        WeightMemory(DeformArch(columns=48))
