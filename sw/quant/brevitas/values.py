"""What stands behind a value of the traced model: codes of the integer graph, or something that awaits its quantiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from hw.spec import ops
from sw.quant.brevitas.facts import Quantiser
from sw.tracing.problems import RefusedError

__all__ = ["Codes", "Make", "Raw", "Shape", "Sums", "Total", "Value", "codes_in", "passing", "scaled"]

Shape = tuple[int, int, int]
"""(C, H, W) of a tensor."""

Make = Callable[[np.ndarray, ops.Requant], Any]
"""From the signs of the channels (1 or -1) and the requantise record to an operation."""


@dataclass(frozen=True, kw_only=True)
class Raw:
    """The model's input before its quantiser."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Codes:
    """A tensor of the integer graph."""

    name: str
    shape: Shape
    quantiser: Quantiser


@dataclass(frozen=True, kw_only=True)
class Sums:
    """Accumulators that await their quantiser: value = acc * unit + offset, per channel.

    ``least`` and ``most`` are what the weights and the input's codes can make.
    """

    place: str
    shape: Shape
    inputs: tuple[str, ...]
    make: Make
    unit: list[Fraction]
    offset: list[Fraction]
    least: list[int]
    most: list[int]
    relu: bool = False


@dataclass(frozen=True, kw_only=True)
class Total:
    """A sum of two tensors of one quantiser's scale, before it is quantised again."""

    place: str
    shape: Shape
    inputs: tuple[str, str]
    scale: Fraction
    relu: bool = False


Value = Raw | Codes | Sums | Total | None
"""None is a value whose layer was refused."""


def codes_in(value: Value) -> Codes:
    """The codes that a layer reads, or RefusedError."""
    if not isinstance(value, Codes):
        raise RefusedError("reads a tensor that is not quantised",
                           "put a QuantIdentity or QuantReLU before it, or give it an input_quant")
    return value


def passing(place: str, value: Codes) -> Sums:
    """The codes as accumulators of their own, to be requantised."""
    channels, quantiser = value.shape[0], value.quantiser
    return Sums(place=place, shape=value.shape, inputs=(value.name,), unit=[quantiser.scale] * channels,
                make=lambda signs, requant: ops.Scale(weight=signs, requant=requant), offset=[Fraction(0)] * channels,
                least=[quantiser.low] * channels, most=[quantiser.high] * channels)


def scaled(sums: Sums, factors: list[Fraction], shifts: list[Fraction]) -> Sums:
    """The sums of which each channel's value is multiplied by its factor and then moved by its shift."""
    return replace(sums, unit=[u * f for u, f in zip(sums.unit, factors, strict=True)],
                   offset=[o * f + s for o, f, s in zip(sums.offset, factors, shifts, strict=True)])
