"""Forward pass and input gradient of a convolution: instructions of the array.

On chip: a stripe of the source in the activation memory from 0, its pixel table from 0, weights of a column group from 0, results
in bank 0 of the vector memory from 0. Where a column group's weights do not fit, the reduction is cut and goes on in the array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hw.spec.sat import LANES, SatArch
from hw.spec.sat.instructions import DRAIN_FP16, DRAIN_NONE, TABLE_ENTRIES
from sw.compiler.emit import Axis
from sw.compiler.training.emit import WEIGHTS, Emitter
from sw.compiler.training.memory import Copy, Tensor
from sw.compiler.training.tables import Loaded, Windows, table
from sw.compiler.training.tiles import Demand, Interleave, Stripe, largest_stripe, product_interleave, stripes


@dataclass(frozen=True, kw_only=True)
class Group:
    """Columns of the result that are computed together, in words of eight: the first, and how many."""

    start: int
    words: int


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A part of the reduction that one instruction does: rows of the weights, taps, chunks of each."""

    first_row: int
    rows: int
    tap_row: int
    tap_col: int
    kernel_h: int
    kernel_w: int
    chunk: int
    chunks: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Product:
    """``target`` = sums over windows of ``source`` and the rows of ``weights``.

    The weights lie tap by tap of a ``kernel`` (rows, columns); ``flipped``: in flipped order.
    """

    emitter: Emitter
    source: Tensor
    target: Tensor
    windows: Windows
    weights: Copy
    kernel: tuple[int, int]
    flipped: bool

    @property
    def arch(self) -> SatArch:
        return self.emitter.arch

    @property
    def tap_rows(self) -> int:
        """Weight rows of a tap."""
        return self.weights.rows // (self.kernel[0] * self.kernel[1])

    @property
    def chunks(self) -> int:
        """Chunks of a tap."""
        return self.tap_rows // self.weights.steps

    @property
    def k_rows(self) -> int:
        """Weight rows of all taps of the windows."""
        return len(self.windows.tap_rows) * len(self.windows.tap_cols) * self.tap_rows

    def emit(self) -> None:
        w, batch = self.windows, self.source.batch
        interleave = self._interleave()
        group_words = interleave.b * self.arch.columns // LANES
        demand = Demand(height=self.source.height, width=self.source.width, words=self.source.words, out_words=group_words)
        images, rows = largest_stripe(self.emitter.layer, w, batch, demand, self.arch, interleave.a * self.arch.rows)
        parts = list(stripes(w, batch, images, rows))
        groups = [
            Group(start=at, words=min(group_words, self.target.words - at)) for at in range(0, self.target.words, group_words)
        ]
        whole = self.k_rows * interleave.b <= self.arch.wgt_words
        if len(parts) > 1 and whole and self._stripes_inside(parts, groups):
            for group in groups:
                self._load_weights(group, interleave, self._whole())
                for stripe in parts:
                    self._stripe(stripe, group, interleave, load=True, whole=True)
            return
        for stripe in parts:
            for number, group in enumerate(groups):
                if whole and (len(groups) > 1 or stripe is parts[0]):
                    self._load_weights(group, interleave, self._whole())
                self._stripe(stripe, group, interleave, load=number == 0, whole=whole)

    def _interleave(self) -> Interleave:
        pixels = self.source.batch * self.windows.rows * self.windows.cols
        chunks = max(1, self.k_rows // self.weights.steps)
        most_b = max(1, self.arch.wgt_words // max(self.k_rows, 1))
        return product_interleave(
            self.arch, pixels, self.target.words * LANES, chunks, self.weights.steps, self.weights.chunk, most_b
        )

    def _stripes_inside(self, parts: list[Stripe], groups: list[Group]) -> bool:
        """Whether loading the source once per group costs less than loading the weights once per stripe."""
        source = self.source.pixels * self.source.words
        weights = self.k_rows * self.target.words * (2 if self.weights.sparse else 1)
        return source * len(groups) + weights < source + weights * (len(parts) if len(groups) > 1 else 1)

    def _whole(self) -> Segment:
        w = self.windows
        return Segment(
            first_row=0, rows=self.k_rows, tap_row=0, tap_col=0, kernel_h=max(1, len(w.tap_rows)), kernel_w=max(1, len(w.tap_cols)),
            chunk=0, chunks=self.chunks if not w.empty else 1,
        )  # fmt: skip

    def _segments(self, interleave: Interleave) -> Iterator[Segment]:
        """Parts of single taps, as long as the weight memory holds."""
        most = max(1, self.arch.wgt_words // interleave.b // self.weights.steps)
        for row in range(len(self.windows.tap_rows)):
            for col in range(len(self.windows.tap_cols)):
                for chunk in range(0, self.chunks, most):
                    count = min(most, self.chunks - chunk)
                    first = (row * len(self.windows.tap_cols) + col) * self.tap_rows + chunk * self.weights.steps
                    yield Segment(
                        first_row=first, rows=count * self.weights.steps, tap_row=row, tap_col=col, kernel_h=1, kernel_w=1,
                        chunk=chunk, chunks=count,
                    )  # fmt: skip

    def _load_weights(self, group: Group, interleave: Interleave, segment: Segment) -> None:
        """Weight rows of a segment, in the windows' order of taps, packed to ``b`` column words each."""
        pitch = interleave.b * self.arch.columns // LANES
        taps = [
            self._stored_tap(row, col) for row in self.windows.tap_rows for col in self.windows.tap_cols
        ]  # fmt: skip
        first, last = divmod(segment.first_row, self.tap_rows)[0], -(-(segment.first_row + segment.rows) // self.tap_rows)
        for space, offset in (("wgt", self.weights.offset), ("idx", self.weights.positions))[: 1 + self.weights.sparse]:
            for run in _runs(taps[first:last]):
                begin = max(segment.first_row, (first + run.start) * self.tap_rows)
                end = min(segment.first_row + segment.rows, (first + run.stop) * self.tap_rows)
                row = taps[first + run.start] * self.tap_rows + begin - (first + run.start) * self.tap_rows
                axes = [
                    Axis(count=end - begin, memory=self.weights.words, chip=pitch), Axis(count=group.words, memory=1, chip=1)
                ]  # fmt: skip
                at = offset + row * self.weights.words + group.start
                self.emitter.load(space, WEIGHTS, at, (begin - segment.first_row) * pitch, axes)

    def _stored_tap(self, row: int, col: int) -> int:
        """Where a tap of the kernel stands among the stored ones."""
        tap = row * self.kernel[1] + col
        return self.kernel[0] * self.kernel[1] - 1 - tap if self.flipped else tap

    def _stripe(self, stripe: Stripe, group: Group, interleave: Interleave, *, load: bool, whole: bool) -> None:
        tile = interleave.a * self.arch.rows
        pixels = stripe.pixels(self.windows)
        if load:
            load_source(self.emitter, self.source, self.windows, stripe, -(-pixels // tile) * tile)
        for first in range(0, pixels, tile):
            segments = [self._whole()] if whole else list(self._segments(interleave))
            for number, segment in enumerate(segments):
                if not whole:
                    self._load_weights(group, interleave, segment)
                last = number == len(segments) - 1
                self._gemm(first, min(tile, pixels - first), group, interleave, segment, resume=number > 0, drain=last)
        self._store(stripe, group, interleave)

    def _gemm(
        self, first: int, rows: int, group: Group, interleave: Interleave, segment: Segment, *, resume: bool, drain: bool
    ) -> None:
        row_step, col_step = self.source.width * self.source.words, self.source.words
        start = segment.tap_row * row_step + segment.tap_col * col_step + segment.chunk * self.weights.chunk // LANES
        columns = LANES * group.words // self.arch.columns
        fields = {"out_bank": 0, "out_addr": first * interleave.b, "out_pitch": interleave.b, "out_rows": rows, "out_words": columns}
        self.emitter.add(
            "GEMM", a_log2=interleave.a_log2, b_log2=interleave.b_log2, chunk_log2=int(self.weights.chunk > LANES),
            steps=self.weights.steps, sparse=int(self.weights.sparse), table_addr=first, act_addr=start % (1 << 16),
            tap_row=segment.tap_row, tap_col=segment.tap_col, kernel_h=segment.kernel_h, kernel_w=segment.kernel_w,
            row_step=row_step, col_step=col_step, chunks=segment.chunks, wgt_pitch=interleave.b, resume=int(resume),
            drain=DRAIN_FP16 if drain else DRAIN_NONE, **(fields if drain else {}),
        )  # fmt: skip

    def _store(self, stripe: Stripe, group: Group, interleave: Interleave) -> None:
        """Results to their pixels; those of a phase stand apart."""
        w, target = self.windows, self.target
        pitch, rows = interleave.b * self.arch.columns // LANES, stripe.stop - stripe.start
        axes = [
            Axis(count=stripe.images, memory=target.height * target.width * target.words, chip=rows * w.cols * pitch),
            Axis(count=rows, memory=w.step * target.width * target.words, chip=w.cols * pitch),
            Axis(count=w.cols, memory=w.step * target.words, chip=pitch),
            Axis(count=group.words, memory=1, chip=1),
        ]
        at = target.at(stripe.image, stripe.start * w.step + w.row_offset, w.col_offset, group.start)
        self.emitter.store("vec", target.region, at, 0, axes)


def load_source(emitter: Emitter, source: Tensor, windows: Windows, stripe: Stripe, entries: int) -> None:
    """A stripe of a product's first operand to the activation memory, and its pixel table of at least ``entries`` entries."""
    start, stop = windows.input_rows(stripe.start, stripe.stop, source.height)
    row = source.width * source.words
    axes = [
        Axis(count=stripe.images, memory=source.height * row, chip=(stop - start) * row),
        Axis(count=stop - start, memory=row, chip=row),
        Axis(count=row, memory=1, chip=1),
    ]
    emitter.load("act", source.region, source.at(stripe.image, start), 0, axes)
    loaded = Loaded(
        images=stripe.images, start=start, stop=stop, height=source.height, width=source.width, words=source.words
    )  # fmt: skip
    size = -(-entries // TABLE_ENTRIES) * TABLE_ENTRIES
    emitter.load_parameters("tbl", table(windows, (stripe.start, stripe.stop), loaded, size), 0)


def _runs(taps: list[int]) -> Iterator[range]:
    """Index ranges of taps that are stored one behind the other."""
    start = 0
    for i in range(1, len(taps) + 1):
        if i == len(taps) or taps[i] != taps[i - 1] + 1:
            yield range(start, i)
            start = i
