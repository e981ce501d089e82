"""Fixed-point formats and exact casts with the semantics of ``ap_fixed``.

A `FixedFormat` gives an integer *code* the value ``code * 2**-frac``. Every cast rounds first and then
treats overflow; all results are int64 codes and none of them depends on floating-point rounding:

- `quantize`     float64 (or integer) values -> codes
- `dequantize`   codes -> float64 values
- `requantize`   codes of one format -> codes of another
- `round_shift`  codes -> codes shifted right, the arithmetic of a requantise stage

Modes with saturated bits (``N > 0`` of ``AP_WRAP`` and ``AP_WRAP_SM``) do not exist here. The floating-point
unit must be in its default state: round to nearest even, denormals not flushed to zero.
"""

from __future__ import annotations

import enum
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["FixedFormat", "Overflow", "Rounding", "dequantize", "quantize", "requantize", "round_shift"]

Codes = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Rounding(enum.Enum):
    """How a value between two codes is rounded; the names are those of ``ap_fixed`` without ``AP_``."""

    TRN = "TRN"                  # to minus infinity
    TRN_ZERO = "TRN_ZERO"        # to zero
    RND = "RND"                  # to nearest, ties to plus infinity
    RND_ZERO = "RND_ZERO"        # to nearest, ties to zero
    RND_MIN_INF = "RND_MIN_INF"  # to nearest, ties to minus infinity
    RND_INF = "RND_INF"          # to nearest, ties away from zero
    RND_CONV = "RND_CONV"        # to nearest, ties to even


class Overflow(enum.Enum):
    """What becomes of a rounded value outside a format's range.

    ``WRAP_SM`` (signed formats only): the result's sign bit is the lowest deleted bit, bit ``width`` of the
    value *before* rounding; if the wrapped code's top bit differs from it, all bits are inverted.
    """

    SAT = "SAT"            # the nearest code
    SAT_ZERO = "SAT_ZERO"  # 0
    SAT_SYM = "SAT_SYM"    # as SAT, to [-max_code, max_code] if signed (width 1: [-1, 0])
    WRAP = "WRAP"          # the low bits are kept
    WRAP_SM = "WRAP_SM"    # sign-magnitude wrap


def _as_int(value: Any, name: str) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, not {value!r}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {value!r}") from None


