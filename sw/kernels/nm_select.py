"""N:M selection on the CPU in one pass over memory: values where `hw.spec.sparsity.nm_mask` is true, and +0 elsewhere."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sw.kernels.build import library

__all__ = ["select", "usable"]

_SUFFIX = {torch.float32: "f32", torch.float64: "f64"}


def usable(values: Tensor) -> bool:
    """Whether the kernel takes this tensor: a CPU float32 or float64, and a kernel that compiles."""
    return values.device.type == "cpu" and values.dtype in _SUFFIX and library("nm_select") is not None


def select(values: Tensor, n: int, m: int, axis: int) -> tuple[Tensor, bool]:
    """The selected values (shape of ``values``, contiguous) and whether all values are finite.

    ``axis`` counts from 0 and M divides its length; 1 <= N <= M. NaN counts as larger than infinity.
    """
    values = values.detach().contiguous()
    out = torch.empty_like(values)
    sizes = (values.shape[:axis].numel(), values.shape[axis], values.shape[axis + 1 :].numel(), n, m)
    loaded = library("nm_select")
    assert loaded is not None
    damaged = getattr(loaded, f"select_{_SUFFIX[values.dtype]}")(
        ctypes.c_void_p(values.data_ptr()), ctypes.c_void_p(out.data_ptr()), *(ctypes.c_int64(size) for size in sizes),
        torch.get_num_threads())
    return out, not damaged
