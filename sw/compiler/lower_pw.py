"""Convolutions on the array: tiling, on-chip places and instructions of a :class:`PwStep`.

Feature memory holds the input stripe at 0, then the left half of a zip, then the result; weights and records start at 0 of
their memories. In each group of output words the weights stay while stripes pass, or the stripe stays while groups pass.
"""

from __future__ import annotations

from dataclasses import dataclass

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import MERGE_NONE, MERGE_ZIP, ROUNDING_CODES
from sw.compiler.emit import Blob, Emitter, chip
from sw.compiler.plan import MemoryPlan, Operand
from sw.compiler.proof import is_wide
from sw.compiler.steps import PwStep
from sw.compiler.tiling import Span, Tiling, Window, spans, tiles
from sw.compiler.weights import RECORD_WORDS, array_weights, requantise_records


@dataclass(frozen=True, kw_only=True, eq=False)
class PwLayer:
    """Sizes of a step on an architecture, for the tiling search; all in words."""

    step: PwStep
    arch: DeformArch
    in_words: int
    in_rows: int
    in_cols: int
    out_rows: int
    out_cols: int

    @property
    def wide(self) -> bool:
        return is_wide(self.step.weight)

    @property
    def total_words(self) -> int:
        return len(self.step.slots) // 16

    @property
    def total_rows(self) -> int:
        return self.out_rows

    @property
    def unit_words(self) -> int:
        """Output words of a tile of the array."""
        return self.arch.weight_word_units * (1 if self.wide else 2)

    @property
    def k_steps(self) -> int:
        """Weight words per tile."""
        return self.step.weight.shape[2] * self.step.weight.shape[3] * self.in_words * 16

    @property
    def window(self) -> Window:
        extent = self.step.weight.shape[2]
        return Window(in_rows=self.in_rows, stride=self.step.stride, first=-self.step.padding, extent=extent)

    @property
    def zipped(self) -> bool:
        return self.step.left is not None

    def in_size(self, rows: int) -> int:
        return self.window.most(rows) * self.in_cols * self.in_words

    def left_size(self, words: int, rows: int) -> int:
        return rows * self.out_cols * words if self.zipped else 0

    def needs(self, words: int, rows: int) -> dict[str, int]:
        result = rows * self.out_cols * words * (2 if self.zipped else 1)
        return {
            "feature_words": self.in_size(rows) + self.left_size(words, rows) + result,
            "weight_words": -(-words // self.unit_words) * self.k_steps,
            "parameter_words": RECORD_WORDS * words,
        }

    def loaded(self, rows: int) -> tuple[int, int, int]:
        tiles_total = -(-self.total_words // self.unit_words)
        weights = tiles_total * self.k_steps * self.arch.weight_word_units + RECORD_WORDS * self.total_words
        in_rows = sum(self.window.rows(span).size for span in spans(self.out_rows, rows))
        return weights, in_rows * self.in_cols * self.in_words, 0


def pw_layer(step: PwStep, arch: DeformArch, source: Operand, target: Operand) -> PwLayer:
    return PwLayer(
        step=step, arch=arch, in_words=source.words, in_rows=source.rows, in_cols=source.cols,
        out_rows=target.rows, out_cols=target.cols,
    )


def lower_pw(step: PwStep, layer: PwLayer, tiling: Tiling, plan: MemoryPlan, emitter: Emitter) -> None:
    """Emit a step's instructions; what is on chip already is not loaded again."""
    _PwLowering(step=step, layer=layer, tiling=tiling, plan=plan, emitter=emitter).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class _PwLowering:
    step: PwStep
    layer: PwLayer
    tiling: Tiling
    plan: MemoryPlan
    emitter: Emitter

    def run(self) -> None:
        blobs: dict[int, tuple[Blob, Blob]] = {}
        group_now, stripe_now = None, None
        for group, stripe in tiles(self.layer, self.tiling):
            if group != group_now:
                if group.start not in blobs:
                    blobs[group.start] = self._blobs(group)
                self._load_group(*blobs[group.start])
            if stripe != stripe_now:
                self._load_stripe(self.layer.window.rows(stripe))
            if self.step.left is not None:
                self._load_left(self.plan.operand(self.step.left), group, stripe)
            self.emitter.add(self.step.name, "PW", **self._fields(group, stripe))
            self._store(group, stripe)
            group_now, stripe_now = group, stripe

    def _blobs(self, group: Span) -> tuple[Blob, Blob]:
        slots = self.step.slots[16 * group.start : 16 * group.stop]
        in_slots = self.plan.operand(self.step.source).slots
        weights = array_weights(self.step.weight, slots, in_slots, self.emitter.arch.cells, self.layer.wide)
        return self.emitter.blob(weights), self.emitter.blob(requantise_records(self.step.requant, slots))

    def _load_group(self, weights: Blob, records: Blob) -> None:
        tile = self.layer.k_steps * self.emitter.arch.weight_word_units
        self.emitter.load_blob(self.step.name, "wgt", weights, tile)
        self.emitter.load_blob(self.step.name, "par", records, RECORD_WORDS)

    def _load_stripe(self, rows: Span) -> None:
        source = self.plan.operand(self.step.source)
        self.emitter.load(self.step.name, "fm", source.at(rows.start), 0, source.axes(rows.size, source.words))

    def _load_left(self, left: Operand, group: Span, stripe: Span) -> None:
        place, axes = left.at(stripe.start, group.start), left.axes(stripe.size, group.size)
        self.emitter.load(self.step.name, "fm", place, self._left_addr, axes)

    def _store(self, group: Span, stripe: Span) -> None:
        factor = 2 if self.layer.zipped else 1
        target = self.plan.operand(self.step.target)
        place, axes = target.at(stripe.start, factor * group.start), target.axes(stripe.size, factor * group.size)
        self.emitter.store(self.step.name, place, self._out_addr, axes)

    @property
    def _left_addr(self) -> int:
        return self.layer.in_size(self.tiling.rows)

    @property
    def _out_addr(self) -> int:
        return self._left_addr + self.layer.left_size(self.tiling.words, self.tiling.rows)

    def _fields(self, group: Span, stripe: Span) -> dict[str, int]:
        step, layer, requant = self.step, self.layer, self.step.requant
        loaded = layer.window.rows(stripe)
        pad_top = loaded.start - (stripe.start * step.stride - step.padding)
        kx_step, ky_step = layer.in_words, layer.in_cols * layer.in_words
        merge = {"merge": MERGE_NONE}
        if layer.zipped:
            merge = {"merge": MERGE_ZIP, "merge_addr": self._left_addr, "merge_pitch": group.size}
        return {
            "in_addr": chip(-pad_top * ky_step - step.padding * kx_step), "in_words": layer.in_words,
            "kernel_h": step.weight.shape[2], "kernel_w": step.weight.shape[3],
            "in_rows": loaded.size, "in_cols": layer.in_cols, "pad_top": pad_top, "pad_left": step.padding, "stride": step.stride,
            "pixel_step": chip(step.stride * kx_step), "row_step": chip(step.stride * ky_step),
            "kx_step": chip(kx_step), "ky_step": chip(ky_step),
            "out_rows": stripe.size, "out_cols": layer.out_cols, "out_words": group.size,
            "out_addr": self._out_addr, "out_pitch": (2 if layer.zipped else 1) * group.size,
            "weight_addr": 0, "param_addr": 0, **merge, "wide_weights": int(layer.wide),
            "in_unsigned": int(not self.plan.operand(step.source).spec.fmt.signed),
            "rounding": ROUNDING_CODES[requant.rounding.name], "clip_lo": requant.lo, "clip_hi": requant.hi,
        }
