"""Generated colour images of 32 x 32: a handwritten digit, warped, on a piece of a photograph; 10 classes.

Both sources ship with scikit-learn: the digits of `sw.data.digits` (1797 scans of 8 x 8) and its two sample photographs
(427 x 640). Training, validation and test images share no source:

==========  ===================================  ======================================
part        digit scans                          columns of both photographs (all rows)
==========  ===================================  ======================================
train       1077 of the digits' training part    0..351
validation  the other 270 of the training part   360..439
test        the digits' 450 held-out scans       448..639
==========  ===================================  ======================================

A scan that occurs twice stays in the part that is named first. An image is made from one scan (position, size, rotation,
shear and stroke weight at random), one crop of a photograph (place, size, rotation, mirroring, contrast), a colour that
differs from the crop's mean by a random contrast, another scan's fragment at a border, and noise. Pixels are multiples of
1/256. Everything follows from one seed; writers of scans are not known to scikit-learn, so the same hand may be in two parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hw.spec.fixed import FixedFormat
from sw.data.digits import held_out_mask, load_digits

__all__ = ["COLUMNS", "INPUT_FORMAT", "SIZE", "Glyphs", "Sources", "generate", "load_glyphs", "sources"]

INPUT_FORMAT = FixedFormat(8, 8, signed=False)
"""Pixels are 0..255 / 256: exact codes."""

SIZE = 32

COLUMNS = {"train": (0, 352), "validation": (360, 440), "test": (448, 640)}
"""First column and the one after the last, of either photograph."""

_VALIDATION_SCANS = 270
_CHUNK = 1000
_STREAM = {"train": 1, "validation": 2, "test": 3}


@dataclass(frozen=True, kw_only=True, eq=False)
class Sources:
    """What one part may be made from, values in 0..1.

    ``scans`` (N, 1, 8, 8) with ``labels`` (N,), ``photos`` (2, 3, 427, columns).
    """

    scans: Tensor
    labels: Tensor
    photos: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Glyphs:
    """Images (N, 3, 32, 32) float32 in 0..1, multiples of 1/256, and labels (N,) int64, of each part."""

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_glyphs(train: int = 20_000, validation: int = 2_000, test: int = 10_000, *, seed: int = 2026) -> Glyphs:
    """The three parts, each with as many images as asked for; the first n images do not depend on how many follow."""
    made = {part: generate(source, count, seed=seed * 10 + _STREAM[part])
            for (part, source), count in zip(sources().items(), (train, validation, test), strict=True)}
    return Glyphs(**{f"{part}_{what}": value for part, pair in made.items()
                     for what, value in zip(("images", "labels"), pair, strict=True)})


def sources(photos: np.ndarray | None = None) -> dict[str, Sources]:
    """The sources of "train", "validation" and "test"; ``photos`` (2, 427, 640, 3) uint8 replace scikit-learn's."""
    pictures = _photos() if photos is None else photos
    pixels = torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2))).float() / 256
    return {part: Sources(scans=scans, labels=labels, photos=pixels[..., slice(*COLUMNS[part])].contiguous())
            for part, (scans, labels) in _scans().items()}


