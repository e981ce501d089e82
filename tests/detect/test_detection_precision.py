"""Average precision: values computed by hand, and a slow independent implementation on random detections."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch

from sw.detect.decode import Detections
from sw.detect.evaluate import Truth, average_precision

close = partial(pytest.approx, rel=1e-12, abs=1e-12)
"""pycocotools adds the spacing of 1 to its denominators, so a precision of 1 is just below it; float against float."""

A, B, C = [0.0, 0, 10, 10], [20.0, 20, 30, 40], [50.0, 0, 62, 9]


def found(*entries: tuple[list[float], int, float]) -> Detections:
    """Box, label and score of each detection of an image."""
    return Detections(boxes=torch.tensor([box for box, _, _ in entries], dtype=torch.float64).reshape(-1, 4),
                      labels=torch.tensor([label for _, label, _ in entries], dtype=torch.int64),
                      scores=torch.tensor([score for _, _, score in entries], dtype=torch.float64))


def truth(*entries: tuple[list[float], int], difficult: list[bool] | None = None) -> Truth:
    return Truth(boxes=torch.tensor([box for box, _ in entries]).reshape(-1, 4), labels=torch.tensor([label for _, label in entries]),
                 difficult=None if difficult is None else torch.tensor(difficult))


def test_perfect_detections() -> None:
    given = [found((A, 0, 0.9), (B, 0, 0.3), (C, 7, 0.5)), found((A, 7, 0.1))]
    result = average_precision(given, [truth((A, 0), (B, 0), (C, 7)), truth((A, 7))])
    assert [result.ap, result.ap50, result.voc12, result.voc07] == close([1] * 4)
    assert result.classes50 == close({0: 1, 7: 1})


def test_a_missing_detection() -> None:
    """Precision 1 up to recall 1/2, 0 behind: recalls 0, 0.01, ..., 0.5 of 101."""
    result = average_precision([found((A, 0, 0.9))], [truth((A, 0), (B, 0))])
    assert [result.ap, result.ap50, result.voc12, result.voc07] == close([51 / 101, 51 / 101, 1 / 2, 6 / 11])


def test_a_duplicate_is_false() -> None:
    """True, false, true: precision 1 up to recall 1/2, then 2/3."""
    result = average_precision([found((A, 0, 0.9), (A, 0, 0.8), (B, 0, 0.7))], [truth((A, 0), (B, 0))])
    assert [result.ap50, result.voc12, result.voc07] == close([(51 + 50 * 2 / 3) / 101, 5 / 6, (6 + 5 * 2 / 3) / 11])


def test_a_shifted_detection_counts_up_to_its_overlap() -> None:
    """10 x 10, moved by 2: IoU 80 / 120, above the thresholds 0.5, 0.55, 0.6 and 0.65 of ten."""
    result = average_precision([found(([2.0, 0, 12, 10], 0, 0.9))], [truth((A, 0))])
    assert (result.ap, result.ap50) == close((0.4, 1))


def test_a_wrong_class_or_image_and_nothing_at_all_are_zero() -> None:
    wanted = [truth((A, 0)), truth((B, 0))]
    for given in ([found((A, 1, 0.9)), found((B, 1, 0.9))], [found((B, 0, 0.9)), found((A, 0, 0.9))], [found(), found()]):
        result = average_precision(given, wanted)
        assert [result.ap, result.ap50, result.voc12, result.voc07] == [0] * 4


def test_classes_have_equal_weight_and_those_without_boxes_none() -> None:
    result = average_precision([found((A, 0, 0.9), (B, 5, 0.9))], [truth((A, 0), (B, 1), (C, 1))])
    assert result.ap50 == close(1 / 2) and result.classes50 == close({0: 1, 1: 0})


def test_difficult_boxes_are_ignored_however_often_they_are_found() -> None:
    wanted = [truth((A, 0), (B, 0), difficult=[False, True])]
    given = [found((B, 0, 0.9), (B, 0, 0.8), (A, 0, 0.7))]
    assert average_precision(given, wanted).voc12 == close(1)
    assert average_precision([found((A, 0, 0.7))], wanted).voc12 == close(1)
    assert average_precision(given, [truth((A, 0), (B, 0))]).voc12 < 1


def test_a_small_detection_inside_a_difficult_box_is_false() -> None:
    """COCO's crowds would hide it: its whole area lies in the box. Its IoU is 1/4."""
    wanted = [truth((A, 0), (B, 0), difficult=[False, True])]
    result = average_precision([found(([20.0, 20, 25, 30], 0, 0.9), (A, 0, 0.7))], wanted)
    assert result.voc12 == close(1 / 2)


