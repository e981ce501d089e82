"""Generated scenes for detection: one to six handwritten digits on a piece of a photograph, with boxes; 10 classes.

Scans, photographs and their division into training, validation and test are those of `sw.data.glyphs32`, so no scan and no column
of a photograph is in two parts. A scene is made from one crop of a photograph (place, size, rotation, mirroring, contrast) and
noise; an object from one scan (size, aspect, rotation, shear, stroke weight and sharpness), a place and a colour that differs from the
ground's mean under its box by a random contrast. Ink weaker than `LEAST_INK` is not painted, so that a box is exactly
the rectangle of the pixels that the object paints. Later objects are painted over earlier ones; of two boxes at most `OVERLAP` of the
smaller is covered, and boxes are those of the whole objects. All that follows from one seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from sw.data.glyphs32 import INPUT_FORMAT, Sources, sources

__all__ = ["CLASSES", "INPUT_FORMAT", "LEAST_INK", "OBJECTS", "OVERLAP", "SIDES", "SceneSet", "Scenes", "generate", "load_scenes",
           "sources"]

CLASSES = tuple("0123456789")
"""Names of the labels 0..9."""

OBJECTS = (1, 6)
"""Fewest and most objects that are wished for in a scene; one that finds no place is left out."""

SIDES = (1 / 12, 1 / 2)
"""Height of a scan before it is warped, as a part of the image's side, but never below `LEAST_HEIGHT`; boxes are smaller or larger
by rotation and shear."""

LEAST_HEIGHT = 8.0
"""Pixels for the 8 rows of a scan, so that no stroke falls between pixels."""

OVERLAP = 0.2
"""Largest part of the smaller of two boxes that the other may cover."""

LEAST_INK = 0.15
"""Opacity (0..1) below which a pixel is left as it is."""

_CHUNK = 16
_TRIES = 8
_STREAM = {"train": 1, "validation": 2, "test": 3}


@dataclass(frozen=True, kw_only=True, eq=False)
class Scenes:
    """``images`` (N, 3, S, S) float32 in 0..1, multiples of 1/256; for each image ``boxes`` (k, 4) float32 as x0, y0, x1, y1 in pixels
    from the image's upper left corner, x1 and y1 behind the last pixel, and ``labels`` (k,) int64, k >= 1."""

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneSet:
    """The three parts, which share no source."""

    train: Scenes
    validation: Scenes
    test: Scenes


@dataclass(frozen=True, kw_only=True, eq=False)
class _Glyphs:
    """Warped digits. ``masks``: opacities (h, w) in 0..1, cut to their ink; ``labels`` (M,); ``colour`` (M, 3) as the difference to
    the ground's mean, for a lighter object; ``either`` (M,) 1 for a lighter one, -1 for a darker one where both are possible."""

    masks: list[Tensor]
    labels: Tensor
    colour: Tensor
    either: Tensor


def load_scenes(train: int = 4_000, validation: int = 500, test: int = 1_000, *, size: int = 128, seed: int = 2026) -> SceneSet:
    """The three parts, each with as many scenes of ``size`` pixels as asked for."""
    counts = {"train": train, "validation": validation, "test": test}
    return SceneSet(**{part: generate(source, counts[part], size, seed=seed * 10 + _STREAM[part])
                       for part, source in sources().items()})


def generate(source: Sources, count: int, size: int, *, seed: int) -> Scenes:
    """``count`` scenes of ``size`` x ``size`` pixels from the given sources alone; the same for the same seed, and the first n do
    not depend on how many follow. ValueError for no scene, or a size that is no multiple of 32."""
    if count < 1:
        raise ValueError(f"count must be at least one scene, not {count}")
    if size < 32 or size % 32:
        raise ValueError(f"size must be a multiple of 32 pixels, which the detectors' strides divide, not {size}")
    random = torch.Generator().manual_seed(seed)
    chunks = [_chunk(source, size, random) for _ in range(math.ceil(count / _CHUNK))]
    return Scenes(
        images=torch.cat([chunk.images for chunk in chunks])[:count].contiguous(),
        boxes=[boxes for chunk in chunks for boxes in chunk.boxes][:count],
        labels=[labels for chunk in chunks for labels in chunk.labels][:count],
    )


