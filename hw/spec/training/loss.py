"""Softmax cross-entropy as the host computes it: float64 in a written order, with an ``exp`` of its own, as libraries' differ."""

from __future__ import annotations

import numpy as np

from hw.spec.training.rounded import half

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.6931471803691238, 1.9082149292705877e-10
_TERMS = 14


def exp(x: np.ndarray) -> np.ndarray:
    """e**x of float64 in -708..709: a power of two times a polynomial in the rest, Horner's order; within 2 units in the last place."""
    power = np.floor(x * _LOG2_E + 0.5)
    rest = (x - power * _LN2_HIGH) - power * _LN2_LOW
    result = np.ones_like(x)
    for term in range(_TERMS, 0, -1):
        result = 1.0 + result * rest / term
    return np.ldexp(result, power.astype(np.int64))


def log(x: np.ndarray) -> np.ndarray:
    """Natural logarithm of float64 above 0: three Newton steps on ``exp`` from a linear guess."""
    fraction, power = np.frexp(x)
    guess = power * (_LN2_HIGH + _LN2_LOW) + 2 * (fraction - 1)
    for _ in range(5):
        guess = guess + (2 * (x - exp(guess)) / (x + exp(guess)))
    return guess


def softmax_cross_entropy(logits: np.ndarray, labels: np.ndarray, loss_scale: float) -> tuple[float, np.ndarray]:
    """Mean loss, and its gradient times the loss scale as float16 (N, classes), rounded to float32 first.

    logits float16 (N, classes), labels integers (N,). Sums run over the classes in ascending order. Raises ValueError for labels that
    are no class and for logits that are not finite.
    """
    count, classes = logits.shape
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be {count} classes in 0..{classes - 1}, not {labels.shape} {labels.min()}..{labels.max()}")
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite")
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    powers = exp(shifted)
    total = np.zeros(count)
    for c in range(classes):
        total = total + powers[:, c]
    chosen = shifted[np.arange(count), labels]
    loss = 0.0
    for value in log(total) - chosen:
        loss = loss + float(value)
    gradient = powers / total[:, None]
    gradient[np.arange(count), labels] -= 1
    return loss / count, half((gradient / count * loss_scale).astype(np.float32))
