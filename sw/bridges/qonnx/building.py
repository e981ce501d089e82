"""The integer graph while a model is read: every requantise step is compared with what the model asks as it is stored."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from hw.spec import ops
from hw.spec.fixed import Rounding
from hw.spec.scales import Deviation, Difference, Staircase, difference, dyadic, fit
from sw.bridges.qonnx.model import MAX_CHANNELS, MAX_ELEMENTS
from sw.bridges.qonnx.values import Codes, Limited, Lookup, QonnxImport, Quantiser, Raw, Sums, Total, passing
from sw.graph import IntegerGraph, Node, TensorSpec
from sw.tracing.problems import RefusedError

__all__ = ["Building"]

_CLOSER = ("take scales that are powers of two, or import with nearest=True, which takes the closest multiplier and says where codes "
           "differ")

_MOST_REQUANTISED = 1 << 17
"""Channels of a whole model that have a requantise record; a residual network of 152 layers has 72,000."""


@dataclass(eq=False, kw_only=True)
class Building:
    """Tensors and nodes so far; ``nearest`` takes the closest record where none is exact."""

    nearest: bool
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    quantisers: dict[str, Quantiser] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    clips: dict[int, Codes] = field(default_factory=dict)
    proven: int = 0
    moved: int = 0
    requantised: int = 0

    def result(self, outputs: tuple[str, ...]) -> QonnxImport:
        """What was read."""
        graph = IntegerGraph(tensors=self.tensors, inputs=tuple(self.inputs), outputs=outputs, nodes=tuple(self.nodes))
        return QonnxImport(graph=graph, scales={name: q.scale for name, q in self.quantisers.items()},
                           input_ranges={name: (self.quantisers[name].low, self.quantisers[name].high) for name in self.inputs},
                           differences=tuple(self.differences), proven=self.proven)

    def tensor(self, name: str, shape: tuple[int, ...], quantiser: Quantiser) -> Codes:
        """A tensor of the graph, seen in ``shape``: (C, H, W) or flat (C,)."""
        if math.prod(shape) > MAX_ELEMENTS or min(shape) < 1 or shape[0] > MAX_CHANNELS:
            raise RefusedError(f"makes an image of shape {shape}",
                               f"keep images to 1..{MAX_ELEMENTS} elements and {MAX_CHANNELS} channels")
        if name in self.tensors:
            raise RefusedError(f"would write a second tensor {name}", "give its values names of their own")
        channels, height, width = (*shape, 1, 1)[:3]
        self.tensors[name] = TensorSpec(shape=(channels, height, width), fmt=quantiser.fmt)
        self.quantisers[name] = quantiser
        return Codes(name=name, quantiser=quantiser, shape=shape)

    def append(self, place: str, name: str, shape: tuple[int, ...], operation: Any, inputs: tuple[str, ...],
               quantiser: Quantiser) -> Codes:
        """A node that writes the tensor ``name``."""
        made = self.tensor(name, shape, quantiser)
        self.nodes.append(Node(name=place, operation=operation, inputs=inputs, output=name))
        return made

    # -- quantisers -----------------------------------------------------------------------------------------------------

    def quantise(self, place: str, name: str, value: Any, quantiser: Quantiser) -> Codes:
        """The codes that a quantiser named ``place`` makes of a value, as the tensor ``name``. Raises RefusedError."""
        if isinstance(value, Raw):
            return self._input(value, quantiser)
        if isinstance(value, Codes):
            return self._again(place, name, value, quantiser)
        if isinstance(value, Limited):
            return self._limited(name, value, quantiser)
        if isinstance(value, Total):
            return self._total(name, value, quantiser)
        if isinstance(value, Lookup) and value.values is not None:
            return self._table(name, value, quantiser)
        if not isinstance(value, Sums):
            raise RefusedError("quantises something that is no tensor of codes and no sum", "quantise the values before it first")
        return self._sums(name, value, quantiser)

    def codes(self, value: Any) -> Codes:
        """The codes that an operation reads; RefusedError for a value that no quantiser made."""
        if isinstance(value, Limited):
            if id(value) not in self.clips:
                source = value.source
                narrowed = replace(source.quantiser, low=_low(source.quantiser, value.low), high=_high(source.quantiser, value.high))
                self.clips[id(value)] = self._clip(value.place, value.name, source, narrowed, source.quantiser)
            return self.clips[id(value)]
        if not isinstance(value, Codes):
            raise RefusedError("reads a value that is not quantised", "put a Quant node before it")
        return value

    def image(self, value: Any) -> Codes:
        """Codes (C, H, W) in the order in which their tensor has them."""
        source = self.codes(value)
        if source.order is not None or source.shape != self.tensors[source.name].shape:
            raise RefusedError(f"reads a tensor whose elements were moved to shape {source.shape}",
                               "use channel-first images, and shuffles or splits of channels only")
        return source

    def _input(self, raw: Raw, quantiser: Quantiser) -> Codes:
        if quantiser.rounding is not Rounding.RND_CONV:
            raise RefusedError("quantises an input by FLOOR", "use ROUND for inputs")
        if (before := self.quantisers.get(raw.name)) is not None:
            if before != quantiser:
                raise RefusedError("quantises an input in a second way", "quantise each input once")
            return Codes(name=raw.name, quantiser=quantiser, shape=raw.shape)
        made = self.tensor(raw.name, raw.shape, quantiser)
        self.inputs.append(raw.name)
        return made

    def _again(self, place: str, name: str, source: Codes, quantiser: Quantiser) -> Codes:
        before = source.quantiser
        if before.scale == quantiser.scale and before.low >= quantiser.low and before.high <= quantiser.high:
            return source
        source = self.image(source)
        if before.scale == quantiser.scale:
            return self._clip(place, name, source, quantiser, quantiser)
        return self._sums(name, passing(place, source), quantiser)

    def _limited(self, name: str, value: Limited, quantiser: Quantiser) -> Codes:
        source = self.image(value.source)
        if source.quantiser.scale == quantiser.scale:
            narrowed = replace(quantiser, low=_low(quantiser, value.low), high=_high(quantiser, value.high))
            return self._clip(value.place, name, source, narrowed, quantiser)
        return self._sums(name, replace(passing(value.place, source), low=value.low, high=value.high), quantiser)

    def _clip(self, place: str, name: str, source: Codes, limits: Quantiser, grid: Quantiser) -> Codes:
        operation = ops.Clip(lo=limits.low, hi=limits.high)
        return self.append(place, name, source.shape, operation, (source.name,), replace(grid, low=limits.low, high=limits.high))

    def _total(self, name: str, total: Total, quantiser: Quantiser) -> Codes:
        a, b = total.inputs
        if quantiser.scale != a.quantiser.scale:
            return self._sums(name, self._paired(name, total), quantiser)
        low, high = _low(quantiser, total.low), _high(quantiser, total.high)
        return self.append(total.place, name, a.shape, ops.Add(lo=low, hi=high), (a.name, b.name),
                           replace(quantiser, low=low, high=high))

    def _paired(self, name: str, total: Total) -> Sums:
        """The sum of two tensors as a convolution of each channel's pair, which can be requantised to another scale."""
        a, b = total.inputs
        if a.quantiser.fmt != b.quantiser.fmt:
            raise RefusedError(f"requantises a sum of the formats {a.quantiser.fmt} and {b.quantiser.fmt} to another scale",
                               "let both sides share one quantiser, or the sum their scale")
        channels, *grid = a.shape
        low, high = a.quantiser.low + b.quantiser.low, a.quantiser.high + b.quantiser.high
        both = replace(a.quantiser, low=min(a.quantiser.low, b.quantiser.low), high=max(a.quantiser.high, b.quantiser.high))
        pair = self.append(f"{total.place}.pair", f"{name}.pair", (2 * channels, *grid), ops.ShuffleJoin(), (a.name, b.name), both)

        def make(signs: np.ndarray, requant: ops.Requant) -> ops.Conv2d:
            weight = np.ones((channels, 2, 1, 1), np.int64) * signs[:, None, None, None]
            return ops.Conv2d(weight=weight, requant=requant, groups=channels)

        return Sums(place=total.place, shape=a.shape, inputs=(pair.name,), make=make, unit=(a.quantiser.scale,) * channels,
                    offset=(Fraction(0),) * channels, least=(low,) * channels, most=(high,) * channels, low=total.low, high=total.high)

    def _table(self, name: str, found: Lookup, quantiser: Quantiser) -> Codes:
        """A table of codes; a negative code counts from the end. Entries of a shorter table that no code reads are 0."""
        source, data = found.source, found.values
        assert data is not None
        values = np.zeros(256, np.int64)
        low, high = (-128, 127) if len(data) == 256 else (source.quantiser.low, source.quantiser.high)
        for code in range(low, high + 1):
            if not -len(data) <= code < len(data):
                raise RefusedError(f"has {len(data)} values, none for the code {code}", "give the table 256 values")
            made = quantiser.code(Fraction(float(data[code])))
            values[code & 0xFF] = min(max(made, quantiser.low), quantiser.high)
        return self.append(found.place, name, source.shape, ops.Table(values=values), (source.name,), quantiser)

    # -- sums -----------------------------------------------------------------------------------------------------------

    def _sums(self, name: str, sums: Sums, quantiser: Quantiser) -> Codes:
        """Accumulators and their quantiser as one operation."""
        self._count(len(sums.unit))
        low, high = _low(quantiser, sums.low), _high(quantiser, sums.high)
        signs = np.array([(u > 0) - (u < 0) for u in sums.unit], np.int64)
        quantiser = replace(quantiser, low=low, high=high)
        wanted = _hinted([_wanted(sums, channel, quantiser) for channel in range(len(signs))], quantiser.hinted)
        try:
            requant, deviations = fit(wanted, _mean(sums, quantiser))
            operation = sums.make(signs, requant)
        except ValueError as error:
            raise RefusedError(f"does not fit a core: {error}", "change its scales") from error
        self._judge(sums.place, deviations)
        return self.append(sums.place, name, sums.shape, operation, sums.inputs, quantiser)

    def _count(self, channels: int) -> None:
        """Refuse a model with more channels to requantise than can be looked at in a bounded time."""
        self.requantised += channels
        if channels > MAX_CHANNELS or self.requantised > _MOST_REQUANTISED:
            raise RefusedError(f"requantises {channels} channels, {self.requantised} together with the nodes before it",
                               f"keep to {MAX_CHANNELS} in a layer and {_MOST_REQUANTISED} in a model")

    def _judge(self, place: str, deviations: list[Deviation]) -> None:
        """Count what was compared; keep what differs, or refuse it."""
        self.proven += sum(d.sums for d in deviations)
        if (found := difference(place, deviations)) is None:
            return
        if not self.nearest:
            raise RefusedError(f"has scales that no 16-bit multiplier gives exactly: {found.differing} of {found.sums} sums would be "
                               f"up to {found.largest} code(s) off in {found.channels} channel(s)", _CLOSER)
        self.differences.append(found)


