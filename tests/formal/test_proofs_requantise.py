"""Proofs of the requantise lane, and the faults that they must find."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.sim import Simulator

from hw.rtl.arith import requantise
from hw.rtl.formal import bounded, cover
from hw.spec.deform.instructions import ROUNDING_CODES
from hw.spec.deform.latency import REQUANTISE
from hw.spec.fixed import Rounding
from hw.spec.ops import CORE_ROUNDINGS, shift_saturating
from tests.formal.mutants import Fault, expect_counterexample, parameters
from tests.formal.requantise_proof import (
    LATENCY,
    AdderProof,
    ClipProof,
    Definition,
    FrontProof,
    TailProof,
    WholeProof,
    product_lemma,
)

ROUNDINGS_INSIDE = ("inside_RND", "inside_RND_CONV", "inside_TRN")

FRONT_FAULTS = (
    Fault(name="sum one bit short", module=requantise, old='v["acc"] + v["bias"]', new='(v["acc"] + v["bias"])[:32].as_signed()',
          fails="total"),
    Fault(name="upper part unsigned", module=requantise, old='v["total"][SPLIT:].as_signed()', new='v["total"][SPLIT:]', fails="high"),
    Fault(name="lower part one bit short", module=requantise, old='v["total"][:SPLIT]', new='v["total"][:SPLIT - 1]', fails="low"),
    Fault(name="far left shifts not bounded", module=requantise, old="Mux(shift < -MAX_LEFT, 0,", new="Mux(shift < -32, 0,",
          fails="amount"),
)  # fmt: skip
TAIL_FAULTS = (
    Fault(name="rest ignored", module=requantise, old='"lost": lost}', new='"lost": 0}', fails="byte"),
    Fault(
        name="saturates to the wrong side",
        module=requantise,
        old="Cat((~sign).replicate(",
        new="Cat(sign.replicate(",
        fails="byte",
    ),
    Fault(name="never saturates", module=requantise, old="Mux(fits, shifted[1:]", new="Mux(1, shifted[1:]", fails="byte"),
    Fault(name="half bit taken too high", module=requantise, old='"half": shifted[0]', new='"half": shifted[1]', fails="byte"),
)
CLIP_FAULTS = (
    Fault(name="half up in no mode", module=requantise, old='== ROUNDING_CODES["RND"]', new="== 3", fails="byte"),
    Fault(name="ties to odd", module=requantise, old='v["lost"] | v["whole"][0])', new='v["lost"] | ~v["whole"][0])', fails="byte"),
    Fault(name="upper clip ignored", module=requantise, old="self.clip_lo, self.clip_hi)", new="self.clip_lo, C(255, signed(9)))",
          fails="byte"),
    Fault(name="lower clip off by one", module=requantise, old="self.clip_lo, self.clip_hi)",
          new="self.clip_lo - 1, self.clip_hi)", fails="byte"),
    Fault(name="rounding carry lost", module=requantise, old="& (half_up | half_even), C(0, 1)).as_signed()",
          new="& (half_up | half_even), C(0, 1)).as_signed() & ~v[\"whole\"][:1]", fails="byte"),
)  # fmt: skip
ADDER_FAULTS = (
    Fault(name="upper bound ignored", module=requantise, old="self.clip_lo, self.clip_hi)", new="self.clip_lo, C(255, signed(9)))",
          fails="sum"),
    Fault(name="saturates to the wrong side", module=requantise, old="Cat((~sign).replicate(", new="Cat(sign.replicate(", fails="sum"),
    Fault(name="sum wraps", module=requantise, old='v["acc"] + v["bias"]', new='(v["acc"] + v["bias"])[:32].as_signed()', fails="sum"),
)  # fmt: skip


def _cases() -> list[tuple[int, int, Rounding, int, int]]:
    """Products with shifts of every size, at and beside ties, with every rounding, and random ones."""
    rng = np.random.default_rng(1)
    cases = []
    for shift in range(-32, 32):
        unit, half = 1 << max(shift, 0), (1 << max(shift, 0)) >> 1
        products = [code * unit + half + d for code in (0, 1, -1, -2, 127, -129, 255, -256) for d in (-1, 0, 1)]
        products += [int(rng.integers(-(1 << bits), 1 << bits)) for bits in range(1, 48, 4)] + [(1 << 48) - 1, -(1 << 48)]
        clips = (-256, 255), (-128, 127), (0, 255), tuple(sorted(rng.integers(-256, 256, 2).tolist()))
        for number, product in enumerate(products):
            cases.append((product, shift, CORE_ROUNDINGS[number % 3], *clips[number % 4]))
    return cases


def test_definition_is_the_golden_operation() -> None:
    """The proofs' definition, simulated, against ``hw.spec.ops``."""
    dut, compared = Definition(), 0

    async def testbench(ctx) -> None:
        nonlocal compared
        for product, shift, rounding, lo, hi in _cases():
            for port, value in ((dut.product, product), (dut.shift, shift), (dut.lo, lo), (dut.hi, hi)):
                ctx.set(port, value)
            ctx.set(dut.rounding, ROUNDING_CODES[rounding.name])
            await ctx.delay(1e-9)
            golden = np.clip(shift_saturating(np.int64(product), np.int64(shift), rounding), lo, hi)
            assert ctx.get(dut.o) == golden, (product, shift, rounding, lo, hi)
            compared += 1

    sim = Simulator(dut)
    sim.add_testbench(testbench)
    sim.run()
    assert compared == 64 * 38


def test_lane_is_as_deep_as_the_proofs_say() -> None:
    assert LATENCY == REQUANTISE


def test_front() -> None:
    bounded(FrontProof(requantise), 3)
    assert product_lemma()
    assert cover(FrontProof(requantise), 3) == ("negative",)


def test_tail() -> None:
    bounded(TailProof(requantise), LATENCY + 1)


def test_tail_is_exercised() -> None:
    assert cover(TailProof(requantise), LATENCY + 1) == ROUNDINGS_INSIDE


def test_clip() -> None:
    bounded(ClipProof(requantise), 2)
    assert cover(ClipProof(requantise), 2) == ("above", "below", *ROUNDINGS_INSIDE)


@pytest.mark.slow
@pytest.mark.parametrize("multiplier_bits", [1, 2])
def test_whole_lane_with_small_multipliers(multiplier_bits: int) -> None:
    bounded(WholeProof(requantise, multiplier_bits), LATENCY + 1)
    assert cover(WholeProof(requantise, multiplier_bits), LATENCY + 1) == ROUNDINGS_INSIDE


def test_saturating_adder() -> None:
    bounded(AdderProof(requantise), LATENCY + 1)
    assert cover(AdderProof(requantise), LATENCY + 1) == ("above", "below", "inside")


@parameters(ADDER_FAULTS)
def test_faulty_adder(fault: Fault) -> None:
    expect_counterexample(fault, AdderProof, LATENCY + 1)


@parameters(FRONT_FAULTS)
def test_faulty_front(fault: Fault) -> None:
    expect_counterexample(fault, FrontProof, 3)


@parameters(TAIL_FAULTS)
def test_faulty_tail(fault: Fault) -> None:
    expect_counterexample(fault, TailProof, LATENCY + 1)


@parameters(CLIP_FAULTS)
def test_faulty_clip(fault: Fault) -> None:
    expect_counterexample(fault, ClipProof, 2)
