"""A small trainer: float training, calibration, quantisation-aware training; reproducible, and resumable to the bit.

The binary points learn at first and are held for the last part of the fixed-point training, so that the weights settle on
one grid. BatchNorm statistics are those of the float training throughout. Data are tensors or any iterable of batches
(`sw.quant.batches`); loss, metric and optimiser can be the user's choice.
"""

from __future__ import annotations

import contextlib
import io
import math
import pickle
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec.program import write_atomically
from sw.quant.batches import Batch, Batches, Classification, seeded, source_of
from sw.quant.convert import quantize_model
from sw.quant.finite import NonFiniteError
from sw.quant.model import QuantModel
from sw.quant.points import METHODS, Mode
from sw.quant.recipe import Recipe

__all__ = ["Batches", "CheckpointError", "Progress", "TrainConfig", "Trained", "Trainer", "accuracy", "evaluate", "right"]

_VERSION = 2

OPTIMIZERS = ("adamw", "adam", "sgd")

Loss = Callable[[Any, Any], Tensor]
"""Outputs of the model and targets of a batch to a scalar."""
Metric = Callable[[Any, Any], Tensor]
"""Outputs and targets to one score per sample (N,), or to their mean as a scalar."""


class CheckpointError(ValueError):
    """A checkpoint that does not continue this training; the message says why."""


_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,)}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long and how fast to train.

    ``delay_points`` and ``hold_points`` are the parts of the fixed-point epochs, at their start and at their end, during which
    binary points do not learn. ``optimizer`` (adamw, adam or sgd with ``momentum``) is that of the weights; binary points
    always have Adam of ``point_rate``, whose steps do not depend on the size of a gradient. ``batch`` is that of data given as
    tensors. One thread makes a run independent of the number of cores, and is fastest for small networks on a shared machine.
    """

    float_epochs: int = 24
    fixed_epochs: int = 10
    batch: int = 64
    float_rate: float = 5e-3
    fixed_rate: float = 1e-3
    point_rate: float = 1e-2
    weight_decay: float = 1e-4
    label_smoothing: float = 0.1
    optimizer: str = "adamw"
    momentum: float = 0.9
    delay_points: float = 0.0
    hold_points: float = 0.4
    calibration_images: int = 512
    calibration_method: str = "mse"
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, bool) or not isinstance(value, _TYPES[str(entry.type)]):
                raise ValueError(f"TrainConfig {entry.name} must be of type {entry.type}, not {value!r}")
        for name in ("float_epochs", "fixed_epochs", "batch", "calibration_images", "threads"):
            if getattr(self, name) < (0 if name.endswith("epochs") else 1):
                raise ValueError(f"TrainConfig {name} must be positive, not {getattr(self, name)}")
        for name in ("delay_points", "hold_points", "label_smoothing", "momentum"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"TrainConfig {name} must be in 0..1, not {getattr(self, name)}")
        for name in ("float_rate", "fixed_rate", "point_rate", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"TrainConfig {name} must be a positive number, not {getattr(self, name)}")
        for name, choices in (("optimizer", OPTIMIZERS), ("calibration_method", METHODS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"TrainConfig {name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One finished epoch: ``phase`` "float" or "fixed", its mean loss, and the accuracy (or the user's metric) held out."""

    phase: str
    epoch: int
    epochs: int
    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """The result; ``model`` is frozen. Accuracies are fractions of the held-out images, or the user's metric; ``held_out`` are
    the inputs of the first held-out batch."""

    float_model: nn.Module
    model: QuantModel
    float_accuracy: float
    fixed_accuracy: float
    history: tuple[Progress, ...]
    held_out: Tensor


def right(outputs: Tensor, labels: Tensor) -> Tensor:
    """1 for each sample whose largest score is its label's, else 0. Outputs (N, classes), labels (N,)."""
    if not isinstance(labels, Tensor) or outputs.ndim != 2 or labels.shape != outputs.shape[:1]:
        targets = tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__
        raise ValueError(f"accuracy needs outputs (N, classes) and labels (N,), not {tuple(outputs.shape)} and {targets}: "
                         "give a metric of your own")
    return (outputs.argmax(1) == labels).to(torch.float64)


