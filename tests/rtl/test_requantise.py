"""The requantise unit against the golden operation, lane by lane."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.rtl.arith.requantise import RequantiseUnit
from hw.spec.deform import LANES
from hw.spec.deform.instructions import ROUNDING_CODES
from hw.spec.deform.latency import REQUANTISE
from hw.spec.fixed import Rounding
from hw.spec.ops import Requant

WORDS = 8
"""Parameter words of one set: two lanes each."""


def record_bytes(bias: int, multiplier: int, shift: int) -> bytes:
    """A channel's record in parameter memory."""
    return bias.to_bytes(4, "little", signed=True) + multiplier.to_bytes(2, "little") + bytes([shift & 0xFF, 0])


def set_words(requant: Requant) -> list[int]:
    """The eight parameter words of sixteen channels."""
    channels = zip(requant.bias, requant.multiplier, requant.shift, strict=True)
    raw = b"".join(record_bytes(int(b), int(k), int(s)) for b, k, s in channels)
    return [int.from_bytes(raw[16 * i : 16 * i + 16], "little") for i in range(WORDS)]


def golden(requant: Requant, acc: np.ndarray) -> bytes:
    return (requant(acc[None, :])[0] & 0xFF).astype(np.uint8).tobytes()


class Bench:
    """Loads sets and sends words; every answer is compared with what was expected ``REQUANTISE`` cycles before."""

    def __init__(self, sets: int) -> None:
        self.dut = RequantiseUnit(sets)
        self.port = self.dut.port
        self.expected: list[bytes | None] = [None] * REQUANTISE
        self.compared = 0

    def run(self, scenario) -> int:
        sim = Simulator(self.dut)
        sim.add_clock(1e-8)

        async def testbench(ctx) -> None:
            await scenario(ctx, self)
            for _ in range(REQUANTISE + 1):
                await self.tick(ctx, None)

        sim.add_testbench(testbench)
        sim.run()
        return self.compared

    async def tick(self, ctx, expected: bytes | None) -> None:
        """One cycle in which a word with this answer is sent, or none."""
        wanted = self.expected.pop(0)
        self.expected.append(expected)
        if wanted is not None:
            assert ctx.get(self.port.o_data).to_bytes(16, "little") == wanted
            self.compared += LANES
        await ctx.tick()
        ctx.set(self.port.load_en, 0)

    async def load(self, ctx, number: int, requant: Requant) -> None:
        ctx.set(self.port.rounding, ROUNDING_CODES[requant.rounding.name])
        ctx.set(self.port.clip_lo, requant.lo)
        ctx.set(self.port.clip_hi, requant.hi)
        for index, word in enumerate(set_words(requant)):
            ctx.set(self.port.load_en, 1)
            ctx.set(self.port.load_set, number)
            ctx.set(self.port.load_index, index)
            ctx.set(self.port.load_data, word)
            await self.tick(ctx, None)

    async def send(self, ctx, number: int, requant: Requant, acc: np.ndarray) -> None:
        ctx.set(self.port.set, number)
        for lane in range(LANES):
            ctx.set(self.port.acc[lane], int(acc[lane]))
        await self.tick(ctx, golden(requant, acc))

    async def flush(self, ctx) -> None:
        """Rounding and clips may change only when nothing is in flight."""
        for _ in range(REQUANTISE):
            await self.tick(ctx, None)


def requant_of(bias, multiplier, shift, rounding: Rounding, lo: int = -128, hi: int = 127) -> Requant:
    fields = {"bias": bias, "multiplier": multiplier, "shift": shift}
    lanes = {k: np.broadcast_to(np.asarray(v, np.int64), (LANES,)) for k, v in fields.items()}
    return Requant(**lanes, rounding=rounding, lo=lo, hi=hi)


ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)
EXTREMES = np.array([-(2**31), 2**31 - 1, 0, 1, -1, 127, 128, -128, -129, 255, 256, -256, -257, 511, -512, 2**15])


def ties(shift: int) -> np.ndarray:
    """Values at and beside the half between two codes, of both parities and signs."""
    half = 1 << max(shift - 1, 0)
    codes = np.array([0, 1, -1, -2, 126, 127, -128, -129])
    values = [(int(c) << max(shift, 0)) + half + d for c, d in zip(itertools.cycle(codes), [0] * 8 + [1, -1] * 4)]
    return np.clip(np.array(values), -(2**31), 2**31 - 1)


@pytest.mark.parametrize("rounding", ROUNDINGS, ids=lambda r: r.name)
def test_edges(rounding: Rounding) -> None:
    """Every shift, extremes of the accumulator and of the record, ties, three output ranges."""

    async def scenario(ctx, bench: Bench) -> None:
        for shift in range(-32, 32):
            lo, hi = ((-128, 127), (0, 255), (-256, 255))[shift % 3]
            extreme = requant_of(np.roll(EXTREMES, shift), 65535, shift, rounding, lo, hi)
            plain = requant_of(0, 1, shift, rounding, lo, hi)
            await bench.load(ctx, 0, extreme)
            await bench.load(ctx, 1, plain)
            for acc in (EXTREMES, ties(shift)):
                await bench.send(ctx, 0, extreme, acc)
                await bench.send(ctx, 1, plain, acc)
            await bench.flush(ctx)

    assert Bench(2).run(scenario) == 64 * 4 * LANES


def random_requant(rng: np.random.Generator) -> Requant:
    scale = int(rng.integers(1, 32))
    lo, hi = sorted(int(v) for v in rng.integers(-256, 256, 2))
    multiplier = rng.integers(1, 65536, LANES) if rng.integers(2) else np.ones(LANES, np.int64)
    return requant_of(rng.integers(-(2**scale), 2**scale, LANES), multiplier, rng.integers(-32, 32, LANES),
                      ROUNDINGS[int(rng.integers(3))], lo, hi)


def test_random_words_back_to_back() -> None:
    """Random records in all four sets, words one per cycle with random pauses; records of other sets change meanwhile."""
    rng = np.random.default_rng(20240611)

    async def scenario(ctx, bench: Bench) -> None:
        for _ in range(70):
            common = random_requant(rng)
            parts = [random_requant(rng) for _ in range(4)]
            sets = [requant_of(p.bias, p.multiplier, p.shift, common.rounding, common.lo, common.hi) for p in parts]
            for number, requant in enumerate(sets):
                await bench.load(ctx, number, requant)
            for _ in range(20):
                number, bits = int(rng.integers(4)), int(rng.integers(1, 32))
                acc = rng.integers(-(2**bits), 2**bits, LANES)
                await bench.send(ctx, number, sets[number], acc)
                if rng.integers(4) == 0:
                    await bench.tick(ctx, None)
            await bench.flush(ctx)

    assert Bench(4).run(scenario) == 70 * 20 * LANES >= 20_000


def test_words_in_flight_keep_their_record() -> None:
    old, new = (requant_of(bias, 1, 0, Rounding.TRN) for bias in (1, 100))

    async def scenario(ctx, bench: Bench) -> None:
        await bench.load(ctx, 0, old)
        await bench.send(ctx, 0, old, np.arange(LANES))
        await bench.load(ctx, 0, new)
        await bench.send(ctx, 0, new, np.arange(LANES))

    assert Bench(1).run(scenario) == 2 * LANES


@pytest.mark.parametrize("sets", [0, 5])
def test_bad_sets(sets: int) -> None:
    with pytest.raises(ValueError, match=r"must have 1\.\.4 sets"):
        RequantiseUnit(sets)
