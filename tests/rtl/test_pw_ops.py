"""The PW engine against the golden operations: tensors and weights packed into memories, whole outputs compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hw.rtl.cells.mac2 import pack_digits
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.instructions import MERGE_ADD, MERGE_ZIP, ROUNDING_CODES
from hw.spec.deform.timing.pw import words_per_tile
from hw.spec.fixed import Rounding
from hw.spec.ops import Add, Conv2d, Linear, Requant, ShuffleJoin, Table
from hw.spec.program import default_slots, slot_bytes
from tests.rtl.pw_bench import ENTRIES, Job, PwBench, dirt, pw, small_arch

IN, LEFT, OUT = 3, 200, 260
WEIGHTS, RECORDS = 5, 9
MASK = (1 << 20) - 1


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution and its input's format; its output goes through a table, and is joined with a left half or added to a residual."""

    channels: tuple[int, int]
    size: tuple[int, int]
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    weight_bits: int = 4
    unsigned: bool = False
    relu: bool = False
    rounding: Rounding = Rounding.RND
    zip: bool = False
    add: tuple[int, int] | None = None
    """Clips of the sum; bytes of an unsigned output are added unsigned."""
    table: int = 0

    def conv(self, rng: np.random.Generator, x: np.ndarray) -> Conv2d:
        """Random weights, extremes among them, and shifts that let few outputs saturate."""
        low, high = (-7, 7) if self.weight_bits == 4 else (-128, 127)
        weight = rng.integers(low, high + 1, (self.channels[1], self.channels[0], self.kernel, self.kernel))
        weight.flat[0], weight.flat[-1] = low, high
        plain = self._requant(rng, 20)
        spread = np.abs(Conv2d(weight=weight, requant=plain, **self._geometry).accumulate(x)).std()
        shift = max(int(np.log2(max(spread, 1))) - 5, 0)
        return Conv2d(weight=weight, requant=self._requant(rng, shift), **self._geometry)

    @property
    def _geometry(self) -> dict[str, int]:
        return {"stride": self.stride, "padding": self.padding}

    def _requant(self, rng: np.random.Generator, shift: int) -> Requant:
        n = self.channels[1]
        multiplier = np.where(np.arange(n) % 3 == 0, rng.integers(1, 65536, n), 1)
        shifts = np.where(multiplier > 1, shift + np.log2(multiplier).astype(np.int64), shift)
        bias = rng.integers(-(8 << shift), (8 << shift) + 1, n)
        lo, hi = (0, 255) if self.relu else (-128, 127)
        return Requant(bias=bias, multiplier=multiplier, shift=np.minimum(shifts, 31), rounding=self.rounding, lo=lo, hi=hi)


