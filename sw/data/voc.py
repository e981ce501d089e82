"""Reader of directories in the layout of Pascal VOC (VOC2007, VOC2012): annotations, splits and images.

==============================  ============================================================================
``Annotations/ID.xml``          the image's size and its objects: class, box, ``difficult``
``ImageSets/Main/SPLIT.txt``    one image a line: its ID, and perhaps a flag behind it that is not read
``JPEGImages/ID.jpg``           the image
==============================  ============================================================================

VOC counts pixels from 1 and includes the last one. Here boxes are x0, y0, x1, y1 in pixels from the upper left corner with x1
and y1 behind the last pixel: xmin - 1, ymin - 1, xmax, ymax. Everything but the images themselves is checked when a split is read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["CLASSES", "Sample", "VocError", "read_annotation", "read_image", "read_split"]

CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog", "horse",
           "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
"""Names of the labels 0..19."""


class VocError(ValueError):
    """A directory, annotation or image that cannot be used; the message says which, where in it, why and what to do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One image: its file, ``width`` and ``height`` in pixels; ``boxes`` (k, 4) float32 as x0, y0, x1, y1 in pixels, ``labels`` (k,)
    int64 and ``difficult`` (k,) bool, k >= 0."""

    image: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


def read_split(root: str | Path, split: str, classes: Sequence[str] = CLASSES) -> list[Sample]:
    """The samples of ``ImageSets/Main/SPLIT.txt`` in its order. Lists of two years can be added.

    VocError for a missing file or image, an empty split, and everything that `read_annotation` refuses.
    """
    root = Path(root)
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    if not listing.is_file():
        there = sorted(path.stem for path in listing.parent.glob("*.txt"))
        raise VocError(f"{listing} does not exist: give the folder that holds ImageSets, and a split that is there "
                       f"({', '.join(there[:10]) or 'there is none'})")
    names = [line.split()[0] for line in listing.read_text().splitlines() if line.strip()]
    if not names:
        raise VocError(f"{listing} names no image: give a split that has some")
    images = [root / "JPEGImages" / f"{name}.jpg" for name in names]
    if missing := [path for path in images if not path.is_file()]:
        raise VocError(f"{len(missing)} of {len(images)} images of {listing} do not exist, {missing[0]} first: unpack the data set "
                       "again")
    return [read_annotation(root / "Annotations" / f"{image.stem}.xml", image, classes) for image in images]


def read_annotation(path: str | Path, image: str | Path, classes: Sequence[str] = CLASSES) -> Sample:
    """One annotation file as the sample of an image file, which is not read.

    VocError for a missing file, XML that cannot be read, entries that are missing or no numbers, an unknown class and a box
    that is empty or reaches out of the image.
    """
    path = Path(path)
    try:
        tree = ElementTree.fromstring(path.read_bytes())
    except OSError as error:
        raise VocError(f"{path} cannot be read ({error}): each image of a split needs its annotation") from error
    except ElementTree.ParseError as error:
        raise VocError(f"{path} is no readable XML ({error}): unpack the data set again") from error
    width, height = (_number(tree, f"size/{side}", f"{path}") for side in ("width", "height"))
    if width < 1 or height < 1:
        raise VocError(f"{path}: the image's size must be at least 1 x 1, not {width:g} x {height:g}: correct the annotation")
    boxes, labels, difficult = [], [], []
    for index, entry in enumerate(tree.findall("object")):
        place = f"{path}, object {index}"
        name = (entry.findtext("name") or "").strip()
        if name not in classes:
            raise VocError(f"{place}: the class {name!r} is none of the {len(classes)} known ones ({', '.join(classes)}): give the "
                           "data set's own classes")
        boxes.append(_box(entry, f"{place} ({name})", width, height))
        labels.append(classes.index(name))
        difficult.append(entry.findtext("difficult", "0").strip() == "1")
    return Sample(
        image=Path(image), width=int(width), height=int(height), boxes=np.array(boxes, np.float32).reshape(-1, 4),
        labels=np.array(labels, np.int64), difficult=np.array(difficult, bool),
    )


def _number(entry: ElementTree.Element, name: str, place: str) -> float:
    text = entry.findtext(name)
    if text is None:
        raise VocError(f"{place}: <{name}> is missing: correct the annotation")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise VocError(f"{place}: <{name}> must be a number, not {text!r}: correct the annotation")
    return value


def _box(entry: ElementTree.Element, place: str, width: float, height: float) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 in pixels, from 0, the last ones behind the box."""
    left, top, right, bottom = (_number(entry, f"bndbox/{edge}", place) for edge in ("xmin", "ymin", "xmax", "ymax"))
    box = (left - 1, top - 1, right, bottom)
    if not (0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height):
        raise VocError(f"{place}: the box xmin {left:g}, ymin {top:g}, xmax {right:g}, ymax {bottom:g} must hold a pixel and lie in "
                       f"the image, 1..{width:g} x 1..{height:g}: correct the annotation")
    return box


def read_image(sample: Sample) -> np.ndarray:
    """The image (H, W, 3), uint8, RGB. VocError for a file that is no image, or is of another size than its annotation says."""
    try:
        with Image.open(sample.image) as file:
            pixels = np.asarray(file.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise VocError(f"{sample.image} cannot be read as an image ({error}): unpack the data set again") from error
    if pixels.shape[:2] != (sample.height, sample.width):
        raise VocError(f"{sample.image} has {pixels.shape[1]} x {pixels.shape[0]} pixels and its annotation says {sample.width} x "
                       f"{sample.height}: one of the two belongs to another image")
    return pixels
