"""Memory words as numbers: FP16 and FP32 as every unit reads them, 128-bit integers, and positions."""

from __future__ import annotations

import numpy as np

from hw.spec.arch import WORD_BYTES

_FP16_TOP, _FP16_MAX = 0x7C00, 0x7BFF
_FP32_TOP, _FP32_MAX = 0x7F800000, 0x7F7FFFFF


def fp16_values(words: np.ndarray) -> np.ndarray:
    """Bytes (..., 16) as float16 (..., 8); an exponent of all ones reads as the largest finite number."""
    bits = np.ascontiguousarray(words).view("<u2")
    top = (bits & _FP16_TOP) == _FP16_TOP
    return np.where(top, bits & 0x8000 | _FP16_MAX, bits).astype(np.uint16).view(np.float16)


def fp32_values(words: np.ndarray) -> np.ndarray:
    """Bytes (..., 16) as float32 (..., 4); an exponent of all ones reads as the largest finite number."""
    bits = np.ascontiguousarray(words).view("<u4")
    top = (bits & _FP32_TOP) == _FP32_TOP
    return np.where(top, bits & 0x80000000 | _FP32_MAX, bits).astype(np.uint32).view(np.float32)


def as_words(values: np.ndarray) -> np.ndarray:
    """Numbers (..., n) of any type, n of them a whole number of words, as bytes (..., words, 16)."""
    data = np.ascontiguousarray(values)
    return data.view(np.uint8).reshape(*data.shape[:-1], -1, WORD_BYTES)


def wrapped(value: int, bits: int) -> int:
    """The low ``bits`` of an integer as two's complement."""
    half = 1 << (bits - 1)
    return (value + half) % (1 << bits) - half


def integer(word: np.ndarray, bits: int) -> int:
    """The low ``bits`` of a word (16 bytes) as a signed integer."""
    return wrapped(int.from_bytes(word.tobytes(), "little"), bits)


def integer_word(value: int, bits: int) -> np.ndarray:
    """A signed integer modulo 2**bits, sign-extended to a word (16 bytes)."""
    return np.frombuffer(wrapped(value, bits).to_bytes(WORD_BYTES, "little", signed=True), np.uint8)


def scaled_integers(values: np.ndarray) -> np.ndarray:
    """FP16 values as what they are multiples of 2**-24 of: int64, at most 2**40 in magnitude."""
    return (values.astype(np.float64) * 2.0**24).astype(np.int64)
