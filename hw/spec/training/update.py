"""Momentum SGD with weight decay, rounded as the core does it: seven FP32 operations in this order, none fused."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hw.spec.training.rounded import add, multiply

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Hyper:
    """What may change from step to step. ``decay_norm``: scales and biases decay too, as torch's SGD has it."""

    learning_rate: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    loss_scale: float = 1024.0
    decay_norm: bool = True

    def __post_init__(self) -> None:
        for name in ("learning_rate", "momentum", "weight_decay", "loss_scale"):
            value = getattr(self, name)
            if not np.isfinite(np.float32(value)) or value < 0:
                raise ValueError(f"{name} must be a finite number of at least 0, not {value}")
        if np.frexp(self.loss_scale)[0] != 0.5:
            raise ValueError(f"loss_scale must be a power of two, so that it can be taken out exactly, not {self.loss_scale}")


def updated(value: Array, velocity: Array, gradient: Array, hyper: Hyper, decay: float) -> tuple[Array, Array]:
    """New value and velocity, float32: ``v = v * momentum + (value * decay + g * (1 / loss scale)); value = value - v * rate``."""
    shape = np.shape(value)
    k, mu, wd, lr = (np.broadcast_to(np.float32(c), shape) for c in (1 / hyper.loss_scale, hyper.momentum, decay, hyper.learning_rate))
    step = add(multiply(value, wd), multiply(gradient, k))
    velocity = add(multiply(velocity, mu), step)
    return add(value, -multiply(velocity, lr)), velocity
