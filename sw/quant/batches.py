"""What a trainer trains on: tensors, or any iterable of batches, in an order that a resumed run repeats.

The order of tensors is drawn from the trainer's generator. A loader of the user's draws its order and its augmentation from
the global generators of torch, numpy and `random`, or from its own ``generator``, as torch's DataLoader may have one: the
trainer seeds the global ones for every epoch, see `seeded`, and keeps a loader's own one in the checkpoint. Any other state
in a data set, such as a numpy Generator of its own, is not kept: a resumed run would draw from its start again.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch", "Batches", "Classification", "Source", "seeded", "source_of"]

Batch = tuple[Tensor, Any]
"""Inputs (N, ...) and whatever the loss compares outputs with, such as labels (N,)."""


class Classification(Protocol):
    """Images (N, C, H, W) and labels (N,), to train on and held out."""

    @property
    def train_images(self) -> Tensor: ...
    @property
    def train_labels(self) -> Tensor: ...
    @property
    def test_images(self) -> Tensor: ...
    @property
    def test_labels(self) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """Batches (inputs, targets) to train on and held out: torch DataLoaders, lists, anything that `iter` starts afresh."""

    train: Iterable[Batch]
    test: Iterable[Batch]

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            given = getattr(self, name)
            if not isinstance(given, Iterable):
                raise ValueError(f"{name} must be an iterable of (inputs, targets) batches, not {type(given).__name__}")
            if isinstance(given, Iterator):
                raise ValueError(f"{name} must start afresh every epoch, as a DataLoader or a list does, and "
                                f"{type(given).__name__} can be read once only")
        if getattr(self.train, "persistent_workers", False):
            raise ValueError("persistent_workers of the training loader must be False: such workers go on with the random numbers "
                             "of the epoch before, and a resumed run could not repeat them")


class Source(Protocol):
    """The trainer's view of its data."""

    @property
    def steps(self) -> int | None:
        """Batches of an epoch, where that is known before."""

    @property
    def identity(self) -> str:
        """Text that differs for data of another size."""

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        """The training batches of one epoch."""

    def inputs(self, count: int) -> Iterator[Tensor]:
        """Training inputs to calibrate with, about ``count`` in all."""

    def held_out(self) -> Iterator[Batch]:
        """The held-out batches, always the same."""

    def state(self) -> Any:
        """What the next epoch's order depends on, besides the generators of `seeded` and the trainer's."""

    def load_state(self, state: Any) -> None:
        """Undo everything since `state`."""


def source_of(data: Classification | Batches, batch: int) -> Source:
    """``data`` as a source; ``batch`` is the size of batches of tensors, and without effect for `Batches`."""
    return _Loaders(data) if isinstance(data, Batches) else _Tensors(data, batch)


class _Tensors:
    """Each epoch is a permutation in whole batches; a rest is left out."""

    def __init__(self, data: Classification, batch: int) -> None:
        if len(data.train_images) != len(data.train_labels) or not len(data.train_images):
            raise ValueError(f"training images must have one label each and be at least one, not {len(data.train_images)} with "
                             f"{len(data.train_labels)} labels")
        self.data, self.batch = data, batch

    @property
    def steps(self) -> int:
        return max(1, len(self.data.train_images) // self.batch)

    @property
    def identity(self) -> str:
        return f"{len(self.data.train_images)} images"

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        order = torch.randperm(len(self.data.train_images), generator=generator)
        for i in range(self.steps):
            chosen = order[i * self.batch : (i + 1) * self.batch]
            yield self.data.train_images[chosen], self.data.train_labels[chosen]

    def inputs(self, count: int) -> Iterator[Tensor]:
        return iter(self.data.train_images[:count].split(128))

    def held_out(self) -> Iterator[Batch]:
        return zip(self.data.test_images.split(256), self.data.test_labels.split(256), strict=True)

    def state(self) -> None:
        return None

    def load_state(self, state: Any) -> None:
        pass


class _Loaders:
    def __init__(self, data: Batches) -> None:
        self.data = data

    @property
    def steps(self) -> int | None:
        return len(self.data.train) if isinstance(self.data.train, Sized) else None

    @property
    def identity(self) -> str:
        return f"{self.steps} batches"

    def epoch(self, generator: torch.Generator) -> Iterator[Batch]:
        return _checked(self.data.train, "training")

    def inputs(self, count: int) -> Iterator[Tensor]:
        for inputs, _ in _checked(self.data.train, "training"):
            yield inputs[:count]
            count -= len(inputs)
            if count <= 0:
                return

    def held_out(self) -> Iterator[Batch]:
        return _checked(self.data.test, "held-out")

    def _generators(self) -> list[torch.Generator]:
        """Generators of the loader, its data set and its samplers, which usually share one."""
        loader = self.data.train
        parts = [getattr(loader, name, None) for name in ("sampler", "batch_sampler", "dataset")]
        owners = (loader, *parts, getattr(parts[1], "sampler", None))
        found = [g for owner in owners if isinstance(g := getattr(owner, "generator", None), torch.Generator)]
        return list({id(g): g for g in found}.values())

    def state(self) -> list[Tensor]:
        return [generator.get_state() for generator in self._generators()]

    def load_state(self, state: Any) -> None:
        for generator, kept in zip(self._generators(), state, strict=True):
            generator.set_state(kept)


def _checked(batches: Iterable[Any], what: str) -> Iterator[Batch]:
    """The batches; raises in words for what is no (inputs, targets) pair, and where there is none."""
    count = 0
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2 or not isinstance(batch[0], Tensor):
            shape = f"{type(batch).__name__} of {len(batch)}" if isinstance(batch, (tuple, list)) else type(batch).__name__
            raise ValueError(f"{what} batch {count} must be (inputs, targets) with a tensor of inputs, not {shape}")
        if not batch[0].is_floating_point():
            raise ValueError(f"inputs of {what} batch {count} must be floats, not {batch[0].dtype}: convert them in the "
                             "data set")
        yield batch[0], batch[1]
        count += 1
    if not count:
        raise ValueError(f"there must be at least one {what} batch, and there is none: look at the data set's size and "
                         "drop_last")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of torch (CPU), numpy and `random` seeded; their former states come back."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002  (what a user's data set draws from)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
