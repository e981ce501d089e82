"""From the maps of a CenterNet to boxes: peaks of the heat map, the best hundred, no further suppression (arXiv 1904.07850, section 4).

Works on a model's float outputs and on integer codes with their scales, in float64 either way, so that equal outputs give equal boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.detect.targets import STRIDE

__all__ = ["TOP", "Detections", "Maps", "averaged", "decode", "detect", "maps_of", "peaks"]

TOP = 100
"""Most detections of an image."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Of one image: ``boxes`` (k, 4) float64 as x0, y0, x1, y1 in pixels, not clipped; ``scores`` (k,) in 0..1, falling; ``labels``
    (k,)."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps:
    """A detector's outputs as float64: ``heat`` (N, classes, h, w) in 0..1, ``size`` and ``shift`` (N, 2, h, w) in cells."""

    heat: Tensor
    size: Tensor
    shift: Tensor


def maps_of(outputs: Sequence[Tensor | np.ndarray], scales: Sequence[float] = (1.0, 1.0, 1.0)) -> Maps:
    """The maps of heat logits, size and shift; ``scales`` are the values of code 1 where outputs are integer codes.

    ValueError for shapes that do not belong together and for NaN or infinity.
    """
    if len(outputs) != 3 or len(scales) != 3:
        raise ValueError(f"a detector has three outputs and scales, heat, size and shift, not {len(outputs)} and {len(scales)}")
    heat, size, shift = (torch.as_tensor(given).detach().to("cpu", torch.float64) * scale
                         for given, scale in zip(outputs, scales, strict=True))
    wanted = (heat.shape[0], 2, *heat.shape[2:])
    if heat.ndim != 4 or size.shape != wanted or shift.shape != wanted:
        raise ValueError(f"heat must be (N, classes, h, w), size and shift (N, 2, h, w), not {tuple(heat.shape)}, {tuple(size.shape)} "
                         f"and {tuple(shift.shape)}")
    for name, values in (("heat", heat), ("size", size), ("shift", shift)):
        if wrong := int((~torch.isfinite(values)).sum()):
            raise ValueError(f"the output {name} must be finite, and {wrong} of {values.numel()} values are NaN or infinite: the "
                             "training diverged, or a scale is wrong")
    return Maps(heat=heat.sigmoid(), size=size, shift=shift)


def averaged(plain: Maps, mirrored: Maps) -> Maps:
    """The flip test: means of heat and size of images and of their mirror images (turned back); shift is the images' own."""
    return Maps(heat=(plain.heat + mirrored.heat.flip(-1)) / 2, size=(plain.size + mirrored.size.flip(-1)) / 2, shift=plain.shift)


def peaks(maps: Maps, *, top: int = TOP, stride: int = STRIDE) -> list[Detections]:
    """For each image the ``top`` best cells that no neighbour among 3 x 3 of the same class exceeds, as boxes.

    Equal neighbours are all peaks; equal scores keep the order class, row, column.
    """
    heat = maps.heat
    best = heat.eq(F.max_pool2d(heat, 3, 1, 1))
    found = []
    for image in range(len(heat)):
        label, row, column = best[image].nonzero(as_tuple=True)
        scores, order = heat[image, label, row, column].sort(descending=True, stable=True)
        label, row, column = (index[order[:top]] for index in (label, row, column))
        centre = torch.stack([column, row], 1) + maps.shift[image, :, row, column].T
        half = maps.size[image, :, row, column].T / 2
        found.append(Detections(boxes=torch.cat([centre - half, centre + half], 1) * stride, scores=scores[:top], labels=label))
    return found


def decode(
    outputs: Sequence[Tensor | np.ndarray], *, scales: Sequence[float] = (1.0, 1.0, 1.0), top: int = TOP, stride: int = STRIDE,
) -> list[Detections]:
    """The detections of each image from heat logits (N, classes, h, w), size and shift (N, 2, h, w); see `maps_of`, `peaks`."""
    return peaks(maps_of(outputs, scales), top=top, stride=stride)


@torch.no_grad()
def detect(model: nn.Module, images: Tensor, *, flip: bool = False, top: int = TOP, batch: int = 32) -> list[Detections]:
    """The detections of images (N, 3, H, W) by a model in evaluation mode, ``batch`` at a time, with the flip test if ``flip``; the
    model's training flag is kept."""
    training = model.training
    model.eval()
    found: list[Detections] = []
    try:
        for part in images.split(batch):
            maps = maps_of(model(part))
            found += peaks(averaged(maps, maps_of(model(part.flip(-1)))) if flip else maps, top=top)
    finally:
        model.train(training)
    return found
