"""Training of a detector, float or fixed-point: a warm-up, half a cosine, CenterNet's loss; the same run for the same seed and data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sw.detect.feeds import Batch, Feed
from sw.detect.losses import Losses, detection_loss
from sw.detect.targets import MIN_OVERLAP, encode
from sw.quant.batches import seeded
from sw.quant.finite import NonFiniteError
from sw.quant.model import QuantModel
from sw.quant.points import Mode

__all__ = ["OPTIMIZERS", "Report", "Settings", "Trained", "train_detector"]

OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How long and how fast to train.

    ``steps`` batches; the rate rises over the part ``warm_up`` of them to ``rate`` and falls to zero. ``optimizer``: adamw, or sgd with
    ``momentum``; gradients are scaled down to a norm of ``clip``. ``min_overlap`` is that of the Gaussians' radii. Binary points of a
    fixed-point model have Adam of ``point_rate`` and are held over the last part ``hold_points`` of the steps. A report is made
    every ``report`` steps.
    """

    steps: int = 1000
    rate: float = 2e-3
    warm_up: float = 0.05
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    clip: float = 10.0
    min_overlap: float = MIN_OVERLAP
    point_rate: float = 1e-2
    hold_points: float = 0.4
    report: int = 50
    seed: int = 0

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not isinstance(value, (str,) if entry.type == "str" else (int, float)) or isinstance(value, bool):
                raise ValueError(f"Settings {entry.name} must be of type {entry.type}, not {value!r}")
        for name in ("steps", "report"):
            if not (getattr(self, name) >= 1 and getattr(self, name) == int(getattr(self, name))):
                raise ValueError(f"Settings {name} must be a whole number from 1, not {getattr(self, name)}")
        for name, least in (("rate", 0.0), ("point_rate", 0.0), ("weight_decay", 0.0), ("clip", 1e-9)):
            if not least <= getattr(self, name) < math.inf:
                raise ValueError(f"Settings {name} must be a finite number from {least:g}, not {getattr(self, name)}")
        for name in ("warm_up", "momentum", "min_overlap", "hold_points"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"Settings {name} must be at least 0 and below 1, not {getattr(self, name)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"Settings optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Means of the losses over the steps since the last report, the last ``rate``, and seconds since the start."""

    step: int
    total: float
    heat: float
    size: float
    shift: float
    rate: float
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Trained:
    """``losses``: the total of every step; ``reports`` in order."""

    losses: tuple[float, ...]
    reports: tuple[Report, ...]


def train_detector(
    model: nn.Module, data: Feed, settings: Settings, *, classes: int, progress: Callable[[Report], None] | None = None,
) -> Trained:
    """Train ``model`` in place, images (N, 3, H, W) to heat logits (N, ``classes``, H/4, W/4), size and shift.

    A fixed-point model must be calibrated before. The model is left in evaluation mode. NonFiniteError (a ValueError) for a loss or
    gradient that is NaN or infinite, with the step, before any weight has changed by it; ValueError for batches or outputs that cannot
    be used.
    """
    if isinstance(model, QuantModel) and model.mode is not Mode.QAT:
        raise ValueError(f"a fixed-point model must be in mode QAT to be trained, not {model.mode.name}: call calibrate() first, and "
                         "freeze() after the training")
    optimizers = _optimizers(model, settings)
    device = next(model.parameters()).device
    losses: list[float] = []
    reports: list[Report] = []
    since: list[Tensor] = []
    start = time.perf_counter()
    model.train()
    with seeded(settings.seed):
        for step, batch in zip(range(settings.steps), _endless(data), strict=False):
            if isinstance(model, QuantModel):
                model.learn_points(step < settings.steps * (1 - settings.hold_points))
            factor = _factor(step, settings)
            for group in (group for optimizer in optimizers for group in optimizer.param_groups):
                group["lr"] = group["base"] * factor
            since.append(_step(model, batch, optimizers, settings, step, classes, device))
            losses.append(float(since[-1][0]))
            if len(since) == settings.report or step + 1 == settings.steps:
                means = dict(zip(Losses._fields, torch.stack(since).mean(0).tolist(), strict=True))
                reports.append(Report(step=step + 1, rate=settings.rate * factor, seconds=time.perf_counter() - start, **means))
                since = []
                if progress is not None:
                    progress(reports[-1])
    model.eval()
    return Trained(losses=tuple(losses), reports=tuple(reports))


def _endless(data: Feed) -> Iterator[Batch]:
    epoch = 0
    while True:
        empty = True
        for batch in data(epoch):
            yield batch
            empty = False
        if empty:
            raise ValueError(f"there must be at least one batch an epoch, and there is none in epoch {epoch}: look at the data's size "
                             "and the batch's")
        epoch += 1


def _factor(step: int, settings: Settings) -> float:
    """Of the highest rate: rises in equal steps up to 1, then half a cosine that would be 0 behind the last step."""
    rising = math.ceil(settings.warm_up * settings.steps)
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (settings.steps - rising)))


def _step(
    model: nn.Module, batch: Batch, optimizers: list[torch.optim.Optimizer], settings: Settings, step: int, classes: int,
    device: torch.device,
) -> Tensor:
    """One batch; its four losses, detached."""
    targets = encode(batch.boxes, batch.labels, classes, *batch.images.shape[2:], min_overlap=settings.min_overlap).to(device)
    losses = detection_loss(model(batch.images.to(device)), targets)
    values = torch.stack(losses).detach().cpu()
    if not bool(torch.isfinite(values).all()):
        parts = ", ".join(f"{name} {value}" for name, value in zip(Losses._fields, values.tolist(), strict=True))
        raise NonFiniteError(f"the loss must be finite, and in step {step + 1} it is not ({parts}): lower the rate, or look for "
                             "damaged data")
    for optimizer in optimizers:
        optimizer.zero_grad()
    losses.total.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
    if not bool(torch.isfinite(norm)):
        raise NonFiniteError(f"the gradient must be finite, and in step {step + 1} its norm is {float(norm)}: lower the rate, or look "
                             "for damaged data")
    for optimizer in optimizers:
        optimizer.step()
    return values


def _optimizers(model: nn.Module, settings: Settings) -> list[torch.optim.Optimizer]:
    """One for the weights, of which those of one dimension (biases, norms) do not decay, and one for binary points, if any."""
    points = model.binary_points() if isinstance(model, QuantModel) else []
    known = {id(point) for point in points}
    weights = [p for p in model.parameters() if id(p) not in known and p.requires_grad]
    if not weights:
        raise ValueError("the model must have parameters that learn, and it has none")
    groups = [{"params": [p for p in weights if p.ndim > 1], "base": settings.rate, "weight_decay": settings.weight_decay},
              {"params": [p for p in weights if p.ndim <= 1], "base": settings.rate, "weight_decay": 0.0}]
    found: list[torch.optim.Optimizer] = [
        torch.optim.SGD(groups, lr=settings.rate, momentum=settings.momentum) if settings.optimizer == "sgd"
        else torch.optim.AdamW(groups, lr=settings.rate)]
    if points:
        found.append(torch.optim.Adam([{"params": points, "base": settings.point_rate}], lr=settings.point_rate))
    return found