def _chunk(source: Sources, size: int, random: torch.Generator) -> Scenes:
    """`_CHUNK` scenes."""
    images = _grounds(source.photos, size, random)
    low, high = OBJECTS
    wished = torch.randint(low, high + 1, (_CHUNK,), generator=random).tolist()
    glyphs = _glyphs(source, sum(wished), size, random)
    tries = torch.rand(sum(wished), _TRIES, 2, generator=random)
    boxes, labels, first = [], [], 0
    for image, count in zip(images, wished, strict=True):
        mine = range(first, first + count)
        places = _places([glyphs.masks[i] for i in mine], tries[first : first + count], size)
        painted = [(i, place) for i, place in zip(mine, places, strict=True) if place is not None]
        for i, place in painted:
            _paint(image, glyphs, i, place)
        boxes.append(torch.tensor([place for _, place in painted], dtype=torch.float32))
        labels.append(glyphs.labels[[i for i, _ in painted]])
        first += count
    images = torch.floor(_noisy(images, random).clamp(0, 1) * 256).clamp(max=255) / 256
    return Scenes(images=images, boxes=boxes, labels=labels)


def _noisy(images: Tensor, random: torch.Generator) -> Tensor:
    return images + torch.randn(images.shape, generator=random) * _uniform(random, 0.005, 0.06, len(images)).view(-1, 1, 1, 1)


def _uniform(random: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=random) * (high - low) + low


def _grounds(photos: Tensor, size: int, random: torch.Generator) -> Tensor:
    """Pieces (`_CHUNK`, 3, size, size) of the photographs (2, 3, H, W), turned, scaled, mirrored, with less contrast."""
    height, width = photos.shape[2:]
    place = torch.rand(_CHUNK, 2, generator=random) * torch.tensor([width - 1.0, height - 1.0])
    angle = _uniform(random, -math.pi, math.pi, _CHUNK)
    step = _uniform(random, 48, 240, _CHUNK) / size  # photograph pixels per pixel
    mirror = torch.randint(2, (_CHUNK,), generator=random) * 2.0 - 1
    line = torch.arange(size) - (size - 1) / 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    along = torch.stack([angle.cos() * step * mirror, angle.sin() * step], 1).view(-1, 1, 1, 2)
    down = torch.stack([-angle.sin() * step * mirror, angle.cos() * step], 1).view(-1, 1, 1, 2)
    grid = (place.view(-1, 1, 1, 2) + x[..., None] * along + y[..., None] * down) * 2 / (torch.tensor([width, height]) - 1.0) - 1
    which = torch.randint(2, (_CHUNK,), generator=random)
    crops = torch.empty(_CHUNK, 3, size, size)
    for photo in range(2):  # one tall grid for each photograph, which is so not copied for every image
        mine = which == photo
        if mine.any():
            tall = grid[mine].reshape(1, -1, size, 2)
            got = F.grid_sample(photos[photo : photo + 1], tall, padding_mode="reflection", align_corners=True)
            crops[mine] = got.view(3, -1, size, size).transpose(0, 1)
    mean = crops.mean((2, 3), keepdim=True)
    return mean + (crops - mean) * _uniform(random, 0.3, 1.0, _CHUNK).view(-1, 1, 1, 1)


# --- objects ----------------------------------------------------------------------------------------------------------