def _low(quantiser: Quantiser, limit: Fraction | None) -> int:
    """The smallest code of a quantiser behind a limit; rounding keeps order, so that limits may be rounded themselves."""
    return quantiser.low if limit is None else min(max(quantiser.code(limit), quantiser.low), quantiser.high)


def _high(quantiser: Quantiser, limit: Fraction | None) -> int:
    return quantiser.high if limit is None else max(min(quantiser.code(limit), quantiser.high), quantiser.low)


def _wanted(sums: Sums, channel: int, quantiser: Quantiser) -> Staircase:
    """What the model asks of a channel; sums are negated where a unit is negative, and all 0 where it is 0."""
    unit, offset = sums.unit[channel], sums.offset[channel]
    offset = offset / quantiser.scale if offset else offset  # most are 0, and a division of fractions takes its time
    least, most = sums.least[channel], sums.most[channel]
    if not unit:
        least, most = 0, 0
    elif unit < 0:
        least, most = -most, -least
    return Staircase(ratio=abs(unit) / quantiser.scale if unit else Fraction(1), offset=offset, rounding=quantiser.rounding,
                     low=quantiser.low, high=quantiser.high, least=least, most=most)


def _hinted(wanted: list[Staircase], rounding: Rounding | None) -> list[Staircase]:
    """What the model asks, said with half up if a hint names it and every channel asks the same with it."""
    if rounding is not Rounding.RND:
        return wanted
    others = [_half_up(each) for each in wanted]
    return wanted if None in others else [each for each in others if each]


