"""The reader of Pascal VOC directories on one that the test writes, and random views of its images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sw.data.voc import CLASSES, VocError, read_image, read_split
from sw.detect.feeds import voc_views
from sw.detect.views import LEAST_SIDE, MEAN, STD, ZOOM, letterbox, normalise, training_view

OBJECT = ("<object><name>{name}</name>{difficult}"
          "<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>")
OBJECTS = {
    "000012": (80, 60, [("cat", (10, 5, 40, 30), False), ("person", (50, 20, 80, 60), True)]),
    "000007": (50, 70, [("aeroplane", (0, 0, 50, 12), False)]),
    "2008_000001": (64, 64, []),
}
"""Image: width, height, and class, box (x0, y0, x1, y1, the last ones behind it) and difficult of each object."""


def write(root: Path) -> Path:
    """The directory, each object a white rectangle on black."""
    for folder in ("Annotations", "ImageSets/Main", "JPEGImages"):
        (root / folder).mkdir(parents=True)
    for name, (width, height, objects) in OBJECTS.items():
        pixels = np.zeros((height, width, 3), np.uint8)
        text = f"<annotation><size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
        for kind, (x0, y0, x1, y1), difficult in objects:
            pixels[y0:y1, x0:x1] = 255
            flag = f"<difficult>{int(difficult)}</difficult>" if difficult else ""
            text += OBJECT.format(x0 + 1, y0 + 1, x1, y1, name=kind, difficult=flag)
        (root / "Annotations" / f"{name}.xml").write_text(text + "</annotation>")
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{name}.jpg", quality=100, subsampling=0)
    (root / "ImageSets" / "Main" / "trainval.txt").write_text("000012  1\n000007 -1\n\n2008_000001\n")
    return root


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "VOC2007")


def test_a_split_is_read_as_it_was_written(root: Path) -> None:
    samples = read_split(root, "trainval")
    assert [sample.image.stem for sample in samples] == ["000012", "000007", "2008_000001"]
    for sample, (width, height, objects) in zip(samples, OBJECTS.values(), strict=True):
        assert (sample.width, sample.height) == (width, height)
        assert [CLASSES[label] for label in sample.labels] == [kind for kind, _, _ in objects]
        assert sample.difficult.tolist() == [difficult for _, _, difficult in objects]
        assert sample.boxes.shape == (len(objects), 4) and sample.boxes.dtype == np.float32
        white = read_image(sample).min(2) > 128
        for x0, y0, x1, y1 in sample.boxes.astype(int):
            assert white[y0:y1, x0:x1].all()
            white[y0:y1, x0:x1] = False
        assert not white.any()
    assert len(CLASSES) == len(set(CLASSES)) == 20


def change(root: Path, old: str, new: str) -> None:
    path = root / "Annotations" / "000012.xml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("</annotation>", "", r"000012.xml is no readable XML .*unpack the data set again"),
        ("<name>cat<", "<name>unicorn<", r"000012.xml, object 0: the class 'unicorn' is none of the 20 known ones"),
        ("<xmin>11<", "<xmin>eleven<", r"object 0 \(cat\): <bndbox/xmin> must be a number, not 'eleven'"),
        ("<xmin>11</xmin>", "", r"object 0 \(cat\): <bndbox/xmin> is missing"),
        ("<xmax>80<", "<xmax>81<", r"object 1 \(person\): the box xmin 51, .* xmax 81, ymax 60 must .* in the image, 1..80 x 1..60"),
        ("<xmin>11<", "<xmin>0<", r"object 0 \(cat\): the box xmin 0"),
        ("<xmax>40<", "<xmax>10<", r"object 0 \(cat\): the box .* must hold a pixel"),
        ("<width>80</width>", "", r"000012.xml: <size/width> is missing"),
        ("<width>80<", "<width>0<", r"size must be at least 1 x 1"),
        ("<width>80<", "<width>90<", r"has 80 x 60 pixels and its annotation says 90 x 60"),
    ],
)
def test_damaged_annotations_are_refused_with_their_place(root: Path, old: str, new: str, message: str) -> None:
    change(root, old, new)
    with pytest.raises(VocError, match=message):
        for sample in read_split(root, "trainval"):
            read_image(sample)


def test_missing_files_are_refused(root: Path) -> None:
    with pytest.raises(VocError, match=r"val.txt does not exist: .*trainval"):
        read_split(root, "val")
    (root / "ImageSets" / "Main" / "empty.txt").write_text("\n")
    with pytest.raises(VocError, match=r"empty.txt names no image"):
        read_split(root, "empty")
    image = root / "JPEGImages" / "000007.jpg"
    image.write_bytes(b"no image")
    with pytest.raises(VocError, match=r"000007.jpg cannot be read as an image"):
        read_image(read_split(root, "trainval")[1])
    image.unlink()
    with pytest.raises(VocError, match=r"1 of 3 images of .*trainval.txt do not exist, .*000007.jpg first"):
        read_split(root, "trainval")
    image.write_bytes(b"")
    (root / "Annotations" / "000007.xml").unlink()
    with pytest.raises(VocError, match=r"000007.xml cannot be read"):
        read_split(root, "trainval")


# --- views ------------------------------------------------------------------------------------------------------------


def painted(width: int, height: int, box: tuple[int, int, int, int]) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def bright(image: np.ndarray) -> np.ndarray | None:
    """x0, y0, x1, y1 of the pixels that are brighter than halfway; None where all are alike."""
    values = image[..., 1].astype(float)
    if np.ptp(values) < 20:
        return None
    rows, columns = np.nonzero(values > (values.min() + values.max()) / 2)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], float)


@pytest.mark.parametrize(("width", "height"), [(80, 60), (50, 70), (33, 33), (300, 41)])
def test_a_letterbox_shows_the_whole_image_and_leads_back(width: int, height: int) -> None:
    box = (width // 5, height // 4, width // 2, height - 3)
    square, frame = letterbox(painted(width, height, box), 96)
    assert square.shape == (96, 96, 3)
    moved = frame.to_square(np.array([box, (0, 0, width, height)]))
    assert np.abs(bright(square) - moved[0]).max() <= 1
    assert moved[1].min() >= -1e-9 and moved[1].max() <= 96 + 1e-9
    assert np.isclose((moved[1, 2:] - moved[1, :2]).max(), 96) and np.allclose(moved[1, :2] + moved[1, 2:], 96)
    assert np.allclose(frame.to_image(moved), [box, (0, 0, width, height)], atol=1e-9)


def test_a_training_view_keeps_boxes_on_their_object() -> None:
    random, mirrored, lost, clipped = np.random.default_rng(1), 0, 0, 0
    sides = []
    for _ in range(200):
        width, height = (int(v) for v in random.integers(60, 200, 2))
        x, y = (int(random.integers(0, length - 20)) for length in (width, height))
        box = (x, y, int(random.integers(x + 12, width + 1)), int(random.integers(y + 12, height + 1)))
        view = training_view(painted(width, height, box), np.array([box], np.float32), 96, random)
        seen = bright(view.image)
        whole = view.frame.to_square(np.array([box]))
        if len(view.boxes):
            assert view.kept.tolist() == [0] and seen is not None
            assert np.abs(seen - view.boxes[0]).max() <= 1.2
            assert np.allclose(view.frame.to_image(whole), [box], atol=1e-9)
        else:
            assert seen is None or (seen[2:] - seen[:2]).min() <= LEAST_SIDE + 1
        mirrored += view.frame.mirrored
        lost += not len(view.boxes)
        clipped += bool(len(view.boxes)) and np.abs(whole - view.boxes).max() > 1
        sides.append(96 / view.frame.scale / max(width, height))
    assert 60 < mirrored < 140 and lost < 60 and clipped > 20
    assert ZOOM[0] <= min(sides) < 0.65 and 1.3 < max(sides) <= ZOOM[1]


def test_kept_says_which_boxes_are_left() -> None:
    boxes = np.array([(i * 20, 40, i * 20 + 15, 60) for i in range(10)], np.float32)
    random, counts = np.random.default_rng(2), set()
    for _ in range(50):
        view = training_view(np.zeros((100, 200, 3), np.uint8), boxes, 64, random)
        assert np.allclose(view.frame.to_square(boxes[view.kept]).clip(0, 64), view.boxes, atol=1e-4)
        counts.add(len(view.kept))
    assert len(counts) > 3


def test_brightness_and_saturation_change_and_a_seed_repeats_a_view() -> None:
    """An image of one colour: what is not black beside it shows what the colour became."""
    image, nothing = np.full((90, 90, 3), (60, 100, 140), np.uint8), np.zeros((0, 4), np.float32)
    views = [training_view(image, nothing, 32, np.random.default_rng(i)) for i in range(40)]
    colours = np.array([np.median(view.image[view.image.max(2) > 70], 0) for view in views])
    brightness, saturation = colours.mean(1) / 100, np.ptp(colours, 1) / 80 / (colours.mean(1) / 100)
    assert 0.5 < brightness.min() < 0.75 and 1.25 < brightness.max() < 1.5
    assert 0.3 < saturation.min() < 0.75 and 1.25 < saturation.max() < 2.2
    assert np.array_equal(views[4].image, training_view(image, nothing, 32, np.random.default_rng(4)).image)


def test_normalised_pixels_are_those_of_the_formula() -> None:
    image = np.random.default_rng(3).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    values = normalise(image)
    assert values.dtype == torch.float32 and values.shape == (3, 90, 90)
    for channel in range(3):
        assert float(values[channel, 7, 9]) == pytest.approx((image[7, 9, channel] / 255 - MEAN[channel]) / STD[channel], abs=1e-5)


def test_batches_of_views(root: Path) -> None:
    samples = read_split(root, "trainval")
    feed = voc_views(samples, 64, 2, seed=1, difficult=False)
    first, = feed(0)
    again, = feed(0)
    assert first.images.shape == (2, 3, 64, 64) and len(first.boxes) == len(first.labels) == 2
    assert torch.equal(first.images, again.images) and not torch.equal(first.images, next(iter(feed(1))).images)
    seen = {int(label) for epoch in range(12) for batch in feed(epoch) for labels in batch.labels for label in labels}
    assert seen == {CLASSES.index("cat"), CLASSES.index("aeroplane")}
    seen = {int(label) for epoch in range(12) for batch in voc_views(samples, 64, 3, seed=1)(epoch) for labels in batch.labels
            for label in labels}
    assert CLASSES.index("person") in seen
    with pytest.raises(ValueError, match="at most the 3"):
        voc_views(samples, 64, 4, seed=1)
