"""Crc32 equals zlib, word by word."""

import random
import zlib

from amaranth.sim import Simulator

from hw.rtl.common.crc import Crc32
from hw.spec.isa import seal

SEED = 1

WORDS = [b"\0" * 16, b"\xff" * 16, bytes(range(16)), b"\x01" + b"\0" * 15, b"\0" * 15 + b"\x80"]
EDGES = [b"", *WORDS, b"\0" * 64, b"\xff" * 64]


def _messages() -> list[bytes]:
    rng = random.Random(SEED)
    return EDGES + [rng.randbytes(16 * rng.randrange(1, 9)) for _ in range(40)]


def _run(bench) -> None:
    dut = Crc32()
    sim = Simulator(dut)
    sim.add_clock(1e-8)

    async def testbench(ctx) -> None:
        await bench(ctx, dut)

    sim.add_testbench(testbench)
    sim.run()


async def _feed(ctx, dut, data: bytes, rng: random.Random) -> None:
    ctx.set(dut.clear, 1)
    await ctx.tick()
    ctx.set(dut.clear, 0)
    for start in range(0, len(data), 16):
        ctx.set(dut.en, 1)
        ctx.set(dut.data, int.from_bytes(data[start : start + 16], "little"))
        await ctx.tick()
        ctx.set(dut.en, 0)
        ctx.set(dut.data, rng.getrandbits(128))
        for _ in range(rng.randrange(3)):
            await ctx.tick()


def test_equals_zlib_with_gaps():
    compared = []

    async def bench(ctx, dut):
        rng = random.Random(SEED)
        for data in _messages():
            await _feed(ctx, dut, data, rng)
            assert ctx.get(dut.crc32) == zlib.crc32(data), data.hex()
            compared.append(len(data))

    _run(bench)
    assert len(compared) == len(_messages()) and sum(compared) > 1000


def test_sealed_marks_exactly_the_sealed_messages():
    outcomes = []

    async def bench(ctx, dut):
        rng = random.Random(SEED)
        assert not ctx.get(dut.sealed)
        for number in range(40):
            data = bytearray(seal(rng.randbytes(60)))
            if number % 2:
                data[rng.randrange(64)] ^= 1 << rng.randrange(8)
            await _feed(ctx, dut, bytes(data), rng)
            assert ctx.get(dut.sealed) == (seal(bytes(data[:60])) == data)
            outcomes.append(ctx.get(dut.sealed))

    _run(bench)
    assert outcomes == [1, 0] * 20
