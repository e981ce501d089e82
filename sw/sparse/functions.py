"""The three products of a sparse layer as autograd functions.

    Y = X * W_ff        dX = dY_bp * W_bp        dW = X * dY_wu + decay * pruned        db = sum of dY

``W_ff`` and ``W_bp`` are constants here: the gradient goes straight through to every value of the dense master. dY_bp is dY,
or for SDGP its N:M selection along the output channels, rescaled; dY_wu is dY, or its unbiased pruning (`sw.sparse.mvue`).
``pruned`` is W - W_ff. A gradient of a gradient is not defined and raises.

SDGP's rescaling (that of its authors' published code, "maxnorm"): per image and channel the kept gradients are multiplied by
the sum of magnitudes over all pixels before the selection, divided by the sum after it; 0 where nothing was left. That code
has convolutions only; in linear layers the sums run over all rows of the batch. It adds 1e-4 to the divisor, which shrinks
small gradients; here nothing is added.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sw.sparse import ops

__all__ = ["Backward", "Geometry", "Operands", "sparse_conv2d", "sparse_linear"]


class Geometry(NamedTuple):
    """A convolution's (rows, columns)."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


class Backward(NamedTuple):
    """What the backward pass does beside the products; plain numbers, which a compiled graph takes as constants.

    ``decay`` the factor of ``pruned``; ``gradient`` (n, m) of dY for dX, or (0, 0); ``update`` the group of `mvue`, or 0;
    ``seed`` and ``layer`` its counter's.
    """

    decay: float
    gradient: tuple[int, int]
    update: int
    seed: int
    layer: int


class Operands(NamedTuple):
    """A layer's tensors beside X: the master and its constant copies, of which ``pruned`` and ``step`` may be missing."""

    weight: Tensor
    bias: Tensor | None
    forward: Tensor
    backward: Tensor
    pruned: Tensor | None
    step: Tensor | None


def sparse_conv2d(x: Tensor, operands: Operands, geometry: Geometry, how: Backward) -> Tensor:
    """(N, C, H, W) to (N, O, H', W'): the convolution with ``forward`` whose backward pass uses ``backward``."""
    found: Tensor = _Conv2d.apply(x, *operands, *geometry, *how)  # type: ignore[no-untyped-call]
    return found


def sparse_linear(x: Tensor, operands: Operands, how: Backward) -> Tensor:
    """(..., C) to (..., O), likewise."""
    found: Tensor = _Linear.apply(x, *operands, *how)  # type: ignore[no-untyped-call]
    return found


def rescaled(grad: Tensor, n: int, m: int, axis: int, rows: tuple[int, ...]) -> Tensor:
    """SDGP's dY: N:M along the axis, with the sums of magnitudes over ``rows`` restored."""
    kept = ops.select_gradient(grad, n, m, axis)
    # Sums of many half-precision magnitudes overflow; in float32 they do not.
    wide = torch.promote_types(grad.dtype, torch.float32)
    before, after = (t.to(wide).abs().sum(rows, keepdim=True) for t in (grad, kept))
    return kept * torch.where(after > 0, before / after, 0).to(grad.dtype)


def _finish(grad: Tensor, like: Tensor, pruned: Tensor | None, decay: float) -> Tensor:
    grad = grad.to(like.dtype)
    # Not torch.add(..., alpha=decay): after a matrix product, a compiled graph loses alpha (torch 2.13).
    return grad if pruned is None else grad + decay * pruned


class _Conv2d(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, forward: Tensor, backward: Tensor, pruned: Tensor | None,
        step: Tensor | None, stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int], *how: Any,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, backward, pruned, step)
        ctx.geometry, ctx.how = (stride, padding, dilation), how
        return F.conv2d(x, forward, None if bias is None else bias.to(x.dtype), stride, padding, dilation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, backward, pruned, step = ctx.saved_tensors
        how = Backward(*ctx.how)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        dx: Any = None
        dw: Any = None
        db: Any = None
        if not how.gradient[0] and not how.update:  # one call: dX reads only the weight, dW only X
            dx, dw, db = _conv_backward(dy, x, backward, ctx.geometry, (of_x, of_weight, of_bias))
        else:
            if of_x:
                bp = rescaled(dy, *how.gradient, 1, (2, 3)) if how.gradient[0] else dy
                dx = _conv_backward(bp, x, backward, ctx.geometry, (True, False, False))[0]
            if of_weight:
                wu = ops.mvue(dy, how.update, 1, how.seed, step, how.layer) if how.update else dy
                dw = _conv_backward(wu, x, backward, ctx.geometry, (False, True, False))[1]
            if of_bias:
                db = dy.sum((0, 2, 3))
        dw = _finish(dw, weight, pruned, how.decay) if of_weight else None
        db = db.to(bias.dtype) if of_bias else None
        return dx, dw, db, *[None] * (len(ctx.needs_input_grad) - 3)


def _conv_backward(
    dy: Tensor, x: Tensor, weight: Tensor, geometry: tuple[tuple[int, int], ...], mask: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    stride, padding, dilation = geometry
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        dy, x, weight, [weight.shape[0]], stride, padding, dilation, False, [0, 0], 1, mask)
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, forward: Tensor, backward: Tensor, pruned: Tensor | None,
        step: Tensor | None, *how: Any,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, backward, pruned, step)
        ctx.how = how
        return F.linear(x, forward, None if bias is None else bias.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, backward, pruned, step = ctx.saved_tensors
        how = Backward(*ctx.how)
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        rows = dy.reshape(-1, dy.shape[-1])
        dx: Any = None
        dw: Any = None
        db: Any = None
        if of_x:
            bp = rescaled(rows, *how.gradient, 1, (0,)) if how.gradient[0] else rows
            dx = (bp @ backward).view(x.shape)
        if of_weight:
            wu = ops.mvue(rows, how.update, 1, how.seed, step, how.layer) if how.update else rows
            dw = _finish(wu.t() @ x.reshape(-1, x.shape[-1]), weight, pruned, how.decay)
        if of_bias:
            db = rows.sum(0).to(bias.dtype)
        return dx, dw, db, *[None] * (len(ctx.needs_input_grad) - 3)
