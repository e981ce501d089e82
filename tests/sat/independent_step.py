"""A second definition of the exact training step: ``residual_network`` of tests/sat/small_graphs.py, written out tensor by tensor.

It imports nothing of the golden operations; docs/sat.md and their docstrings say what it computes. Sums run in loops over k,
vectorised over results only. FP16 is rounded on the bits, statistics and constants are exact rational numbers rounded once, groups are
sorted one by one, a maximum remembers the place it came from, the loss is computed with 50 decimal digits. Of numpy it takes single
float32 operations, which are those of IEEE.

A state is the dictionary of arrays that ``TrainingState.arrays`` gives; tensors have the names that the network gives them.
"""

from __future__ import annotations

import decimal
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

Array = np.ndarray
Pattern = tuple[int, int] | None
F16, F32 = np.float16, np.float32
LARGEST = F32((2 - Fraction(1, 2**23)) * 2**127)
CONVOLUTIONS = {"stem": (1, 1), "c1": (2, 1), "c2": (1, 1), "shortcut": (2, 0), "c3": (1, 0), "head": (1, 0)}
"""Stride and padding."""
SPARSE = ("c1", "c2", "shortcut", "c3")
CI, CO = 2, 3
DIGITS = decimal.Context(prec=50)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one step; ``decay_channels``: scales and biases decay too."""

    rate: float
    momentum: float = 0.9
    decay: float = 0.0
    loss_scale: float = 1024.0
    decay_channels: bool = True


@dataclass(kw_only=True)
class Step:
    """What a step computes; gradients still hold the loss scale. ``met`` counts the special cases that the data had."""

    state: dict[str, Array]
    logits: Array
    loss: float
    tensors: dict[str, Array]
    gradients: dict[str, Array]
    parameter_gradients: dict[str, Array]
    forward_saturated: bool
    backward_saturated: bool
    met: Counter[str] = field(default_factory=Counter)


class Unit:
    """Operations, each rounded once to nearest even; a result beyond the format becomes the largest number and sets ``saturated``."""

    def __init__(self) -> None:
        self.saturated = False
        self.met: Counter[str] = Counter()

    def _finite(self, raw: Array) -> Array:
        beyond = np.isinf(raw)
        self.saturated |= bool(beyond.any())
        return np.where(beyond, np.copysign(LARGEST, raw), raw)

    def add(self, a: Array, b: Array) -> Array:
        with np.errstate(over="ignore"):
            return self._finite(np.add(a, b, dtype=F32))

    def sub(self, a: Array, b: Array) -> Array:
        with np.errstate(over="ignore"):
            return self._finite(np.subtract(a, b, dtype=F32))

    def mul(self, a: Array, b: Array) -> Array:
        with np.errstate(over="ignore"):
            return self._finite(np.multiply(a, b, dtype=F32))

    def nearest(self, value: Fraction) -> F32:
        """The FP32 nearest to a rational number."""
        if value == 0:
            return F32(0)
        size = abs(value)
        exponent = size.numerator.bit_length() - size.denominator.bit_length()
        exponent -= Fraction(2) ** exponent > size
        unit = max(exponent - 23, -149)
        rounded = round(size / Fraction(2) ** unit) * Fraction(2) ** unit
        if rounded > Fraction(float(LARGEST)):
            self.saturated, rounded = True, Fraction(float(LARGEST))
        return F32(math.copysign(float(rounded), value))

    def half(self, x: Array) -> Array:
        """FP32 to FP16 on the bits: the value is ``mantissa * 2**(exponent - 150)``, FP16's last place no less than 2**-24."""
        assert x.dtype == F32
        bits = x.view(np.uint32).astype(np.int64)
        exponent = (bits >> 23) & 0xFF
        mantissa = (bits & 0x7FFFFF) | np.where(exponent > 0, 1 << 23, 0)
        exponent = np.maximum(exponent, 1)
        place = np.maximum(exponent - 150 + 13, -24)
        shift = np.minimum(place - exponent + 150, 30)
        kept, rest, middle = mantissa >> shift, mantissa & ((1 << shift) - 1), 1 << (shift - 1)
        kept += (rest > middle) | ((rest == middle) & (kept & 1 == 1))
        found = ((place + 24) << 10) + kept
        self.saturated |= bool((found >= 0x7C00).any())
        self.met["FP16 saturated"] += int((found >= 0x7C00).sum())
        self.met["FP16 subnormal"] += int(((found > 0) & (found < 0x400)).sum())
        self.met["FP16 -0"] += int(((found == 0) & (bits >> 31 == 1)).sum())
        self.met["FP16 tie"] += int(((rest == middle) & (mantissa > 0)).sum())
        return (np.minimum(found, 0x7BFF) | (bits >> 31 << 15)).astype(np.uint16).view(F16)


