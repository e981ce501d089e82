"""What several operations share: windows, exact products, and the checks of their attributes."""

from __future__ import annotations

import numpy as np

_EXACT = 2**53


def windows(x: np.ndarray, kernel: tuple[int, int], stride: int, padding: int, fill: int = 0) -> np.ndarray:
    """(N, C, H, W) to (N, C, OH, OW, KH, KW)."""
    pads = ((0, 0), (0, 0), (padding, padding), (padding, padding))
    padded = np.pad(x, pads, constant_values=fill)
    if padded.shape[2] < kernel[0] or padded.shape[3] < kernel[1]:
        raise ValueError(
            f"a {kernel[0]}x{kernel[1]} window does not fit an input of {x.shape[2]}x{x.shape[3]} padded by {padding}"
        )
    return np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3))[:, :, ::stride, ::stride]


def exact_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer matrix product through float64; raises where a partial sum could leave the exact range."""
    limit = int(np.abs(a).max(initial=0)) * int(np.abs(b).max(initial=0)) * a.shape[-1]
    if limit >= _EXACT:
        raise ValueError(f"a product of {a.shape[-1]} terms could reach {limit}, beyond the exact range of 2**53")
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)


def weight_codes(name: str, weight: np.ndarray, ndim: int) -> np.ndarray:
    weight = np.asarray(weight, dtype=np.int64)
    if weight.ndim != ndim:
        raise ValueError(f"{name} weight must have {ndim} axes, not shape {weight.shape}")
    if weight.size and (weight.min() < -128 or weight.max() > 127):
        raise ValueError(f"{name} weight codes must be in -128..127, not {weight.min()}..{weight.max()}")
    return weight


def check_geometry(name: str, stride: int, padding: int) -> None:
    if stride < 1 or padding < 0:
        raise ValueError(f"{name} needs stride >= 1 and padding >= 0, not stride {stride}, padding {padding}")


def check_same_shape(op: str, a: np.ndarray, b: np.ndarray) -> None:
    if a.shape != b.shape:
        raise ValueError(f"{op} needs two tensors of one shape, not {a.shape} and {b.shape}")
