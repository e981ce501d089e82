"""The depthwise engine against the golden operations: tensors packed into row memory, whole outputs compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from hw.spec.deform import LANES, ROW_BANKS
from hw.spec.fixed import Rounding
from hw.spec.ops import (
    AvgPool2d,
    Conv2d,
    DeformConv2d,
    DeformDepthwiseConv2d,
    DepthwiseConv2d,
    MaxPool2d,
    Requant,
    identity_requant,
    mean_requant,
)
from tests.rtl.dw_bench import Job, check
from tests.rtl.dw_reference import CONV, DEFORM, MAX, ROUNDINGS, SAMPLE, SUM, Memories, descriptor

ROW_BASE, OUT_BASE, OFFSET_BASE, WEIGHTS, RECORDS = 1000, 5000, 9000, 300, 700


@dataclass(kw_only=True)
class Layer:
    """A job and the codes (C, OH, OW) that it must write."""

    job: Job
    golden: np.ndarray


def codes(rng: np.random.Generator, shape: tuple[int, ...], unsigned: bool) -> np.ndarray:
    """Activations with both extremes among them."""
    low, high = (0, 255) if unsigned else (-128, 127)
    x = rng.integers(low, high + 1, shape)
    x.flat[0], x.flat[-1] = low, high
    return x


def requant_of(rng: np.random.Generator, channels: int, rounding: Rounding, lo: int = -128, hi: int = 127) -> Requant:
    """Records that use the output range without saturating everything."""
    return Requant(
        bias=rng.integers(-3000, 3000, channels),
        multiplier=rng.integers(1, 40, channels),
        shift=rng.integers(8, 14, channels),
        rounding=rounding,
        lo=lo,
        hi=hi,
    )


def layer(x: np.ndarray, golden: np.ndarray, requant: Requant, mode: int, rng: np.random.Generator, **fields: int) -> Layer:
    """Packs ``x`` (C, H, W) and the records, and completes the descriptor. Channels are padded to whole words."""
    channels, height, width = x.shape
    memories, words = Memories.dirty(int(rng.integers(1 << 16))), -(-channels // LANES)
    pitch = words + int(rng.integers(3))
    row_pitch = width * pitch + int(rng.integers(5))
    padded = np.pad(x, ((0, words * LANES - channels), (0, 0), (0, 0)))
    for c, y, col in np.ndindex(words, height, width):
        word = padded[c * LANES : (c + 1) * LANES, y, col].astype(np.uint8).tobytes()
        memories.rows[y % ROW_BANKS][ROW_BASE + y // ROW_BANKS * row_pitch + col * pitch + c] = word
    for c in range(words):
        memories.put_requant(RECORDS + 8 * c, _word_of(requant, c))
    row0 = fields["row0"]
    instruction = descriptor(
        mode=mode,
        words=words,
        pitch=pitch,
        row_pitch=row_pitch,
        in_rows=height,
        in_cols=width,
        bank0=row0 % ROW_BANKS,
        row0_addr=ROW_BASE + row0 // ROW_BANKS * row_pitch,
        out_rows=golden.shape[1],
        out_cols=golden.shape[2],
        out_addr=OUT_BASE,
        out_pitch=words,
        weight_addr=WEIGHTS,
        param_addr=RECORDS,
        offset_addr=OFFSET_BASE,
        offset_pitch=3,
        rounding=ROUNDINGS.index(requant.rounding),
        clip_lo=requant.lo,
        clip_hi=requant.hi,
        **fields,
    )
    return Layer(job=Job(instruction=instruction, memories=memories), golden=golden)


def _word_of(requant: Requant, c: int) -> Requant:
    """The records of channel word ``c``; channels that do not exist are zero."""
    part = [np.resize(a[c * LANES : (c + 1) * LANES], LANES) for a in (requant.bias, requant.multiplier, requant.shift)]
    return Requant(
        bias=part[0], multiplier=part[1], shift=part[2], rounding=requant.rounding, lo=requant.lo, hi=requant.hi
    )


def put_weights(built: Layer, weight: np.ndarray) -> None:
    """Weights (C, 3, 3) of a layer."""
    for c in range(built.job.instruction["words"]):
        part = weight[c * LANES : (c + 1) * LANES]
        part = np.pad(part, ((0, LANES - len(part)), (0, 0), (0, 0)))
        built.job.memories.put_weights(WEIGHTS + 9 * c, part)


def run(layers: list[Layer]) -> int:
    """Compares what is written with the golden codes; returns the number of codes."""
    compared = 0
    for built, observed in zip(layers, check([b.job for b in layers]), strict=True):
        _, rows, cols = built.golden.shape
        words = built.job.instruction["words"]
        written = dict(observed.writes)
        assert len(written) == len(observed.writes) == words * rows * cols
        for pixel, c in np.ndindex(rows * cols, words):
            golden = built.golden[c * LANES : (c + 1) * LANES, pixel // cols, pixel % cols]
            word = written[OUT_BASE + pixel * words + c]
            assert word[: len(golden)] == (golden & 0xFF).astype(np.uint8).tobytes(), (pixel, c)
            compared += len(golden)
    assert compared == sum(built.golden.size for built in layers) > 0
    return compared


def is_alive(golden: np.ndarray) -> bool:
    """A result that a broken engine would not meet by chance."""
    return len(np.unique(golden)) > 20


def depthwise(seed: int, size: tuple[int, int, int], stride: int, padding: int, unsigned: bool, rounding: Rounding) -> Layer:
    rng = np.random.default_rng(seed)
    x = codes(rng, size, unsigned)
    weight = rng.integers(-128, 128, (size[0], 3, 3))
    requant = requant_of(rng, size[0], rounding, *((0, 255) if unsigned else (-128, 127)))
    golden = DepthwiseConv2d(weight=weight, requant=requant, stride=stride, padding=padding)(x[None])[0]
    geometry = {"kernel_h": 3, "kernel_w": 3, "stride": stride, "row0": 1 - padding, "col0": -padding}
    built = layer(x, golden, requant, CONV, rng, in_unsigned=unsigned, **geometry)
    put_weights(built, weight)
    assert is_alive(golden)
    return built


def grouped(seed: int, size: tuple[int, int, int], kernel: tuple[int, int], stride: int, unsigned: bool) -> Layer:
    """A convolution of one filter per channel with a small window, without padding."""
    rng = np.random.default_rng(seed)
    x, channels = codes(rng, size, unsigned), size[0]
    weight = rng.integers(-128, 128, (channels, 1, *kernel))
    requant = requant_of(rng, channels, Rounding.RND)
    golden = Conv2d(weight=weight, requant=requant, stride=stride, groups=channels)(x[None])[0]
    geometry = {"kernel_h": kernel[0], "kernel_w": kernel[1], "stride": stride, "row0": 1, "col0": 0}
    built = layer(x, golden, requant, CONV, rng, in_unsigned=unsigned, **geometry)
    full = rng.integers(-128, 128, (channels, 3, 3))  # weights beyond the window are loaded and must not count
    full[:, : kernel[0], : kernel[1]] = weight[:, 0]
    put_weights(built, full)
    assert is_alive(golden)
    return built


def test_depthwise_conv_with_small_windows() -> None:
    windows = [(1, 1), (1, 3), (3, 1), (2, 2), (2, 3), (3, 2), (1, 2), (2, 1), (3, 3)]
    layers = [
        grouped(31 + number, (16 + 4 * (number % 3), 6, 5), kernel, 1 + number % 2, number % 3 == 0)
        for number, kernel in enumerate(windows)
    ]
    assert run(layers) > 1500


def test_depthwise_conv() -> None:
    layers = [
        depthwise(1, (16, 5, 6), 1, 1, False, Rounding.TRN),
        depthwise(2, (33, 11, 4), 1, 1, True, Rounding.RND),
        depthwise(3, (32, 9, 8), 2, 1, False, Rounding.RND_CONV),
        depthwise(4, (16, 7, 7), 2, 0, True, Rounding.RND_CONV),
        depthwise(5, (20, 21, 5), 3, 2, False, Rounding.RND),
    ]
    assert run(layers) > 3000


def deform(seed: int, size: tuple[int, int, int], stride: int, unsigned: bool, rounding: Rounding) -> Layer:
    rng = np.random.default_rng(seed)
    x = codes(rng, size, unsigned)
    weight = rng.integers(-128, 128, (size[0], 3, 3))
    requant = requant_of(rng, size[0], rounding)
    rows, cols = (-(-n // stride) for n in size[1:])
    directed = np.array([*range(-7, 9), 0, 1, -8, 9, 127, -128])
    s = rng.integers(-9, 11, rows * cols)
    s[: len(directed)] = rng.permutation(directed)[: len(s)]
    s = rng.permutation(s).reshape(1, 1, rows, cols)
    golden = DeformDepthwiseConv2d(weight=weight, requant=requant, stride=stride)(x[None], s)[0]
    geometry = {"kernel_h": 3, "kernel_w": 3, "stride": stride, "row0": 0, "col0": 0}
    built = layer(x, golden, requant, DEFORM, rng, in_unsigned=unsigned, **geometry)
    put_weights(built, weight)
    for pixel, offset in enumerate(s.reshape(-1)):
        noise = rng.integers(0, 256, LANES - 1, np.uint8).tobytes()
        built.job.memories.feature[OFFSET_BASE + 3 * pixel] = bytes([int(offset) & 0xFF]) + noise
    assert is_alive(golden)
    return built


def test_deformable_conv() -> None:
    layers = [
        deform(11, (16, 12, 11), 1, False, Rounding.RND),
        deform(12, (32, 20, 9), 2, True, Rounding.RND_CONV),
        deform(13, (24, 19, 13), 3, False, Rounding.TRN),
    ]
    assert run(layers) > 4000


def samples(seed: int, size: tuple[int, int, int], frac: int, stride: int, padding: int, unsigned: bool) -> Layer:
    """One tap of a deformable convolution with fractional offsets, as a convolution of one tap samples it."""
    rng = np.random.default_rng(seed)
    x, limits = codes(rng, size, unsigned), (0, 255) if unsigned else (-128, 127)
    weight, geometry = np.ones((1, size[0], 1, 1), np.int64), {"stride": stride, "padding": padding}
    whole = DeformConv2d(weight=weight, requant=identity_requant(1, 0, 0), offset_frac=frac, **geometry)
    rows, cols = ((n + 2 * padding - 1) // stride + 1 for n in size[1:])
    offset = rng.integers(-128, 128, (2, rows, cols)) >> np.maximum(rng.integers(0, 9 - frac, (1, rows, cols)) - 1, 0)
    golden = whole.sample(x[None], offset[None])[0, :, 0]
    one = np.ones(size[0], np.int64)
    requant = Requant(bias=0 * one, multiplier=one, shift=2 * frac * one, rounding=Rounding.RND, lo=limits[0], hi=limits[1])
    geometry = {"kernel_h": 2, "kernel_w": 2, "stride": stride, "row0": 1 - padding, "col0": -padding}
    pair = int(rng.integers(8))
    built = layer(x, golden, requant, SAMPLE, rng, in_unsigned=unsigned, offset_frac=frac, offset_pair=pair, **geometry)
    for pixel, shift in enumerate(offset.reshape(2, -1).T):
        word = bytearray(rng.integers(0, 256, LANES, np.uint8).tobytes())
        word[2 * pair : 2 * pair + 2] = shift.astype(np.int8).tobytes()
        built.job.memories.feature[OFFSET_BASE + 3 * pixel] = bytes(word)
    assert is_alive(golden)
    return built


def test_samples() -> None:
    """Every number of fraction bits, strides, paddings, channels that fill no word, images lower than the reach and higher."""
    layers = [
        samples(51 + frac, (16 + 8 * (frac % 3), 5 + 4 * frac, 12 - frac), frac, 1 + frac % 3, frac % 2, frac % 2 == 1)
        for frac in range(8)
    ]
    layers.append(samples(60, (16, 40, 3), 0, 1, 0, True))
    assert run(layers) > 8000


def max_pool(seed: int, size: tuple[int, int, int], kernel: int, stride: int, padding: int, unsigned: bool) -> Layer:
    rng = np.random.default_rng(seed)
    x = codes(rng, size, unsigned)
    golden = MaxPool2d(kernel=kernel, stride=stride, padding=padding)(x[None])[0]
    requant = identity_requant(size[0], *((0, 255) if unsigned else (-128, 127)))
    geometry = {"kernel_h": kernel, "kernel_w": kernel, "stride": stride, "row0": 1 - padding, "col0": -padding}
    return layer(x, golden, requant, MAX, rng, in_unsigned=unsigned, **geometry)


def test_max_pool() -> None:
    layers = [
        max_pool(21, (16, 6, 8), 2, 2, 0, False),
        max_pool(22, (24, 9, 9), 3, 2, 1, True),
        max_pool(23, (16, 12, 6), 5, 1, 2, False),
        max_pool(24, (32, 14, 10), 4, 3, 2, False),
        max_pool(25, (16, 5, 5), 1, 1, 0, True),
    ]
    assert run(layers) > 2500


def test_max_pool_of_negative_codes_ignores_padding() -> None:
    rng = np.random.default_rng(26)
    x = rng.integers(-128, -100, (16, 4, 4))
    golden = MaxPool2d(kernel=3, stride=1, padding=1)(x[None])[0]
    geometry = {"kernel_h": 3, "kernel_w": 3, "stride": 1, "row0": 0, "col0": -1}
    assert run([layer(x, golden, identity_requant(16, -128, 127), MAX, rng, **geometry)]) == 256


def avg_pool(
    seed: int, size: tuple[int, int, int], kernel: tuple[int, int], stride: int, padding: int, unsigned: bool
) -> Layer:
    rng = np.random.default_rng(seed)
    x = codes(rng, size, unsigned)
    limits = (0, 255) if unsigned else (-128, 127)
    requant = mean_requant(size[0], kernel[0] * kernel[1], 0, ROUNDINGS[seed % 3], *limits)
    golden = AvgPool2d(kernel=kernel, requant=requant, stride=stride, padding=padding)(x[None])[0]
    geometry = {"kernel_h": kernel[0], "kernel_w": kernel[1], "stride": stride, "row0": 1 - padding, "col0": -padding}
    return layer(x, golden, requant, SUM, rng, in_unsigned=unsigned, **geometry)


def test_average_pool() -> None:
    layers = [
        avg_pool(31, (16, 6, 6), (2, 2), 2, 0, False),
        avg_pool(32, (64, 7, 7), (7, 7), 1, 0, True),
        avg_pool(33, (32, 9, 8), (5, 4), 2, 0, False),
        avg_pool(34, (16, 8, 8), (3, 3), 1, 1, False),
        avg_pool(35, (48, 12, 3), (12, 3), 1, 0, False),
    ]
    assert run(layers) > 1500


def test_a_wrong_golden_code_is_noticed() -> None:
    built = max_pool(41, (16, 4, 4), 2, 2, 0, False)
    built.golden[5, 1, 0] ^= 1
    with pytest.raises(AssertionError):
        run([built])
