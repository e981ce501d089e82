"""The generated images: parts that share no source, reproducible, exact codes; the small networks are what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hw.spec.fixed import Overflow, Rounding, quantize
from sw.data.digits import load_digits
from sw.data.glyphs32 import COLUMNS, INPUT_FORMAT, Glyphs, generate, load_glyphs, sources
from sw.models.small_cnn import PlainNet, ResidualNet
from sw.quant import unsupported

PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def glyphs() -> Glyphs:
    return load_glyphs(900, 900, 900)


def photographs() -> np.ndarray:
    from sklearn.datasets import load_sample_images

    return np.stack(load_sample_images().images)


def test_scans_of_the_parts_are_disjoint_in_content() -> None:
    found = {part: {scan.numpy().tobytes() for scan in source.scans} for part, source in sources().items()}
    assert {part: len(scans) for part, scans in found.items()} == {"train": 1077, "validation": 270, "test": 450}
    assert not (found["train"] & found["validation"] or found["train"] & found["test"] or found["validation"] & found["test"])
    digits = load_digits()
    held_out = {scan.numpy().tobytes() for scan in digits.test_images}
    assert found["test"] <= held_out and not held_out & (found["train"] | found["validation"])


def test_regions_of_the_photographs_are_disjoint() -> None:
    covered = np.zeros(640, int)
    for first, end in COLUMNS.values():
        covered[first:end] += 1
    assert covered.max() == 1 and covered.sum() == 352 + 80 + 192
    made = sources()
    assert [tuple(made[part].photos.shape) for part in PARTS] == [(2, 3, 427, n) for n in (352, 80, 192)]


@pytest.mark.parametrize("part", PARTS)
def test_a_part_depends_on_its_own_columns_only(part: str) -> None:
    """Everything outside its columns is replaced: not one pixel changes. Its own columns replaced: they do."""
    plain = generate(sources()[part], 300, seed=1)[0]
    photos, (first, end) = photographs(), COLUMNS[part]
    mine = np.zeros(640, bool)
    mine[first:end] = True
    foreign, own = photos.copy(), photos.copy()
    foreign[:, :, ~mine] = 255 - foreign[:, :, ~mine]
    own[:, :, mine] = 255 - own[:, :, mine]
    assert torch.equal(generate(sources(foreign)[part], 300, seed=1)[0], plain)
    changed = (generate(sources(own)[part], 300, seed=1)[0] != plain).flatten(1).any(1)
    assert changed.all()


def test_generation_is_reproducible_and_extends(glyphs: Glyphs) -> None:
    again = load_glyphs(900, 900, 1100)
    for part in PARTS:
        for what in ("images", "labels"):
            name = f"{part}_{what}"
            assert torch.equal(getattr(again, name)[:900], getattr(glyphs, name)), name
    assert len(again.test_images) == 1100
    assert not torch.equal(load_glyphs(900, 1, 1, seed=1).train_images, glyphs.train_images)


def test_no_images_are_refused() -> None:
    with pytest.raises(ValueError, match="count must be at least one image, not 0"):
        load_glyphs(0)


def test_images_are_codes_and_no_two_are_the_same(glyphs: Glyphs) -> None:
    images = torch.cat([getattr(glyphs, f"{part}_images") for part in PARTS])
    labels = torch.cat([getattr(glyphs, f"{part}_labels") for part in PARTS])
    assert images.shape == (2700, 3, 32, 32) and images.dtype == torch.float32 and labels.dtype == torch.int64
    codes = quantize(images.numpy(), INPUT_FORMAT, Rounding.RND, Overflow.SAT)
    assert np.array_equal(codes / 256, images.numpy()) and (codes.min(), codes.max()) == (0, 255)
    assert len({image.tobytes() for image in codes.astype(np.uint8)}) == 2700
    shares = torch.bincount(labels, minlength=10) / 2700
    assert shares.min() > 0.07 and shares.max() < 0.13


def test_the_digit_is_in_the_image() -> None:
    """Without ink the same draw is another image: the scan shows, in the middle more than at the border."""
    source = sources()["test"]
    blank = type(source)(scans=torch.zeros_like(source.scans), labels=source.labels, photos=source.photos)
    with_ink, labels = generate(source, 500, seed=3)
    without, same = generate(blank, 500, seed=3)
    assert torch.equal(labels, same)
    change = (with_ink - without).abs().mean((0, 1))
    assert change[8:24, 8:24].mean() > 2 * change[:4].mean() > 0
    assert ((with_ink - without).abs().amax((1, 2, 3)) > 0.1).float().mean() > 0.99


@pytest.mark.parametrize(("net", "shape", "count"), [(PlainNet, (1, 8, 8), 24_058), (ResidualNet, (3, 32, 32), 84_570)])
def test_the_small_networks(net: type[torch.nn.Module], shape: tuple[int, int, int], count: int) -> None:
    model = net()
    assert sum(p.numel() for p in model.parameters()) == count
    assert model(torch.zeros(2, *shape)).shape == (2, 10) and unsupported(model) == []
