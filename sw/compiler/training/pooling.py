"""Pooling: maxima and means of windows, place by place of the window, on the vector unit.

What stands at one place of all windows is a lattice of the image that a transfer picks out. Where windows reach outside, the
lattice has holes, which hold the smallest number; where they overlap, gradients are added in memory, place by place.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.spec.sat.instructions import VEC_AFFINE, VEC_EQUAL, VEC_MAX, VEC_UNEQUAL
from hw.spec.training import PoolWindow
from hw.spec.training.elementwise import OUTSIDE, reciprocal
from sw.compiler.emit import Axis
from sw.compiler.problems import CompileError, Problem
from sw.compiler.training.memory import Tensor
from sw.compiler.training.vectors import A, B, C, Part, VectorWork
from sw.training_graph import PoolNode

ONE, LATER, FIRST, LOWEST, ZERO = range(5)
"""Words of constants: S, T, U for sums, for a mean's later terms and its first, and to fill with the smallest number and with +0."""


def _constants(w: PoolWindow) -> bytes:
    mean = reciprocal(w)
    return np.array([[1, 1, 0, 0], [1, mean, 0, 0], [mean, 0, 0, 0], [0, 0, OUTSIDE, 0], [0, 0, 0, 0]], np.float32).tobytes()


@dataclass(frozen=True, kw_only=True)
class Span:
    """Pooled indices start..stop-1 along an axis, and which of them have an input at a place of the window."""

    start: int
    stop: int
    stride: int
    first: int
    length: int

    @property
    def exists(self) -> range:
        """Indices whose input ``index * stride + first`` exists."""
        low = max(self.start, -(self.first // self.stride))
        high = min(self.stop, (self.length - 1 - self.first) // self.stride + 1)
        return range(low, max(low, high))


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Pooled pixels that are worked on at once: rows and columns of some images."""

    window: PoolWindow
    image: int
    images: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    words: int

    @property
    def part(self) -> Part:
        pixels = self.images * (self.rows[1] - self.rows[0]) * (self.cols[1] - self.cols[0])
        return Part(start=0, stop=pixels, word=0, words=self.words)

    @property
    def size(self) -> int:
        """Words of the pooled pixels."""
        return self.part.pixels * self.words

    def transfer(self, tensor: Tensor, place: tuple[int, int] | None) -> tuple[int, int, list[Axis]] | None:
        """(memory word, word on chip, axes) of what exists of a place's lattice, or of the pooled tensor; None if nothing does."""
        w, steps, firsts = self.window, (1, 1), (0, 0)
        if place is not None:
            steps, firsts = w.stride, (place[0] - w.padding[0], place[1] - w.padding[1])
        spans = [
            Span(start=ends[0], stop=ends[1], stride=step, first=first, length=length)
            for ends, step, first, length in zip((self.rows, self.cols), steps, firsts, (tensor.height, tensor.width), strict=True)
        ]
        rows, cols = (span.exists for span in spans)
        if not rows or not cols:
            return None
        width, words = self.cols[1] - self.cols[0], self.words
        axes = [
            Axis(count=self.images, memory=tensor.height * tensor.width * words, chip=(self.rows[1] - self.rows[0]) * width * words),
            Axis(count=len(rows), memory=steps[0] * tensor.width * words, chip=width * words),
            Axis(count=len(cols), memory=steps[1] * words, chip=words),
            Axis(count=words, memory=1, chip=1),
        ]
        at = tensor.at(self.image, rows[0] * steps[0] + firsts[0], cols[0] * steps[1] + firsts[1])
        return at, ((rows[0] - self.rows[0]) * width + cols[0] - self.cols[0]) * words, axes

    def whole(self, tensor: Tensor, place: tuple[int, int]) -> bool:
        """Whether every window has an input at a place."""
        found = self.transfer(tensor, place)
        return found is not None and int(np.prod([axis.count for axis in found[2]])) == self.size


@dataclass(frozen=True, kw_only=True, eq=False)
class Pooling:
    """A pool's work in one program."""

    work: VectorWork
    node: PoolNode

    @property
    def window(self) -> PoolWindow:
        return self.node.window

    def forward(self, x: Tensor, y: Tensor) -> None:
        self._load_constants()
        for block in self._blocks(y):
            here = 0
            for number, place in enumerate(self.window.places()):
                self._load_place(block, x, place, A if number == 0 else B)
                if number == 0 and not self.node.average:
                    continue
                there = block.size if here == 0 else 0
                fields = {"chn_addr": LATER if number else FIRST, "use_b": int(number > 0)} if self.node.average else {}
                self.work.vec(
                    VEC_AFFINE if self.node.average else VEC_MAX, block.part, a_addr=here, out_bank=A, out_addr=there, **fields
                )
                here = there
            self._move("store", block, y, None, A, here)

    def backward(self, dy: Tensor, x: Tensor, y: Tensor, dx: Tensor) -> None:
        self._load_constants()
        if self.window.overlaps:
            self._clear(dx)
        # A value's later windows have it at earlier places, so that backwards gradients are added in the order of the places.
        for block in reversed(list(self._blocks(y))):
            if self.node.average:
                self._spread(block, dy, dx)
            else:
                self._route(block, dy, x, y, dx)

    def _spread(self, block: Block, dy: Tensor, dx: Tensor) -> None:
        """The divided gradient to every place."""
        self._move("load", block, dy, None, A, 0)
        self.work.vec(VEC_AFFINE, block.part, chn_addr=FIRST, out_bank=B)
        for place in self.window.places():
            self._move("store", block, dx, place, B, 0)

    def _route(self, block: Block, dy: Tensor, x: Tensor, y: Tensor, dx: Tensor) -> None:
        """Each gradient to the first place that has the maximum; what is left of it goes on from place to place."""
        self._move("load", block, dy, None, C, 0)
        self._move("load", block, y, None, B, 0)
        here, apart = 0, self.window.overlaps
        for place in self.window.places():
            self._load_place(block, x, place, A)
            there = block.size if here == 0 else 0
            self.work.vec(VEC_EQUAL, block.part, c_addr=here, out_bank=B if apart else A, out_addr=block.size)
            self.work.vec(VEC_UNEQUAL, block.part, c_addr=here, out_bank=C, out_addr=there)
            if apart:
                self._move("load", block, dx, place, A, 0)
                self.work.vec(VEC_AFFINE, block.part, b_addr=block.size, chn_addr=ONE, use_b=1, out_bank=A, out_addr=block.size)
            self._move("store", block, dx, place, A, block.size)
            here = there

    def _load_constants(self) -> None:
        self.work.emitter.load_parameters("chn", _constants(self.window), 0)

    def _move(self, way: str, block: Block, tensor: Tensor, place: tuple[int, int] | None, bank: int, at: int) -> None:
        found = block.transfer(tensor, place)
        if found is not None:
            memory, chip, axes = found
            getattr(self.work.emitter, way)("vec", tensor.region, memory, self.work.bank(bank, at + chip), axes)

    def _load_place(self, block: Block, x: Tensor, place: tuple[int, int], bank: int) -> None:
        """A place's lattice, the smallest number where it has holes."""
        if not block.whole(x, place):
            self.work.vec(VEC_AFFINE, block.part, a_addr=block.size, chn_addr=LOWEST, use_u=1, out_bank=bank)
        self._move("load", block, x, place, bank, 0)

    def _clear(self, dx: Tensor) -> None:
        """Zeros to a whole tensor."""
        half = self.work.half
        for start in range(0, dx.pixels * dx.words, half):
            words = min(half, dx.pixels * dx.words - start)
            part = Part(start=0, stop=words, word=0, words=1)
            self.work.vec(VEC_AFFINE, part, chn_addr=ZERO, use_u=1, out_bank=B)
            axes = [Axis(count=words, memory=1, chip=1)]
            self.work.emitter.store("vec", dx.region, dx.offset + start, self.work.bank(B), axes)

    def _blocks(self, y: Tensor) -> Iterator[Block]:
        """As many pooled pixels as half a bank holds: of several images where a result is one pixel, else of one."""
        half = self.work.half
        if y.words > half:
            reason = f"a pixel of {y.words} words is larger than half a bank of the vector memory ({half})"
            raise CompileError([Problem(place=self.node.name, reason=reason, advice="raise vec_words of the architecture")])
        if y.height == y.width == 1:
            most = half // y.words
            for image in range(0, y.batch, most):
                count = min(most, y.batch - image)
                yield Block(window=self.window, image=image, images=count, rows=(0, 1), cols=(0, 1), words=y.words)
            return
        cols = min(y.width, half // y.words)
        rows = max(1, half // (y.words * cols)) if cols == y.width else 1
        for image in range(y.batch):
            for row in range(0, y.height, rows):
                for col in range(0, y.width, cols):
                    yield Block(
                        window=self.window, image=image, images=1, rows=(row, min(row + rows, y.height)),
                        cols=(col, min(col + cols, y.width)), words=y.words,
                    )  # fmt: skip