@dataclass(frozen=True)
class FixedFormat:
    """A fixed-point number format: ``value = code * 2**-frac``.

    Parameters
    ----------
    width : int, bits
        All bits of a code, the sign included: 1 to 64 if signed, 1 to 63 if unsigned.
    frac : int, bits
        Position of the binary point; may be negative or above ``width``.
    signed : bool
        Two's complement if true.

    Raises TypeError or ValueError for parameters outside these ranges.
    """

    width: int
    frac: int
    signed: bool = True

    def __post_init__(self) -> None:
        # Learned binary points arrive as numpy integers; plain ints keep equality, hashing and JSON simple.
        object.__setattr__(self, "width", _as_int(self.width, "width"))
        object.__setattr__(self, "frac", _as_int(self.frac, "frac"))
        if not isinstance(self.signed, (bool, np.bool_)):
            raise TypeError(f"signed must be a bool, not {self.signed!r}")
        object.__setattr__(self, "signed", bool(self.signed))
        limit = 64 if self.signed else 63
        if not 1 <= self.width <= limit:
            kind = "a signed" if self.signed else "an unsigned"
            raise ValueError(f"width of {kind} format must be 1 to {limit} bits, not {self.width}")

    @property
    def min_code(self) -> int:
        """The smallest code."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def max_code(self) -> int:
        """The largest code."""
        return (1 << (self.width - self.signed)) - 1

    @property
    def integer_bits(self) -> int:
        """Bits left of the binary point, the sign included: the ``I`` of ``ap_fixed<W, I>``."""
        return self.width - self.frac

    def __str__(self) -> str:
        return f"{'s' if self.signed else 'u'}{self.width}f{self.frac}"

    @classmethod
    def parse(cls, text: str) -> FixedFormat:
        """The format that `str` writes as ``text``, such as ``s8f4``, ``u8f0`` or ``s4f-2``."""
        match = re.fullmatch(r"([su])([0-9]+)f(-?[0-9]+)", text)
        if match is None:
            raise ValueError(f"a format must read like 's8f4' or 'u8f-2' (sign, width, frac), not {text!r}")
        return cls(int(match[2]), int(match[3]), match[1] == "s")

    def to_dict(self) -> dict[str, int | bool]:
        """The parameters, ready for JSON."""
        return {"width": self.width, "frac": self.frac, "signed": self.signed}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FixedFormat:
        """The inverse of `to_dict`; raises ValueError unless exactly its keys are there."""
        if set(data) != {"width", "frac", "signed"}:
            raise ValueError(f"a format must have the keys width, frac and signed only, not {sorted(data)}")
        return cls(data["width"], data["frac"], data["signed"])


def quantize(values: npt.ArrayLike, fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> Codes:
    """Cast values to the codes of a format, exactly, for every float64 and every ``frac``.

    Parameters
    ----------
    values : array of any shape, floats of up to 64 bits or integers
        Infinity saturates under SAT and SAT_SYM and is 0 under SAT_ZERO.
    fmt, rounding, overflow
        The target format and the modes.

    Returns int64 codes of the same shape. Raises ValueError for NaN anywhere, for infinity under WRAP and
    WRAP_SM, and for WRAP_SM with an unsigned format; TypeError for values that are not real numbers.
    """
    _check_modes(fmt, rounding, overflow)
    array = np.asarray(values)
    if array.dtype.kind in "biu":
        return requantize(array, FixedFormat(64, 0), fmt, rounding, overflow)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(f"values must be floats of at most 64 bits or integers, not {array.dtype}")
    _check_numbers(array, overflow)
    flat = array.astype(np.float64, copy=False).reshape(-1)
    codes = np.empty(flat.size, np.int64)
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        codes[block] = _quantize_block(flat[block], fmt, rounding, overflow)
    return codes.reshape(array.shape)


def dequantize(codes: npt.ArrayLike, fmt: FixedFormat) -> Floats:
    """The values of codes, as float64 of the same shape.

    Raises ValueError for a code outside the format, and for a value that float64 cannot hold exactly: more
    than 53 significant bits, or a magnitude outside its range. TypeError if the codes are not integers.
    """
    array = _as_codes(codes, fmt)
    mantissa = array.astype(np.float64)
    exponent = -_clamp(fmt.frac, 4000)
    with np.errstate(over="ignore", under="ignore"):
        values = np.asarray(np.ldexp(mantissa, exponent))
        exact = np.ldexp(values, -exponent) == mantissa
    if fmt.width > 53:
        in_int64 = mantissa < 2.0**63  # 2**63 - 1 rounds up to 2**63, which no int64 holds
        exact &= in_int64 & (np.where(in_int64, mantissa, 0.0).astype(np.int64) == array)
    if not exact.all():
        where = _first(~exact)
        raise ValueError(f"codes of {fmt} must be exact in float64, not {array[where]} at index {where}")
    return values


def requantize(
    codes: npt.ArrayLike, from_fmt: FixedFormat, to_fmt: FixedFormat, rounding: Rounding, overflow: Overflow
) -> Codes:
    """Cast codes of one format to another, in integers only.

    Equal to ``quantize(value)`` of the real value of each code. Returns int64 codes of the same shape. Raises
    ValueError for a code outside ``from_fmt`` or WRAP_SM to an unsigned format, TypeError for non-integers.
    """
    _check_modes(to_fmt, rounding, overflow)
    array = _as_codes(codes, from_fmt)
    shift = from_fmt.frac - to_fmt.frac
    low, high = to_fmt.min_code, to_fmt.max_code
    if shift >= 0:
        wide = _shift_right(array, np.asarray(_clamp(shift, 66)), rounding)
        under, over = wide < low, wide > high
    else:
        # The exact value may need more than 64 bits: keep it modulo 2**64 and compare before shifting.
        left = min(-shift, 64)
        wide = array << left if left < 64 else np.zeros_like(array)
        under, over = array < -(-low >> left), array > (high >> left)
    deleted = _bit(array, to_fmt.width + shift) if overflow is Overflow.WRAP_SM else None
    return np.asarray(_settle(wide, under, over, deleted, to_fmt, overflow))


def round_shift(codes: npt.ArrayLike, shift: npt.ArrayLike, rounding: Rounding) -> Codes:
    """``codes * 2**-shift``, rounded to integers.

    Parameters
    ----------
    codes : int64 array
    shift : integer or array that broadcasts against ``codes``
        Bits to the right; negative shifts to the left. Any size: the result of ``shift >= 64`` is exact.
    rounding : Rounding

    Returns int64 of the broadcast shape. Raises ValueError if a left shift leaves 64 bits.
    """
    _check_rounding(rounding)
    array, amount = _as_int64(codes, "codes"), _as_int64(shift, "shift")
    amount = np.clip(amount, -64, 66)
    if (amount < 0).any():
        array = _shift_left(array, np.maximum(-amount, 0))
    return np.asarray(_shift_right(array, np.maximum(amount, 0), rounding))


# Blocks of this many values keep every intermediate array in the second-level cache.
_BLOCK = 1 << 14

# A scaled magnitude below _NEAR rounds like any other non-zero magnitude below 1/2; one above _FAR overflows
# every format and has zeros in every bit that a format of 64 bits, or its lowest deleted bit, can see.
_NEAR, _FAR = 2.0**-1000, 2.0**1000


def _quantize_block(values: Floats, fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> Codes:
    scaled = _scale(values, fmt.frac)
    rounded = _round(scaled, rounding)
    if overflow is Overflow.SAT and fmt.width <= 53:  # both bounds are exact in float64
        return np.clip(rounded, float(fmt.min_code), float(fmt.max_code)).astype(np.int64)
    under, over = rounded < float(fmt.min_code), rounded >= float(fmt.max_code + 1)
    deleted = _deleted_bit(scaled, fmt.width) if overflow is Overflow.WRAP_SM else None
    return _settle(_modulo_int64(rounded), under, over, deleted, fmt, overflow)


def _scale(values: Floats, frac: int) -> Floats:
    """``values * 2**frac``, exact but for magnitudes outside _NEAR to _FAR, which become that bound."""
    with np.errstate(over="ignore", under="ignore"):
        if abs(frac) <= 1000:
            scaled = values * 2.0**frac
        else:
            scaled = np.ldexp(values, _clamp(frac, 4000))
    if frac < 0:  # only then can a product underflow, and so be rounded
        lost = (np.abs(scaled) < _NEAR) & (values != 0)
        scaled = np.where(lost, np.copysign(_NEAR, values), scaled)
    return np.clip(scaled, -_FAR, _FAR)


def _round(scaled: Floats, rounding: Rounding) -> Floats:
    """Round finite float64 to integers in float64.

    ``floor(x + 0.5)`` and ``x - floor(x)`` are themselves rounded next to ties. The distance to the nearest
    even-tied integer is not: it is at most 1/2, so both operands lie within a factor of two, or one is 0.
    """
    if rounding is Rounding.TRN:
        return np.floor(scaled)
    if rounding is Rounding.TRN_ZERO:
        return np.trunc(scaled)
    nearest = np.rint(scaled)
    if rounding is Rounding.RND_CONV:
        return nearest
    distance = scaled - nearest  # +1/2 or -1/2 at a tie that went down or up
    if rounding in (Rounding.RND, Rounding.RND_INF, Rounding.RND_ZERO):
        raised: Mask = distance == 0.5
        if rounding is not Rounding.RND:
            raised &= (scaled > 0) == (rounding is Rounding.RND_INF)
        nearest += raised
    if rounding in (Rounding.RND_MIN_INF, Rounding.RND_INF, Rounding.RND_ZERO):
        lowered: Mask = distance == -0.5
        if rounding is not Rounding.RND_MIN_INF:
            lowered &= (scaled < 0) == (rounding is Rounding.RND_INF)
        nearest -= lowered
    return nearest


def _deleted_bit(scaled: Floats, width: int) -> Mask:
    """Bit ``width`` of ``floor(scaled)``, right where the magnitude is at least 1."""
    with np.errstate(under="ignore"):
        return np.fmod(np.floor(scaled * 2.0**-width), 2.0) != 0


def _modulo_int64(rounded: Floats) -> Codes:
    """Integers in float64, of any finite size, modulo 2**64 into int64."""
    if rounded.size and max(rounded.max(), -rounded.min()) >= 2.0**63:
        rounded = np.fmod(rounded, 2.0**64)  # fmod is exact, and so are the subtractions of its results
        rounded = np.where(rounded >= 2.0**63, rounded - 2.0**64, rounded)
        rounded = np.where(rounded < -(2.0**63), rounded + 2.0**64, rounded)
    return rounded.astype(np.int64)


def _settle(
    wide: Codes, under: Mask, over: Mask, deleted: Mask | None, fmt: FixedFormat, overflow: Overflow
) -> Codes:
    """Codes from rounded values modulo 2**64, masks of those out of range, and the lowest deleted bits."""
    if overflow is Overflow.SAT_ZERO:
        return np.where(under | over, np.int64(0), wide)
    if overflow in (Overflow.SAT, Overflow.SAT_SYM):
        lowest = fmt.min_code
        if overflow is Overflow.SAT_SYM and fmt.signed:
            lowest |= 1  # -max_code, and -1 for one bit
        codes = np.where(under, np.int64(lowest), np.where(over, np.int64(fmt.max_code), wide))
        return np.maximum(codes, np.int64(lowest))
    wrapped = _wrap(wide, fmt)
    if deleted is None:
        return wrapped
    inverted = (under | over) & (deleted != (wrapped < 0))
    return np.where(inverted, ~wrapped, wrapped)


def _wrap(wide: Codes, fmt: FixedFormat) -> Codes:
    if not fmt.signed:
        return wide & np.int64(fmt.max_code)
    spare = np.int64(64 - fmt.width)
    return (wide << spare) >> spare


def _bit(codes: Codes, index: int) -> Mask:
    """Bit ``index`` of codes that continue without end: zeros to the right, the sign to the left."""
    if index < 0:
        return np.zeros(codes.shape, np.bool_)
    return (codes >> np.int64(min(index, 63))) & 1 != 0


def _shift_right(codes: Codes, amount: Codes, rounding: Rounding) -> Codes:
    """Round ``codes * 2**-amount``, amount 0 to 66 (beyond that no result changes)."""
    if (amount > 62).any():
        codes, amount = _shift_sticky(codes, amount)
    floor = codes >> amount
    if rounding is Rounding.TRN:
        return floor
    rest = codes & ~(np.int64(-1) << amount)
    if rounding is Rounding.TRN_ZERO:
        return floor + ((codes < 0) & (rest != 0))
    # Without a shift the rest is 0 and half is 1: nothing is added.
    half = np.int64(1) << np.maximum(amount - 1, 0)
    return floor + (rest > half - _tie_up(codes, floor, rounding))


def _tie_up(codes: Codes, floor: Codes, rounding: Rounding) -> Any:
    """1 where a tie goes up to ``floor + 1``, else 0."""
    if rounding is Rounding.RND_ZERO:
        return codes < 0
    if rounding is Rounding.RND_INF:
        return codes >= 0
    if rounding is Rounding.RND_CONV:
        return floor & 1
    return int(rounding is Rounding.RND)


def _shift_sticky(codes: Codes, amount: Codes) -> tuple[Codes, Codes]:
    """Bring shifts to 62 bits or fewer; the bits shifted out are collected in bit 0, far below the tie."""
    excess = np.maximum(amount - 62, 0)
    lost = (codes & ~(np.int64(-1) << excess)) != 0
    return (codes >> excess) | lost, amount - excess


def _shift_left(codes: Codes, amount: Codes) -> Codes:
    """``codes * 2**amount``, amount 0 to 64; raises ValueError where 64 bits do not hold it."""
    bits = np.minimum(amount, 63)
    shifted = np.asarray(codes << bits)
    lost = (shifted >> bits != codes) | ((amount > 63) & (codes != 0))
    if lost.any():
        where = _first(lost)
        code, left = (np.broadcast_to(a, lost.shape)[where] for a in (codes, amount))
        raise ValueError(f"codes must fit 64 bits when shifted left, not {code} << {left} at index {where}")
    return shifted


def _clamp(value: int, limit: int) -> int:
    return max(-limit, min(value, limit))


def _first(mask: Mask) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(mask)[0])


def _as_int64(values: npt.ArrayLike, name: str) -> Codes:
    array = np.asarray(values)
    if array.dtype.kind not in "biu":
        raise TypeError(f"{name} must be integers of at most 64 bits, not {array.dtype}")
    if array.dtype == np.uint64 and array.size and array.max() > np.uint64(2**63 - 1):
        raise ValueError(f"{name} must fit a signed 64-bit integer, not {array.max()}")
    return array.astype(np.int64, copy=False)


def _as_codes(values: npt.ArrayLike, fmt: FixedFormat) -> Codes:
    array = _as_int64(values, "codes")
    if array.size and (array.min() < fmt.min_code or array.max() > fmt.max_code):
        where = _first((array < fmt.min_code) | (array > fmt.max_code))
        raise ValueError(
            f"codes of {fmt} must be {fmt.min_code} to {fmt.max_code}, not {array[where]} at index {where}"
        )
    return array


def _check_numbers(values: npt.NDArray[Any], overflow: Overflow) -> None:
    bad = np.isnan(values)
    if bad.any():
        raise ValueError(f"values must be numbers, not NaN at index {_first(bad)}")
    if overflow in (Overflow.WRAP, Overflow.WRAP_SM):
        bad = np.isinf(values)
        if bad.any():
            where = _first(bad)
            name = overflow.name
            raise ValueError(f"values must be finite under {name}, not {values[where]} at index {where}")


def _check_rounding(rounding: Rounding) -> None:
    if not isinstance(rounding, Rounding):
        raise TypeError(f"rounding must be a Rounding, not {rounding!r}")


def _check_modes(fmt: FixedFormat, rounding: Rounding, overflow: Overflow) -> None:
    if not isinstance(fmt, FixedFormat):
        raise TypeError(f"the format must be a FixedFormat, not {fmt!r}")
    _check_rounding(rounding)
    if not isinstance(overflow, Overflow):
        raise TypeError(f"overflow must be an Overflow, not {overflow!r}")
    if overflow is Overflow.WRAP_SM and not fmt.signed:
        raise ValueError(f"WRAP_SM needs a signed format, not {fmt}: use WRAP")
