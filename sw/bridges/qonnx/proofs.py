"""Why an exported model computes exactly in float32: bounds that are proven per layer from the actual weights.

Every value of an exported model is an integer times a power of two. Float32 holds it exactly while the integer stays within 2**24,
and the order of a sum is then of no matter, as every partial sum is exact too. Where a value is rounded after all (a multiplier of
16 bits, the division of a mean), or moved for a rounding that the model has no name for, the float32 result is compared with the
graph's code at every step of the code, over all sums that the weights and the codes can make: both are monotone, so that they are
equal everywhere if they are equal around each step.
"""

from __future__ import annotations

import numpy as np

from hw.spec.fixed import Rounding
from hw.spec.ops import Requant
from sw.bridges.qonnx.roundings import near_steps
from sw.tracing.problems import RefusedError

__all__ = ["EXACT", "check_exponents", "check_mean", "check_product", "check_sums", "reach"]

EXACT = 2**24
"""Integers up to this magnitude are exact in float32."""

_EXPONENTS = 100
"""Binary points that leave float32 normal numbers on both sides for sums of 24 bits."""

_MEAN_ERROR = 2.0**-20
"""Relative error granted to a mean in float32, whether by a division or a reciprocal: eight times what either makes."""


def reach(weight: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Least and most sum of each output channel, and of each partial sum in any order.

    ``weight`` (OC, ...) codes, inputs in ``low``..``high`` or 0 (padding). Returns int64 arrays (OC,); least <= 0 <= most.
    """
    flat = weight.reshape(weight.shape[0], -1)
    positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
    low, high = min(low, 0), max(high, 0)
    return positive * low + negative * high, positive * high + negative * low


def check_sums(requant: Requant, least: np.ndarray, most: np.ndarray, offset: np.ndarray) -> None:
    """Refuse sums of which float32 would lose bits, whatever their order; their bias moves by ``offset`` (C,)."""
    parts = np.array([float(each).as_integer_ratio()[1] for each in offset])
    largest = np.maximum(-least, most) + np.abs(requant.bias + offset)
    if not (over := largest * parts > EXACT).any():
        return
    channel = int(np.argmax(over))
    told = f"can sum up to {int(largest[channel])} in channel {channel}"
    if (part := int(parts[channel])) > 1:
        told += f", in steps of 1/{part} to round by {requant.rounding.name}"
    raise RefusedError(f"{told}, which float32 does not hold exactly beyond 2**{24 - part.bit_length() + 1}",
                       "use fewer input channels, or narrower weights or activations" + (", or rounding RND_CONV" if part > 1 else ""))


def check_exponents(*fracs: np.ndarray | int) -> None:
    """Refuse binary points beyond what float32 can scale exactly."""
    for frac in fracs:
        worst = int(np.abs(np.asarray(frac)).max(initial=0))
        if worst > _EXPONENTS:
            raise RefusedError(f"has a binary point {worst} places away, float32 holds {_EXPONENTS}",
                               "train with binary points nearer to zero")


def check_product(requant: Requant, least: np.ndarray, most: np.ndarray, offset: np.ndarray, native: Rounding) -> None:
    """Refuse a multiplier whose float32 product gives another code for any sum in ``least``..``most`` of its channel.

    The model moves sums by ``offset`` (C,), multiplies, and rounds by ``native``.
    """
    near = near_steps(requant, least, most)
    product = (near + offset[:, None]).astype(np.float32) * requant.multiplier.astype(np.float32)[:, None]
    scaled = product.astype(np.float64) * 2.0 ** -requant.shift[:, None].astype(np.float64)
    _compare(requant, near, scaled, native, "has a multiplier that is no power of two, and its product in float32")


def check_mean(requant: Requant, count: int, power: int, least: np.ndarray, most: np.ndarray, offset: np.ndarray, native: Rounding,
               ) -> None:
    """Refuse a mean of ``count`` codes where division in float32 gives another code than the reciprocal.

    The wanted code is that of ``sum / count * 2**-power``, rounded by ``native``; where the division is exact, sums move by ``offset``.
    """
    near = near_steps(requant, least, most)
    error = 0.0 if count & (count - 1) == 0 else _MEAN_ERROR
    for sign in (-1, 1):
        scaled = (near + offset[:, None]) / count * 2.0**-power * (1 + sign * error)
        _compare(requant, near, scaled, native, "has a reciprocal whose mean, next to a tie,")


def _compare(requant: Requant, sums: np.ndarray, scaled: np.ndarray, native: Rounding, what: str) -> None:
    """Refuse where rounding ``scaled`` does not give the graph's code of ``sums`` (C, K), bias included."""
    rounded = np.floor(scaled) if native is Rounding.TRN else np.rint(scaled)
    theirs = np.clip(rounded, requant.lo, requant.hi).astype(np.int64)
    ours = requant((sums - requant.bias[:, None])[None])[0]
    if (differs := ours != theirs).any():
        channel, place = (int(i) for i in np.argwhere(differs)[0])
        raise RefusedError(f"{what} gives {int(theirs[channel, place])} for the sum {int(sums[channel, place])} of channel "
                           f"{channel}, where the graph has {int(ours[channel, place])}",
                           "use scales that are powers of two (pools: a window of 2, 4, 8 or 16 codes)")
