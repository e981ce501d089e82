"""Decoding: perfect maps give back their boxes, peaks as a slow loop finds them, integer codes, the flip test."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.detect.decode import Detections, averaged, decode, detect, maps_of
from sw.detect.targets import encode

BOXES = [torch.tensor([[3.0, 5, 31, 40], [30.0, 30, 60, 62], [40.0, 2, 55, 9], [70.0, 10, 95, 58]]), torch.tensor([[0.0, 0, 96, 64]])]
LABELS = [torch.tensor([2, 0, 2, 1]), torch.tensor([1])]


def sure(found: Detections) -> list[tuple[int, list[float]]]:
    entries = zip(found.labels.tolist(), found.boxes.tolist(), found.scores.tolist(), strict=True)
    return sorted((label, box) for label, box, score in entries if score > 0.99)


def test_perfect_maps_give_back_exactly_the_boxes() -> None:
    targets = encode(BOXES, LABELS, 3, 64, 96, min_overlap=0.4)
    logits = torch.logit(targets.heat.double(), eps=1e-6)
    for found, boxes, labels in zip(decode((logits, targets.size, targets.shift)), BOXES, LABELS, strict=True):
        assert sure(found) == sorted((int(label), box.tolist()) for label, box in zip(labels, boxes, strict=True))


def random_codes(seed: int) -> list[np.ndarray]:
    """Few different codes, so that neighbours are often equal."""
    random = np.random.default_rng(seed)
    return [random.integers(-6, 6, (2, channels, 7, 9)).astype(np.int8) for channels in (3, 2, 2)]


def slow_peaks(heat: np.ndarray) -> list[tuple[int, int, int, int]]:
    """(code, class, row, column) of each cell (classes, h, w) that no neighbour exceeds, best first, then in reading order."""
    found, (_, height, width) = [], heat.shape
    for k, r, c in np.ndindex(*heat.shape):
        near = [heat[k, i, j] for i in range(r - 1, r + 2) for j in range(c - 1, c + 2) if 0 <= i < height and 0 <= j < width]
        if heat[k, r, c] == max(near):
            found.append((int(heat[k, r, c]), k, r, c))
    return sorted(found, key=lambda entry: (-entry[0], entry[1:]))


@pytest.mark.parametrize("top", [4, 25, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_peaks_are_those_of_a_slow_loop_in_their_order(seed: int, top: int) -> None:
    heat, size, shift = random_codes(seed)
    scales = 0.5, 0.25, 0.125
    for image, found in enumerate(decode((heat, size, shift), scales=scales, top=top)):
        wanted = slow_peaks(heat[image])[:top]
        assert len(wanted) == len(found.scores) == min(top, len(wanted))
        for i, (code, label, row, column) in enumerate(wanted):
            assert int(found.labels[i]) == label
            assert float(found.scores[i]) == pytest.approx(1 / (1 + np.exp(-code * 0.5)), rel=1e-12)  # another library's exp
            x, y = column + shift[image, 0, row, column] / 8, row + shift[image, 1, row, column] / 8
            wide, tall = size[image, :, row, column] / 4
            assert found.boxes[i].tolist() == [4 * (x - wide / 2), 4 * (y - tall / 2), 4 * (x + wide / 2), 4 * (y + tall / 2)]


def test_codes_with_scales_decode_as_their_values() -> None:
    codes, scales = random_codes(7), (2**-3, 2**-4, 2**-5)
    values = [torch.from_numpy(code).float() * scale for code, scale in zip(codes, scales, strict=True)]
    for a, b in zip(decode(codes, scales=scales), decode(values), strict=True):
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) and torch.equal(a.labels, b.labels)


class Lopsided(nn.Module):
    """Heat and size that see left and right differently; shift is always the cell's middle, which a mirror keeps."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.heat, self.size = nn.Conv2d(3, 2, 3, padding=1).double(), nn.Conv2d(3, 2, 3, padding=1).double()

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.avg_pool2d(images.double(), 4)
        size = self.size(x).abs() + 1
        return self.heat(x) * 3, size, torch.full_like(size, 0.5)


def same(a: Detections, b: Detections, width: int) -> bool:
    """Equal, when ``b`` is mirrored in an image of ``width`` pixels: but for 1e-9, as a mirrored convolution sums in another order."""
    mirrored = torch.stack([width - b.boxes[:, 2], b.boxes[:, 1], width - b.boxes[:, 0], b.boxes[:, 3]], 1)
    rows = [torch.cat([labels[:, None].double(), scores[:, None], boxes], 1)
            for labels, scores, boxes in ((a.labels, a.scores, a.boxes), (b.labels, b.scores, mirrored))]
    first, second = (sorted(row.tolist()) for row in rows)
    return len(first) == len(second) and bool(np.allclose(first, second, atol=1e-9))


def test_the_flip_test_of_a_mirrored_image_is_the_mirror_image() -> None:
    model, images = Lopsided().train(), torch.rand(5, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    plain, mirrored = (detect(model, given, flip=True, batch=2) for given in (images, images.flip(-1)))
    assert len(plain) == 5 and model.training
    for a, b in zip(plain, mirrored, strict=True):
        assert len(a.scores) > 5 and same(a, b, 48)
    without = [detect(model, given) for given in (images, images.flip(-1))]
    assert not any(same(a, b, 48) for a, b in zip(*without, strict=True))


def test_the_flip_test_averages_heat_and_size_and_keeps_the_shift() -> None:
    random = torch.Generator().manual_seed(2)
    a, b = ([torch.randn(1, n, 3, 4, generator=random, dtype=torch.float64) for n in (2, 2, 2)] for _ in range(2))
    found = averaged(maps_of(a), maps_of(b))
    for row in range(3):
        for column in range(4):
            there = 3 - column
            heat = [1 / (1 + np.exp(-float(v))) for v in (a[0][0, 1, row, column], b[0][0, 1, row, there])]
            assert float(found.heat[0, 1, row, column]) == pytest.approx(sum(heat) / 2, rel=1e-12)  # another library's exp
            assert float(found.size[0, 0, row, column]) == float(a[1][0, 0, row, column] + b[1][0, 0, row, there]) / 2
    assert torch.equal(found.shift, a[2])


def test_outputs_that_do_not_fit_are_refused() -> None:
    heat, two = torch.zeros(1, 3, 4, 4), torch.zeros(1, 2, 4, 4)
    with pytest.raises(ValueError, match="three outputs and scales, heat, size and shift, not 2 and 3"):
        decode((heat, two))
    with pytest.raises(ValueError, match=r"not \(1, 3, 4, 4\), \(1, 2, 4, 4\) and \(1, 2, 4, 3\)"):
        decode((heat, two, two[..., :-1]))
    with pytest.raises(ValueError, match="output size must be finite, and 32 of 32 values"):
        decode((heat, two * float("nan"), two))
