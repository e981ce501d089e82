"""Unbiased pruning of dY for the weight gradient: minimum-variance estimators along the batch x pixel axis.

Per channel, the gradients of all pixels of all images, in the order (n, h, w), are cut into groups of M neighbours; what is
left over at the end stays as it is. With u a uniform number of the group (`hw.spec.counter`) and S the group's sum of
magnitudes:

- 1:2, of (a, b): if u * S < |a|, a becomes sign(a) * S and b 0; else b becomes sign(b) * S and a 0. (Chmiel et al., ICLR 2023.)
- 2:4: value i stays with probability p_i and becomes a_i / p_i. With the largest magnitude L below S - L, p_i = 2 |a_i| / S;
  else the largest stays as it is (p = 1) and one of the others, p_i = |a_i| / (S - L). These are the probabilities of least
  variance with two values to a group; two are drawn by systematic sampling: value i stays where one of u, u + 1 falls
  between the sums of p before and after it.

The expected value of every element is the element, up to the rounding of p and of the 24 bits of u.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hw.spec.counter import MULTIPLIERS, SHIFTS, WORD

__all__ = ["mvue", "uniform"]


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
    moved = grad.detach().movedim(channel_axis, -1)
    channels = moved.shape[-1]
    # (P, C): one column for each channel. Float64 stays, so that tests can be exact in it.
    rows = moved.reshape(-1, channels).to(torch.promote_types(grad.dtype, torch.float32))
    whole = len(rows) // m * m
    groups = rows[:whole].view(-1, m, channels)
    elements = torch.arange(len(groups) * channels, device=grad.device).view(-1, channels)
    u = uniform(seed, step, layer, elements).to(rows.dtype)
    pruned = (_one_of_two if m == 2 else _two_of_four)(groups, u)
    result = torch.cat([pruned.reshape(whole, channels), rows[whole:]]).to(grad.dtype)
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
    size = groups.abs().double()
    total = size.sum(1, keepdim=True)
    largest, where = size.max(1, keepdim=True)
    top = torch.zeros_like(size, dtype=torch.bool).scatter_(1, where, True)
    rest = torch.where(top, 0, size).sum(1, keepdim=True)
    chance = torch.where(largest < rest, 2 * size / total, torch.where(top, 1.0, size / rest)).nan_to_num(0.0)
    sums = chance.cumsum(1).clamp(max=2.0)
    sums[:, 3] = 2.0  # what rounding took from the last sum
    passed = torch.floor(sums - u.double().unsqueeze(1)) + 1  # points u, u + 1 up to here
    taken = torch.diff(passed, dim=1, prepend=torch.zeros_like(passed[:, :1])) > 0
    value = torch.where(chance == 1, groups, (groups.double() / chance).to(groups.dtype))
    return torch.where(taken & (chance > 0), value, torch.where(total.isfinite(), 0, groups))
