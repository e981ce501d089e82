"""Depthwise convolutions and pooling: tiling, on-chip places and instructions of a :class:`DwStep`.

The row memory holds the input rows of a stripe, one group of channel words at a time; feature memory the offset map of the stripe
at 0, then the result; parameter memory the group's weights (if any), then its records.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw.spec.deform import ROW_BANKS
from hw.spec.deform.instructions import DW_DEFORM, ROUNDING_CODES
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN
from sw.compiler.emit import Blob, Emitter, chip
from sw.compiler.lower_copy import store
from sw.compiler.plan import MemoryPlan
from sw.compiler.steps import DwStep
from sw.compiler.tiling import Span, Tiling, Window, spans, tiles, transfer
from sw.compiler.weights import RECORD_WORDS, TAP_WORDS, requantise_records, tap_weights

REACH = max(OFFSET_MAX, -OFFSET_MIN)
"""Rows that a deformable tap can lie above or below its centre."""


@dataclass(frozen=True, kw_only=True, eq=False)
class DwLayer:
    """Sizes of a step on an architecture, for the tiling search; all in words."""

    step: DwStep
    total_words: int
    in_rows: int
    in_cols: int
    out_rows: int
    out_cols: int
    in_pitch: int
    out_pitch: int
    unit_words: int = 1

    @property
    def total_rows(self) -> int:
        return self.out_rows

    @property
    def window(self) -> Window:
        if self.step.mode == DW_DEFORM:
            return Window(in_rows=self.in_rows, stride=self.step.stride, first=-REACH, extent=2 * REACH + 1)
        return Window(in_rows=self.in_rows, stride=self.step.stride, first=-self.step.padding, extent=self.step.kernel[0])

    @property
    def tap_words(self) -> int:
        return 0 if self.step.weight is None else TAP_WORDS

    def map_size(self, rows: int) -> int:
        return 0 if self.step.offset is None else rows * self.out_cols

    def row_pitch(self, words: int) -> int:
        """Words of a row in its bank."""
        return self.in_cols * words

    def needs(self, words: int, rows: int) -> dict[str, int]:
        turns = -(-self.window.most(rows) // ROW_BANKS)
        return {
            "row_words": turns * self.row_pitch(words),
            "feature_words": self.map_size(rows) + rows * self.out_cols * words,
            "parameter_words": (self.tap_words + RECORD_WORDS) * words,
        }

    def moved(self, words: int, rows: int) -> tuple[int, int, int]:
        parameters = (self.tap_words + RECORD_WORDS) * self.total_words
        pixels = sum(self.window.rows(span).size for span in spans(self.out_rows, rows)) * self.in_cols
        groups = [group.size for group in spans(self.total_words, words)]
        pairs = sum(transfer(pixels, size, self.in_pitch) + self._result(size) for size in groups)
        return parameters, self.map_size(self.out_rows), pairs

    def _result(self, words: int) -> int:
        pixels = self.out_rows * self.out_cols
        return transfer(4 * pixels, words, 0) if self.step.upsample else transfer(pixels, words, self.out_pitch)


def dw_layer(step: DwStep, plan: MemoryPlan) -> DwLayer:
    source, target = plan.operand(step.source), plan.operand(step.target)
    return DwLayer(
        step=step, total_words=target.words, in_rows=source.rows, in_cols=source.cols,
        out_rows=target.rows >> step.upsample, out_cols=target.cols >> step.upsample,
        in_pitch=source.pitch, out_pitch=target.pitch,
    )  # fmt: skip


def lower_dw(step: DwStep, layer: DwLayer, tiling: Tiling, plan: MemoryPlan, emitter: Emitter) -> None:
    """Emit a step's instructions; what is on chip already is not loaded again."""
    _DwLowering(step=step, layer=layer, tiling=tiling, plan=plan, emitter=emitter).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class _DwLowering:
    step: DwStep
    layer: DwLayer
    tiling: Tiling
    plan: MemoryPlan
    emitter: Emitter

    def run(self) -> None:
        blobs: dict[int, Blob] = {}
        group_now, stripe_now = None, None
        table = self.emitter.table(self.step.name, self.step.table)
        for group, stripe in tiles(self.layer, self.tiling):
            if group != group_now:
                if group.start not in blobs:
                    blobs[group.start] = self._blob(group)
                self.emitter.load_blob(self.step.name, "par", blobs[group.start], self.layer.tap_words + RECORD_WORDS)
            if stripe != stripe_now and self.step.offset is not None:
                self._load_map(self.step.offset, stripe)
            self._load_rows(group, self.layer.window.rows(stripe))
            self.emitter.add(self.step.name, "DW", table=table, **self._fields(group, stripe))
            self._store(group, stripe)
            group_now, stripe_now = group, stripe

    def _blob(self, group: Span) -> Blob:
        slots = self.plan.operand(self.step.target).slots[16 * group.start : 16 * group.stop]
        taps = b"" if self.step.weight is None else tap_weights(self.step.weight, slots)
        return self.emitter.blob(taps + requantise_records(self.step.requant, slots))

    def _load_map(self, name: str, stripe: Span) -> None:
        offsets = self.plan.operand(name)
        self.emitter.load(self.step.name, "fm", offsets.at(stripe.start), 0, offsets.axes(stripe.size, 1))

    def _load_rows(self, group: Span, rows: Span) -> None:
        source = self.plan.operand(self.step.source)
        place = source.at(rows.start, group.start)
        self.emitter.load(self.step.name, "row", place, 0, source.axes(rows.size, group.size))

    def _store(self, group: Span, stripe: Span) -> None:
        target, cols = self.plan.operand(self.step.target), Span(start=0, stop=self.layer.out_cols)
        store(self.emitter, self.step.name, target, stripe, cols, group, self._out_addr, self.step.upsample)

    @property
    def _out_addr(self) -> int:
        return self.layer.map_size(self.tiling.rows)

    def _fields(self, group: Span, stripe: Span) -> dict[str, int]:
        step, layer, requant = self.step, self.layer, self.step.requant
        deform = step.mode == DW_DEFORM
        loaded = layer.window.rows(stripe)
        # The middle row of the first three taps, counted from the first loaded row; it may lie above it.
        row0 = stripe.start * step.stride - loaded.start + (0 if deform else 1 - step.padding)
        row_pitch = layer.row_pitch(group.size)
        offsets = {"offset_addr": 0, "offset_pitch": 1} if deform else {}
        return {
            "mode": step.mode, "words": group.size, "pitch": group.size, "row_pitch": chip(row_pitch),
            "in_rows": loaded.size, "in_cols": layer.in_cols,
            "row0": row0, "bank0": row0 % ROW_BANKS, "row0_addr": chip(row0 // ROW_BANKS * row_pitch),
            "col0": 0 if deform else -step.padding,
            "kernel_h": step.kernel[0], "kernel_w": step.kernel[1], "stride": step.stride,
            "out_rows": stripe.size, "out_cols": layer.out_cols,
            "out_addr": self._out_addr, "out_pitch": group.size,
            "weight_addr": 0, "param_addr": layer.tap_words * group.size, **offsets,
            "in_unsigned": int(not self.plan.operand(step.source).spec.fmt.signed),
            "rounding": ROUNDING_CODES[requant.rounding.name], "clip_lo": requant.lo, "clip_hi": requant.hi,
        }
