"""A small vision transformer whose products are all plain layers or matrix products that can be listed."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SmallViT"]


class _Attention(nn.Module):
    """(N, T, D) to the same: softmax(Q Kᵀ / sqrt(D / heads)) V in ``heads`` parts, then a projection."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, width = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        scores = torch.matmul(q, k.transpose(2, 3)) * (width // self.heads) ** -0.5
        mixed = torch.matmul(scores.softmax(3), v)
        return self.project(mixed.transpose(1, 2).reshape(n, tokens, width))


class _Block(nn.Module):
    """LayerNorm, attention, sum; LayerNorm, two linear layers with GELU, sum."""

    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, expansion * width), nn.GELU(), nn.Linear(expansion * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class SmallViT(nn.Module):
    """(N, 3, size, size) to class scores (N, classes): patches, a class token, blocks, a linear layer on the class token.

    By default 32 x 32 images in patches of 4 x 4: 65 tokens of width 384, 6 heads of 64, 12 blocks. Matrix products of a
    block, for T tokens of width D: qkv (T, D) x (D, 3D); Q Kᵀ and scores x V, each (T, D / heads, T) per head; project
    (T, D) x (D, D); feed (T, D) x (D, 4D) and (T, 4D) x (4D, D).
    """

    def __init__(self, classes: int = 10, *, size: int = 32, patch: int = 4, width: int = 384, heads: int = 6, depth: int = 12,
                 expansion: int = 4) -> None:
        super().__init__()
        if size % patch or width % heads:
            raise ValueError(f"patch must divide size and heads width, not {patch} of {size} and {heads} of {width}")
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads, expansion) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])
