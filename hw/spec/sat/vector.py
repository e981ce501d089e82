"""What VEC computes on a channel word's operands: part of the training core's machine."""

from __future__ import annotations

import numpy as np

from hw.spec import floats
from hw.spec.isa import Instruction
from hw.spec.sat.instructions import VEC_AFFINE, VEC_EQUAL, VEC_MAX, VEC_SUMS
from hw.spec.sat.words import scaled_integers


def used(i: Instruction) -> str:
    """Names of the operands that an instruction reads."""
    if i["op"] in (VEC_AFFINE, VEC_SUMS):
        second = i["use_b"] if i["op"] == VEC_AFFINE else not i["square"]
        return "a" + "b" * second + "c" * i["masked"]
    return "ab" if i["op"] == VEC_MAX else "abc"


def masked(i: Instruction, a: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Operand a where it counts, +0 elsewhere."""
    return np.where(c > 0, a, np.zeros_like(a)) if i["masked"] else a


def affine(i: Instruction, a: np.ndarray, b: np.ndarray, c: np.ndarray, constants: np.ndarray) -> tuple[np.ndarray, bool]:
    """``(a * S + b * T) + U``, each operation rounded to FP32; and whether one saturated.

    a, b, c (pixels, lanes); constants (lanes, 4): S, T, U and one that is not used. Returns float32 (pixels, lanes).
    """
    s, t, u, _ = constants.T
    a, b = masked(i, a, c).astype(np.float32), b.astype(np.float32)
    saturated = [floats.saturates_mul(a, s)]
    result = floats.fp32_mul(a, s)
    if i["use_b"]:
        product = floats.fp32_mul(b, t)
        saturated += [floats.saturates_mul(b, t), floats.saturates_add(result, product)]
        result = floats.fp32_add(result, product)
    if i["use_u"]:
        saturated.append(floats.saturates_add(result, np.broadcast_to(u, result.shape)))
        result = floats.fp32_add(result, np.broadcast_to(u, result.shape))
    if i["relu"]:
        result = np.where(result > 0, result, np.float32(0))
    return result, any(bool(flags.any()) for flags in saturated)


def chosen(i: Instruction, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """The larger of a and b (a where they are equal), or c where a and b are equal, or are not, and +0 elsewhere."""
    if i["op"] == VEC_MAX:
        return np.where(a >= b, a, b)
    return np.where((a == b) == (i["op"] == VEC_EQUAL), c, np.zeros_like(c))


def sums(i: Instruction, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact sums over the pixels of a (unit 2**-24) and of a * b or a * a (2**-48): object arrays (lanes,)."""
    first = scaled_integers(masked(i, a, c)).astype(object)
    second = first if i["square"] else scaled_integers(b).astype(object)
    return first.sum(axis=0), (first * second).sum(axis=0)
