"""Batches for a detector: of scenes that are kept, of scenes made afresh for every epoch, of views of a VOC split."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sw.data import scenes
from sw.data.glyphs32 import Sources
from sw.data.voc import Sample, read_image
from sw.detect.views import normalise, training_view

__all__ = ["Batch", "Feed", "fresh_scenes", "shuffled", "voc_views"]


class Batch(NamedTuple):
    """``images`` (N, 3, H, W) float32; of each image ``boxes`` (k, 4) in pixels and ``labels`` (k,), k >= 0."""

    images: Tensor
    boxes: list[Tensor]
    labels: list[Tensor]


Feed = Callable[[int], Iterable[Batch]]
"""The batches of an epoch, 0, 1, ...: the same for the same number."""


def shuffled(data: scenes.Scenes, batch: int, *, seed: int) -> Feed:
    """Each epoch a permutation of the scenes in whole batches; a rest is left out."""
    _check_batch(batch, len(data.images))

    def epoch(number: int) -> Iterator[Batch]:
        order = np.random.default_rng((seed, number)).permutation(len(data.images))
        for first in range(0, len(order) - batch + 1, batch):
            chosen = order[first : first + batch].tolist()
            yield Batch(data.images[chosen], [data.boxes[i] for i in chosen], [data.labels[i] for i in chosen])

    return epoch


def fresh_scenes(source: Sources, count: int, size: int, batch: int, *, seed: int) -> Feed:
    """Each epoch ``count`` new scenes of ``size`` pixels, made a batch at a time; a rest is left out."""
    _check_batch(batch, count)

    def epoch(number: int) -> Iterator[Batch]:
        for seeds in np.random.SeedSequence((seed, number)).spawn(count // batch):
            made = scenes.generate(source, batch, size, seed=int(seeds.generate_state(1, np.uint64)[0] >> 1))
            yield Batch(made.images, made.boxes, made.labels)

    return epoch


def voc_views(samples: Sequence[Sample], size: int, batch: int, *, seed: int, difficult: bool = True) -> Feed:
    """Each epoch a random view of every sample, `training_view`, in random order and whole batches; a rest is left out.

    Images are normalised. Objects that are marked difficult are learned too unless ``difficult`` is False.
    """
    _check_batch(batch, len(samples))

    def epoch(number: int) -> Iterator[Batch]:
        random = np.random.default_rng((seed, number))
        order = random.permutation(len(samples))
        for first in range(0, len(order) - batch + 1, batch):
            views = [_view(samples[i], size, random, difficult) for i in order[first : first + batch]]
            images, boxes, labels = map(list, zip(*views, strict=True))
            yield Batch(torch.stack(images), boxes, labels)

    return epoch


def _view(sample: Sample, size: int, random: np.random.Generator, difficult: bool) -> tuple[Tensor, Tensor, Tensor]:
    learned = np.flatnonzero(~sample.difficult | difficult)
    view = training_view(read_image(sample), sample.boxes[learned], size, random)
    return normalise(view.image), torch.from_numpy(view.boxes), torch.from_numpy(sample.labels[learned][view.kept])


def _check_batch(batch: int, count: int) -> None:
    if not 1 <= batch <= count:
        raise ValueError(f"a batch must have at least one image and at most the {count} that there are, not {batch}")
