"""The vector unit in Verilator against the machine; its sums against Python's integers."""

from __future__ import annotations

import functools
from fractions import Fraction

import numpy as np
import pytest

from hw.spec.sat import SatArch
from hw.spec.sat.instructions import VEC_AFFINE, VEC_EQUAL, VEC_FLAG, VEC_MAX, VEC_SUMS, VEC_UNEQUAL
from tests.sat.engine_bench import EngineBench, filled

ARCH = SatArch(vec_words=128, chn_words=192)
BANK, CHN = ARCH.vec_words, ARCH.chn_words
COMPARISONS = (VEC_MAX, VEC_EQUAL, VEC_UNEQUAL)

HALVES = np.array([0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x8400, 0x3BFF, 0x3C00, 0xBC00, 0x3C01, 0x7BFF, 0xFBFF, 0x7C00,
                   0xFC00, 0x7E01, 0xFFFF], np.uint16)  # fmt: skip
"""Zeros, ends of the subnormals and normals, ones, and what reads as the largest number."""

FULLS = np.array([0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x3F802000, 0x477FE000,
                  0x477FEFFF, 0x477FF000,
                  0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFFFFFFFF, 0x33000000, 0x33000001], np.uint32)  # fmt: skip
"""The same in FP32, with halves between FP16 numbers, and the last that rounds to the largest FP16 beside the first that does not."""


@functools.cache
def simulated() -> EngineBench:
    return EngineBench(ARCH, ("VEC", "CHN"))


@pytest.fixture
def bench() -> EngineBench:
    """The one bench, with all memories full of random bytes."""
    bench = simulated()
    bench.load(vec=filled(1, 3 * BANK), chn=filled(2, CHN))
    return bench


