"""Photographs as the square inputs of a detector: letterbox for evaluation, random views for training, and the way back for boxes.

The training view is that of CenterNet ("Objects as Points", arXiv 1904.07850): a square part of the image about a random centre,
0.6 to 1.4 times as wide as the image's longer side; mirrored every other time; brightness, contrast and saturation changed by up to
40 % in random order. Coordinates are continuous: pixel i covers i..i + 1. Images are (H, W, 3) uint8, boxes (k, 4) float32 as x0, y0,
x1, y1 in pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["LEAST_SIDE", "MEAN", "STD", "Frame", "View", "letterbox", "normalise", "training_view"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue in 0..1, over ImageNet."""

ZOOM = (0.6, 1.4)
"""The part's side in longer sides of the image."""

JITTER = 0.4
"""Largest relative change of brightness, contrast and saturation."""

LEAST_SIDE = 2.0
"""A box of which less than this many pixels are left in width or height is left out of a training view."""

_BORDER = 128


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The map from an image to a square: x' = ``scale`` x + ``left``, y' = ``scale`` y + ``top``, in pixels; if ``mirrored``, x' is
    then ``size`` - x'."""

    size: int
    scale: float
    left: float
    top: float
    mirrored: bool = False

    def to_square(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (k, 4) of the image as boxes of the square, not clipped; float64."""
        moved = np.asarray(boxes, np.float64) * self.scale + (self.left, self.top, self.left, self.top)
        return self._mirror(moved) if self.mirrored else moved

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """The inverse of `to_square`."""
        moved = np.asarray(boxes, np.float64)
        return ((self._mirror(moved) if self.mirrored else moved) - (self.left, self.top, self.left, self.top)) / self.scale

    def _mirror(self, boxes: np.ndarray) -> np.ndarray:
        return np.stack([self.size - boxes[:, 2], boxes[:, 1], self.size - boxes[:, 0], boxes[:, 3]], 1)

    def draw(self, image: np.ndarray) -> np.ndarray:
        """The square (size, size, 3), bilinear and black outside the image."""
        if self.mirrored:
            across = (-1 / self.scale, 0.0, (self.size - self.left) / self.scale)
        else:
            across = (1 / self.scale, 0.0, -self.left / self.scale)
        down = (0.0, 1 / self.scale, -self.top / self.scale)
        shape, matrix = (self.size, self.size), (*across, *down)
        return np.asarray(Image.fromarray(image).transform(shape, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR))


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One training input: ``image`` (size, size, 3) uint8, ``boxes`` (m, 4) float32 in its pixels, ``kept`` (m,): which of the given
    boxes they are, and the frame."""

    image: np.ndarray
    boxes: np.ndarray
    kept: np.ndarray
    frame: Frame


def letterbox(image: np.ndarray, size: int) -> tuple[np.ndarray, Frame]:
    """The whole image in the middle of a square, as large as fits, black beside it; and the frame, whose `Frame.to_image` takes
    detections back."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    frame = Frame(size=size, scale=scale, left=(size - width * scale) / 2, top=(size - height * scale) / 2)
    return frame.draw(image), frame


def training_view(image: np.ndarray, boxes: np.ndarray, size: int, random: np.random.Generator) -> View:
    """A random view of ``size`` x ``size`` pixels; boxes are clipped to it, and those of which too little is left go (`LEAST_SIDE`)."""
    height, width = image.shape[:2]
    side = max(height, width) * random.uniform(*ZOOM)
    x, y = (random.uniform(border, length - border) for length in (width, height) for border in [_border(length)])
    scale = size / side
    frame = Frame(size=size, scale=scale, left=size / 2 - x * scale, top=size / 2 - y * scale, mirrored=bool(random.integers(2)))
    moved = frame.to_square(boxes.reshape(-1, 4)).clip(0, size)
    kept = np.flatnonzero((moved[:, 2:] - moved[:, :2] >= LEAST_SIDE).all(1))
    return View(image=_jittered(frame.draw(image), random), boxes=moved[kept].astype(np.float32), kept=kept, frame=frame)


def _border(length: int) -> int:
    """How far a view's centre stays away from an edge: `_BORDER` pixels, halved until there is room."""
    border = _BORDER
    while length - border <= border:
        border //= 2
    return border


def _jittered(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    values = image.astype(np.float32)
    factors = random.uniform(1 - JITTER, 1 + JITTER, 3).astype(np.float32)
    for kind in random.permutation(3):
        if kind == 0:
            values = values * factors[0]
        else:
            grey = values @ np.array([0.299, 0.587, 0.114], np.float32)
            towards = grey.mean() if kind == 1 else grey[..., None]
            values = towards + (values - towards) * factors[kind]
    return np.rint(values.clip(0, 255)).astype(np.uint8)


def normalise(image: np.ndarray) -> Tensor:
    """An image (H, W, 3) uint8 as (3, H, W) float32 of about zero mean and unit deviation."""
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
    return (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
