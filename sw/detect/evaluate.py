"""Average precision of detections, by pycocotools: COCO's two numbers and those of Pascal VOC.

The matching is COCO's: within an image and class, in the order of scores, each detection takes the free box with which its IoU is
highest, at or above the threshold. (VOC's own code looks at the box with the highest IoU only, and the detection is false if that box
is taken.)
Boxes that are marked difficult are no misses when not found, and detections on them, however many, do not count.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from sw.detect.decode import TOP, Detections

__all__ = ["Precision", "Truth", "average_precision"]

_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True, kw_only=True, eq=False)
class Truth:
    """Of one image: ``boxes`` (k, 4) as x0, y0, x1, y1 in pixels, ``labels`` (k,) and perhaps ``difficult`` (k,) bool."""

    boxes: Tensor | np.ndarray
    labels: Tensor | np.ndarray
    difficult: Tensor | np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Precision:
    """Fractions 0..1, means over the classes that have boxes.

    ``ap``: over IoU 0.5, 0.55, ..., 0.95, at 101 recalls; ``ap50``: at IoU 0.5, at 101 recalls; ``voc12``: at IoU 0.5, at every recall
    (VOC from 2010 on); ``voc07``: at IoU 0.5, at the 11 recalls 0, 0.1, ..., 1. ``classes50`` is ``ap50`` by label.
    """

    ap: float
    ap50: float
    voc12: float
    voc07: float
    classes50: dict[int, float]


def average_precision(found: Sequence[Detections], truth: Sequence[Truth], *, top: int = TOP) -> Precision:
    """The precision of each image's detections against its boxes; of each class at most ``top`` detections an image count.

    ValueError where lists are of different lengths, shapes do not belong together, or no box is left to be found.
    """
    if len(found) != len(truth):
        raise ValueError(f"each image needs detections and boxes, and there are {len(found)} and {len(truth)} of them")
    boxes = [entry for image, one in enumerate(truth) for entry in _boxes(image, one)]
    labels = sorted({entry["category_id"] for entry in boxes if not entry["iscrowd"]})
    if not labels:
        raise ValueError("there must be at least one box that is not difficult, and there is none: look at the split")
    results = [entry for image, one in enumerate(found) for entry in _results(image, one)]
    with contextlib.redirect_stdout(io.StringIO()):
        wanted, given = _coco(boxes, labels, len(truth)), _coco([r for r in results if r["category_id"] in labels], labels, len(truth))
        rows = np.array([_class(wanted, given, label, top) for label in labels])
    ap, ap50, voc12, voc07 = rows.mean(0).tolist()
    return Precision(ap=ap, ap50=ap50, voc12=voc12, voc07=voc07, classes50=dict(zip(labels, rows[:, 1].tolist(), strict=True)))


class _Evaluation(COCOeval):  # type: ignore[misc]
    """Difficult boxes are passed as COCO's crowds, which may be found often and are then ignored, but with an ordinary IoU."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        boxes = self._gts[imgId, catId]
        kept = [box["iscrowd"] for box in boxes]
        for box in boxes:
            box["iscrowd"] = 0
        ious = super().computeIoU(imgId, catId)
        for box, crowd in zip(boxes, kept, strict=True):
            box["iscrowd"] = crowd
        return ious


def _class(wanted: COCO, given: COCO, label: int, top: int) -> tuple[float, float, float, float]:
    """AP, AP50, VOC 2012's and VOC 2007's of one class."""
    run = _Evaluation(wanted, given, "bbox")
    run.params.catIds, run.params.maxDets = [label], [top]
    run.params.areaRng, run.params.areaRngLbl = [[0, 1e10]], ["all"]
    run.params.iouThrs = _THRESHOLDS
    run.evaluate()
    count = sum(int((image["gtIgnore"] == 0).sum()) for image in run.evalImgs if image is not None)
    # The precision is a step function of recall with steps at k / count only: its mean over them is the area.
    recalls = np.linspace(0, 1, 101), np.arange(1, count + 1) / count, np.arange(11) / 10  # quotients, as the recalls themselves are
    curves = [_precision(run, places) for places in recalls]
    return float(curves[0].mean()), *(float(curve[0].mean()) for curve in curves)  # type: ignore[return-value]


def _precision(run: COCOeval, recalls: np.ndarray) -> np.ndarray:
    """Interpolated precision (thresholds, recalls)."""
    run.params.recThrs = recalls
    run.accumulate()
    return run.eval["precision"][:, :, 0, 0, 0]


def _coco(entries: list[dict[str, Any]], labels: list[int], images: int) -> COCO:
    data = COCO()
    data.dataset = {
        "images": [{"id": image} for image in range(images)], "categories": [{"id": label} for label in labels],
        "annotations": [{"id": i + 1, **entry} for i, entry in enumerate(entries)],
    }
    data.createIndex()
    return data


def _boxes(image: int, truth: Truth) -> list[dict[str, Any]]:
    boxes, labels = np.asarray(truth.boxes, float), np.asarray(truth.labels)
    hard = np.zeros(len(labels), bool) if truth.difficult is None else np.asarray(truth.difficult)
    if boxes.shape != (len(labels), 4) or hard.shape != labels.shape:
        raise ValueError(f"image {image} needs boxes (k, 4), labels (k,) and difficult (k,), not {boxes.shape}, {labels.shape} and "
                         f"{hard.shape}")
    return [{"iscrowd": int(difficult), **_entry(image, box, label)} for box, label, difficult in zip(boxes, labels, hard, strict=True)]


def _results(image: int, found: Detections) -> list[dict[str, Any]]:
    boxes, labels, scores = np.asarray(found.boxes, float), np.asarray(found.labels), np.asarray(found.scores, float)
    if boxes.shape != (len(labels), 4) or scores.shape != labels.shape:
        raise ValueError(f"the detections of image {image} need boxes (k, 4), labels (k,) and scores (k,), not {boxes.shape}, "
                         f"{labels.shape} and {scores.shape}")
    return [{"score": float(score), **_entry(image, box, label)} for box, label, score in zip(boxes, labels, scores, strict=True)]


def _entry(image: int, box: np.ndarray, label: Any) -> dict[str, Any]:
    """COCO's boxes are x, y, width, height. A detection with a negative size covers nothing."""
    width, height = max(0.0, float(box[2] - box[0])), max(0.0, float(box[3] - box[1]))
    return {"image_id": image, "category_id": int(label), "bbox": [float(box[0]), float(box[1]), width, height], "area": width * height}
