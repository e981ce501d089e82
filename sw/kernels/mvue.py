"""Unbiased random pruning of gradients on the CPU in one pass over memory: `sw.sparse.mvue`, equal on every value."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from sw.kernels.build import library

__all__ = ["prune", "usable"]


def usable(grad: Tensor) -> bool:
    """Whether the kernel takes this tensor: a CPU float32, and a kernel that compiles."""
    return grad.device.type == "cpu" and grad.dtype == torch.float32 and library("mvue") is not None


def prune(grad: Tensor, m: int, axis: int, key: int) -> Tensor:
    """The pruned gradient, contiguous; ``axis`` (from 0) is the channels', m is 2 or 4, key that of `hw.spec.counter`."""
    grad = grad.detach().contiguous()
    out = torch.empty_like(grad)
    sizes = (grad.shape[:axis].numel(), grad.shape[axis], grad.shape[axis + 1 :].numel(), m)
    loaded = library("mvue")
    assert loaded is not None
    loaded.mvue_f32(ctypes.c_void_p(grad.data_ptr()), ctypes.c_void_p(out.data_ptr()), *(ctypes.c_int64(s) for s in sizes),
                    ctypes.c_uint32(key), torch.get_num_threads())
    return out
