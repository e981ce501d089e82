"""Proof of the residual addition, and the faults that it must find."""

from __future__ import annotations

from hw.rtl.arith import add_clip, compare
from hw.rtl.formal import bounded, cover
from hw.spec.deform.latency import ADD
from tests.formal.add_clip_proof import LATENCY, AddClipProof
from tests.formal.mutants import Fault, expect_counterexample, parameters

FAULTS = (
    Fault(name="carry lost", module=add_clip, old="wide[0] + wide[1]", new="(wide[0] + wide[1])[:9].as_signed()", fails="sum"),
    Fault(name="bytes always signed", module=add_clip, old="byte[-1] & ~self.unsigned", new="byte[-1]", fails="sum"),
    Fault(name="bytes never signed", module=add_clip, old="byte[-1] & ~self.unsigned", new="byte[-1] & 0", fails="sum"),
    Fault(name="no carry at all", module=add_clip, old="wide[0] + wide[1]", new="wide[0] ^ wide[1]", fails="sum"),
    Fault(name="lower clip off by one", module=add_clip, old="clipped(total, self.lo,", new="clipped(total, self.lo + 1,", fails="sum"),
    Fault(name="upper clip off by one", module=add_clip, old="self.lo, self.hi)", new="self.lo, self.hi - 1)", fails="sum"),
    Fault(name="clips exchanged", module=add_clip, old="self.lo, self.hi)", new="self.hi, self.lo)", fails="sum"),
)


def test_sum() -> None:
    assert LATENCY == ADD == add_clip.AddClip.delay
    bounded(AddClipProof(add_clip), LATENCY + 1)
    assert cover(AddClipProof(add_clip), LATENCY + 1) == ("above", "below", "crossed", "farthest", "inside", "lowest")


@parameters(FAULTS)
def test_faulty_sum(fault: Fault) -> None:
    expect_counterexample(fault, AddClipProof, LATENCY + 1)


def test_crossed_clips_are_part_of_the_claim() -> None:
    """The fault lies in the function that the requantise lane shares, so it is planted there."""
    fault = Fault(name="crossed", module=compare, old="(value < low) | (high < low)", new="value < low", fails="sum")
    expect_counterexample(fault, lambda faulty: AddClipProof(_with(faulty)), LATENCY + 1)


def _with(comparisons: object) -> object:
    """The unit with other comparisons."""
    same = Fault(name="none", module=add_clip, old="delay = ADD", new="delay = ADD", fails="sum").plant()
    same.clipped = comparisons.clipped  # type: ignore[attr-defined]
    return same
