"""A small trainer: float training, calibration, quantisation-aware training; reproducible, and resumable to the bit.

The binary points learn at first and are held for the last part of the fixed-point training, so that the weights settle on
one grid. BatchNorm statistics are those of the float training throughout.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec.program import write_atomically
from sw.quant.convert import UnsupportedModelError, quantize_model, unsupported
from sw.quant.model import QuantModel
from sw.quant.points import Mode
from sw.quant.recipe import Recipe

__all__ = ["CheckpointError", "Progress", "TrainConfig", "Trained", "Trainer", "accuracy"]

_VERSION = 1


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


class CheckpointError(ValueError):
    """A checkpoint that does not continue this training; the message says why."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how fast to train.

    ``hold_points`` is the part of the fixed-point epochs, at their end, during which binary points are held. One thread
    makes a run independent of the number of cores, and is fastest for small networks on a shared machine.
    """

    float_epochs: int = 24
    fixed_epochs: int = 10
    batch: int = 64
    float_rate: float = 5e-3
    fixed_rate: float = 1e-3
    point_rate: float = 1e-2
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    hold_points: float = 0.4
    calibration_images: int = 512
    calibration_method: str = "mse"
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("float_epochs", "fixed_epochs", "batch", "calibration_images", "threads"):
            if getattr(self, name) < (0 if name.endswith("epochs") else 1):
                raise ValueError(f"TrainConfig {name} must be positive, not {getattr(self, name)}")
        for name in ("hold_points", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"TrainConfig {name} must be in 0..1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One finished epoch: ``phase`` "float" or "fixed", its mean loss, and the accuracy on the held-out images."""

    phase: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The result; ``model`` is frozen. Accuracies are fractions of the held-out images."""

    float_model: nn.Module
    model: QuantModel
    float_accuracy: float
    fixed_accuracy: float
    history: tuple[Progress, ...]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images whose largest score is their label's; the model's training flag is kept."""
    training = model.training
    model.eval()
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(256), labels.split(256), strict=True))
    model.train(training)
    return right / labels.shape[0]


