"""The integer graph while it is written, and how equal it is so far: every requantise step is proven as it is stored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw.spec import ops
from hw.spec.fixed import Rounding
from hw.spec.scales import Deviation, Difference, Staircase, binary_point, difference, fit
from sw.graph import IntegerGraph, Node, TensorSpec
from sw.quant.brevitas.facts import Quantiser
from sw.quant.brevitas.report import BrevitasImport
from sw.quant.brevitas.values import Codes, Raw, Shape, Sums, Total, Value, passing
from sw.tracing.problems import RefusedError

__all__ = ["GraphWriter"]

_FLOAT32 = 2.0**-21
"""Relative error that a float32 sum of products and a division may have; only used to say where it could decide a code."""


@dataclass(eq=False)
class GraphWriter:
    """Writes tensors and nodes; ``shapes`` is (C, H, W) of every value of the traced model by the name of its node."""

    shapes: dict[str, Shape]
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    input_range: tuple[int, int] = (0, 0)
    outputs: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    proven: int = 0
    close: int = 0

    def result(self) -> BrevitasImport:
        """What was written, and how equal it is."""
        graph = IntegerGraph(tensors=self.tensors, inputs=tuple(self.inputs), outputs=tuple(self.outputs),
                             nodes=tuple(self.nodes))
        return BrevitasImport(graph=graph, scales=self.scales, input_range=self.input_range, proven=self.proven,
                              differences=tuple(self.differences), close=self.close)

    def append(self, place: str, shape: Shape, operation: Any, inputs: tuple[str, ...], quantiser: Quantiser) -> Codes:
        """A node named after its place (``place_2`` and so on where that is taken) and its output tensor."""
        name, count = place, 1
        while name in self.tensors:
            count += 1
            name = f"{place}_{count}"
        self.nodes.append(Node(name=name, operation=operation, inputs=inputs, output=name))
        return self._tensor(name, shape, quantiser)

    def quantise(self, place: str, value: Value, quantiser: Quantiser) -> Codes:
        """The codes that a quantiser makes of a value, with whatever node that takes. Raises RefusedError."""
        if isinstance(value, Raw):
            return self._store_input(value, quantiser)
        if isinstance(value, Codes):
            if _keeps_every_code(value.quantiser, quantiser):
                return value
            value = passing(place, value)
        if isinstance(value, Total):
            return self._store_total(value, quantiser)
        assert isinstance(value, Sums)
        return self._store_sums(value, quantiser)

    def _tensor(self, name: str, shape: Shape, quantiser: Quantiser) -> Codes:
        self.tensors[name] = TensorSpec(shape=shape, fmt=quantiser.fmt)
        self.scales[name] = float(quantiser.scale)
        return Codes(name=name, shape=shape, quantiser=quantiser)

    def _store_input(self, raw: Raw, quantiser: Quantiser) -> Codes:
        if quantiser.relu or quantiser.rounding is not Rounding.RND_CONV or self.inputs:
            raise RefusedError("quantises the model's input with a ReLU, by FLOOR, or a second time",
                               "put one QuantIdentity with ROUND at the start")
        self.inputs.append(raw.name)
        self.input_range = quantiser.low, quantiser.high
        return self._tensor(raw.name, self.shapes[raw.name], quantiser)

    def _store_total(self, total: Total, quantiser: Quantiser) -> Codes:
        """The sum of two tensors and its quantiser as one operation, which has no multiplier."""
        if quantiser.scale != total.scale:
            raise RefusedError(f"requantises a sum of scale {float(total.scale):.6g} to {float(quantiser.scale):.6g}",
                               "let the sum share the quantiser of its two sides")
        operation = ops.Add(lo=_floor(total, quantiser), hi=quantiser.high)
        return self.append(total.place, total.shape, operation, total.inputs, quantiser)

    def _store_sums(self, sums: Sums, quantiser: Quantiser) -> Codes:
        """Accumulators and their quantiser as one operation."""
        signs = np.array([-1 if unit < 0 else 1 for unit in sums.unit], np.int64)
        wanted = _wanted(sums, signs, quantiser)
        try:
            requant, deviations = fit(wanted)
            operation = sums.make(signs, requant)
        except ValueError as error:
            raise RefusedError(f"does not fit a core: {error}", "change its scales") from error
        self._tell(sums.place, wanted, deviations)
        return self.append(sums.place, sums.shape, operation, sums.inputs, quantiser)

    def _tell(self, place: str, wanted: list[Staircase], deviations: list[Deviation]) -> None:
        """Count what was compared, and keep what differs."""
        self.proven += sum(d.sums for d in deviations)
        self.close += _close(wanted)
        if (found := difference(place, deviations)) is not None:
            self.differences.append(found)


def _keeps_every_code(before: Quantiser, after: Quantiser) -> bool:
    return before.scale == after.scale and before.low >= after.low and before.high <= after.high


def _floor(value: Sums | Total, quantiser: Quantiser) -> int:
    """The smallest code, with the value's ReLU."""
    return max(0, quantiser.low) if value.relu else quantiser.low


def _wanted(sums: Sums, signs: np.ndarray, quantiser: Quantiser) -> list[Staircase]:
    """What Brevitas computes per channel, with the accumulators negated where the sign is -1."""
    low = _floor(sums, quantiser)
    return [
        Staircase(ratio=abs(unit) / quantiser.scale, offset=offset / quantiser.scale, rounding=quantiser.rounding, low=low,
                  high=quantiser.high, least=least if sign > 0 else -most, most=most if sign > 0 else -least)
        for unit, offset, least, most, sign in zip(sums.unit, sums.offset, sums.least, sums.most, signs, strict=True)]


def _close(wanted: list[Staircase]) -> int:
    """How many accumulators Brevitas' own float32 could decide; none where all ratios are powers of two."""
    exact = all(binary_point(w.ratio) is not None or not w.ratio for w in wanted)
    return 0 if exact else sum(w.close(_FLOAT32) for w in wanted)
