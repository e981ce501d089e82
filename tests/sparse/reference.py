"""The slow side of the sparse tests: masks by Python sorting, products by unfold and matmul in float64, no autograd."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def slow_mask(values: np.ndarray, n: int, m: int, axis: int) -> np.ndarray:
    """Group by group: sort by (falling magnitude, position), keep the first n."""
    moved = np.moveaxis(values, axis, -1)
    mask = np.zeros(moved.shape, bool)
    for place in np.ndindex(*moved.shape[:-1]):
        for start in range(0, moved.shape[-1], m):
            group = [(-abs(float(moved[(*place, start + i)])), i) for i in range(m)]
            for _, i in sorted(group)[:n]:
                mask[(*place, start + i)] = True
    return np.moveaxis(mask, -1, axis)


def pruned(values: Tensor, n: int, m: int, axis: int) -> Tensor:
    return values * torch.from_numpy(slow_mask(values.detach().numpy(), n, m, axis))


def linear(x: Tensor, w: Tensor, dy: Tensor, method: str, n: int, m: int, decay: float) -> dict[str, Tensor]:
    """Y, dX, dW, db of a linear layer without bias in Y; x (P, C), w (O, C), dy (P, O), all float64."""
    ff = pruned(w, n, m, 1) if method in ("bdwp", "srste") else w
    bp = pruned(w, n, m, 0) if method in ("bdwp", "sdwp") else ff
    dy_bp = sdgp(dy, n, m, 1, (0,)) if method == "sdgp" else dy
    return {"y": x @ ff.t(), "dx": dy_bp @ bp, "dw": dy.t() @ x + decay * torch.where(ff == 0, w, 0), "db": dy.sum(0)}


def sdgp(dy: Tensor, n: int, m: int, axis: int, rows: tuple[int, ...]) -> Tensor:
    kept = pruned(dy, n, m, axis)
    before, after = dy.abs().sum(rows, keepdim=True), kept.abs().sum(rows, keepdim=True)
    return torch.where(after > 0, kept * before / after.clamp(min=1e-300), 0)


def conv(x: Tensor, w: Tensor, dy: Tensor, method: str, n: int, m: int, decay: float, geometry: dict[str, Any]) -> dict[str, Tensor]:
    """The same of a convolution, as matrix products of unfolded images."""
    o, _, kh, kw = w.shape
    ff = pruned(w, n, m, 1) if method in ("bdwp", "srste") else w
    bp = pruned(w, n, m, 0) if method in ("bdwp", "sdwp") else ff
    dy_bp = sdgp(dy, n, m, 1, (2, 3)) if method == "sdgp" else dy
    columns = F.unfold(x, (kh, kw), **geometry)  # (N, C kh kw, P)
    y = (ff.reshape(o, -1) @ columns).reshape(dy.shape)
    back = bp.reshape(o, -1).t() @ dy_bp.flatten(2)
    dx = F.fold(back, x.shape[2:], (kh, kw), **geometry)
    dw = (dy.flatten(2) @ columns.transpose(1, 2)).sum(0).reshape(w.shape)
    return {"y": y, "dx": dx, "dw": dw + decay * torch.where(ff == 0, w, 0), "db": dy.sum((0, 2, 3))}
