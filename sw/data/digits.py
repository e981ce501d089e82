"""Handwritten digits of scikit-learn: 1797 grey images of 8 x 8, split once by a fixed seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hw.spec.fixed import FixedFormat

__all__ = ["INPUT_FORMAT", "Digits", "augment", "held_out_mask", "load_digits"]

INPUT_FORMAT = FixedFormat(8, 4, signed=False)
"""Pixels are 0..16 sixteenths: exact codes."""

_HELD_OUT = 450


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """Images (N, 1, 8, 8) float32 in 0..1, each a multiple of 1/16, and labels (N,) int64."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits(seed: int = 2024) -> Digits:
    """The data, stratified into 1347 images for training and 450 held out; the same split for the same seed."""
    from sklearn.datasets import load_digits as load

    pixels, labels = load(return_X_y=True)
    images = torch.from_numpy(pixels.astype(np.float32).reshape(-1, 1, 8, 8) / 16)
    targets = torch.from_numpy(labels.astype(np.int64))
    held_out = torch.from_numpy(held_out_mask(labels, _HELD_OUT, seed))
    return Digits(train_images=images[~held_out], train_labels=targets[~held_out],
                  test_images=images[held_out], test_labels=targets[held_out])


def held_out_mask(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Mask of ``count`` of the labels (N,), each class by its share; largest remainders get the rest."""
    classes, sizes = np.unique(labels, return_counts=True)
    shares = sizes * count / labels.size
    counts = np.floor(shares).astype(int)
    counts[np.argsort(counts - shares, kind="stable")[: count - counts.sum()]] += 1
    random = np.random.default_rng(seed)
    mask = np.zeros(labels.size, bool)
    for name, chosen in zip(classes, counts, strict=True):
        mask[random.permutation(np.flatnonzero(labels == name))[:chosen]] = True
    return mask


def augment(images: Tensor, generator: torch.Generator, *, shift: float = 0.8, degrees: float = 10.0) -> Tensor:
    """Each image shifted by up to ``shift`` pixels and turned by up to ``degrees``, back on the grid of sixteenths."""
    count = images.shape[0]
    draw = torch.rand(count, 3, generator=generator) * 2 - 1
    angle = draw[:, 0] * math.radians(degrees)
    # The grid's coordinates run over -1..1, so one pixel is 2 / 8.
    dx, dy = (draw[:, 1:] * (shift * 2 / images.shape[-1])).unbind(1)
    rows = [torch.stack([angle.cos(), -angle.sin(), dx], 1), torch.stack([angle.sin(), angle.cos(), dy], 1)]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    return torch.round(moved * 16).clamp(0, 16) / 16
