"""Convolutions on the array: tiling, on-chip places and instructions of a :class:`PwStep`.

Feature memory holds the input stripe at 0, then what is merged, then the result; weights and records start at 0 of their memories.
In each group of output words the weights stay while stripes pass, or the stripe stays while groups pass. A group loads the input
words that it reads, and has an instruction for each of its blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import MERGE_ADD, MERGE_NONE, MERGE_ZIP, ROUNDING_CODES
from sw.compiler.blocks import Block, blocks, tile_reads, union
from sw.compiler.emit import RUN_LIMIT, Blob, Emitter, chip
from sw.compiler.lower_copy import store
from sw.compiler.plan import MemoryPlan, Operand
from sw.compiler.proof import is_wide
from sw.compiler.steps import PwStep
from sw.compiler.tiling import Span, Tiling, Window, spans, tiles, transfer
from sw.compiler.weights import RECORD_WORDS, array_weights, expand, requantise_records

SLOTS = 16


@dataclass(frozen=True, kw_only=True, eq=False)
class PwLayer:
    """Sizes of a step on an architecture, for the tiling search; all in words. ``reads`` is for each tile of output words."""

    step: PwStep
    arch: DeformArch
    wide: bool
    unit_words: int
    reads: tuple[Span, ...]
    in_rows: int
    in_cols: int
    out_rows: int
    out_cols: int
    in_pitch: int
    out_pitch: int
    left_pitch: int

    @property
    def total_words(self) -> int:
        return len(self.step.slots) // SLOTS

    @property
    def total_rows(self) -> int:
        return self.out_rows

    @property
    def window(self) -> Window:
        extent = self.step.weight.shape[2]
        return Window(in_rows=self.in_rows, stride=self.step.stride, first=-self.step.padding, extent=extent)

    @property
    def factor(self) -> int:
        """Stored words for each word of the step's own result."""
        return 2 if self.step.left is not None and self.step.limits is None else 1

    def k_steps(self, source: Span) -> int:
        """Weight words of a tile that reads these words."""
        return self.step.weight.shape[2] * self.step.weight.shape[3] * source.size * SLOTS

    @property
    def most_k_steps(self) -> int:
        return max(map(self.k_steps, self.reads))

    def group_tiles(self, group: Span) -> tuple[Span, ...]:
        """What the tiles of a group read."""
        return self.reads[group.start // self.unit_words : -(-group.stop // self.unit_words)]

    def group_reads(self, group: Span) -> Span:
        return union(self.group_tiles(group))

    def in_size(self, words: int, rows: int) -> int:
        """Feature words of the largest input stripe of a group."""
        widest = max(self.group_reads(group).size for group in spans(self.total_words, words))
        return self.window.most(rows) * self.in_cols * widest

    def left_size(self, words: int, rows: int) -> int:
        return 0 if self.step.left is None else rows * self.out_cols * words

    def needs(self, words: int, rows: int) -> dict[str, int]:
        groups = spans(self.total_words, words)
        result = rows * self.out_cols * words * self.factor
        return {
            "feature_words": self.in_size(words, rows) + self.left_size(words, rows) + result,
            "weight_words": max(sum(map(self.k_steps, self.group_tiles(group))) for group in groups),
            "parameter_words": RECORD_WORDS * words,
        }

    def moved(self, words: int, rows: int) -> tuple[int, int, int]:
        parameters = sum(map(self.k_steps, self.reads)) * self.arch.weight_word_units + RECORD_WORDS * self.total_words
        pixels = sum(self.window.rows(span).size for span in spans(self.out_rows, rows)) * self.in_cols
        sources = [self.group_reads(group) for group in spans(self.total_words, words)]
        stripes = [transfer(pixels, source.size, self.in_pitch) for source in sources]
        results = self.results_moved(words)
        return (parameters, stripes[0], results) if len(set(sources)) == 1 else (parameters, 0, sum(stripes) + results)

    def results_moved(self, words: int) -> int:
        """About the cycles of all loads of what is merged, and of all stores."""
        pixels, sizes = self.out_rows * self.out_cols, [group.size for group in spans(self.total_words, words)]
        lefts = 0 if self.step.left is None else sum(transfer(pixels, size, self.left_pitch) for size in sizes)
        copies, pitch = (4, 0) if self.step.upsample else (1, self.out_pitch)
        return lefts + sum(transfer(copies * pixels, self.factor * size, pitch) for size in sizes)


def pw_layer(step: PwStep, arch: DeformArch, plan: MemoryPlan) -> PwLayer:
    return PwLayer(**layer_sizes(step, arch, plan))


def layer_sizes(step: PwStep, arch: DeformArch, plan: MemoryPlan) -> dict[str, Any]:
    """What a :class:`PwLayer` is made of."""
    source, target = plan.operand(step.source), plan.operand(step.target)
    wide = is_wide(step.weight)
    unit_words = arch.weight_word_units * (1 if wide else 2)
    return {
        "step": step, "arch": arch, "wide": wide, "unit_words": unit_words, "reads": tile_reads(step, unit_words),
        "in_rows": source.rows, "in_cols": source.cols,
        "out_rows": target.rows >> step.upsample, "out_cols": target.cols >> step.upsample,
        "in_pitch": source.pitch, "out_pitch": target.pitch, "left_pitch": plan.operand(step.left).pitch if step.left else 0,
    }  # fmt: skip


def lower_pw(step: PwStep, layer: PwLayer, tiling: Tiling, plan: MemoryPlan, emitter: Emitter) -> None:
    """Emit a step's instructions; what is on chip already is not loaded again."""
    PwLowering(step=step, layer=layer, tiling=tiling, plan=plan, emitter=emitter).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class PwLowering:
    """A step's instructions; a deformable convolution's override how a stripe is brought in and where its taps lie."""

    step: PwStep
    layer: PwLayer
    tiling: Tiling
    plan: MemoryPlan
    emitter: Emitter

    def run(self) -> None:
        parameters: dict[int, tuple[Blob, Blob]] = {}
        group_now, stripe_now = None, None
        table = self.emitter.table(self.step.name, self.step.table)
        for group, stripe in tiles(self.layer, self.tiling):
            source = self.layer.group_reads(group)
            if group != group_now:
                if group.start not in parameters:
                    parameters[group.start] = self._parameters(group)
                self._load_group(group, *parameters[group.start])
            if (source, stripe) != stripe_now:
                self._load_stripe(source, stripe)
            if self.step.left is not None:
                self._load_left(self.plan.operand(self.step.left), group, stripe)
            for block in blocks(self.layer.reads, self.layer.unit_words, group):
                self._compute(group, block, stripe, table)
            self._store(group, stripe)
            group_now, stripe_now = group, (source, stripe)

    def _parameters(self, group: Span) -> tuple[Blob, Blob]:
        """Weights and records of a group."""
        slots = self.step.slots[SLOTS * group.start : SLOTS * group.stop]
        weights = b"".join(map(self._weights, blocks(self.layer.reads, self.layer.unit_words, group)))
        return self.emitter.blob(weights), self.emitter.blob(requantise_records(self.step.requant, slots))

    def _load_group(self, group: Span, weights: Blob, records: Blob) -> None:
        self.emitter.load_blob(self.step.name, "wgt", weights, self._run_words(group, weights))
        self.emitter.load_blob(self.step.name, "par", records, RECORD_WORDS)

    def _weights(self, block: Block) -> bytes:
        step = self.step
        out = step.slots[SLOTS * block.out.start : SLOTS * block.out.stop]
        inner = step.in_slots[SLOTS * block.source.start : SLOTS * block.source.stop]
        return array_weights(expand(step.weight, step.groups, out, inner), self.emitter.arch.cells, self.layer.wide)

    def _run_words(self, group: Span, blob: Blob) -> int:
        """Words of equal runs that make up a group's weights: as long as can be."""
        sizes = {self.layer.k_steps(source) for source in self.layer.group_tiles(group)}
        if blob.words <= RUN_LIMIT:
            return blob.words
        return (sizes.pop() if len(sizes) == 1 else SLOTS) * self.emitter.arch.weight_word_units

    def _load_stripe(self, source: Span, stripe: Span) -> None:
        operand, rows = self.plan.operand(self.step.source), self.layer.window.rows(stripe)
        self.emitter.load(self.step.name, "fm", operand.at(rows.start, source.start), 0, operand.axes(rows.size, source.size))

    def _load_left(self, left: Operand, group: Span, stripe: Span) -> None:
        place, axes = left.at(stripe.start, group.start), left.axes(stripe.size, group.size)
        self.emitter.load(self.step.name, "fm", place, self._left_addr, axes)

    def _store(self, group: Span, stripe: Span) -> None:
        target, factor = self.plan.operand(self.step.target), self.layer.factor
        cols, words = Span(start=0, stop=self.layer.out_cols), Span(start=factor * group.start, stop=factor * group.stop)
        store(self.emitter, self.step.name, target, stripe, cols, words, self._out_addr, self.step.upsample)

    @property
    def _left_addr(self) -> int:
        return self.layer.in_size(self.tiling.words, self.tiling.rows)

    @property
    def _out_addr(self) -> int:
        return self._left_addr + self.layer.left_size(self.tiling.words, self.tiling.rows)

    def _compute(self, group: Span, block: Block, stripe: Span, table: int) -> None:
        """One block's instruction; its weights and records stand behind those of the group's blocks before it."""
        before = self.layer.group_tiles(Span(start=group.start, stop=block.out.start)) if block.out.start > group.start else ()
        self.emitter.add(
            self.step.name, "PW", table=table,
            **self._input(self.layer.group_reads(group), block, stripe), **self._output(group, block, stripe),
            **self._merge(group, block), **self._requantise(),
            weight_addr=sum(map(self.layer.k_steps, before)), param_addr=RECORD_WORDS * (block.out.start - group.start),
        )  # fmt: skip

    def _input(self, source: Span, block: Block, stripe: Span) -> dict[str, int]:
        step, layer = self.step, self.layer
        loaded = layer.window.rows(stripe)
        pad_top = loaded.start - (stripe.start * step.stride - step.padding)
        kx_step, ky_step = source.size, layer.in_cols * source.size
        return {
            "in_addr": chip(block.source.start - source.start - pad_top * ky_step - step.padding * kx_step),
            "in_words": block.source.size, "kernel_h": step.weight.shape[2], "kernel_w": step.weight.shape[3],
            "in_rows": loaded.size, "in_cols": layer.in_cols, "pad_top": pad_top, "pad_left": step.padding, "stride": step.stride,
            "pixel_step": chip(step.stride * kx_step), "row_step": chip(step.stride * ky_step),
            "kx_step": chip(kx_step), "ky_step": chip(ky_step),
        }  # fmt: skip

    def _output(self, group: Span, block: Block, stripe: Span) -> dict[str, int]:
        factor = self.layer.factor
        return {
            "out_rows": stripe.size, "out_cols": self.layer.out_cols, "out_words": block.out.size,
            "out_addr": self._out_addr + factor * (block.out.start - group.start), "out_pitch": factor * group.size,
        }  # fmt: skip

    def _merge(self, group: Span, block: Block) -> dict[str, int]:
        if self.step.left is None:
            return {"merge": MERGE_NONE}
        fields = {"merge_addr": self._left_addr + block.out.start - group.start, "merge_pitch": group.size}
        if self.step.limits is None:
            return {"merge": MERGE_ZIP, **fields}
        unsigned = int(not self.plan.operand(self.step.left).spec.fmt.signed)
        lo, hi = self.step.limits
        return {"merge": MERGE_ADD, **fields, "merge_unsigned": unsigned, "merge_lo": lo, "merge_hi": hi}

    def _requantise(self) -> dict[str, int]:
        requant = self.step.requant
        return {
            "wide_weights": int(self.layer.wide),
            "in_unsigned": int(not self.plan.operand(self.step.source).spec.fmt.signed),
            "rounding": ROUNDING_CODES[requant.rounding.name], "clip_lo": requant.lo, "clip_hi": requant.hi,
        }  # fmt: skip
