"""Unbiased pruning of dY for the weight gradient: minimum-variance estimators along the batch x pixel axis.

Per channel, the gradients of all pixels of all images, in the order (n, h, w), are cut into groups of M neighbours; what is
left over at the end stays as it is. With u a uniform number of the group (`hw.spec.counter`) and S the group's sum of
magnitudes:

- 1:2, of (a, b): if u * S < |a|, a becomes sign(a) * S and b 0; else b becomes sign(b) * S and a 0. (Chmiel et al., ICLR 2023.)
- 2:4: value i stays with probability p_i and becomes a_i / p_i. With the largest magnitude L (the first of equals) below the
  sum R of the other three, p_i = 2 |a_i| / S: those values stay whose interval [sum of magnitudes before i, sum with i) holds
  one of u * S / 2 and (1 + u) * S / 2, and become sign(a_i) * S / 2. Else the largest stays as it is, and of the others, in
  the same way, the one whose interval of sums without the largest holds u * R becomes sign(a_i) * R. These are the
  probabilities of least variance with two values to a group (systematic sampling).

The expected value of every element is the element, up to the rounding of sums and the 24 bits of u. A group with a NaN or an
infinite sum is not pruned, so that a loss scaler sees it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw.spec.counter import MULTIPLIERS, SHIFTS, WORD, counter_key
from sw.kernels import mvue as kernel

__all__ = ["mvue", "mvue_definition", "uniform"]


def uniform(seed: int, step: Tensor, layer: int, elements: Tensor) -> Tensor:
    """`hw.spec.counter.counter_uniform` of int64 elements, float32; ``step`` is an int64 scalar."""
    key = _mix((_mix((_mix(torch.full_like(step, seed & WORD)) + layer) & WORD) + step) & WORD)
    return (_mix((elements & WORD) ^ key.to(elements.device)) >> 8).to(torch.float32) * 2**-24


def _mix(words: Tensor) -> Tensor:
    """`hw.spec.counter.mix` of int64 in 0..2**32 - 1; products wrap at 64 bits, and the low 32 are right."""
    words = words ^ (words >> SHIFTS[0])
    words = (words * MULTIPLIERS[0]) & WORD
    words = words ^ (words >> SHIFTS[1])
    words = (words * MULTIPLIERS[1]) & WORD
    return words ^ (words >> SHIFTS[2])


def mvue(grad: Tensor, m: int, channel_axis: int, seed: int, step: Tensor, layer: int) -> Tensor:
    """The pruned gradient in the shape and type of ``grad``: groups of m = 2 (one stays) or 4 (two stay).

    The element of the counter is ``group * channels + channel``. Half precision is computed in float32.
    """
    wide = grad.detach().to(torch.promote_types(grad.dtype, torch.float32))
    if kernel.usable(wide):
        key = counter_key(seed, int(step), layer)
        return kernel.prune(wide, m, channel_axis % grad.ndim, key).to(grad.dtype)
    return mvue_definition(wide, m, channel_axis, seed, step, layer).to(grad.dtype)


def mvue_definition(grad: Tensor, m: int, channel_axis: int, seed: int, step: Tensor, layer: int) -> Tensor:
    """`mvue` of float32 or float64 in torch operations of any device; the kernel is equal to it on every value."""
    moved = grad.movedim(channel_axis, -1)
    channels = moved.shape[-1]
    rows = moved.reshape(-1, channels)  # (P, C): one column for each channel
    whole = len(rows) // m * m
    groups = rows[:whole].view(-1, m, channels)
    elements = torch.arange(len(groups) * channels, device=grad.device).view(-1, channels)
    u = uniform(seed, step, layer, elements).to(rows.dtype)
    pruned = (_one_of_two if m == 2 else _two_of_four)(groups, u)
    result = torch.cat([pruned.reshape(whole, channels), rows[whole:]])
    return result.view(moved.shape).movedim(-1, channel_axis).contiguous()


def _one_of_two(groups: Tensor, u: Tensor) -> Tensor:
    """(G, 2, C) with u (G, C)."""
    first, second = groups.unbind(1)
    total = first.abs() + second.abs()
    left = u * total < first.abs()
    return torch.stack([torch.where(left, torch.copysign(total, first), 0),
                        torch.where(left, 0, torch.copysign(total, second))], 1)


def _two_of_four(groups: Tensor, u: Tensor) -> Tensor:
    """(G, 4, C) with u (G, C)."""
    size = groups.abs()
    largest, where = size.max(1, keepdim=True)
    top = torch.zeros_like(size, dtype=torch.bool).scatter_(1, where, True)
    others = torch.where(top, 0, size)
    before, upto = _sums(size)
    less, more = _sums(others)
    total, rest, u = upto[:, 3:], more[:, 3:], u.unsqueeze(1)
    half = total / 2
    low = u * half
    high, point = low + half, u * rest
    two = ((before <= low) & (low < upto)) | ((before <= high) & (high < upto))
    one = (less <= point) & (point < more)
    pruned = torch.where(largest < rest, torch.where(two, torch.copysign(half, groups), 0),
                         torch.where(top, groups, torch.where(one, torch.copysign(rest, groups), 0)))
    return torch.where(total.isfinite(), pruned, groups)


def _sums(values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums before and with each of the four of (G, 4, C), from left to right."""
    a, b, c, d = values.unbind(1)
    ab, abc = a + b, a + b + c
    return torch.stack([torch.zeros_like(a), a, ab, abc], 1), torch.stack([a, ab, abc, abc + d], 1)
