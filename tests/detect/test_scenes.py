"""Generated scenes: reproducible, exact codes, boxes that are tight to the pixel, parts that share no source."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from sw.data import scenes
from sw.data.glyphs32 import COLUMNS, Sources
from sw.data.scenes import LEAST_HEIGHT, OVERLAP, Scenes, generate, load_scenes, sources

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def source() -> Sources:
    return sources()["train"]


@pytest.fixture(scope="module")
def many(source: Sources) -> Scenes:
    return generate(source, 160, 96, seed=5)


def same(a: Scenes, b: Scenes) -> bool:
    pairs = [*zip(a.boxes, b.boxes, strict=True), *zip(a.labels, b.labels, strict=True)]
    return torch.equal(a.images, b.images) and all(torch.equal(x, y) for x, y in pairs)


def test_the_same_seed_gives_the_same_scenes_and_another_seed_others(source: Sources) -> None:
    first = generate(source, 20, 64, seed=3)
    assert same(first, generate(source, 20, 64, seed=3))
    other = generate(source, 20, 64, seed=4)
    assert (first.images != other.images).flatten(1).any(1).all()


@pytest.mark.parametrize("count", [1, 16, 21])
def test_the_first_scenes_do_not_depend_on_how_many_follow(source: Sources, count: int) -> None:
    all_of_them = generate(source, 40, 64, seed=9)
    first = Scenes(images=all_of_them.images[:count], boxes=all_of_them.boxes[:count], labels=all_of_them.labels[:count])
    assert same(generate(source, count, 64, seed=9), first)


@pytest.mark.parametrize("size", [32, 96, 160])
def test_shapes_types_and_exact_codes(source: Sources, size: int) -> None:
    made = generate(source, 5, size, seed=1)
    assert made.images.shape == (5, 3, size, size) and made.images.dtype == torch.float32
    codes = made.images * 256
    assert torch.equal(codes, codes.round()) and codes.min() >= 0 and codes.max() <= 255
    assert len(made.boxes) == len(made.labels) == 5
    for boxes, labels in zip(made.boxes, made.labels, strict=True):
        assert boxes.dtype == torch.float32 and boxes.shape == (len(labels), 4) and labels.dtype == torch.int64
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= size).all() and (boxes[:, :2] < boxes[:, 2:]).all()


def extent(changed: Tensor) -> list[int]:
    """x0, y0, x1, y1 of the true pixels (H, W), by numpy."""
    rows, columns = np.nonzero(changed.numpy())
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("size", [64, 128])
def test_boxes_are_the_rectangles_of_the_painted_pixels(monkeypatch: pytest.MonkeyPatch, source: Sources, size: int) -> None:
    """One object on flat grey without noise: whatever is not grey is the object."""
    grey = torch.full((scenes._CHUNK, 3, size, size), 0.5)
    monkeypatch.setattr(scenes, "OBJECTS", (1, 1))
    monkeypatch.setattr(scenes, "_grounds", lambda *_: grey.clone())
    monkeypatch.setattr(scenes, "_noisy", lambda images, random: images)
    made = generate(source, 64, size, seed=8)
    for image, boxes in zip(made.images, made.boxes, strict=True):
        assert boxes.tolist() == [extent((image != 0.5).any(0))]


def test_every_object_of_a_crowded_scene_paints_its_whole_box(monkeypatch: pytest.MonkeyPatch, source: Sources) -> None:
    painted: list[list[int]] = []
    paint = scenes._paint

    def watched(image: Tensor, *others: object) -> None:
        before = image.clone()
        paint(image, *others)  # type: ignore[arg-type]
        painted.append(extent((image != before).any(0)))

    monkeypatch.setattr(scenes, "_paint", watched)
    made = generate(source, 32, 96, seed=8)
    assert torch.cat(made.boxes).tolist() == painted
    assert len(painted) > 64


def test_objects_overlap_little_and_are_of_every_number_size_and_class(many: Scenes) -> None:
    assert {len(boxes) for boxes in many.boxes} == set(range(1, 7))
    assert set(torch.cat(many.labels).tolist()) == set(range(10))
    touching = 0
    for boxes in many.boxes:
        for a, b in itertools.combinations(boxes.tolist(), 2):
            grids = [np.zeros((96, 96), bool), np.zeros((96, 96), bool)]
            for grid, (x0, y0, x1, y1) in zip(grids, (a, b), strict=True):
                grid[int(y0) : int(y1), int(x0) : int(x1)] = True
            shared = int((grids[0] & grids[1]).sum())
            assert shared <= OVERLAP * min(grid.sum() for grid in grids)
            touching += shared > 0
    assert touching > 5
    boxes = torch.cat(many.boxes)
    longer = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert longer.min() >= LEAST_HEIGHT * 0.7 and longer.min() < 96 / 9 and 96 / 3 < longer.max() < 96 * 0.7


def photographs() -> np.ndarray:
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_depends_on_its_own_columns_only(part: str) -> None:
    plain = generate(sources()[part], 16, 64, seed=1).images
    photos, (first, end) = photographs(), COLUMNS[part]
    mine = np.zeros(640, bool)
    mine[first:end] = True
    foreign, own = photos.copy(), photos.copy()
    foreign[:, :, ~mine] = 255 - foreign[:, :, ~mine]
    own[:, :, mine] = 255 - own[:, :, mine]
    assert torch.equal(generate(sources(foreign)[part], 16, 64, seed=1).images, plain)
    assert (generate(sources(own)[part], 16, 64, seed=1).images != plain).flatten(1).any(1).all()


def test_each_part_is_made_from_its_own_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only one digit is left in each part's scans: 1, 2 and 3."""
    made = sources()
    keep = {part: made[part].labels == label for part, label in zip(PARTS, (1, 2, 3), strict=True)}
    few = {part: Sources(scans=one.scans[keep[part]], labels=one.labels[keep[part]], photos=one.photos) for part, one in made.items()}
    monkeypatch.setattr(scenes, "sources", lambda: few)
    loaded = load_scenes(9, 8, 7, size=64, seed=1)
    for label, (part, count) in enumerate(zip(PARTS, (9, 8, 7), strict=True), 1):
        scene = getattr(loaded, part)
        assert len(scene.images) == count and set(torch.cat(scene.labels).tolist()) == {label}
    assert not torch.equal(loaded.train.images[:7], loaded.test.images)


def test_counts_and_sizes_that_make_no_scenes_are_refused(source: Sources) -> None:
    with pytest.raises(ValueError, match="at least one scene, not 0"):
        generate(source, 0, 64, seed=1)
    for size in (100, 0, -32):
        with pytest.raises(ValueError, match=f"multiple of 32 pixels, .* not {size}"):
            generate(source, 1, size, seed=1)
