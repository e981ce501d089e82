"""BatchNorm and biases per channel: exact integer statistics, then FP32 operations in a written order, each rounded once."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hw.spec.training.rounded import add, divide, from_integers, half, multiply, root, wide

Array = np.ndarray
_HALF = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class BiasState:
    """Values per channel that are trained: scale and bias with their velocities, float32 (C,). Of a bias alone the scale is unused."""

    scale: Array
    bias: Array
    scale_velocity: Array
    bias_velocity: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class NormState(BiasState):
    """BatchNorm's: with the running statistics."""

    running_mean: Array
    running_variance: Array


@dataclass(frozen=True, kw_only=True)
class NormConstants:
    """``epsilon`` is added to the variance; ``running_weight`` is what a batch counts in the running statistics."""

    epsilon: float = 1e-5
    running_weight: float = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class Normalised:
    """What the backward pass needs of the forward one: mean and 1 / deviation (float32), the exact sum (integers)."""

    mean: Array
    inverse_deviation: Array
    total: Array


def integers(values: Array) -> Array:
    """FP16 (..., C) as int64 (n, C) in units of 2**-24."""
    return (values.reshape(-1, values.shape[-1]).astype(np.float64) * 2.0**24).astype(np.int64)


def total(values: Array) -> Array:
    """Exact sums per channel, in units of 2**-24: object array (C,)."""
    return integers(values).sum(axis=0).astype(object)


def total_product(a: Array, b: Array) -> Array:
    """Exact sums of products per channel, in units of 2**-48: object array (C,). Products have 81 bits, so halves are summed."""
    (a1, a0), (b1, b0) = (np.divmod(integers(v), 1 << _HALF) for v in (a, b))
    high, low = (a1 * b1).sum(axis=0).astype(object), (a0 * b0).sum(axis=0).astype(object)
    middle = (a1 * b0).sum(axis=0).astype(object) + (a0 * b1).sum(axis=0).astype(object)
    return (high << 2 * _HALF) + (middle << _HALF) + low


def affine(y: Array, s: Array, u: Array, residual: Array | None, relu: bool) -> Array:
    """``(y * s + residual) + u`` per channel, each operation rounded to FP32, then FP16; float16 (N, H, W, C)."""
    result = multiply(wide(y), s)
    if residual is not None:
        result = add(result, wide(residual))
    result = add(result, np.broadcast_to(u, result.shape))
    return half(np.where(result > 0, result, np.float32(0)) if relu else result)


def norm_forward(
    y: Array, state: NormState, constants: NormConstants, residual: Array | None, relu: bool
) -> tuple[Array, Normalised, NormState]:
    """Batch-normalised y, what the backward pass needs, and the state with new running statistics."""
    count = y.size // y.shape[-1]
    first, second = total(y), total_product(y, y)
    mean = multiply(from_integers(first, -24), np.float32(1 / count))
    variance = multiply(from_integers(count * second - first * first, -48), np.float32(1 / count**2))
    deviation = root(add(variance, np.float32(constants.epsilon)))
    inverse = divide(np.float32(1), deviation)
    s = multiply(state.scale, inverse)
    u = add(state.bias, -multiply(mean, s))
    unbiased = multiply(variance, unbias(count))
    after = replace(
        state,
        running_mean=_moved(state.running_mean, mean, constants),
        running_variance=_moved(state.running_variance, unbiased, constants),
    )
    return affine(y, s, u, residual, relu), Normalised(mean=mean, inverse_deviation=inverse, total=first), after


def unbias(count: int) -> np.float32:
    """n / (n - 1); 1 for a single value, whose variance is 0."""
    return np.float32(count / max(count - 1, 1))


def _moved(running: Array, value: Array, constants: NormConstants) -> Array:
    return add(running, multiply(add(value, -running), np.float32(constants.running_weight)))


def norm_fixed(y: Array, state: NormState, constants: NormConstants, residual: Array | None, relu: bool) -> Array:
    """y normalised by the running statistics: inference."""
    deviation = root(add(state.running_variance, np.float32(constants.epsilon)))
    s = multiply(state.scale, divide(np.float32(1), deviation))
    return affine(y, s, add(state.bias, -multiply(state.running_mean, s)), residual, relu)


def norm_backward(g: Array, y: Array, state: NormState, seen: Normalised) -> tuple[Array, Array, Array]:
    """Gradients of y (float16), scale and bias (float32, still times the loss scale); g is the gradient of the affine result."""
    count = y.size // y.shape[-1]
    inverse_count = np.float32(1 / count)
    first, second = total(g), total_product(g, y)
    bias = from_integers(first, -24)
    covariance = multiply(from_integers(count * second - first * seen.total, -48), inverse_count)
    scale = multiply(covariance, seen.inverse_deviation)
    s = multiply(state.scale, seen.inverse_deviation)
    t = -multiply(multiply(multiply(scale, inverse_count), seen.inverse_deviation), s)
    t = add(t, np.zeros_like(t))
    u = add(multiply(multiply(bias, inverse_count), s), multiply(t, seen.mean))
    u = add(np.zeros_like(u), -u)
    result = add(multiply(wide(g), s), multiply(wide(y), t))
    return half(add(result, np.broadcast_to(u, result.shape))), scale, bias


def bias_forward(y: Array, state: BiasState, residual: Array | None, relu: bool) -> Array:
    """y plus a bias per channel."""
    return affine(y, np.ones_like(state.bias), add(state.bias, np.zeros_like(state.bias)), residual, relu)


def bias_gradient(g: Array) -> Array:
    """The exact sum of g per channel, rounded once: float32 (C,)."""
    return from_integers(total(g), -24)