def _half_up(wanted: Staircase) -> Staircase | None:
    """The same staircase with ties that go up; None if there is none.

    A bias between two sums moves half to even off every tie: no sum times an even fraction p / q is nearer to a tie than 1 / q.
    """
    whole, ratio = wanted.offset / wanted.ratio, wanted.ratio
    bias = whole.numerator // whole.denominator
    if wanted.rounding is Rounding.RND_CONV and ratio.denominator % 2 == 0 and 0 < (whole - bias) * ratio.numerator < 1:
        return replace(wanted, rounding=Rounding.RND, offset=bias * ratio)
    other = replace(wanted, rounding=Rounding.RND)
    return other if np.array_equal(other.steps(), wanted.steps()) else None


def _mean(sums: Sums, quantiser: Quantiser) -> list[tuple[int, int]]:
    """The reciprocal that every average pool uses, for a mean whose scales are a power of two apart."""
    ratio = sums.unit[0] * sums.mean / quantiser.scale
    exact = dyadic(ratio) if sums.mean else None
    if exact is None or exact[0] != 1:
        return []
    try:
        record = ops.mean_requant(1, sums.mean, exact[1], Rounding.TRN, 0, 0)
    except ValueError:
        return []
    return [(int(record.multiplier[0]), int(record.shift[0]))]
