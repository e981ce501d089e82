"""CenterNet's float32 targets against slow float64 loops over every cell (1e-6 of heat, 1e-5 of cells), the Gaussian's radius against
boxes that are really moved."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from sw.detect.targets import encode, gaussian_radius

SIZES = [(1.0, 1.0), (2.0, 3.0), (10.0, 1.0), (1.5, 20.0), (12.25, 12.25), (40.0, 7.0), (64.0, 64.0)]


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def worst(width: float, height: float, radius: float) -> float:
    """The least IoU of a box with itself when each of its four edges moves by -radius, 0 or radius."""
    moves = itertools.product((-radius, 0.0, radius), repeat=4)
    return min(iou((0, 0, width, height), (a, b, max(a, width + c), max(b, height + d))) for a, b, c, d in moves)


def searched_radius(width: float, height: float, overlap: float = 0.7) -> float:
    """By bisection, from the IoU alone."""
    low, high = 0.0, min(width, height) / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if worst(width, height, middle) >= overlap else (low, middle)
    return low


@pytest.mark.parametrize("overlap", [0.3, 0.5, 0.7, 0.9])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_a_box_that_moves_by_the_radius_keeps_the_overlap(width: float, height: float, overlap: float) -> None:
    radius = gaussian_radius(width, height, overlap)
    assert worst(width, height, radius) >= overlap - 1e-9
    assert worst(width, height, radius * 1.001) < overlap
    assert radius == pytest.approx(searched_radius(width, height, overlap), rel=1e-6)


def slow_targets(boxes: list[list[float]], labels: list[int], classes: int, height: int, width: int) -> tuple[Tensor, ...]:
    """One image, cell by cell in Python."""
    h, w = height // 4, width // 4
    heat, mask = torch.zeros(classes, h, w, dtype=torch.float64), torch.zeros(h, w, dtype=torch.bool)
    size, shift = torch.zeros(2, h, w, dtype=torch.float64), torch.zeros(2, h, w, dtype=torch.float64)
    owner: dict[tuple[int, int], float] = {}
    for (x0, y0, x1, y1), label in zip(boxes, labels, strict=True):
        x, y, wide, tall = (x0 + x1) / 8, (y0 + y1) / 8, (x1 - x0) / 4, (y1 - y0) / 4
        radius = math.floor(searched_radius(wide, tall))
        deviation = (2 * radius + 1) / 6
        column, row = math.floor(x), math.floor(y)
        for r in range(h):
            for c in range(w):
                if abs(r - row) <= radius and abs(c - column) <= radius:
                    value = math.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * deviation**2))
                    heat[label, r, c] = max(value, float(heat[label, r, c]))
        if owner.get((row, column), math.inf) > wide * tall:
            owner[row, column] = wide * tall
            mask[row, column] = True
            size[:, row, column] = torch.tensor([wide, tall])
            shift[:, row, column] = torch.tensor([x - column, y - row])
    return heat, size, shift, mask


def random_boxes(random: torch.Generator, count: int, height: int, width: int) -> Tensor:
    """Some reach over the border, all centres are inside."""
    centre = torch.rand(count, 2, generator=random) * torch.tensor([width - 0.01, height - 0.01])
    half = torch.rand(count, 2, generator=random) * 50 + 2
    return torch.cat([centre - half, centre + half], 1)


@pytest.mark.parametrize("seed", range(6))
def test_against_a_loop_over_every_cell(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    boxes = [random_boxes(random, count, 96, 160) for count in (5, 0, 12)]
    labels = [torch.randint(3, (len(mine),), generator=random) for mine in boxes]
    found = encode(boxes, labels, 3, 96, 160)
    assert found.heat.shape == (3, 3, 24, 40) and found.mask.shape == (3, 24, 40)
    radii = set()
    for i, (mine, names) in enumerate(zip(boxes, labels, strict=True)):
        heat, size, shift, mask = slow_targets(mine.tolist(), names.tolist(), 3, 96, 160)
        assert torch.allclose(found.heat[i].double(), heat, atol=1e-6)
        assert torch.equal(found.heat[i] == 1, heat == 1)
        assert torch.equal(found.mask[i], mask)
        assert torch.allclose(found.size[i].double(), size, atol=1e-5) and torch.allclose(found.shift[i].double(), shift, atol=1e-5)
        radii |= {int(gaussian_radius((x1 - x0) / 4, (y1 - y0) / 4)) for x0, y0, x1, y1 in mine.tolist()}
    assert len(radii) > 1


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_of_two_centres_in_a_cell_the_smaller_box_gives_the_size(order: list[int]) -> None:
    boxes = torch.tensor([[10.0, 10, 30, 30], [16.0, 17, 26, 24]])[order]
    found = encode([boxes], [torch.tensor([0, 1])[order]], 2, 64, 64)
    assert int(found.mask.sum()) == 1
    assert found.size[0, :, 5, 5].tolist() == [2.5, 1.75] and found.shift[0, :, 5, 5].tolist() == [0.25, 0.125]
    assert found.heat[0, :, 5, 5].tolist() == [1, 1]


def test_a_smaller_overlap_makes_wider_gaussians() -> None:
    boxes, labels = [torch.tensor([[8.0, 8, 56, 56]])], [torch.tensor([0])]
    narrow, wide = (encode(boxes, labels, 1, 64, 64, min_overlap=overlap) for overlap in (0.7, 0.3))
    assert int((wide.heat > 0).sum()) > int((narrow.heat > 0).sum())


@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([4.0, 4, 4, 9], 0, "image 1, box 0 of label 0, .* x0 < x1 and y0 < y1"),
        ([4.0, 4, 9, 9], 3, r"label must be in 0\.\.2"),
        ([4.0, 4, 9, 9], -1, r"label must be in 0\.\.2"),
        ([60.0, 4, 68, 9], 0, "centre must lie in the image of 64 x 32"),
        ([-9.0, 4, 8, 9], 0, "centre must lie in the image"),
        ([float("nan"), 4, 8, 9], 0, "x0 < x1"),
    ],
)
def test_objects_out_of_range_are_refused_with_their_place(box: list[float], label: int, message: str) -> None:
    good = torch.tensor([[4.0, 4, 12, 12]])
    with pytest.raises(ValueError, match=message):
        encode([good, torch.tensor([box])], [torch.tensor([0]), torch.tensor([label])], 3, 32, 64)


def test_sizes_and_counts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4 pixels, not 30 x 64"):
        encode([], [], 3, 30, 64)
    with pytest.raises(ValueError, match="there are 1 and 0"):
        encode([torch.zeros(0, 4)], [], 3, 32, 64)
    with pytest.raises(ValueError, match=r"image 0 needs boxes \(k, 4\)"):
        encode([torch.zeros(2, 4)], [torch.zeros(1, dtype=torch.int64)], 3, 32, 64)
