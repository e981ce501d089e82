"""Random numbers from a counter: the same (seed, step, layer, element) gives the same number on every machine.

With ``mix`` a bijection of 32-bit words (two multiplications, three shifts),

    key = mix(mix(mix(seed) + layer) + step)        once per layer and step
    word = mix(element ^ key)                       once per element
    uniform = (word >> 8) / 2**24                   a multiple of 2**-24 in [0, 1), exact in float32

All sums and products are modulo 2**32. A number does not depend on the order in which elements are visited.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["MULTIPLIERS", "SHIFTS", "WORD", "counter_key", "counter_uniform", "mix"]

WORD = 0xFFFFFFFF
SHIFTS = (16, 15, 16)
MULTIPLIERS = (0x7FEB352D, 0x846CA68B)


def mix(words: Any) -> Any:
    """A bijection of 0..2**32 - 1 whose every output bit depends on every input bit; ints or an unsigned array."""
    words = words ^ (words >> SHIFTS[0])
    words = (words * MULTIPLIERS[0]) & WORD
    words = words ^ (words >> SHIFTS[1])
    words = (words * MULTIPLIERS[1]) & WORD
    return words ^ (words >> SHIFTS[2])


def counter_key(seed: int, step: int, layer: int) -> int:
    """The 32-bit key of a layer at a step; the three are non-negative integers, taken modulo 2**32."""
    if min(seed, step, layer) < 0:
        raise ValueError(f"seed, step and layer must not be negative, not {seed}, {step}, {layer}")
    key: int = mix((mix((mix(seed & WORD) + layer) & WORD) + step) & WORD)
    return key


def counter_uniform(key: int, elements: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Uniform numbers of elements (non-negative integers, taken modulo 2**32), in their shape."""
    words = mix((np.asarray(elements).astype(np.uint64) & np.uint64(WORD)) ^ np.uint64(key))
    return ((words >> np.uint64(8)).astype(np.float32) * np.float32(2**-24)).astype(np.float32)