def _score(given: Any, samples: int) -> Tensor:
    """What a metric gave, as one score per sample or their mean."""
    score = torch.as_tensor(given) if isinstance(given, (Tensor, int, float)) else None
    if score is None or (score.ndim and score.shape != (samples,)):
        what = type(given).__name__ if score is None else f"shape {tuple(score.shape)}"
        raise ValueError(f"a metric must give one score for each of {samples} samples, or their mean, not {what}")
    return score


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[Batch], metric: Metric = right) -> float:
    """The mean of a metric over all samples, in evaluation mode; the model's training flag is kept."""
    training = model.training
    model.eval()
    total, count = 0.0, 0
    for inputs, targets in batches:
        score = _score(metric(model(inputs), targets), len(inputs))
        total += float(score.sum()) if score.ndim else float(score) * len(inputs)
        count += len(inputs)
    model.train(training)
    if not count:
        raise ValueError("there must be at least one sample to evaluate, and there is none")
    return total / count


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Fraction of images whose largest score is their label's; the model's training flag is kept."""
    return evaluate(model, zip(images.split(256), labels.split(256), strict=True))


class Trainer:
    """Trains a model and its fixed-point version.

    Parameters
    ----------
    make_model : builds the float model; called once, under the seed
    data : tensors (`Classification`) or `Batches`
    augment : inputs and a generator to inputs, or None
    loss : outputs and targets to a scalar; cross entropy with the configuration's label smoothing if None
    metric : see `Metric`; accuracy if None
    progress : called after each epoch
    """

    def __init__(
        self, make_model: Callable[[], nn.Module], data: Classification | Batches, recipe: Recipe,
        config: TrainConfig | None = None, *, augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        loss: Loss | None = None, metric: Metric | None = None, progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.recipe, self.config = recipe, config or TrainConfig()
        self.source = source_of(data, self.config.batch)
        self.augment, self.progress = augment, progress
        self.loss, self.metric = loss or self._cross_entropy, metric or right
        self.generator = torch.Generator().manual_seed(self.config.seed)
        with seeded(self.config.seed):
            self.float_model = make_model()
        self.model: QuantModel | None = None
        self.epoch = 0
        self.history: list[Progress] = []
        quantize_model(self.float_model, recipe)  # whatever it refuses is refused now, and not after the float epochs
        self.optimizers = self._optimizers()

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
        with self._seeded():
            loss = self._batches(network)
        self.epoch += 1
        self._report(loss, self._score(network), time.perf_counter() - start)

    def _seeded(self) -> contextlib.AbstractContextManager[None]:
        """What the user's model and data set draw from depends on the epoch alone, so a resumed run draws the same."""
        return seeded(self.config.seed * 1_000_003 + self.epoch + 1)

    def _score(self, network: nn.Module) -> float:
        with self._seeded():
            return evaluate(network, self.source.held_out(), self.metric)

    def _batches(self, network: nn.Module) -> float:
        first, count = self._phase()
        if self.model is not None:
            part = (self.epoch - first) / count
            self.model.learn_points(self.config.delay_points <= part < 1 - self.config.hold_points)
        network.train()
        losses, steps = [], self.source.steps
        for i, batch in enumerate(self.source.epoch(self.generator)):
            self._set_rates((self.epoch - first + (i / steps if steps else 0)) / count)
            losses.append(self._step(network, batch))
        return sum(losses) / len(losses)

    def _step(self, network: nn.Module, batch: Batch) -> float:
        inputs = batch[0] if self.augment is None else self.augment(batch[0], self.generator)
        loss = self.loss(_outputs(network, inputs), batch[1])
        if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
            what = f"shape {tuple(loss.shape)}, requires_grad {loss.requires_grad}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"a loss must be a tensor of one value that depends on the outputs, not {what}")
        if not bool(torch.isfinite(loss.detach())):
            raise NonFiniteError(f"the loss must be finite, and in epoch {self.epoch + 1} it is {float(loss.detach())}: lower "
                                 "float_rate, fixed_rate or point_rate, or look for damaged data")
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return float(loss.detach())

    def _cross_entropy(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels, label_smoothing=self.config.label_smoothing)

    def _quantise(self) -> None:
        """From the float to the fixed-point phase."""
        self.model = quantize_model(self.float_model, self.recipe)
        with self._seeded():
            self.model.calibrate(self.source.inputs(self.config.calibration_images), self.config.calibration_method)
        self.optimizers = self._optimizers()

    def _result(self) -> Trained:
        if self.model is None:
            self._quantise()
        assert self.model is not None
        self.model.freeze()
        with self._seeded():
            first, _ = next(self.source.held_out())
        return Trained(
            float_model=self.float_model.eval(), model=self.model.eval(), history=tuple(self.history), held_out=first,
            float_accuracy=self._score(self.float_model), fixed_accuracy=self._score(self.model),
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

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        """One for the weights and, in the fixed-point phase, one for the binary points; ``base`` is a group's highest rate."""
        config = self.config
        points = [] if self.model is None else self.model.binary_points()
        known = {id(p) for p in points}
        weights = [p for p in self._network().parameters() if id(p) not in known and p.requires_grad]
        rate = config.float_rate if self.model is None else config.fixed_rate
        found = [_weight_optimizer(config, weights, rate)] if weights else []
        if points:
            groups = [{"params": points, "base": config.point_rate}]
            found.append(torch.optim.AdamW(groups, lr=config.point_rate, weight_decay=0.0))
        return found

    def _set_rates(self, done: float) -> None:
        """Warm up over a tenth of the phase, then a half cosine to zero; ``done`` is the finished part, 0..1."""
        part = min(1.0, 0.1 + done * 9) if done < 0.1 else 0.5 * (1 + math.cos(math.pi * (done - 0.1) / 0.9))
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["base"] * part

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _fingerprint(self) -> str:
        return repr((asdict(self.config), self.recipe, self.source.identity))

    def save(self, path: str | Path) -> None:
        """Write a checkpoint, whole or not at all."""
        state = {
            "bitloom_checkpoint": _VERSION, "fingerprint": self._fingerprint(), "epoch": self.epoch,
            "float_model": self.float_model.state_dict(),
            "model": None if self.model is None else self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "generator": self.generator.get_state(), "source": self.source.state(),
            "history": [asdict(p) for p in self.history],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def _load_models(self, state: dict[str, Any]) -> None:
        self.float_model.load_state_dict(state["float_model"])
        if state["model"] is not None:
            self.model = quantize_model(self.float_model, self.recipe)
            self.model.load_state_dict(state["model"])
            self.model.set_mode(Mode.QAT)

    def load(self, path: str | Path) -> None:
        """Continue from a checkpoint of the same recipe, configuration and data."""
        state = _read(path)
        if state["fingerprint"] != self._fingerprint():
            raise CheckpointError(f"{path} belongs to another recipe, configuration or data set: train from the start, "
                                  "or use the settings that it was made with")
        try:
            self._load_models(state)
        except RuntimeError as error:
            raise CheckpointError(f"{path} is of another model ({error}): train from the start") from error
        self.epoch = state["epoch"]
        self.optimizers = self._optimizers()
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        self.generator.set_state(state["generator"])
        self.source.load_state(state["source"])
        self.history = [Progress(**entry) for entry in state["history"]]


def _outputs(network: nn.Module, inputs: Tensor) -> Any:
    try:
        return network(inputs)
    except RuntimeError as error:
        raise ValueError(f"the model does not run on a batch of inputs {tuple(inputs.shape)}: {error}") from error


def _weight_optimizer(config: TrainConfig, weights: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    groups = [{"params": weights, "base": rate}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay)
    make = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return make(groups, lr=rate, weight_decay=config.weight_decay)


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
