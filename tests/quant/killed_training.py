"""A training as its own process, for tests that kill it: ``python killed_training.py CHECKPOINT PASSES SECONDS``.

Small random data from a loader with a seeded sampler and an augmentation that draws from numpy and `random`. After PASSES over
the data each further batch takes SECONDS, so that a kill falls into the middle of an epoch.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sw.quant import Recipe
from sw.quant.train import Batches, TrainConfig, Trained, Trainer

CONFIG = TrainConfig(float_epochs=3, fixed_epochs=3, seed=5, calibration_images=40, hold_points=0.4)


class Shifting(Dataset[tuple[Tensor, int]]):
    """48 images (1, 8, 8) that are rolled and scaled at random whenever they are read."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images, self.labels = torch.randn(48, 1, 8, 8, generator=generator), torch.arange(48) % 4

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        rolled = torch.roll(self.images[index], random.randint(-2, 2), 2)
        return rolled * float(np.random.uniform(0.5, 1.5)) + torch.rand(1), int(self.labels[index])  # noqa: NPY002


class Slow:
    """A loader that sleeps before each batch after some passes; the calibration is a pass, too."""

    def __init__(self, loader: DataLoader[tuple[Tensor, int]], passes: int, seconds: float) -> None:
        self.loader, self.passes, self.seconds = loader, passes, seconds
        self.generator, self.begun = loader.generator, 0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self):  # type: ignore[no-untyped-def]
        self.begun += 1
        for batch in self.loader:
            if self.begun > self.passes:
                time.sleep(self.seconds)
            yield batch


class Net(nn.Module):
    """(N, 1, 8, 8) to (N, 4), with dropout: the forward pass draws at random, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU()
        self.mean, self.flatten, self.drop, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.flatten(self.mean(self.relu(self.norm(self.conv(x)))))))


def trainer(*, own_generator: bool = True, passes: int = 99, seconds: float = 0.0) -> Trainer:
    generator = torch.Generator().manual_seed(9) if own_generator else None
    loader = DataLoader(Shifting(), batch_size=8, shuffle=True, generator=generator)
    test = [(torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(16) % 4)]
    return Trainer(Net, Batches(train=Slow(loader, passes, seconds), test=test), Recipe(), CONFIG)


def digest(trained: Trained) -> dict[str, Tensor]:
    """All parameters, the losses of all epochs, and the integers of the frozen layers."""
    integers = {f"{name}.{what}": torch.from_numpy(getattr(layer.integers, what))
                for name, layer in trained.model.quant_layers() for what in ("weight", "bias", "shift")}
    losses = torch.tensor([p.loss for p in trained.history], dtype=torch.float64)
    return {**trained.float_model.state_dict(), **trained.model.state_dict(), **integers, "losses": losses}


def main() -> None:
    path = Path(sys.argv[1])
    run = trainer(passes=int(sys.argv[2]), seconds=float(sys.argv[3]))
    if path.exists():
        run.load(path)
    run.run(path)


if __name__ == "__main__":
    main()