class Trainer:
    """Trains a model and its fixed-point version.

    Parameters
    ----------
    make_model : builds the float model; called once, under the seed
    augment : images and a generator to images, or None
    progress : called after each epoch
    """

    def __init__(
        self, make_model: Callable[[], nn.Module], data: Classification, recipe: Recipe, config: TrainConfig | None = None,
        *, augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.data, self.recipe, self.config = data, recipe, config or TrainConfig()
        self.augment, self.progress = augment, progress
        self.generator = torch.Generator().manual_seed(self.config.seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.config.seed)
            self.float_model = make_model()
            self._rng = torch.get_rng_state()
        self.model: QuantModel | None = None
        self.epoch = 0
        self.history: list[Progress] = []
        if problems := unsupported(self.float_model, recipe):
            raise UnsupportedModelError(problems)
        self.optimizer = self._optimizer()

    # -- running ------------------------------------------------------------------------------------------------

    @property
    def epochs(self) -> int:
        return self.config.float_epochs + self.config.fixed_epochs

    def run(self, checkpoint: str | Path | None = None, *, stop_at: int | None = None) -> Trained | None:
        """Train to the end, or until ``stop_at`` epochs are done (then None); save a checkpoint after each epoch."""
        with _reproducible(self.config.threads):
            while self.epoch < min(self.epochs, self.epochs if stop_at is None else stop_at):
                self._epoch()
                if checkpoint is not None:
                    self.save(checkpoint)
            return self._result() if self.epoch == self.epochs else None

    def _epoch(self) -> None:
        start = time.perf_counter()
        if self.epoch == self.config.float_epochs:
            self._quantise()
        network = self._network()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._rng)
            loss = self._batches(network)
            self._rng = torch.get_rng_state()
        self.epoch += 1
        score = accuracy(network, self.data.test_images, self.data.test_labels)
        self._report(loss, score, time.perf_counter() - start)

    def _batches(self, network: nn.Module) -> float:
        first, count = self._phase()
        batch, size = self.config.batch, len(self.data.train_images)
        order = torch.randperm(size, generator=self.generator)
        steps = max(1, size // batch)
        if self.model is not None:
            self.model.learn_points(self.epoch - first < count * (1 - self.config.hold_points))
        network.train()
        total = 0.0
        for i in range(steps):
            self._set_rates((self.epoch - first + i / steps) / count)
            total += self._step(network, order[i * batch : (i + 1) * batch])
        return total / steps

    def _step(self, network: nn.Module, chosen: Tensor) -> float:
        images = self.data.train_images[chosen]
        if self.augment is not None:
            images = self.augment(images, self.generator)
        loss = F.cross_entropy(network(images), self.data.train_labels[chosen], label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def _quantise(self) -> None:
        """From the float to the fixed-point phase."""
        self.model = quantize_model(self.float_model, self.recipe)
        images = self.data.train_images[: self.config.calibration_images]
        self.model.calibrate(images.split(128), self.config.calibration_method)
        self.optimizer = self._optimizer()

    def _result(self) -> Trained:
        if self.model is None:
            self._quantise()
        assert self.model is not None
        self.model.freeze()
        images, labels = self.data.test_images, self.data.test_labels
        return Trained(
            float_model=self.float_model.eval(), model=self.model.eval(), history=tuple(self.history),
            float_accuracy=accuracy(self.float_model, images, labels), fixed_accuracy=accuracy(self.model, images, labels),
        )

    def _network(self) -> nn.Module:
        return self.float_model if self.model is None else self.model

    def _phase(self) -> tuple[int, int]:
        """First epoch and number of epochs of the phase that runs."""
        config = self.config
        return (0, config.float_epochs) if self.model is None else (config.float_epochs, config.fixed_epochs)

    def _report(self, loss: float, score: float, seconds: float) -> None:
        first, count = self._phase()
        phase = "float" if self.model is None else "fixed"
        done = Progress(phase=phase, epoch=self.epoch - first, epochs=count, loss=loss, accuracy=score, seconds=seconds)
        self.history.append(done)
        if self.progress is not None:
            self.progress(done)

    # -- optimiser ----------------------------------------------------------------------------------------------

    def _optimizer(self) -> torch.optim.AdamW:
        config = self.config
        points = [] if self.model is None else self.model.binary_points()
        known = {id(p) for p in points}
        weights = [p for p in self._network().parameters() if id(p) not in known and p.requires_grad]
        rate = config.float_rate if self.model is None else config.fixed_rate
        groups = [{"params": weights, "base": rate, "weight_decay": config.weight_decay},
                  {"params": points, "base": config.point_rate, "weight_decay": 0.0}]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=rate)

    def _set_rates(self, done: float) -> None:
        """Warm up over a tenth of the phase, then a half cosine to zero; ``done`` is the finished part, 0..1."""
        part = min(1.0, 0.1 + done * 9) if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * part

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        return repr((asdict(self.config), self.recipe, len(self.data.train_images)))

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "bitloom_checkpoint": _VERSION, "fingerprint": self._fingerprint(), "epoch": self.epoch,
            "float_model": self.float_model.state_dict(),
            "model": None if self.model is None else self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(), "rng": self._rng,
            "history": [asdict(p) for p in self.history],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def load(self, path: str | Path) -> None:
        """Continue from a checkpoint of the same recipe, configuration and data."""
        state = _read(path)
        if state["fingerprint"] != self._fingerprint():
            raise CheckpointError(f"{path} belongs to another recipe, configuration or data set: train from the start, "
                                  "or use the settings that it was made with")
        self.epoch = state["epoch"]
        self.float_model.load_state_dict(state["float_model"])
        if state["model"] is not None:
            self.model = quantize_model(self.float_model, self.recipe)
            self.model.load_state_dict(state["model"])
            self.model.set_mode(Mode.QAT)
        self.optimizer = self._optimizer()
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["generator"])
        self._rng = state["rng"]
        self.history = [Progress(**entry) for entry in state["history"]]


def _read(path: str | Path) -> dict[str, Any]:
    try:
        state = torch.load(io.BytesIO(Path(path).read_bytes()), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise CheckpointError(f"{path} is not a usable checkpoint ({error}): train from the start") from error
    if not isinstance(state, dict) or state.get("bitloom_checkpoint") != _VERSION:
        raise CheckpointError(f"{path} is not a checkpoint of version {_VERSION}: train from the start")
    return state


@contextlib.contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """A fixed number of threads and deterministic algorithms; the former settings come back."""
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
