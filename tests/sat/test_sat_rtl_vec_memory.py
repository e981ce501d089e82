"""The vector memory and the memory of channel records, port by port, for every width of GEMM's column words."""

from __future__ import annotations

import random

import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from hw.rtl.sat.chn_memory import ChnMemory
from hw.rtl.sat.vec_memory import VecMemory
from hw.spec.sat import SatArch
from hw.spec.sat.latency import VECTOR_READ

WORDS = 64
COUNT = 150


def run(dut, test) -> None:
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(test)
    sim.run()


class VecModel:
    """Three banks as a list of words; what each port does to them."""

    def __init__(self, ctx, dut: VecMemory, columns: int) -> None:
        self.ctx, self.dut, self.columns = ctx, dut, columns
        self.words = [0] * (3 * WORDS)

    async def cycle(self, port, values: dict[str, int]) -> bool:
        """A cycle with one port enabled; whether the memory found it out of range."""
        for name, value in values.items():
            self.ctx.set(Value.cast(getattr(port, name)), value)
        await self.ctx.tick()
        self.ctx.set(Value.cast(port.en), 0)
        return bool(self.ctx.get(self.dut.out_of_range))

    async def write(self, rng: random.Random, kind: str) -> None:
        dut, word = self.dut, rng.getrandbits(128)
        addr = rng.choice([rng.randrange(WORDS), rng.randrange(WORDS), WORDS - 1, WORDS, rng.randrange(1 << 20)])
        inside, bank = addr < WORDS, rng.randrange(3)
        if kind == "load":
            addr = rng.choice([rng.randrange(3 * WORDS), 3 * WORDS - 1, 3 * WORDS, 4 * WORDS, 4 * WORDS + 1])
            inside = addr < 3 * WORDS
            missed = await self.cycle(dut.load_write, {"en": 1, "addr": addr, "data": word})
            targets = {addr: word}
        elif kind == "vec":
            missed = await self.cycle(dut.vec_write, {"en": 1, "bank": bank, "addr": addr, "data": word})
            targets = {bank * WORDS + addr: word}
        elif kind == "prune":
            other = rng.getrandbits(128)
            missed = await self.cycle(dut.prune_write, {"en": 1, "addr": addr, "values": word, "positions": other})
            targets = {WORDS + addr: word, 2 * WORDS + addr: other}
        else:
            missed, inside, targets = await self._column(rng, bank)
        assert missed == (not inside), (kind, addr)
        if inside:
            for place, value in targets.items():
                self.words[place] = value

    async def _column(self, rng: random.Random, bank: int) -> tuple[bool, bool, dict[int, int]]:
        count = WORDS * 8 // self.columns
        addr = rng.choice([rng.randrange(count), count - 1, count, rng.randrange(1 << 20)])
        value = rng.getrandbits(16 * self.columns)
        missed = await self.cycle(self.dut.gemm_write, {"en": 1, "bank": bank, "addr": addr, "data": value})
        if addr >= count:
            return missed, False, {}
        if self.columns >= 8:
            units = self.columns // 8
            return missed, True, {bank * WORDS + addr * units + unit: value >> 128 * unit & (1 << 128) - 1 for unit in range(units)}
        place, half = bank * WORDS + addr // 2, addr % 2
        kept = self.words[place] & ((1 << 64) - 1) << 64 * (1 - half)
        return missed, True, {place: kept | value << 64 * half}

    async def read(self, port, addr: int) -> int:
        await self.cycle(port, {"en": 1, "addr": addr})
        for _ in range(VECTOR_READ - 1):
            await self.ctx.tick()
        return self.ctx.get(port.data)


@pytest.mark.parametrize("columns", [4, 8, 16, 32])
def test_every_port_of_the_vector_memory(columns):
    """Writes of every user at random, in and out of range, then all words by STORE's port, PRUNE's and VEC's."""
    dut, compared = VecMemory(SatArch(vec_words=WORDS, columns=columns)), 0

    async def test(ctx) -> None:
        nonlocal compared
        rng, model = random.Random(columns), VecModel(ctx, dut, columns)
        for number in range(3 * WORDS):
            model.words[number] = rng.getrandbits(128)
            await model.cycle(dut.load_write, {"en": 1, "addr": number, "data": model.words[number]})
        for _ in range(COUNT):
            await model.write(rng, rng.choice(["load", "vec", "prune", "gemm", "gemm"]))
        for number in range(3 * WORDS):
            assert await model.read(dut.store_read, number) == model.words[number], number
            compared += 1
        for number in range(WORDS):
            assert await model.read(dut.prune_read, number) == model.words[number]
        for _ in range(WORDS):
            addrs = [rng.randrange(WORDS) for _ in range(3)]
            ctx.set(dut.vec_read.en, 7)
            for bank, addr in enumerate(addrs):
                ctx.set(dut.vec_read.addr[bank], addr)
            await ctx.tick().repeat(VECTOR_READ)
            assert [ctx.get(dut.vec_read.data[bank]) for bank in range(3)] == [model.words[b * WORDS + a] for b, a in enumerate(addrs)]
            assert not ctx.get(dut.out_of_range)
            compared += 3
        ctx.set(dut.vec_read.en, 0)

    run(dut, test)
    assert compared == 6 * WORDS


def test_reads_outside_the_vector_memory():
    """The last word of each port's range and the first beyond; only operands that are read count."""
    dut = VecMemory(SatArch(vec_words=WORDS))

    async def test(ctx) -> None:
        model = VecModel(ctx, dut, 8)
        for port, count in ((dut.store_read, 3 * WORDS), (dut.prune_read, WORDS)):
            assert not await model.cycle(port, {"en": 1, "addr": count - 1})
            assert await model.cycle(port, {"en": 1, "addr": count})
            assert await model.cycle(port, {"en": 1, "addr": (1 << 20) - 1})
            assert not await model.cycle(port, {"en": 0, "addr": count})
        for bank in range(3):
            addr = WORDS << 20 * bank
            assert await model.cycle(dut.vec_read, {"en": 1 << bank, "addr": addr})
            assert not await model.cycle(dut.vec_read, {"en": 7 ^ 1 << bank, "addr": addr})

    run(dut, test)


def test_every_port_of_the_channel_memory():
    words = 100
    dut, compared = ChnMemory(SatArch(chn_words=words)), 0

    async def test(ctx) -> None:
        nonlocal compared
        rng, kept = random.Random(1), {}
        for number in range(3 * words):
            port = rng.choice([dut.load_write, dut.vec_write, dut.chn_write])
            addr = number % words if number < 2 * words else rng.choice([words - 1, words, 1 << 19, rng.randrange(words)])
            value = rng.getrandbits(128)
            for name, wanted in (("en", 1), ("addr", addr), ("data", value)):
                ctx.set(getattr(port, name), wanted)
            await ctx.tick()
            ctx.set(port.en, 0)
            assert ctx.get(dut.out_of_range) == (addr >= words)
            if addr < words:
                kept[addr] = value
        for port in (dut.store_read, dut.vec_read, dut.chn_read):
            for addr in (*range(words), words):
                ctx.set(port.en, 1)
                ctx.set(port.addr, addr)
                await ctx.tick()
                ctx.set(port.en, 0)
                assert ctx.get(dut.out_of_range) == (addr == words)
                await ctx.tick().repeat(VECTOR_READ - 1)
                if addr < words:
                    assert ctx.get(port.data) == kept[addr]
                    compared += 1

    run(dut, test)
    assert compared == 3 * words
