"""How a product is cut: stripes of output pixels, column groups, the interleave of the array, and what fits on chip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hw.spec.sat import LANES, SLOTS, SatArch
from sw.compiler.problems import CompileError, Problem
from sw.compiler.training.tables import Windows

MAX_COUNT = 65535


@dataclass(frozen=True, kw_only=True)
class Stripe:
    """Output rows start..stop-1 of ``images`` images from ``image`` on; several images only with all their rows."""

    image: int
    images: int
    start: int
    stop: int

    def pixels(self, w: Windows) -> int:
        return self.images * (self.stop - self.start) * w.cols


@dataclass(frozen=True, kw_only=True)
class Interleave:
    """Outputs that a processing element computes in turn: ``a`` pixels (or input channels) by ``b`` columns."""

    a_log2: int
    b_log2: int

    @property
    def a(self) -> int:
        return 1 << self.a_log2

    @property
    def b(self) -> int:
        return 1 << self.b_log2


def stripes(w: Windows, batch: int, images: int, rows: int) -> Iterator[Stripe]:
    """All stripes of at most ``images`` images, or of at most ``rows`` rows of one image."""
    if rows >= w.rows:
        for image in range(0, batch, images):
            yield Stripe(image=image, images=min(images, batch - image), start=0, stop=w.rows)
        return
    for image in range(batch):
        for start in range(0, w.rows, rows):
            yield Stripe(image=image, images=1, start=start, stop=min(start + rows, w.rows))


@dataclass(frozen=True, kw_only=True)
class Demand:
    """What a stripe needs on chip, for the search: input size, words per pixel of source and of what is stored per output pixel."""

    height: int
    width: int
    words: int
    out_words: int
    weight_words: int = 0
    """Weight memory words per output pixel: of a weight gradient, whose second operand are the pixels' gradients."""


def largest_stripe(name: str, w: Windows, batch: int, demand: Demand, arch: SatArch, round_to: int) -> tuple[int, int]:
    """(images, rows) of the largest stripes that fit; CompileError where not even one row of one image does."""
    for images in range(batch, 0, -1):
        if images <= 2 or batch % images == 0:
            if _fits(Stripe(image=0, images=images, start=0, stop=w.rows), w, demand, arch, round_to):
                return images, w.rows
    for rows in range(w.rows - 1, 0, -1):
        if all(_fits(s, w, demand, arch, round_to) for s in _of_image(w, rows)):
            return 1, rows
    reason = f"one output row needs more than the activation memory ({arch.act_words} words), the vector memory ({arch.vec_words}), "
    reason += f"the pixel table ({arch.table_entries} entries) or the weight memory ({arch.wgt_words} words) holds"
    advice = "raise act_words, vec_words, tbl_words or wgt_words of the architecture, or make the layer smaller"
    raise CompileError([Problem(place=name, reason=reason, advice=advice)])


def _of_image(w: Windows, rows: int) -> Iterator[Stripe]:
    return (Stripe(image=0, images=1, start=at, stop=min(at + rows, w.rows)) for at in range(0, w.rows, rows))


def _fits(s: Stripe, w: Windows, demand: Demand, arch: SatArch, round_to: int) -> bool:
    first, last = w.input_rows(s.start, s.stop, demand.height)
    pixels = -(-s.pixels(w) // round_to) * round_to
    return (
        s.images * (last - first) * demand.width * demand.words <= arch.act_words
        and pixels <= arch.table_entries
        and pixels * demand.out_words <= arch.vec_words
        and pixels * demand.weight_words <= arch.wgt_words
    )


def product_interleave(arch: SatArch, pixels: int, columns: int, chunks: int, steps: int, chunk: int, most_b: int) -> Interleave:
    """The interleave with the fewest cycles for so many output pixels and columns, by a count of the array's work."""
    best: tuple[int, Interleave] | None = None
    # A column word of the vector memory must be whole words for LOAD and STORE: four columns go in pairs.
    least_b = max(0, (LANES // arch.columns).bit_length() - 1)
    for a_log2 in range(1 + (chunk == LANES), -1, -1):
        for b_log2 in range(least_b, (SLOTS >> a_log2).bit_length()):
            i = Interleave(a_log2=a_log2, b_log2=b_log2)
            if i.b > max(most_b, 1 << least_b):
                continue
            tiles = -(-pixels // (i.a * arch.rows)) * -(-columns // (i.b * arch.columns))
            feed, work = chunk * i.a // arch.feed, steps * max(i.a * i.b, arch.latency)
            cycles = tiles * (chunks * max(feed, work) + arch.rows * i.a * i.b + feed + 60)
            if best is None or cycles < best[0]:
                best = cycles, i
    assert best is not None
    return best[1]
