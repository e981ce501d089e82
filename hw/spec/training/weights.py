"""FP16 copies of the FP32 masters (KH, KW, CI, CO), pruned N:M by magnitude along the axis that is reduced."""

from __future__ import annotations

import numpy as np

from hw.spec.sparsity import nm_mask
from hw.spec.training.rounded import half

CI, CO = 2, 3
"""Axes of the masters."""


def _pruned(masters: np.ndarray, pattern: tuple[int, int] | None, axis: int) -> np.ndarray:
    if pattern is None:
        return half(masters)
    mask = nm_mask(masters, *pattern, axis)
    return half(np.where(mask, masters, np.float32(0)))


def forward_weights(masters: np.ndarray, pattern: tuple[int, int] | None) -> np.ndarray:
    """float16 (KH, KW, CI, CO) with n of each m input channels kept; all without a pattern."""
    return _pruned(masters, pattern, CI)


def backward_weights(masters: np.ndarray, pattern: tuple[int, int] | None) -> np.ndarray:
    """float16 (KH, KW, CI, CO) with n of each m output channels kept; all without a pattern."""
    return _pruned(masters, pattern, CO)