def weight_words(weight: np.ndarray, arch: DeformArch, wide: bool) -> np.ndarray:
    """Codes (OC, IC, KH, KW) to units (n, 16) of weight memory: tile by tile, K-step by K-step, a byte per cell."""
    per_tile = LANES * words_per_tile(arch, wide)
    oc, ic = -(-weight.shape[0] // per_tile) * per_tile, -(-weight.shape[1] // LANES) * LANES
    padded = np.zeros((oc, ic, *weight.shape[2:]), np.int64)
    padded[: weight.shape[0], : weight.shape[1]] = weight
    # (tile, ky, kx, input channel, channel of the tile)
    tiles = padded.reshape(-1, per_tile, ic, *weight.shape[2:]).transpose(0, 3, 4, 2, 1).reshape(-1, per_tile)
    low = (tiles + 8) % 16 - 8 if wide else tiles[:, : arch.cells]
    high = (tiles - low) // 16 if wide else tiles[:, arch.cells :]
    return np.vectorize(pack_digits)(high, low).astype(np.uint8).reshape(-1, LANES)


def record_words(requant: Requant) -> np.ndarray:
    """Records of all channels, missing ones zero: (n, 16)."""
    raw = np.zeros((-(-requant.channels // LANES) * LANES, 8), np.uint8)
    raw[: requant.channels, :4] = requant.bias.astype("<i4")[:, None].view(np.uint8)
    raw[: requant.channels, 4:6] = requant.multiplier.astype("<u2")[:, None].view(np.uint8)
    raw[: requant.channels, 6] = requant.shift & 0xFF
    return raw.reshape(-1, LANES)


def tensor_words(x: np.ndarray) -> np.ndarray:
    """Codes (1, C, H, W) to words (n, 16), pixels in raster order."""
    return slot_bytes(x[0].transpose(1, 2, 0), default_slots(x.shape[1])).reshape(-1, LANES)


def place(memory: np.ndarray, first: int, words: np.ndarray) -> None:
    assert first + len(words) <= len(memory)
    memory[first : first + len(words)] = words


def build(layer: Layer, arch: DeformArch, rng: np.random.Generator) -> tuple[Job, np.ndarray]:
    """The job of a layer and the output words that the golden operations give."""
    low, high = (0, 255) if layer.unsigned else (-128, 127)
    x = rng.integers(low, high + 1, (1, layer.channels[0], *layer.size))
    x.flat[0], x.flat[-1] = low, high
    conv, wide = layer.conv(rng, x), layer.weight_bits > 4
    y = Linear(weight=conv.weight[:, :, 0, 0], requant=conv.requant)(x) if x.shape[2:] == (1, 1) else conv(x)
    assert np.array_equal(y, conv(x)) and alive(y, conv.requant)
    words, out_words = -(-x.shape[1] // LANES), -(-y.shape[1] // LANES)
    chip = dirt(arch, rng)
    place(chip["fm"], IN, tensor_words(x))
    place(chip["wgt"], WEIGHTS * arch.weight_word_units, weight_words(conv.weight, arch, wide))
    place(chip["par"], RECORDS, record_words(conv.requant))
    pitch = layer.size[1] * words
    fields = {
        "in_addr": (IN - layer.padding * (pitch + words)) & MASK, "in_words": words, "kernel_h": layer.kernel,
        "kernel_w": layer.kernel, "in_rows": layer.size[0], "in_cols": layer.size[1], "pad_top": layer.padding,
        "pad_left": layer.padding, "stride": layer.stride, "pixel_step": layer.stride * words, "row_step": layer.stride * pitch,
        "kx_step": words, "ky_step": pitch, "out_rows": y.shape[2], "out_cols": y.shape[3], "out_words": out_words,
        "out_addr": OUT, "out_pitch": out_words * (1 + layer.zip), "weight_addr": WEIGHTS, "param_addr": RECORDS,
        "wide_weights": wide, "in_unsigned": layer.unsigned, "rounding": ROUNDING_CODES[layer.rounding.name],
        "clip_lo": conv.requant.lo, "clip_hi": conv.requant.hi,
    }  # fmt: skip
    if layer.table:
        # Channels that pad a word come out as the table's entry of 0, so there are none.
        assert layer.channels[1] % LANES == 0
        fields["table"] = layer.table
        values = ENTRIES.reshape(-1, 256)[layer.table - 1].astype(np.int64)
        y = Table(values=values if layer.relu else (values + 128) % 256 - 128)(y)
    if layer.add:
        residual = rng.integers(0, 256, y.shape) if layer.relu else rng.integers(-128, 128, y.shape)
        place(chip["fm"], LEFT, tensor_words(residual))
        fields |= {"merge": MERGE_ADD, "merge_addr": LEFT, "merge_pitch": out_words, "merge_unsigned": layer.relu}
        fields |= {"merge_lo": layer.add[0], "merge_hi": layer.add[1]}
        y = Add(lo=layer.add[0], hi=layer.add[1])(y, residual)
        assert 0.1 < ((y > layer.add[0]) & (y < layer.add[1])).mean() < 1 or layer.channels == (16, 16)
    if layer.zip:
        left = rng.integers(-128, 128, y.shape)
        place(chip["fm"], LEFT, tensor_words(left))
        fields |= {"merge": MERGE_ZIP, "merge_addr": LEFT, "merge_pitch": out_words}
        y = ShuffleJoin()(left, y)
    return Job(instruction=pw(arch, **{k: int(v) for k, v in fields.items()}), chip=chip), tensor_words(y)


def alive(y: np.ndarray, requant: Requant) -> bool:
    """Most outputs are neither zero nor clipped, and more than a few codes occur."""
    return bool(((y != 0) & (y > requant.lo) & (y < requant.hi)).mean() > 0.4 and len(np.unique(y)) > 12)


LAYERS = {
    "pointwise": Layer(channels=(20, 40), size=(3, 3)),
    "pointwise, three tiles": Layer(channels=(32, 72), size=(2, 3), rounding=Rounding.RND_CONV),
    "linear": Layer(channels=(64, 42), size=(1, 1), weight_bits=8, rounding=Rounding.TRN),
    "3 x 3": Layer(channels=(16, 32), size=(4, 4), kernel=3, padding=1, unsigned=True, relu=True),
    "3 x 3, stride 2, 8-bit weights": Layer(channels=(3, 18), size=(5, 5), kernel=3, stride=2, padding=1, weight_bits=8),
    "5 x 5, stride 3": Layer(channels=(8, 20), size=(7, 7), kernel=5, stride=3, padding=2, relu=True),
    "shuffle": Layer(channels=(32, 48), size=(3, 2), zip=True),
    "residual": Layer(channels=(32, 48), size=(3, 2), add=(-128, 127)),
    "residual of unsigned bytes": Layer(channels=(16, 20), size=(4, 4), kernel=3, padding=1, relu=True, add=(0, 255)),
    "residual, no sum clipped": Layer(channels=(16, 16), size=(2, 2), add=(-256, 255)),
    "table": Layer(channels=(20, 48), size=(3, 2), table=1, relu=True),
    "residual behind a table": Layer(channels=(16, 32), size=(3, 2), table=2, add=(-100, 90), weight_bits=8),
    "shuffle, 8-bit weights": Layer(channels=(16, 32), size=(2, 3), zip=True, weight_bits=8, unsigned=True),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "columns", "names"), [(4, 32, list(LAYERS)), (2, 64, ["pointwise", "linear", "shuffle"])])
def test_layers(rows: int, columns: int, names: list[str]) -> None:
    arch, rng = small_arch(rows, columns), np.random.default_rng(rows)
    built = [build(LAYERS[name], arch, rng) for name in names]
    bench = PwBench(arch)
    bench.run([job for job, _ in built])
    compared = 0
    for name, (_, golden), trace in zip(names, built, bench.traces, strict=True):
        assert len(trace.writes) == len(golden), name
        got = np.frombuffer(b"".join(trace.writes[OUT + i] for i in range(len(golden))), np.uint8)
        assert np.array_equal(got.reshape(-1, LANES), golden), name
        compared += golden.size
    assert compared == bench.compared * LANES >= 16 * 50