def wide(x: Array) -> Array:
    assert x.dtype == F16
    return x.astype(F32)


# --- products --------------------------------------------------------------------------------------------------------------


def at(x: Array, rows: Array, columns: Array) -> Array:
    """x (N, H, W, C) at rows and columns as float32, 0 outside."""
    height, width = x.shape[1:3]
    inside = ((rows >= 0) & (rows < height))[:, None] & ((columns >= 0) & (columns < width))
    taken = x[:, rows.clip(0, height - 1)][:, :, columns.clip(0, width - 1)]
    return np.where(inside[None, :, :, None], wide(taken), F32(0))


def convolution(x: Array, w: Array, stride: int, padding: int) -> Array:
    """k is (kh, kw, ci)."""
    (kh, kw, ci, co), height = w.shape, (x.shape[1] + 2 * padding - w.shape[0]) // stride + 1
    places = np.arange(height) * stride - padding
    acc = np.zeros((len(x), height, height, co), F32)
    for i in range(kh):
        for j in range(kw):
            taken = at(x, places + i, places + j)
            for c in range(ci):
                acc = acc + taken[..., c, None] * wide(w[i, j, c])
    return acc


def convolution_input(dy: Array, w: Array, size: int, stride: int, padding: int) -> Array:
    """k is (kh, kw, co), the taps from the last to the first; tap i of output row o reads input row o * stride + i - padding."""
    (kh, kw, ci, co) = w.shape
    acc = np.zeros((len(dy), size, size, ci), F32)

    def readers(tap: int) -> Array:
        offset = np.arange(size) + padding - tap
        return np.where(offset % stride == 0, offset // stride, -1)

    for i in range(kh - 1, -1, -1):
        for j in range(kw - 1, -1, -1):
            taken = at(dy, readers(i), readers(j))
            for c in range(co):
                acc = acc + taken[..., c, None] * wide(w[i, j, :, c])
    return acc


def convolution_weight(x: Array, dy: Array, shape: tuple[int, ...], stride: int, padding: int) -> Array:
    """k is (n, row, column) of the outputs."""
    acc, (kh, kw, _, _) = np.zeros(shape, F32), shape
    for n, row, column in np.ndindex(dy.shape[:3]):
        taken = at(x[n : n + 1], row * stride - padding + np.arange(kh), column * stride - padding + np.arange(kw))[0]
        acc = acc + taken[..., None] * wide(dy[n, row, column])
    return acc


def selected(unit: Unit, master: Array, pattern: Pattern, axis: int) -> Array:
    """float16: of each group along the axis the n largest magnitudes, of equal ones the lowest index; all without a pattern."""
    if pattern is None:
        return unit.half(master)
    n, m = pattern
    source = np.moveaxis(master, axis, -1)
    kept = np.zeros_like(source)
    for place in np.ndindex(source.shape[:-1]):
        for start in range(0, source.shape[-1], m):
            magnitudes = [abs(float(v)) for v in source[place][start : start + m]]
            order = sorted(range(m), key=lambda index, of=magnitudes: (-of[index], index))
            last, next_one = magnitudes[order[n - 1]], magnitudes[order[n]]
            unit.met["selection tie"] += last == next_one > 0
            unit.met["selection tie in FP16 only"] += last > next_one and bool(F16(last) == F16(next_one))
            for index in order[:n]:
                kept[place][start + index] = source[place][start + index]
    return unit.half(np.ascontiguousarray(np.moveaxis(kept, -1, axis)))


# --- channels --------------------------------------------------------------------------------------------------------------


def integers(x: Array) -> list[list[int]]:
    """The values of each channel in units of 2**-24."""
    bits = x.view(np.uint16).astype(np.int64)
    exponent, mantissa = (bits >> 10) & 31, bits & 1023
    sizes = np.where(exponent > 0, (mantissa | 1024) << np.maximum(exponent - 1, 0), mantissa)
    signed = np.where(bits >> 15 == 1, -sizes, sizes)
    return [signed[..., c].ravel().tolist() for c in range(x.shape[-1])]


def sums(x: Array) -> list[int]:
    return [sum(values) for values in integers(x)]


def sums_of_products(a: Array, b: Array) -> list[int]:
    return [sum(p * q for p, q in zip(one, other, strict=True)) for one, other in zip(integers(a), integers(b), strict=True)]


def rounded_sums(unit: Unit, values: list[int], unit_bits: int) -> Array:
    return np.array([unit.nearest(Fraction(v, 2**unit_bits)) for v in values], F32)


def rectified(x: Array) -> Array:
    return np.where(x > 0, x, F32(0))


@dataclass(frozen=True)
class Seen:
    mean: Array
    inverse: Array
    first: list[int]


def normalised(
    unit: Unit, y: Array, state: dict[str, Array], name: str, residual: Array | None = None, relu: bool = True
) -> tuple[Array, Seen]:
    """z, what its gradient needs; new running statistics go into the state."""
    n = y.size // y.shape[-1]
    first, second = sums(y), sums_of_products(y, y)
    mean = unit.mul(rounded_sums(unit, first, 24), unit.nearest(Fraction(1, n)))
    spread = [n * b - a * a for a, b in zip(first, second, strict=True)]
    variance = unit.mul(rounded_sums(unit, spread, 48), unit.nearest(Fraction(1, n * n)))
    inverse = np.divide(F32(1), np.sqrt(unit.add(variance, unit.nearest(Fraction("1e-5")))), dtype=F32)
    s = unit.mul(state[f"{name}.scale"], inverse)
    u = unit.sub(state[f"{name}.bias"], unit.mul(mean, s))
    unbiased = unit.mul(variance, unit.nearest(Fraction(n, n - 1)))
    for part, value in (("running_mean", mean), ("running_variance", unbiased)):
        before = state[f"{name}.{part}"]
        state[f"{name}.{part}"] = unit.add(before, unit.mul(unit.sub(value, before), unit.nearest(Fraction("0.1"))))
    return affine(unit, y, s, u, residual, relu), Seen(mean, inverse, first)


def affine(unit: Unit, y: Array, s: Array, u: Array, residual: Array | None, relu: bool) -> Array:
    """``(y * s + residual) + u``."""
    z = unit.mul(wide(y), s)
    if residual is not None:
        z = unit.add(z, wide(residual))
    z = unit.add(z, u)
    return unit.half(rectified(z) if relu else z)


def normalised_fixed(y: Array, state: dict[str, Array], name: str, residual: Array | None = None, relu: bool = True) -> Array:
    """With the running statistics: inference."""
    unit = Unit()
    deviation = np.sqrt(unit.add(state[f"{name}.running_variance"], unit.nearest(Fraction("1e-5"))))
    s = unit.mul(state[f"{name}.scale"], np.divide(F32(1), deviation, dtype=F32))
    u = unit.sub(state[f"{name}.bias"], unit.mul(state[f"{name}.running_mean"], s))
    return affine(unit, y, s, u, residual, relu)


def normalised_gradient(unit: Unit, g: Array, y: Array, scale: Array, seen: Seen) -> tuple[Array, Array, Array]:
    """Gradients of y, scale and bias."""
    n = y.size // y.shape[-1]
    one_nth = unit.nearest(Fraction(1, n))
    first, second = sums(g), sums_of_products(g, y)
    bias_gradient = rounded_sums(unit, first, 24)
    cross = [n * b - a * kept for a, b, kept in zip(first, second, seen.first, strict=True)]
    scale_gradient = unit.mul(unit.mul(rounded_sums(unit, cross, 48), one_nth), seen.inverse)
    s = unit.mul(scale, seen.inverse)
    t = unit.sub(F32(0), unit.mul(unit.mul(unit.mul(scale_gradient, one_nth), seen.inverse), s))
    u = unit.sub(F32(0), unit.add(unit.mul(unit.mul(bias_gradient, one_nth), s), unit.mul(t, seen.mean)))
    dy = unit.add(unit.add(unit.mul(wide(g), s), unit.mul(wide(y), t)), u)
    return unit.half(dy), scale_gradient, bias_gradient


# --- single values ---------------------------------------------------------------------------------------------------------


def places(kernel: int) -> Iterator[tuple[int, int]]:
    return ((i, j) for i in range(kernel) for j in range(kernel))


def largest_of_four(unit: Unit, x: Array) -> tuple[Array, Array]:
    """Maxima of 2 x 2 and which place each came from, 0..3 in raster order; of equal ones the first."""
    best, origin = x[:, ::2, ::2], np.zeros((len(x), x.shape[1] // 2, x.shape[2] // 2, x.shape[3]), np.int64)
    for number, (i, j) in enumerate(places(2)):
        value = x[:, i::2, j::2]
        unit.met["pooling tie"] += int((number > 0) * ((value == best) & (best > 0)).sum())
        better = value > best
        best, origin = np.where(better, value, best), np.where(better, number, origin)
    return best, origin


def largest_gradient(dy: Array, origin: Array) -> Array:
    dx = np.zeros((len(dy), 2 * dy.shape[1], 2 * dy.shape[2], dy.shape[3]), F16)
    for number, (i, j) in enumerate(places(2)):
        dx[:, i::2, j::2] = np.where(origin == number, dy, F16(0))
    return dx


def mean_of_all(unit: Unit, x: Array) -> Array:
    """``acc = FP16(x_0 / n); acc = FP16(acc + x_i / n)``; divided by a multiplication with the FP32 nearest to 1 / n."""
    size = x.shape[1]
    share = unit.nearest(Fraction(1, size * size))
    acc: Array | None = None
    for i, j in places(size):
        part = unit.mul(wide(x[:, i : i + 1, j : j + 1]), share)
        acc = unit.half(part if acc is None else unit.add(wide(acc), part))
    assert acc is not None
    return acc


def mean_gradient(unit: Unit, dy: Array, size: int) -> Array:
    share = unit.half(unit.mul(wide(dy), unit.nearest(Fraction(1, size * size))))
    return np.tile(share, (1, size, size, 1))


def total(unit: Unit, a: Array, b: Array, relu: bool = False) -> Array:
    result = unit.add(wide(a), wide(b))
    return unit.half(rectified(result) if relu else result)


def gated(g: Array, z: Array) -> Array:
    return np.where(z > 0, g, F16(0))


def loss_of(unit: Unit, logits: Array, labels: Array, loss_scale: float) -> tuple[float, Array]:
    """Mean cross-entropy, and its gradient times the scale: the exact number rounded to FP32, then to FP16."""
    loss, gradient = decimal.Decimal(0), np.zeros(logits.shape, F32)
    for n, row in enumerate(logits.tolist()):
        powers = [DIGITS.exp(decimal.Decimal(v) - decimal.Decimal(max(row))) for v in row]
        whole = sum(powers, decimal.Decimal(0))
        loss = DIGITS.subtract(loss, DIGITS.ln(DIGITS.divide(powers[labels[n]], whole)))
        for c, power in enumerate(powers):
            wanted = Fraction(power) / Fraction(whole) - (c == labels[n])
            gradient[n, c] = unit.nearest(wanted / len(logits) * Fraction(loss_scale))
    return float(loss / len(logits)), unit.half(gradient)


def updated(value: Array, velocity: Array, gradient: Array, settings: Settings, decay: float) -> tuple[Array, Array]:
    """``v = v * momentum + (w * decay + g / scale); w = w - v * rate``."""
    unit = Unit()
    rate, momentum, decay32 = (unit.nearest(Fraction(v)) for v in (settings.rate, settings.momentum, decay))
    step = unit.add(unit.mul(value, decay32), unit.mul(gradient, unit.nearest(1 / Fraction(settings.loss_scale))))
    after = unit.add(unit.mul(velocity, momentum), step)
    return unit.sub(value, unit.mul(after, rate)), after


# --- the network -----------------------------------------------------------------------------------------------------------


def train_step(before: dict[str, Array], images: Array, labels: Array, pattern: Pattern, settings: Settings) -> Step:
    """One whole step; the state before stays as it is."""
    state, unit = dict(before), Unit()
    v: dict[str, Array] = {"input": images}
    seen: dict[str, Seen] = {}

    def conv(name: str, source: str) -> None:
        w = selected(unit, state[f"{name}.master"], pattern if name in SPARSE else None, CI)
        v[f"{name}.y"] = unit.half(convolution(v[source], w, *CONVOLUTIONS[name]))

    def norm(name: str, source: str, residual: str | None = None, relu: bool = True) -> None:
        other = None if residual is None else v[residual]
        v[f"{name}.z"], seen[name] = normalised(unit, v[source], state, name, other, relu)

    conv("stem", "input")
    norm("stem_norm", "stem.y")
    v["pool.z"], origin = largest_of_four(unit, v["stem_norm.z"])
    conv("c1", "pool.z")
    norm("n1", "c1.y")
    conv("c2", "n1.z")
    conv("shortcut", "pool.z")
    norm("shortcut_norm", "shortcut.y", relu=False)
    norm("n2", "c2.y", residual="shortcut_norm.z")
    conv("c3", "n2.z")
    norm("n3", "c3.y", residual="n2.z")
    v["sum.z"] = total(unit, v["n1.z"], v["n3.z"], relu=True)
    v["plain.z"] = total(unit, v["sum.z"], v["n3.z"])
    v["mean.z"] = mean_of_all(unit, v["plain.z"])
    conv("head", "mean.z")
    v["logits"] = affine(unit, v["head.y"], F32(1), state["head_bias.bias"], None, relu=False)

    forward, unit = unit, Unit()
    d: dict[str, Array] = {}
    p: dict[str, Array] = {}
    logits = v["logits"].reshape(len(images), -1)
    loss, gradient = loss_of(unit, logits, labels, settings.loss_scale)

    def conv_back(name: str, source: str) -> Array:
        dy = d[f"{name}.y"]
        p[f"{name}.master"] = convolution_weight(v[source], dy, state[f"{name}.master"].shape, *CONVOLUTIONS[name])
        w = selected(unit, state[f"{name}.master"], pattern if name in SPARSE else None, CO)
        return unit.half(convolution_input(dy, w, v[source].shape[1], *CONVOLUTIONS[name]))

    def norm_back(name: str, source: str, g: Array) -> None:
        d[source], scale, bias = normalised_gradient(unit, g, v[source], state[f"{name}.scale"], seen[name])
        p[f"{name}.scale"], p[f"{name}.bias"] = scale, bias

    d["logits"] = d["head.y"] = gradient.reshape(v["logits"].shape)
    p["head_bias.bias"] = rounded_sums(unit, sums(d["logits"]), 24)
    p["head_bias.scale"] = np.zeros_like(p["head_bias.bias"])
    d["mean.z"] = conv_back("head", "mean.z")
    d["plain.z"] = d["sum.z"] = mean_gradient(unit, d["mean.z"], v["plain.z"].shape[1])
    into_sum = gated(d["sum.z"], v["sum.z"])
    d["n3.z"] = total(unit, d["plain.z"], into_sum)
    into_n3 = gated(d["n3.z"], v["n3.z"])
    norm_back("n3", "c3.y", into_n3)
    d["n2.z"] = total(unit, into_n3, conv_back("c3", "n2.z"))
    d["shortcut_norm.z"] = gated(d["n2.z"], v["n2.z"])
    norm_back("n2", "c2.y", d["shortcut_norm.z"])
    norm_back("shortcut_norm", "shortcut.y", d["shortcut_norm.z"])
    d["n1.z"] = total(unit, into_sum, conv_back("c2", "n1.z"))
    norm_back("n1", "c1.y", gated(d["n1.z"], v["n1.z"]))
    d["pool.z"] = total(unit, conv_back("shortcut", "pool.z"), conv_back("c1", "pool.z"))
    d["stem_norm.z"] = largest_gradient(d["pool.z"], origin)
    norm_back("stem_norm", "stem.y", gated(d["stem_norm.z"], v["stem_norm.z"]))
    p["stem.master"] = convolution_weight(images, d["stem.y"], state["stem.master"].shape, *CONVOLUTIONS["stem"])

    if not unit.saturated:
        for name, gradient in p.items():
            velocity = f"{name}_velocity" if name.endswith((".scale", ".bias")) else name.replace(".master", ".velocity")
            decays = name.endswith(".master") or settings.decay_channels
            decay = settings.decay if decays else 0.0
            state[name], state[velocity] = updated(state[name], state[velocity], gradient, settings, decay)
    del v["input"]
    return Step(
        state=state, logits=logits, loss=loss, tensors=v, gradients=d, parameter_gradients=p,
        forward_saturated=forward.saturated, backward_saturated=unit.saturated, met=forward.met + unit.met,
    )  # fmt: skip


def infer(state: dict[str, Array], images: Array, pattern: Pattern) -> Array:
    """Logits (N, classes) with the running statistics."""
    unit = Unit()

    def conv(name: str, x: Array) -> Array:
        w = selected(unit, state[f"{name}.master"], pattern if name in SPARSE else None, CI)
        return unit.half(convolution(x, w, *CONVOLUTIONS[name]))

    pool, _ = largest_of_four(unit, normalised_fixed(conv("stem", images), state, "stem_norm"))
    one = normalised_fixed(conv("c1", pool), state, "n1")
    short = normalised_fixed(conv("shortcut", pool), state, "shortcut_norm", relu=False)
    two = normalised_fixed(conv("c2", one), state, "n2", short)
    three = normalised_fixed(conv("c3", two), state, "n3", two)
    mean = mean_of_all(unit, total(unit, total(unit, one, three, relu=True), three))
    return affine(unit, conv("head", mean), F32(1), state["head_bias.bias"], None, relu=False).reshape(len(images), -1)
