"""Proofs of the floating-point units, and the faults that they must find."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module, Signal
from amaranth.sim import Simulator

from hw.rtl.arith import float_half, float_mac
from hw.rtl.formal import bounded, cover
from hw.spec.sat.latency import FP16_NORMALISE, FP16_PRODUCT, FP32_TO_FP16, MAC_ADDER
from tests.formal.float_proof import (
    LATENCY,
    NarrowProof,
    NormaliseProof,
    OrderProof,
    ProductProof,
    SumProof,
    widened,
)
from tests.formal.mutants import Fault, expect_counterexample, parameters

NARROW_FAULTS = (
    Fault(name="rest ignored", module=float_half, old="lost | number.significand[:12].any()", new="lost", fails="nearest"),
    Fault(name="ties to odd", module=float_half, old='(v["lost"] | kept[1])', new='(v["lost"] | ~kept[1])', fails="nearest"),
    Fault(name="saturates too late", module=float_half, old="at_least(magnitude[10:], 31)", new="at_least(magnitude[10:], 32)",
          fails="saturated"),
    Fault(name="subnormals one place off", module=float_half, old="distance = (113 -", new="distance = (112 -", fails="nearest"),
    Fault(name="far ones not lost", module=float_half, old="Mux(at_least(distance, 15), 15, distance[:4])", new="distance[:4]",
          fails="nearest"),
    Fault(name="sign lost", module=float_half, old='magnitude[:15]), v["sign"])', new="magnitude[:15]), C(0, 1))", fails="sign"),
)  # fmt: skip
NORMALISE_FAULTS = (
    Fault(name="subnormal exponent off by one", module=float_half, old="OPERAND_OFFSET + 1 - zeros", new="OPERAND_OFFSET - zeros",
          fails="value"),
    Fault(name="not shifted", module=float_half, old='shifted_left(Cat(fraction, normal), zeros), "exp',
          new='Cat(fraction, normal), "exp', fails="form"),
)  # fmt: skip
PRODUCT_FAULTS = (
    Fault(name="zero by one operand", module=float_half, old='v["a_significand"][-1] & v["b_significand"][-1]',
          new='v["a_significand"][-1]', fails="zero"),
    Fault(name="exponent not raised", module=float_half, old="(97 - 2 * OPERAND_OFFSET) + top)", new="(97 - 2 * OPERAND_OFFSET))",
          fails="value"),
    Fault(name="signs joined", module=float_half, old='v["a_sign"] ^ v["b_sign"]', new='v["a_sign"] | v["b_sign"]', fails="sign"),
)  # fmt: skip
ORDER_FAULTS = (
    Fault(name="borrow ignored", module=float_mac, old="borrow ^ swap", new="swap", fails="distance"),
    Fault(name="distance not complemented", module=float_mac, old="top ^ swap.replicate(8)", new="top", fails="distance"),
    Fault(name="sign of the smaller one", module=float_mac, old='Mux(v["swap"], b.sign, a.sign)', new="a.sign", fails="larger"),
)  # fmt: skip
SUM_FAULTS = (
    Fault(name="zero keeps its sign", module=float_mac, old='v["sign"] & ~(v["subtract"] & nothing)', new='v["sign"]', fails="zero"),
    Fault(name="lost bits ignored", module=float_mac, old="near[0] | lost)", new="near[0])", fails="nearest"),
    Fault(name="far operand not cut", module=float_mac, old='(~v["far"]).replicate(len(aligned) - 1)', new="C(-1, 26)", fails="far"),
    Fault(name="nothing too early", module=float_mac, old="zeros[2:].all()", new="zeros[3:].all()", fails="sign"),
    Fault(name="half bit taken too low", module=float_mac, old="total[EXTRA], total[:EXTRA].any()",
          new="total[EXTRA - 1], total[:EXTRA].any()", fails="nearest"),
    Fault(name="no carry for a difference", module=float_mac, old="(big + Cat(subtract, aligned ^", new="(big + Cat(C(0, 1), aligned ^",
          fails="nearest"),
)  # fmt: skip


def test_widened_is_exact() -> None:
    """The definition's midpoints, simulated: every number of FP16's exponents and 11 bits of fraction."""
    m, number, bits, compared = Module(), Signal(16), Signal(31), 0
    m.d.comb += bits.eq(widened(m, number, "number"))

    async def testbench(ctx) -> None:
        nonlocal compared
        for value in [*range(4200), *range(4200, 31 << 11, 37)]:
            ctx.set(number, value)
            await ctx.delay(1e-9)
            field, fraction = value >> 11, value & 2047
            wanted = np.ldexp(np.float32(fraction + 2048 * (field > 0)), max(field, 1) - 26)
            assert ctx.get(bits) == int(np.float32(wanted).view(np.uint32)), value
            compared += 1

    sim = Simulator(m)
    sim.add_testbench(testbench)
    sim.run()
    assert compared > 5_000


def test_units_are_as_deep_as_the_proofs_say() -> None:
    assert LATENCY in MAC_ADDER and (FP16_NORMALISE, FP16_PRODUCT, FP32_TO_FP16) == (1, 3, 2)


def test_fp32_to_fp16() -> None:
    bounded(NarrowProof(float_half), 3)
    assert cover(NarrowProof(float_half), 3) == ("saturated", "subnormal", "tie")


def test_fp16_normalise() -> None:
    bounded(NormaliseProof(float_half), 2)
    assert cover(NormaliseProof(float_half), 2) == ("largest", "smallest")


def test_fp16_product() -> None:
    bounded(ProductProof(float_half), 4)
    assert cover(ProductProof(float_half), 4) == ("doubled", "zero")


def test_adder_orders() -> None:
    bounded(OrderProof(float_mac), 2)
    assert cover(OrderProof(float_mac), 2) == ("far", "swapped")


def test_adder_sums_without_moving() -> None:
    """Operands of the same exponent, and with one that is moved by the borrow: where sums cancel."""
    bounded(SumProof(float_mac, 0), LATENCY + 1)


@pytest.mark.slow
def test_adder_sums() -> None:
    bounded(SumProof(float_mac), LATENCY + 1)
    assert cover(SumProof(float_mac), LATENCY + 1) == ("cancelled", "tie")


@parameters(NARROW_FAULTS)
def test_faulty_fp32_to_fp16(fault: Fault) -> None:
    expect_counterexample(fault, NarrowProof, 3)


@parameters(NORMALISE_FAULTS)
def test_faulty_normalise(fault: Fault) -> None:
    expect_counterexample(fault, NormaliseProof, 2)


@parameters(PRODUCT_FAULTS)
def test_faulty_product(fault: Fault) -> None:
    expect_counterexample(fault, ProductProof, 4)


@parameters(ORDER_FAULTS)
def test_faulty_order(fault: Fault) -> None:
    expect_counterexample(fault, OrderProof, 2)


@parameters(SUM_FAULTS)
def test_faulty_sum(fault: Fault) -> None:
    expect_counterexample(fault, SumProof, LATENCY + 1)
