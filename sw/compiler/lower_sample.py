"""Deformable convolutions with fractional offsets: sampled by the depthwise unit, then multiplied by the array.

The row memory holds the input rows that a stripe's offsets can reach, as many channel words at a time as fit. For each tap an
instruction samples a word of every output pixel and channel word. So feature memory has for each pixel a row of all its taps, and the
array goes over it as over a window of one row: with all that a convolution can, groups, tables and merges included.

Feature memory: the offset map of the stripe at 0, the samples (by pixel, tap, channel word), then as in ``lower_pw.py``. Parameter
memory: the group's records, then the samples'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.deform import ROW_BANKS, DeformArch
from hw.spec.deform.instructions import DW_SAMPLE, ROUNDING_CODES, SAMPLE_SIDE
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import Requant
from sw.compiler.blocks import Block
from sw.compiler.emit import Emitter, chip
from sw.compiler.lower_pw import SLOTS, PwLayer, PwLowering, layer_sizes
from sw.compiler.plan import MemoryPlan
from sw.compiler.slots import pair_places
from sw.compiler.steps import PwStep, Sampling
from sw.compiler.tiling import Span, Tiling, Window, spans
from sw.compiler.weights import RECORD_WORDS, requantise_records


@dataclass(frozen=True, kw_only=True, eq=False)
class SampleLayer(PwLayer):
    """Sizes of a sampled step. ``offset_format`` bounds how far its taps reach; ``offset_words`` are those of a pixel's offsets."""

    sampling: Sampling
    offset_format: FixedFormat
    offset_words: int

    @property
    def window(self) -> Window:
        """Input rows: those of the taps, and as far as offsets reach up and down."""
        up, down = (code >> self.sampling.frac for code in (self.offset_format.min_code, self.offset_format.max_code))
        taps = self.sampling.dilation * (self.sampling.kernel[0] - 1)
        return Window(in_rows=self.in_rows, stride=self.sampling.stride, first=up - self.sampling.padding,
                      extent=taps + down - up + SAMPLE_SIDE)  # fmt: skip

    def map_size(self, rows: int) -> int:
        """Feature words of a stripe's offsets."""
        return rows * self.out_cols * self.offset_words

    def in_size(self, words: int, rows: int) -> int:
        """Feature words of the offsets and samples of the largest stripe of a group."""
        return self.map_size(rows) + rows * self.out_cols * self.sampling.taps * self._widest(words)

    def _widest(self, words: int) -> int:
        return max(self.group_reads(group).size for group in spans(self.total_words, words))

    def row_words(self, rows: int) -> int:
        """Words that a channel word of a stripe takes in each bank of the row memory."""
        return -(-self.window.most(rows) // ROW_BANKS) * self.in_cols

    def part_words(self, tiling: Tiling) -> int:
        """Channel words that are sampled at once."""
        records = self.arch.parameter_words // RECORD_WORDS - tiling.words
        return min(self.arch.row_words // self.row_words(tiling.rows), records, self._widest(tiling.words))

    def needs(self, words: int, rows: int) -> dict[str, int]:
        needs = super().needs(words, rows)
        return needs | {"row_words": self.row_words(rows), "parameter_words": needs["parameter_words"] + RECORD_WORDS}

    def moved(self, words: int, rows: int) -> tuple[int, int, int]:
        """A cycle of sampling counts as one of a transfer."""
        parameters, _, _ = super().moved(words, rows)
        loaded = sum(self.window.rows(span).size for span in spans(self.out_rows, rows)) * self.in_cols
        per_word = loaded + SAMPLE_SIDE * self.sampling.taps * self.out_rows * self.out_cols
        sources = [self.group_reads(group) for group in spans(self.total_words, words)]
        stripes = [self.map_size(self.out_rows) + source.size * per_word for source in sources]
        results = self.results_moved(words)
        return (parameters, stripes[0], results) if len(set(sources)) == 1 else (parameters, 0, sum(stripes) + results)


def sample_layer(step: PwStep, arch: DeformArch, plan: MemoryPlan) -> SampleLayer:
    assert step.sampling is not None
    offset = plan.operand(step.sampling.offset)
    sizes = layer_sizes(step, arch, plan)
    return SampleLayer(**sizes, sampling=step.sampling, offset_format=offset.spec.fmt, offset_words=offset.words)


def lower_sample(step: PwStep, layer: SampleLayer, tiling: Tiling, plan: MemoryPlan, emitter: Emitter) -> None:
    """Emit a step's instructions; what is on chip already is neither loaded nor sampled again."""
    _SampleLowering(step=step, layer=layer, tiling=tiling, plan=plan, emitter=emitter).run()


@dataclass(frozen=True, kw_only=True, eq=False)
class _SampleLowering(PwLowering):
    layer: SampleLayer

    def run(self) -> None:
        fmt, channels = self.plan.operand(self.step.source).spec.fmt, SLOTS * self.layer.part_words(self.tiling)
        ones, shift = np.ones(channels, np.int64), 2 * self.layer.sampling.frac
        requant = Requant(bias=0 * ones, multiplier=ones, shift=shift * ones, rounding=Rounding.RND, lo=fmt.min_code, hi=fmt.max_code)
        records = self.emitter.blob(requantise_records(requant, tuple(range(channels))))
        self.emitter.load_blob(self.step.name, "par", records, RECORD_WORDS, at=self._records_addr)
        super().run()

    @property
    def _records_addr(self) -> int:
        return RECORD_WORDS * self.tiling.words

    @property
    def _samples_addr(self) -> int:
        return self.layer.map_size(self.tiling.rows)

    def _load_stripe(self, source: Span, stripe: Span) -> None:
        """Offsets, rows and samples of all taps, some channel words at a time."""
        offsets, operand = self.plan.operand(self.layer.sampling.offset), self.plan.operand(self.step.source)
        rows = self.layer.window.rows(stripe)
        self.emitter.load(self.step.name, "fm", offsets.at(stripe.start), 0, offsets.axes(stripe.size, offsets.words))
        for part in spans(source.size, self.layer.part_words(self.tiling)):
            place = operand.at(rows.start, source.start + part.start)
            self.emitter.load(self.step.name, "row", place, 0, operand.axes(rows.size, part.size))
            for tap in range(self.layer.sampling.taps):
                self.emitter.add(self.step.name, "DW", **self._sample(tap, part, source, stripe))

    def _sample(self, tap: int, part: Span, source: Span, stripe: Span) -> dict[str, int]:
        """Fields of the instruction that samples a tap; its row0 is the lower of two rows, counted from the first loaded one."""
        layer, sampling, operand = self.layer, self.layer.sampling, self.plan.operand(self.step.source)
        places = pair_places(self.plan.operand(sampling.offset).slots, sampling.taps)
        assert places is not None
        (word, pair), (i, j) = places[tap], divmod(tap, sampling.kernel[1])
        loaded = layer.window.rows(stripe)
        row0 = stripe.start * sampling.stride - sampling.padding + i * sampling.dilation + 1 - loaded.start
        row_pitch, fmt = layer.in_cols * part.size, operand.spec.fmt
        return {
            "mode": DW_SAMPLE, "words": part.size, "pitch": part.size, "row_pitch": chip(row_pitch),
            "in_rows": loaded.size, "in_cols": layer.in_cols,
            "row0": row0, "bank0": row0 % ROW_BANKS, "row0_addr": chip(row0 // ROW_BANKS * row_pitch),
            "col0": j * sampling.dilation - sampling.padding,
            "kernel_h": SAMPLE_SIDE, "kernel_w": SAMPLE_SIDE, "stride": sampling.stride,
            "out_rows": stripe.size, "out_cols": layer.out_cols,
            "out_addr": self._samples_addr + tap * source.size + part.start, "out_pitch": sampling.taps * source.size,
            "param_addr": self._records_addr, "offset_addr": word, "offset_pitch": layer.offset_words,
            "offset_pair": pair, "offset_frac": sampling.frac, "in_unsigned": int(not fmt.signed),
            "rounding": ROUNDING_CODES[Rounding.RND.name], "clip_lo": fmt.min_code, "clip_hi": fmt.max_code,
        }  # fmt: skip

    def _input(self, source: Span, block: Block, stripe: Span) -> dict[str, int]:
        """A window of one row of taps, all of it inside."""
        taps, step = self.layer.sampling.taps, self.layer.sampling.taps * source.size
        return {
            "in_addr": self._samples_addr + block.source.start - source.start,
            "in_words": block.source.size, "kernel_h": 1, "kernel_w": taps,
            "in_rows": stripe.size, "in_cols": self.layer.out_cols + taps - 1, "stride": 1,
            "pixel_step": chip(step), "row_step": chip(self.layer.out_cols * step), "kx_step": chip(source.size),
        }  # fmt: skip
