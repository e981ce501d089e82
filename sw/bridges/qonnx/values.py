"""What stands behind a value of a model while it is imported, and what an import gives in the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from hw.spec.fixed import FixedFormat, Overflow, Rounding, quantize
from hw.spec.ops import Requant, Scale
from hw.spec.scales import Difference, binary_point
from sw.graph import IntegerGraph
from sw.tracing.problems import RefusedError

__all__ = ["Codes", "Const", "InexactImportWarning", "Limited", "Lookup", "Make", "Offsets", "Padded", "Pair",
           "QonnxImport", "Quantiser", "Raw", "Sums", "Total", "Value", "limited", "passing"]

Make = Callable[[np.ndarray, Requant], Any]
"""From the signs of the channels (1, 0 or -1) and the requantise record to an operation."""


class InexactImportWarning(UserWarning):
    """Some codes of the imported graph differ from the model's own."""


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """A per-tensor quantiser: value = code * scale, codes ``low``..``high``; ``hinted`` is a rounding to take where it is equal."""

    scale: Fraction
    low: int
    high: int
    signed: bool
    width: int
    rounding: Rounding
    hinted: Rounding | None = None

    @property
    def fmt(self) -> FixedFormat:
        """The format of its codes; without fraction bits where the scale is no power of two."""
        return FixedFormat(self.width, binary_point(self.scale) or 0, self.signed)

    def code(self, value: Fraction) -> int:
        """A real value rounded to a code, without limits."""
        scaled = value / self.scale
        return scaled.numerator // scaled.denominator if self.rounding is Rounding.TRN else round(scaled)


@dataclass(frozen=True, kw_only=True, eq=False)
class Const:
    """A constant; one that came out of a ``Quant`` node has its codes, and their scales as an array of the same shape."""

    value: np.ndarray
    codes: np.ndarray | None = None
    scale: np.ndarray | None = None

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Const:
        """The same movement of elements on everything."""
        arrays = (None if a is None else change(a) for a in (self.value, self.codes, self.scale))
        value, codes, scale = arrays
        assert value is not None
        return Const(value=value, codes=codes, scale=scale)


@dataclass(frozen=True, kw_only=True)
class Raw:
    """An input of the model before its quantiser."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Codes:
    """A tensor of the integer graph, seen in ``shape``: element i of the view is element ``order[i]`` of the tensor (None: i)."""

    name: str
    quantiser: Quantiser
    shape: tuple[int, ...]
    order: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sums:
    """Accumulators that await their quantiser: value = sum * unit + offset per channel, then limited to ``low``..``high``.

    ``least`` and ``most`` are what weights and codes can make; ``plain`` says that the sums are codes of the one input.
    """

    place: str
    shape: tuple[int, ...]
    inputs: tuple[str, ...]
    make: Make
    unit: tuple[Fraction, ...]
    offset: tuple[Fraction, ...]
    least: tuple[int, ...]
    most: tuple[int, ...]
    low: Fraction | None = None
    high: Fraction | None = None
    plain: Codes | None = None
    mean: int = 0

    def scaled(self, factors: list[Fraction], shifts: list[Fraction]) -> Sums:
        """The sums of which each channel's value is multiplied by its factor and moved by its shift."""
        if self.low is not None or self.high is not None:
            raise RefusedError("changes values behind a ReLU or Clip before they are quantised",
                               "put a quantiser behind the ReLU or Clip")
        return replace(self, unit=tuple(u * f for u, f in zip(self.unit, factors, strict=True)),
                       offset=tuple(o * f + s for o, f, s in zip(self.offset, factors, shifts, strict=True)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Total:
    """A sum of two tensors of one scale, before it is quantised again."""

    place: str
    inputs: tuple[Codes, Codes]
    low: Fraction | None = None
    high: Fraction | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Limited:
    """Codes behind a Clip or ReLU; the next quantiser, if one follows, gives the format. ``name`` is the value's."""

    place: str
    name: str
    source: Codes
    low: Fraction | None = None
    high: Fraction | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Padded:
    """Codes with ``padding`` zeros on every side."""

    source: Codes
    padding: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two tensors on an axis of their own behind the channels: half of a `ShuffleJoin`."""

    sides: tuple[Codes, Codes]


@dataclass(frozen=True, kw_only=True, eq=False)
class Lookup:
    """A table's values read by codes; ``values`` None: the codes as integers, before the table."""

    place: str
    source: Codes
    values: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Offsets:
    """Offsets of a square deformable convolution on their way: ``taps`` False: less one; True: one for each tap."""

    source: Codes
    taps: bool


Value = Const | Raw | Codes | Sums | Total | Limited | Padded | Pair | Lookup | Offsets | None
"""None is a value whose node was refused."""


def limited(value: Any, low: Fraction | None, high: Fraction | None) -> Any:
    """A value with a further limit from below and above; limits are in values, not codes."""
    lows, highs = [v for v in (value.low, low) if v is not None], [v for v in (value.high, high) if v is not None]
    new_low, new_high = max(lows, default=None), min(highs, default=None)
    if new_low is not None and new_high is not None and new_low > new_high:
        raise RefusedError(f"limits values to {float(new_low):g}..{float(new_high):g}", "give limits in order")
    return replace(value, low=new_low, high=new_high)


def passing(place: str, value: Codes, weight: np.ndarray | None = None, unit: list[Fraction] | None = None) -> Sums:
    """The codes as sums of their own, times ``weight`` codes per channel (1) of which one is worth ``unit`` (the scale)."""
    grid, channels = value.quantiser, value.shape[0]
    codes = np.ones(channels, np.int64) if weight is None else weight
    ends = np.stack([codes * grid.low, codes * grid.high])
    return Sums(place=place, shape=value.shape, inputs=(value.name,), unit=tuple(unit or [grid.scale] * channels),
                make=lambda signs, requant: Scale(weight=codes * signs, requant=requant), offset=(Fraction(0),) * channels,
                least=tuple(ends.min(0).tolist()), most=tuple(ends.max(0).tolist()), plain=value if weight is None else None)


# -- results ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class QonnxImport:
    """An imported model.

    Parameters
    ----------
    graph : the integer graph; where a scale is no power of two, a tensor's format has no fraction bits
    scales : each tensor's scale: value = code * scale
    input_ranges : smallest and largest code that the model's own quantiser makes of each input
    differences : layers whose closest record is not exact; empty where every step was proven equal
    proven : sums that were compared, over all channels of all layers
    """

    graph: IntegerGraph
    scales: Mapping[str, Fraction]
    input_ranges: Mapping[str, tuple[int, int]]
    differences: tuple[Difference, ...]
    proven: int

    @property
    def exact(self) -> bool:
        return not self.differences

    def input_codes(self, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The graph's inputs for float32 values (N, C, H, W) by name, as ``Quant`` rounds them."""
        found = {}
        for name, (low, high) in self.input_ranges.items():
            scaled = np.asarray(values[name], np.float32) / np.float32(float(self.scales[name]))
            image = np.clip(scaled, low, high).reshape(len(scaled), *self.graph.tensors[name].shape)
            found[name] = quantize(image, FixedFormat(16, 0), Rounding.RND_CONV, Overflow.SAT)
        return found