def _glyphs(source: Sources, count: int, size: int, random: torch.Generator) -> _Glyphs:
    """``count`` digits for images of ``size`` pixels."""
    chosen = torch.randint(len(source.labels), (count,), generator=random)
    low, high = (math.log(max(side * size, LEAST_HEIGHT)) for side in SIDES)
    height = _uniform(random, low, high, count).exp()  # of the whole 8 x 8 scan, pixels
    width = height * _uniform(random, 0.75, 1.25, count)
    angle, shear = _uniform(random, -0.4, 0.4, count), _uniform(random, -0.35, 0.35, count)
    weight, sharpness = _uniform(random, 0.6, 1.6, count), _uniform(random, 1.0, 2.5, count)
    opacity = _uniform(random, 0.7, 1.0, count)
    contrast = _uniform(random, 0.18, 0.6, count, 1)
    colour = contrast + _uniform(random, -0.12, 0.12, count, 3)
    cos, sin = angle.cos(), angle.sin()
    # From pixels about the centre to scan coordinates in -1..1: turn, shear, then scale.
    turn = torch.stack([torch.stack([cos + shear * sin, shear * cos - sin], 1), torch.stack([sin, cos], 1)], 1)
    matrix = turn * (2 / torch.stack([width, height], 1)).unsqueeze(2)
    fraction = _uniform(random, -0.5, 0.5, count, 2)
    # The scan's corners in pixels say how large a window each needs; digits of similar size are drawn together.
    corners = torch.linalg.inv(matrix) @ torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    reach = corners.abs().amax((1, 2)).add(1.5).ceil().int()
    masks: list[Tensor] = [torch.empty(0)] * count
    order = reach.argsort(stable=True)
    for group in order.split(_CHUNK):
        drawn = _drawn(source.scans[chosen[group]], matrix[group], fraction[group], int(reach[group].max()))
        drawn = ((drawn ** weight[group].view(-1, 1, 1) - 0.5) * sharpness[group].view(-1, 1, 1) + 0.5).clamp(0, 1)
        drawn = drawn * opacity[group].view(-1, 1, 1)
        for i, mask in zip(group.tolist(), _cut(drawn), strict=True):
            masks[i] = mask
    return _Glyphs(masks=masks, labels=source.labels[chosen], colour=colour,
                   either=torch.randint(2, (count,), generator=random) * 2.0 - 1)


def _drawn(scans: Tensor, matrix: Tensor, fraction: Tensor, reach: int) -> Tensor:
    """Scans (M, 1, 8, 8) as opacities (M, 2 reach, 2 reach); ``matrix`` (M, 2, 2) takes pixels from the middle, moved by ``fraction``
    (M, 2) pixels, to coordinates of the scan in -1..1."""
    line = torch.arange(2 * reach) + 0.5 - reach
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x, y], -1).view(1, -1, 2) - fraction.view(-1, 1, 2)
    grid = (points @ matrix.transpose(1, 2)).view(-1, 2 * reach, 2 * reach, 2)
    return F.grid_sample(scans, grid, mode="bicubic", padding_mode="zeros", align_corners=False)[:, 0].clamp(0, 1)


def _cut(drawn: Tensor) -> list[Tensor]:
    """Opacities (M, R, R) without the ink below `LEAST_INK`, each cut to the rows and columns that have ink."""
    drawn = torch.where(drawn < LEAST_INK, 0.0, drawn)
    return [mask[_extent(mask.amax(1))][:, _extent(mask.amax(0))] for mask in drawn]


def _extent(ink: Tensor) -> slice:
    """First to last index of ink."""
    places = ink.nonzero()[:, 0]
    return slice(int(places[0]), int(places[-1]) + 1)


# --- placing and painting ---------------------------------------------------------------------------------------------


def _places(masks: list[Tensor], tries: Tensor, size: int) -> list[tuple[int, int, int, int] | None]:
    """For each mask the first of its tries (`_TRIES`, 2), fractions of the free room, that keeps to `OVERLAP`; None if all fail."""
    taken: list[tuple[int, int, int, int]] = []
    found: list[tuple[int, int, int, int] | None] = []
    for mask, draws in zip(masks, tries.tolist(), strict=True):
        height, width = mask.shape
        if height > size or width > size:
            found.append(None)
            continue
        candidates = [(int(u * (size - width + 1)), int(v * (size - height + 1))) for u, v in draws]
        boxes = ((x, y, x + width, y + height) for x, y in candidates)
        place = next((box for box in boxes if all(_covered(box, other) <= OVERLAP for other in taken)), None)
        found.append(place)
        taken += [] if place is None else [place]
    return found


def _covered(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> float:
    """Part of the smaller box that the other covers."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _paint(image: Tensor, glyphs: _Glyphs, index: int, box: tuple[int, int, int, int]) -> None:
    """Paint a glyph into its box of the image (3, S, S), lighter or darker than the box's mean."""
    x0, y0, x1, y1 = box
    ground = image[:, y0:y1, x0:x1]
    level = float(ground.mean())
    sign = -1.0 if level > 0.65 else 1.0 if level < 0.35 else float(glyphs.either[index])
    colour = (level + sign * glyphs.colour[index]).view(3, 1, 1)
    ground += glyphs.masks[index] * (colour - ground)
