"""Accumulator proof: no register of the core can overflow, whatever activations of the input format arrive.

For activations in [lo, hi] (zero included) an output channel with weights w reaches at most sum(w+ * hi) - sum(w- * lo) and at
least sum(w+ * lo) - sum(w- * hi), w+ and w- being the magnitudes of its positive and negative weights. The array keeps two sums
in fields of ``field_bits``: two channels with 4-bit weights, or the two digits of one channel with wide weights.
"""

from __future__ import annotations

import numpy as np

from hw.spec.deform.digits import is_taken
from hw.spec.fixed import FixedFormat
from sw.compiler.problems import Problem

NARROW_WEIGHT = 7
"""Largest magnitude of a weight that shares its cell with another: -8 could overflow the multiplier's port."""

BIASED_BITS = 33
DW_BITS = 32


def is_wide(weight: np.ndarray) -> bool:
    """True if some weight needs a cell of its own."""
    return bool(np.abs(weight).max(initial=0) > NARROW_WEIGHT)


def digits(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The digits (high, low) of 8-bit weights as the cell sees them: ``weight = 16 * high + low``, low in -8..7."""
    low = ((weight + 8) & 15) - 8
    return (weight - low) >> 4, low


def sum_bounds(weight: np.ndarray, fmt: FixedFormat) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest sum of products per output channel, for ``weight`` (C, ...) and any codes of ``fmt``."""
    flat = weight.reshape(len(weight), -1).astype(np.int64)
    positive, negative = np.maximum(flat, 0).sum(axis=1), np.maximum(-flat, 0).sum(axis=1)
    least, most = min(fmt.min_code, 0), fmt.max_code
    return positive * least - negative * most, positive * most - negative * least


def prove_pw(place: str, weight: np.ndarray, bias: np.ndarray, fmt: FixedFormat, field_bits: int) -> list[Problem]:
    """Problems of a convolution on the array, ``weight`` (OC, IC, KH, KW)."""
    parts = {"": weight}
    if is_wide(weight):
        parts = dict(zip(("upper digit of ", "lower digit of "), digits(weight), strict=True))
    found = [_exceeds(place, what, *sum_bounds(part, fmt), field_bits, "field") for what, part in parts.items()]
    low, high = sum_bounds(weight, fmt)
    found.append(_exceeds(place, "with its bias ", low + bias, high + bias, BIASED_BITS, "requantise input"))
    return [problem for problem in found if problem is not None]


def prove_terms(place: str, weight: np.ndarray, terms: int) -> list[Problem]:
    """The problem of weights (OC, ...) that cells of so many ``terms`` (0: multipliers) take for others, if there are any."""
    parts = digits(weight) if is_wide(weight) else (weight,)
    wrong = ~np.logical_and.reduce([is_taken(part, terms) for part in parts])
    if not wrong.any():
        return []
    first = tuple(int(axis) for axis in np.argwhere(wrong)[0])
    return [Problem(
        place=place,
        reason=f"{int(wrong.sum())} of {weight.size} weights, the first {int(weight[first])} of output channel {first[0]}, need more "
        f"than the {terms} signed power of two for each 4-bit digit that the core's cells add",
        advice="train with weight_digits = 1, or use an architecture with weight_terms 2 or 0",
    )]  # fmt: skip


def prove_dw(place: str, weight: np.ndarray, bias: np.ndarray, fmt: FixedFormat) -> list[Problem]:
    """Problems of a depthwise convolution or a sum, ``weight`` (C, KH, KW)."""
    low, high = sum_bounds(weight, fmt)
    found = (
        _exceeds(place, "", low, high, DW_BITS, "accumulator"),
        _exceeds(place, "with its bias ", low + bias, high + bias, BIASED_BITS, "requantise input"),
    )
    return [problem for problem in found if problem is not None]


def _exceeds(place: str, what: str, low: np.ndarray, high: np.ndarray, bits: int, register: str) -> Problem | None:
    """A problem that names the channel whose sum leaves a signed register the farthest."""
    limit = 1 << (bits - 1)
    excess = np.maximum(high - (limit - 1), -limit - low)
    if not len(excess) or excess.max() <= 0:
        return None
    worst, more = int(excess.argmax()), int((excess > 0).sum()) - 1
    others = f" (and {more} more channels)" if more else ""
    return Problem(
        place=place,
        reason=f"the accumulator {what}of output channel {worst}{others} can reach {low[worst]}..{high[worst]}, "
        f"the {register} of {bits} bits holds {-limit}..{limit - 1}",
        advice="use fewer or smaller weights, a narrower input format, or an architecture with a wider field",
    )