def test_only_the_best_detections_of_an_image_count() -> None:
    given = [found(*[(B, 0, 0.9 - i / 100) for i in range(5)], (A, 0, 0.1))]
    assert average_precision(given, [truth((A, 0))], top=5).voc12 == 0
    assert average_precision(given, [truth((A, 0))], top=6).voc12 == close(1 / 6)


# --- a slow implementation --------------------------------------------------------------------------------------------


class Slow(NamedTuple):
    voc12: float
    voc07: float
    ap50: float


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    shared = max(0.0, width) * max(0.0, height)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def marks(given: list[Detections], wanted: list[Truth], label: int) -> tuple[list[bool], int]:
    """Whether each detection of a class is true, best first over all images, ignored ones left out; and the number of boxes."""
    scored: list[tuple[float, bool]] = []
    count = 0
    for one, image in zip(given, wanted, strict=True):
        assert image.difficult is not None
        mine = [(np.asarray(box), bool(hard)) for box, name, hard in zip(image.boxes, image.labels, image.difficult, strict=True)
                if name == label]
        free = [box for box, hard in mine if not hard]
        count += len(free)
        guesses = [(float(s), np.asarray(box)) for box, name, s in zip(one.boxes, one.labels, one.scores, strict=True) if name == label]
        for score, guess in sorted(guesses, key=lambda pair: -pair[0]):
            ious = [slow_iou(guess, box) for box in free]
            if ious and max(ious) >= 0.5:
                free.pop(int(np.argmax(ious)))
                scored.append((score, True))
            elif not any(slow_iou(guess, box) >= 0.5 for box, hard in mine if hard):
                scored.append((score, False))
    return [good for _, good in sorted(scored, key=lambda pair: -pair[0])], count


def slow_precision(good: list[bool], count: int) -> Slow:
    """From the definition: the best precision at any recall at or above a given one, and the area under it."""
    points = [(sum(good[: i + 1]) / count, sum(good[: i + 1]) / (i + 1)) for i in range(len(good))]

    def best(recall: float) -> float:
        return max((p for r, p in points if r >= recall), default=0.0)

    area, before = 0.0, 0.0
    for recall, _ in points:
        area += (recall - before) * best(recall)
        before = recall
    return Slow(area, sum(best(i / 10) for i in range(11)) / 11, float(np.mean([best(r) for r in np.linspace(0, 1, 101)])))


@pytest.mark.parametrize("seed", range(4))
def test_against_a_slow_implementation_on_random_detections(seed: int) -> None:
    random = np.random.default_rng(seed)
    given, wanted = [], []
    for _ in range(25):
        count = int(random.integers(0, 6))
        corner, side = random.uniform(0, 60, (count, 2)), random.uniform(8, 40, (count, 2))
        boxes, labels = np.concatenate([corner, corner + side], 1), random.integers(0, 3, count)
        wanted.append(Truth(boxes=boxes, labels=labels, difficult=random.random(count) < 0.2))
        near = np.repeat(boxes, 3, 0) + random.normal(0, 4, (3 * count, 4))
        far = random.uniform(0, 50, (4, 4)) + [0, 0, 51, 51]
        keep = (near[:, :2] + 2 < near[:, 2:]).all(1)
        guesses, names = np.concatenate([near[keep], far]), np.concatenate([np.repeat(labels, 3)[keep], random.integers(0, 3, 4)])
        given.append(Detections(boxes=torch.from_numpy(guesses), labels=torch.from_numpy(names),
                                scores=torch.from_numpy(random.random(len(guesses)))))
    slow = np.mean([slow_precision(*marks(given, wanted, label)) for label in range(3)], 0)
    result = average_precision(given, wanted)
    assert [result.voc12, result.voc07, result.ap50] == close(slow.tolist())
    assert 0.2 < result.voc12 < 0.9


def test_what_cannot_be_evaluated_is_refused() -> None:
    with pytest.raises(ValueError, match="there are 1 and 2 of them"):
        average_precision([found()], [truth((A, 0)), truth((A, 0))])
    with pytest.raises(ValueError, match="at least one box that is not difficult"):
        average_precision([found()], [truth((A, 0), difficult=[True])])
    with pytest.raises(ValueError, match="image 0 needs boxes"):
        average_precision([found()], [Truth(boxes=np.zeros((2, 4)), labels=np.zeros(1, int))])
    with pytest.raises(ValueError, match="detections of image 0 need boxes"):
        average_precision([Detections(boxes=torch.zeros(1, 4), labels=torch.zeros(2), scores=torch.zeros(1))], [truth((A, 0))])
