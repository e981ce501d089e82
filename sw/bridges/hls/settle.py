"""From an exact sum to the output's code: the requantise step as an ``ap_fixed`` assignment.

The sum has the binary point at which the assignment to the output's type shifts right by as much as the step does. So the type system
rounds and saturates. Where channels have different shifts, the finest decides, and the others' sums are first shifted left, which is
exact; a multiplier is an exact product before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.fixed import FixedFormat
from hw.spec.ops import AvgPool2d
from sw.bridges.hls.cpp import Constant, bits, fixed
from sw.bridges.hls.plan import Layer
from sw.bridges.hls.ranges import accumulator

__all__ = ["Settling", "limited", "settling"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Settling:
    """How a layer's sums start and end.

    Parameters
    ----------
    layer : the layer, whose operation has a requantise step
    frac : binary point of the sums that the output is assigned from
    sum_frac : binary point of the sums themselves; the multiplier carries the difference
    sum_width : signed bits that hold every partial sum, bias included
    aligned_width : signed bits of the product by the multiplier, aligned; 0 where no channel is shifted
    """

    layer: Layer
    frac: int
    sum_frac: int
    sum_width: int
    aligned_width: int

    @property
    def name(self) -> str:
        return self.layer.output.identifier

    @property
    def weight_frac(self) -> int:
        """Binary point of weights: a product with the input has that of the sums."""
        return self.sum_frac - self.layer.inputs[0].fmt.frac

    @property
    def leads(self) -> np.ndarray:
        """Bits (C,) by which each channel's sums are shifted left."""
        shift = self.layer.operation.requant.shift
        return np.asarray(shift.max() - shift)

    def typedefs(self) -> list[str]:
        lines = [f"typedef {fixed(self.sum_width, self.sum_frac)} {self.name}_sum_t;"]
        if self._scaled:
            width = int(self.layer.operation.requant.multiplier.max()).bit_length()
            lines.append(f"typedef {fixed(width, self.frac - self.sum_frac, signed=False)} {self.name}_scale_t;")
        if self.aligned_width:
            lines.append(f"typedef {fixed(self.aligned_width, self.frac)} {self.name}_aligned_t;")
        return lines

    def constants(self) -> list[Constant]:
        """Arrays of what differs by channel."""
        requant = self.layer.operation.requant
        found = {"bias": requant.bias, "scale": requant.multiplier, "lead": self.leads}
        return [Constant(name=f"{self.name}_{what}", values=values) for what, values in found.items() if not _one(values)]

    def start(self) -> str:
        """The declaration of a sum in channel c."""
        return f"{self.name}_sum_t sum = from_code<{self.name}_sum_t>({self._value('bias', self.layer.operation.requant.bias)});"

    def end(self) -> list[str]:
        """The assignment of ``sum`` to the output at [c][y][x]."""
        scale = self._value("scale", self.layer.operation.requant.multiplier)
        value = f"sum * from_code<{self.name}_scale_t>({scale})" if self._scaled else "sum"
        lines = []
        if self.aligned_width:
            lines = [f"{self.name}_aligned_t aligned = {value};", f"aligned <<= {self.name}_lead[c];"]
            value = "aligned"
        requant = self.layer.operation.requant
        return [*lines, f"out[c][y][x] = {limited(self.layer, value, requant.lo, requant.hi)};"]

    @property
    def _scaled(self) -> bool:
        return self.sum_frac != self.frac or bool((self.layer.operation.requant.multiplier != 1).any())

    def _value(self, what: str, values: np.ndarray) -> str:
        """A constant in channel c: a number where it is the same in all."""
        return str(int(values[0])) if _one(values) else f"{self.name}_{what}[c]"


def _one(values: np.ndarray) -> bool:
    return bool((values == values[0]).all())


def settling(layer: Layer) -> Settling:
    """The step of a layer, with widths that its weights prove."""
    requant, x = layer.operation.requant, layer.inputs[0]
    frac = layer.output.fmt.frac + int(requant.shift.max())
    sum_frac = x.fmt.frac if isinstance(layer.operation, AvgPool2d) else frac - int(requant.multiplier.max()).bit_length() + 1
    low, high = (ends + requant.bias.astype(object) for ends in accumulator(layer.operation, x.reach))
    leads = int(requant.shift.max()) - requant.shift.astype(object)
    factor = requant.multiplier.astype(object) * 2**leads
    return Settling(
        layer=layer, frac=frac, sum_frac=sum_frac, sum_width=bits(min(low), max(high)),
        aligned_width=bits(min(low * factor), max(high * factor)) if any(leads) else 0,
    )


def limited(layer: Layer, value: str, low: int, high: int) -> str:
    """A value as the output's, limited to codes low..high where its type alone does not do that."""
    fmt: FixedFormat = layer.output.fmt
    low, high = max(low, fmt.min_code), min(high, fmt.max_code)
    if (low, high) == (fmt.min_code, fmt.max_code):
        return value
    return f"limit<{low}, {high}>({layer.output.type}({value}))"