def generate(source: Sources, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """``count`` images and labels from the given sources alone; the same for the same seed."""
    if count < 1:
        raise ValueError(f"count must be at least one image, not {count}")
    random = torch.Generator().manual_seed(seed)
    chunks = [_chunk(source, random) for _ in range(math.ceil(count / _CHUNK))]
    images, labels = (torch.cat(part)[:count] for part in zip(*chunks, strict=True))
    return images, labels


def _photos() -> np.ndarray:
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


def _scans() -> dict[str, tuple[Tensor, Tensor]]:
    digits = load_digits()
    held = torch.from_numpy(held_out_mask(digits.train_labels.numpy(), _VALIDATION_SCANS, seed=1))
    parts = {"train": (digits.train_images[~held], digits.train_labels[~held]),
             "validation": (digits.train_images[held], digits.train_labels[held]),
             "test": (digits.test_images, digits.test_labels)}
    seen: set[bytes] = set()
    return {part: _unseen(scans, labels, seen) for part, (scans, labels) in parts.items()}


def _unseen(scans: Tensor, labels: Tensor, seen: set[bytes]) -> tuple[Tensor, Tensor]:
    keys = [scan.numpy().tobytes() for scan in scans]
    fresh = torch.tensor([key not in seen for key in keys])
    seen.update(keys)
    return scans[fresh], labels[fresh]


# --- one chunk of images ----------------------------------------------------------------------------------------------


def _chunk(source: Sources, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """`_CHUNK` images (float, multiples of 1/256) and labels."""
    ground = _crops(source.photos, random)
    chosen = torch.randint(len(source.labels), (_CHUNK,), generator=random)
    other = torch.randint(len(source.labels), (_CHUNK,), generator=random)
    shape = _warped(source.scans[chosen], _uniform(random, -5, 5, 2), random)
    # A fragment of another digit: its centre lies on the image's border.
    side = torch.rand(_CHUNK, generator=random) * 2 * math.pi
    edge = torch.stack([side.cos(), side.sin()], 1)
    fragment = _warped(source.scans[other], edge / edge.abs().amax(1, keepdim=True) * 17, random)
    images = _inked(_inked(ground, fragment, random), shape, random)
    images = images + torch.randn(images.shape, generator=random) * _uniform(random, 0.01, 0.09, 1).view(-1, 1, 1, 1)
    return torch.floor(images.clamp(0, 1) * 256).clamp(max=255) / 256, source.labels[chosen]


def _uniform(random: torch.Generator, low: float, high: float, columns: int) -> Tensor:
    """(`_CHUNK`, columns) values."""
    return torch.rand(_CHUNK, columns, generator=random) * (high - low) + low


def _warped(scans: Tensor, centre: Tensor, random: torch.Generator) -> Tensor:
    """Scans (N, 1, 8, 8) as masks (N, 1, 32, 32) in 0..1 about ``centre`` (N, 2), pixels from the middle (x, y)."""
    angle, shear = _uniform(random, -0.4, 0.4, 1)[:, 0], _uniform(random, -0.35, 0.35, 1)[:, 0]
    size = _uniform(random, 13, 25, 2)  # width and height of the whole 8 x 8 scan, pixels
    cos, sin = angle.cos(), angle.sin()
    # From an output pixel to scan coordinates in -1..1: turn, shear, then scale.
    turn = torch.stack([torch.stack([cos + shear * sin, shear * cos - sin], 1), torch.stack([sin, cos], 1)], 1)
    matrix = turn * (SIZE / size).unsqueeze(2)
    offset = -(matrix @ (centre * 2 / SIZE).unsqueeze(2))
    grid = F.affine_grid(torch.cat([matrix, offset], 2), [len(scans), 1, SIZE, SIZE], align_corners=False)
    mask = F.grid_sample(scans, grid, mode="bicubic", padding_mode="zeros", align_corners=False).clamp(0, 1)
    return mask ** _uniform(random, 0.6, 1.6, 1).view(-1, 1, 1, 1)


def _crops(photos: Tensor, random: torch.Generator) -> Tensor:
    """Pieces (N, 3, 32, 32) of the photographs (2, 3, H, W), turned, scaled, mirrored, with less contrast."""
    height, width = photos.shape[2:]
    place = torch.rand(_CHUNK, 2, generator=random) * torch.tensor([width - 1.0, height - 1.0])
    angle = _uniform(random, -math.pi, math.pi, 1)[:, 0]
    step = _uniform(random, 0.5, 2.5, 1)[:, 0]  # photograph pixels per pixel
    mirror = torch.randint(2, (_CHUNK,), generator=random) * 2.0 - 1
    line = torch.arange(SIZE) - (SIZE - 1) / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    along = torch.stack([angle.cos() * step * mirror, angle.sin() * step], 1)
    down = torch.stack([-angle.sin() * step * mirror, angle.cos() * step], 1)
    where = place.view(-1, 1, 1, 2) + x[..., None] * along.view(-1, 1, 1, 2) + y[..., None] * down.view(-1, 1, 1, 2)
    grid = where * 2 / (torch.tensor([width, height]) - 1.0) - 1
    which = torch.randint(2, (_CHUNK,), generator=random)
    crops = torch.empty(_CHUNK, 3, SIZE, SIZE)
    for photo in range(2):  # one tall grid for each photograph, which is so not copied for every image
        mine = which == photo
        tall = grid[mine].reshape(1, -1, SIZE, 2)
        got = F.grid_sample(photos[photo : photo + 1], tall, padding_mode="reflection", align_corners=True)
        crops[mine] = got.view(3, -1, SIZE, SIZE).transpose(0, 1)
    mean = crops.mean((2, 3), keepdim=True)
    return mean + (crops - mean) * _uniform(random, 0.3, 1.0, 1).view(-1, 1, 1, 1)


def _inked(ground: Tensor, mask: Tensor, random: torch.Generator) -> Tensor:
    """``ground`` with the mask's shape in a colour that is lighter or darker than the ground's mean by a random contrast."""
    level = ground.mean((1, 2, 3))
    contrast = _uniform(random, 0.18, 0.6, 1)[:, 0]
    either = torch.randint(2, level.shape, generator=random) * 2.0 - 1
    lighter = torch.where(level > 0.65, -1.0, torch.where(level < 0.35, 1.0, either))
    colour = (level + lighter * contrast).view(-1, 1, 1, 1) + _uniform(random, -0.12, 0.12, 3).view(-1, 3, 1, 1)
    return ground + mask * (colour - ground)
