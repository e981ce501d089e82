"""Gradients of a convolution's weights: input channels along the array's rows, output channels along its columns, k over the pixels.

The sums of as many tiles as the acc memory holds stay there while all stripes of pixels pass; then they are stored. On chip: a
stripe of the input in the activation memory, its pixel table, the stripe's gradients of one column group in the weight memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hw.spec.sat import FP32_LANES, LANES, SLOTS, SatArch
from hw.spec.sat.instructions import DRAIN_FP32
from hw.spec.training_program import Place
from sw.compiler.emit import Axis
from sw.compiler.training.emit import GRADIENTS, Emitter
from sw.compiler.training.memory import Tensor
from sw.compiler.training.products import load_source
from sw.compiler.training.tables import Windows
from sw.compiler.training.tiles import Demand, Interleave, Stripe, largest_stripe, stripes


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One tile: a tap, the first input channel, and where its sums lie in the acc memory."""

    row: int
    col: int
    channel: int
    acc_addr: int


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightGradient:
    """``place`` = sums over all pixels of windows of ``source`` times ``gradient``."""

    emitter: Emitter
    source: Tensor
    gradient: Tensor
    windows: Windows
    place: Place

    @property
    def arch(self) -> SatArch:
        return self.emitter.arch

    def emit(self) -> None:
        interleave = self._interleave()
        columns = interleave.b * self.arch.columns
        demand = Demand(
            height=self.source.height, width=self.source.width, words=self.source.words, out_words=0, weight_words=interleave.b
        )  # fmt: skip
        images, rows = largest_stripe(self.emitter.layer, self.windows, self.source.batch, demand, self.arch, LANES)
        parts = list(stripes(self.windows, self.source.batch, images, rows))
        for column in range(0, self.place.padded[3], columns):
            for units in self._batches(interleave):
                for stripe in parts:
                    self._stripe(stripe, units, column, interleave, preload=stripe is not parts[0])
                for unit in units:
                    self._store(unit, column, interleave)

    def _interleave(self) -> Interleave:
        """As wide as the tensors are: rows divide the input channels, columns the output channels, both in whole words."""
        inner, outer = self.place.padded[2], self.place.padded[3]
        b = max(1, LANES // self.arch.columns)
        while outer % (2 * b * self.arch.columns) == 0 and 4 * b <= SLOTS:
            b *= 2
        a = max(1, LANES // self.arch.rows)
        while inner % (2 * a * self.arch.rows) == 0 and 2 * a <= 4 and 2 * a * b <= SLOTS:
            a *= 2
        return Interleave(a_log2=a.bit_length() - 1, b_log2=b.bit_length() - 1)

    def _batches(self, interleave: Interleave) -> Iterator[list[Unit]]:
        """All taps and channel tiles, as many at once as the acc memory holds."""
        tile = interleave.a * self.arch.rows
        size = tile * interleave.b
        most = max(1, self.arch.acc_words // size)
        places = [
            (row, col, channel) for row in self.windows.tap_rows for col in self.windows.tap_cols
            for channel in range(0, self.place.padded[2], tile)
        ]  # fmt: skip
        for start in range(0, len(places), most):
            yield [
                Unit(row=row, col=col, channel=channel, acc_addr=number * size)
                for number, (row, col, channel) in enumerate(places[start : start + most])
            ]

    def _stripe(self, stripe: Stripe, units: list[Unit], column: int, interleave: Interleave, *, preload: bool) -> None:
        pixels = -(-stripe.pixels(self.windows) // LANES) * LANES
        load_source(self.emitter, self.source, self.windows, stripe, pixels)
        self._load_gradient(stripe, column, interleave)
        for unit in units:
            start = (unit.row * self.source.width + unit.col) * self.source.words + unit.channel // LANES
            self.emitter.add(
                "GEMM", channels=1, a_log2=interleave.a_log2, b_log2=interleave.b_log2, steps=LANES, act_addr=start % (1 << 16),
                tap_row=unit.row, tap_col=unit.col, chunks=pixels // LANES, wgt_pitch=interleave.b, preload=int(preload),
                acc_addr=unit.acc_addr, drain=DRAIN_FP32,
            )  # fmt: skip

    def _load_gradient(self, stripe: Stripe, column: int, interleave: Interleave) -> None:
        """The stripe's gradients, pixel by pixel, ``b`` column words each."""
        dy, words = self.gradient, interleave.b * self.arch.columns // LANES
        first = column // LANES
        axes = [
            Axis(count=stripe.pixels(self.windows), memory=dy.words, chip=words),
            Axis(count=words, memory=1, chip=1),
        ]
        self.emitter.load("wgt", dy.region, dy.at(stripe.image, stripe.start, 0, first), 0, axes)

    def _store(self, unit: Unit, column: int, interleave: Interleave) -> None:
        _, kernel_w, inner, outer = self.place.padded
        row, words = outer // FP32_LANES, interleave.b * self.arch.columns // FP32_LANES
        first = column // FP32_LANES
        axes = [
            Axis(count=interleave.a * self.arch.rows, memory=row, chip=words),
            Axis(count=words, memory=1, chip=1),
        ]
        at = self.place.offset + ((unit.row * kernel_w + unit.col) * inner + unit.channel) * row + first
        self.emitter.store("acc", GRADIENTS, at, unit.acc_addr * self.arch.columns // FP32_LANES, axes)