def dense(words: int, pixels: int, **fields: int) -> dict[str, int]:
    """Fields of an instruction on words one after the other; results lie behind the operands of their bank."""
    pitches = {f"{name}_pitch": words for name in ("a", "b", "c", "out")}
    return {"words": words, "pixels": pixels, "out_addr": BANK // 2, **pitches, **fields}


def halves(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """FP16 bits: special, random, or of moderate size."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.choice(HALVES, shape)
    if kind == 1:
        return rng.integers(0, 1 << 16, shape, np.uint16)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-10, 10)).astype(np.float16).view(np.uint16)


def fulls(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """FP32 bits, likewise."""
    kind = rng.integers(3)
    if kind == 0:
        return rng.choice(FULLS, shape)
    if kind == 1:
        return rng.integers(0, 1 << 32, shape, np.uint32)
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-12, 12)).astype(np.float32).view(np.uint32)


def refill(bench: EngineBench, rng: np.random.Generator, fp32: int) -> None:
    vec = fulls(rng, 3 * BANK, 4) if fp32 else halves(rng, 3 * BANK, 8)
    bench.load(vec=vec, chn=fulls(rng, CHN, 4))


@pytest.mark.parametrize("flags", range(32))
def test_affine_with_every_flag(bench, flags):
    """All of fp32, use_b, use_u, masked and relu, on special, random and moderate numbers."""
    fields = {name: flags >> bit & 1 for bit, name in enumerate(("fp32", "use_b", "use_u", "masked", "relu"))}
    rng = np.random.default_rng(flags)
    for count in range(3):
        refill(bench, rng, fields["fp32"])
        bench.check("VEC", **dense(2, 11, op=VEC_AFFINE, chn_pitch=(8, 0, 1)[count], out_bank=count, **fields), idle=count)
    assert bench.strays() == 0


@pytest.mark.parametrize("op", COMPARISONS)
def test_comparisons_of_every_pair_of_special_numbers(bench, op):
    """Of zeros of both signs, subnormals, and patterns of Inf and NaN; flags of other operations change nothing."""
    a, b = (grid.reshape(-1) for grid in np.meshgrid(HALVES, HALVES))
    words = -(-len(a) // 8)
    for bank, values in enumerate((a, b, np.arange(len(a), dtype=np.uint16))):
        bench.machine.chip["vec"].view(np.uint16).reshape(3, -1)[bank, : len(values)] = values
    bench.load()
    bench.check("VEC", **dense(1, words, op=op, out_bank=1, masked=1, relu=1, use_u=1))
    bench.check("VEC", **dense(words, 1, op=op, out_bank=2))


@pytest.mark.parametrize("masked", [0, 1])
@pytest.mark.parametrize("square", [0, 1])
@pytest.mark.parametrize("resume", [0, 1])
def test_sums_with_every_flag(bench, masked, square, resume):
    """Also where the records' sums are at the ends of their range and wrap, and of fewer pixels than a record takes to be written."""
    rng = np.random.default_rng(8)
    for pixels in (1, 2, 15, 16, 17, 30):
        bench.load(vec=halves(rng, 3 * BANK, 8), chn=filled(pixels, CHN))
        fields = dense(2, pixels, op=VEC_SUMS, masked=masked, square=square, resume=resume)
        bench.check("VEC", **fields, chn_pitch=3 + pixels % 4, chn_addr=9)


def test_sums_against_integers(bench):
    """The largest, the smallest and random numbers, over two instructions: exactly what Python's integers give."""
    rng = np.random.default_rng(9)
    a, b = rng.choice(HALVES[:13], (40, 8)), rng.integers(0, 0x7C00, (40, 8), np.uint16)
    bench.machine.chip["vec"].view(np.uint16).reshape(3, BANK, 8)[0, :40] = a
    bench.machine.chip["vec"].view(np.uint16).reshape(3, BANK, 8)[1, :40] = b
    bench.load()
    bench.check("VEC", **dense(1, 25, op=VEC_SUMS, chn_pitch=8, chn_addr=4))
    bench.check("VEC", **dense(1, 15, op=VEC_SUMS, chn_pitch=8, chn_addr=4, resume=1, a_addr=25, b_addr=25))
    records = bench.stored()["chn"][4 : 4 + 64].reshape(8, 8, 16)
    for lane in range(8):
        x, y = ([Fraction(float(v)) for v in values[:, lane].view(np.float16)] for values in (a, b))
        wanted = sum(x) * 2**24, sum(p * q for p, q in zip(x, y, strict=True)) * 2**48
        found = [int.from_bytes(records[lane, number].tobytes(), "little", signed=True) for number in range(2)]
        assert found == list(wanted)


def test_the_flag(bench):
    """It remembers what each unit did, until it is taken."""
    take = dict(op=VEC_FLAG, out_bank=2)
    bench.resume_from_bench()
    bench.check("VEC", **take, out_addr=3)
    bench.gemm_event()
    bench.check("VEC", **take, out_addr=4)
    assert bench.machine.chip["vec"][2 * BANK + 4].tolist() == [1] + 15 * [0]
    bench.check("VEC", **take, out_addr=5)
    assert not bench.machine.chip["vec"][2 * BANK + 5].any()
    bench.load(vec=np.full((BANK, 8), 1000, np.float16), chn=np.full((CHN, 4), 65.504, np.float32))
    bench.check("VEC", **dense(1, 5, op=VEC_AFFINE))
    assert not bench.machine.saturated
    bench.load(chn=np.full((CHN, 4), 66, np.float32))
    bench.check("VEC", **dense(1, 5, op=VEC_AFFINE, fp32=1))
    assert not bench.machine.saturated
    bench.check("VEC", **dense(1, 5, op=VEC_AFFINE))
    assert bench.machine.saturated
    bench.check("VEC", **dense(1, 5, op=VEC_MAX), idle=2)
    bench.check("VEC", **take, out_addr=6)
    assert not bench.machine.saturated and bench.machine.chip["vec"][2 * BANK + 6, 0] == 1


@pytest.mark.parametrize("lane", range(8))
def test_each_saturation_is_an_event(bench, lane):
    """Of a product, a sum and the rounding, in each lane, on the last pixel alone; none of lanes that FP32 does not have."""
    small, huge = np.float32(1), np.float32(3e38)
    for constants, flags in (
        ((huge, small, 0), {}), ((small, huge, 0), {"use_b": 1}), ((huge, huge, 0), {"use_b": 1, "relu": 1}),
        ((small, 0, huge), {"use_u": 1}), ((small, small, small), {"use_b": 1, "use_u": 1}), ((huge, small, huge), {}),
    ):  # fmt: skip
        for fp32 in range(2):
            bench.resume_from_bench()
            vec, chn = np.zeros((3 * BANK, 8), np.float16), np.zeros((CHN, 4), np.float32)
            vec[[7, BANK + 7], lane] = 2
            chn[lane, :3] = constants
            bench.load(vec=vec, chn=chn)
            bench.check("VEC", **dense(1, 8, op=VEC_AFFINE, chn_pitch=1, fp32=fp32, **flags))


def test_each_operation_right_after_each_other(bench):
    """The pipelines of two instructions are of different lengths; nothing of the first is left when the second begins."""
    operations = [{"op": op} for op in (*COMPARISONS, VEC_SUMS, VEC_FLAG)] + [{"op": VEC_AFFINE, "fp32": fp32} for fp32 in range(2)]
    rng = np.random.default_rng(13)
    for first in operations:
        for second in operations:
            for pixels in (1, 7):
                refill(bench, rng, 0)
                bench.check("VEC", **dense(2, pixels, chn_pitch=2, **first), compare=False)
                bench.check("VEC", **dense(1, 3, chn_pitch=2, **second), compare=False)
                bench.check("VEC", **dense(1, 3, op=VEC_SUMS, chn_pitch=3, chn_addr=70), idle=30)
    assert bench.strays() == 0


def random_fields(rng: np.random.Generator) -> dict[str, int]:
    """A legal instruction that stays within the memories."""
    op = int(rng.integers(VEC_FLAG + 1))
    fields = {name: int(rng.integers(2)) for name in ("use_b", "use_u", "masked", "relu", "resume", "square")}
    fields |= {"op": op, "fp32": int(op == VEC_AFFINE and rng.integers(2)), "out_bank": int(rng.integers(3))}
    words, pixels = int(rng.integers(1, 5)), int(rng.integers(1, 40))
    lanes = 4 if fields["fp32"] else 8
    fields |= {"words": words, "pixels": pixels, "chn_pitch": int(rng.integers(2 if op == VEC_SUMS else 0, 9))}
    records = (words * lanes - 1) * fields["chn_pitch"] + 2
    pitch = words + int(rng.integers(3))
    span = (pixels - 1) * pitch + words
    if records > CHN or 2 * span > BANK:
        return random_fields(rng)
    fields["chn_addr"] = int(rng.integers(CHN - records + 1))
    for name in ("a", "b", "c"):
        fields |= {f"{name}_pitch": pitch, f"{name}_addr": int(rng.integers(BANK // 2 - span + 1))}
    # A distance may go backwards: it is modulo 2**20.
    back = bool(rng.integers(2))
    begin = BANK // 2 + int(rng.integers(BANK // 2 - span + 1))
    fields |= {"out_pitch": (1 << 20) - pitch if back else pitch, "out_addr": begin + (pixels - 1) * pitch * back}
    return fields


def run_random(bench: EngineBench, seed: int, jobs: int) -> None:
    rng = np.random.default_rng(seed)
    for job in range(jobs):
        fields = random_fields(rng)
        if job % 4 == 0:
            refill(bench, rng, fields["fp32"])
        bench.check("VEC", **fields, idle=int(rng.integers(3)), compare=job % 4 in (1, 3))
    assert bench.strays() == 0


def test_random_instructions(bench):
    run_random(bench, seed=10, jobs=150)


@pytest.mark.slow
def test_many_random_instructions(bench):
    run_random(bench, seed=11, jobs=10_000)


def test_what_reaches_outside_is_noticed(bench):
    """Each operand, the results and the records, in the last word or one beyond; not operands that are not used."""
    last = {f"{name}_addr": BANK - 2 for name in "abc"}
    used = dict(use_b=1, masked=1)
    bench.check("VEC", **{**dense(1, 2, op=VEC_AFFINE, chn_addr=CHN - 8, chn_pitch=1, **used), **last, "out_addr": 0})
    for name in "abc":
        beyond = {**dense(1, 2, op=VEC_AFFINE, chn_pitch=1), f"{name}_addr": BANK - 1}
        bench.check("VEC", **beyond, **used, outside=True)
        if name != "a":
            bench.check("VEC", **beyond)
    bench.check("VEC", **{**dense(1, 2, op=VEC_MAX), "out_addr": BANK - 2})
    bench.check("VEC", **{**dense(1, 2, op=VEC_MAX), "out_addr": BANK - 1}, outside=True)
    bench.check("VEC", **dense(1, 1, op=VEC_AFFINE, chn_addr=CHN - 7, chn_pitch=1), outside=True)
    bench.check("VEC", **dense(1, 1, op=VEC_SUMS, chn_addr=CHN - 16, chn_pitch=2))
    bench.check("VEC", **dense(1, 1, op=VEC_SUMS, chn_addr=CHN - 15, chn_pitch=2), outside=True)
    bench.check("VEC", op=VEC_FLAG, out_addr=BANK, outside=True)


@pytest.mark.parametrize("op", [VEC_AFFINE, VEC_MAX, VEC_SUMS])
def test_reset_at_any_time(bench, op):
    """What was cut off leaves nothing behind: the next instruction does all and only its own."""
    for cycles in range(1, 70, 5):
        bench.cut("VEC", cycles, **dense(2, 13, op=op, chn_pitch=8))
        bench.check("VEC", **dense(1, 3, op=(VEC_SUMS, VEC_AFFINE, VEC_EQUAL)[cycles % 3], chn_pitch=8, fp32=0))
    assert bench.strays() == 0


def test_cycles_of_common_settings(bench):
    """A word per cycle, and the pipeline; short channel words wait for their records."""
    for fields, wanted in (
        (dense(3, 20, op=VEC_MAX), 60 + 6),
        (dense(3, 20, op=VEC_SUMS, chn_pitch=2), 60 + 27),
        (dense(3, 4, op=VEC_SUMS, chn_pitch=2), 2 * 16 + 4 + 27),
        (dense(3, 4, op=VEC_MAX), 12 + 6),
    ):
        before = bench.cycles
        bench.check("VEC", **fields)
        assert bench.cycles - before == wanted
