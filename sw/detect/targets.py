"""What CenterNet learns: a heat map with a Gaussian at each object's centre, and size and shift at the centre's cell.

From "Objects as Points" (arXiv 1904.07850) and, for the Gaussian's radius, "CornerNet" (arXiv 1808.01244). CenterNet's published code
divides by 2 where the quadratic formula divides by twice the leading coefficient, so that its radii are about three times as
large; `gaussian_radius` keeps the overlap that the papers promise. A ``min_overlap`` of 0.3 gives radii like those of that code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["MIN_OVERLAP", "STRIDE", "Targets", "encode", "gaussian_radius"]

STRIDE = 4
"""Pixels of the image per cell of the maps, in both directions."""

MIN_OVERLAP = 0.7


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """For N images of H x W pixels: ``heat`` (N, classes, H/4, W/4) in 0..1, 1 at centres; ``size`` (N, 2, H/4, W/4), width and
    height in cells; ``shift`` (N, 2, H/4, W/4) in 0..1, x and y of the centre from its cell's corner, in cells; ``mask``
    (N, H/4, W/4), true where there is a centre. Size and shift are 0 elsewhere."""

    heat: Tensor
    size: Tensor
    shift: Tensor
    mask: Tensor

    def to(self, device: torch.device) -> Targets:
        """The same on a device."""
        return Targets(**{entry.name: getattr(self, entry.name).to(device) for entry in fields(self)})


def gaussian_radius(width: float, height: float, min_overlap: float = MIN_OVERLAP) -> float:
    """The largest r for which each edge of a box may move by up to r and the IoU with it stays at ``min_overlap`` o, in its units.

    Of the three cases of CornerNet, both corners outwards, both inwards, both the same way, the second is always the worst:
    (w - 2 r) (h - 2 r) = o w h.
    """
    both = width + height
    return (both - math.sqrt(both**2 - 4 * width * height * (1 - min_overlap))) / 4


def encode(
    boxes: Sequence[Tensor], labels: Sequence[Tensor], classes: int, height: int, width: int, *,
    min_overlap: float = MIN_OVERLAP, stride: int = STRIDE,
) -> Targets:
    """The targets of N images of ``height`` x ``width`` pixels from their ``boxes`` (k, 4), in pixels, and ``labels`` (k,).

    A Gaussian's radius is r = floor(`gaussian_radius`) cells, its deviation (2 r + 1) / 6; Gaussians of a class join by their maximum.
    Of two centres in one cell the smaller box gives size and shift. ValueError for an image's size that the stride does not divide,
    and for a label, a box or a centre that is out of range, with its place.
    """
    if height % stride or width % stride:
        raise ValueError(f"the image's size must be a multiple of {stride} pixels, not {height} x {width}")
    if len(boxes) != len(labels):
        raise ValueError(f"each image needs boxes and labels, and there are {len(boxes)} and {len(labels)}")
    shape = height // stride, width // stride
    targets = Targets(heat=torch.zeros(len(boxes), classes, *shape), size=torch.zeros(len(boxes), 2, *shape),
                      shift=torch.zeros(len(boxes), 2, *shape), mask=torch.zeros(len(boxes), *shape, dtype=torch.bool))
    for image, (mine, names) in enumerate(zip(boxes, labels, strict=True)):
        _check(image, mine, names, classes, height, width)
        wide = mine.double() / stride
        areas = (wide[:, 2] - wide[:, 0]) * (wide[:, 3] - wide[:, 1])
        for i in areas.argsort(descending=True, stable=True).tolist():
            _put(targets, image, int(names[i]), wide[i].tolist(), min_overlap)
    return targets


def _check(image: int, boxes: Tensor, labels: Tensor, classes: int, height: int, width: int) -> None:
    if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
        raise ValueError(f"image {image} needs boxes (k, 4) and labels (k,), not {tuple(boxes.shape)} and {tuple(labels.shape)}")
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = (centre >= 0).all(1) & (centre < torch.tensor([width, height])).all(1)
    for what, wrong in (
        (f"the label must be in 0..{classes - 1}", (labels < 0) | (labels >= classes)),
        ("the box must have x0 < x1 and y0 < y1", ~(boxes[:, :2] < boxes[:, 2:]).all(1)),
        (f"the box's centre must lie in the image of {width} x {height} pixels", ~inside),
    ):
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise ValueError(f"image {image}, box {i} of label {int(labels[i])}, {boxes[i].tolist()}: {what}: correct or clip the "
                             "boxes")


def _put(targets: Targets, image: int, label: int, box: list[float], min_overlap: float) -> None:
    """One object; its box is in cells."""
    x0, y0, x1, y1 = box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    column, row = int(x), int(y)
    targets.mask[image, row, column] = True
    targets.size[image, :, row, column] = torch.tensor([x1 - x0, y1 - y0])
    targets.shift[image, :, row, column] = torch.tensor([x - column, y - row])
    radius = int(gaussian_radius(x1 - x0, y1 - y0, min_overlap))
    height, width = targets.mask.shape[1:]
    top, bottom = max(0, row - radius), min(height, row + radius + 1)
    left, right = max(0, column - radius), min(width, column + radius + 1)
    down, across = torch.arange(top, bottom) - row, torch.arange(left, right) - column
    spread = 2 * ((2 * radius + 1) / 6) ** 2
    bump = torch.exp(-(down[:, None] ** 2 + across[None] ** 2) / spread)
    part = targets.heat[image, label, top:bottom, left:right]
    torch.maximum(part, bump, out=part)
