"""The operations of ``hw.spec.floats``, with a watch over saturation: a step in which something saturated must be known as such."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.spec import floats

Array = np.ndarray


@dataclass
class Watch:
    """Whether anything saturated while it was active."""

    saturated: bool = False


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watching() -> Iterator[Watch]:
    """Note saturation of all operations below; of nested watches the innermost notes it."""
    watch = Watch()
    token = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(token)


def _note(saturates: Any, *operands: Any) -> None:
    watch = _watch.get()
    if watch is not None and not watch.saturated:
        watch.saturated = bool(saturates(*operands).any())


def add(a: Any, b: Any) -> Array:
    """``a + b`` of float32."""
    _note(floats.saturates_add, a, b)
    return floats.fp32_add(a, b)


def multiply(a: Any, b: Any) -> Array:
    """``a * b`` of float32."""
    _note(floats.saturates_mul, a, b)
    return floats.fp32_mul(a, b)


def divide(a: Any, b: Any) -> Array:
    """``a / b`` of float32."""
    _note(floats.saturates_div, a, b)
    return floats.fp32_div(a, b)


def root(a: Any) -> Array:
    """The square root of float32."""
    return floats.fp32_sqrt(a)


def from_integers(values: Array, exponent: int) -> Array:
    """``value * 2**exponent`` of integers."""
    _note(floats.saturates_from_int, values, exponent)
    return floats.fp32_from_int(values, exponent)


def half(x: Any) -> Array:
    """FP32 to FP16."""
    _note(floats.saturates_fp16, x)
    return floats.to_fp16(x)


def wide(x: Any) -> Array:
    """FP16 as FP32."""
    return floats.to_fp32(x)
