"""Momentum SGD whose step is the core's, bit for bit: `hw.spec.training.updated` on tensors of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hw.spec.training import Hyper
from sw.sparse.select import NonFiniteError

__all__ = ["ExactSGD"]

_LARGEST = torch.finfo(torch.float32).max


class ExactSGD(Optimizer):
    """SGD with momentum and weight decay on float32 parameters, in the core's order of roundings.

    ``v = v * momentum + (w * weight_decay + g); w = w - v * lr``: each product and sum is rounded to FP32 on its own (nothing is
    fused, so do not put the step into `torch.compile`) and saturates at the largest finite number. torch's SGD computes the same
    in another order. The velocity is ``momentum_buffer`` in the state, zeros at first; groups and schedulers are torch's.

    Parameters
    ----------
    params : float32 parameters, or groups of them
    lr, momentum, weight_decay : finite, at least 0; they are rounded to FP32

    A step raises NonFiniteError for a gradient with NaN or infinities before anything changes.
    """

    def __init__(self, params: Any, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _constants(group)
            if wrong := {str(p.dtype) for p in group["params"] if p.dtype != torch.float32}:
                raise ValueError(f"parameters must be float32, not {', '.join(sorted(wrong))}: keep the masters in float32")
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step from the gradients; returns what the closure returns. Parameters without a gradient stay as they are."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        plans = [(_constants(group), [p for p in group["params"] if p.grad is not None]) for group in self.param_groups]
        _check_gradients(p for _, parameters in plans for p in parameters)
        for constants, parameters in plans:
            for parameter in parameters:
                self._update(parameter, *constants)
        return loss

    def _update(self, value: Tensor, rate: Tensor, momentum: Tensor, decay: Tensor) -> None:
        state, gradient = self.state[value], value.grad
        assert gradient is not None
        velocity = state.get("momentum_buffer")
        if velocity is None:
            velocity = state["momentum_buffer"] = torch.zeros_like(value)
        step = _finite(_finite(value * decay).add_(gradient))
        _finite(_finite(velocity.mul_(momentum)).add_(step))
        _finite(value.sub_(_finite(velocity * rate)))


def _finite(values: Tensor) -> Tensor:
    """Infinities as the largest finite number, in place."""
    return values.clamp_(-_LARGEST, _LARGEST)


def _constants(group: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    """lr, momentum and weight decay in FP32; as tensors, so that no kernel sees them in double precision."""
    hyper = Hyper(learning_rate=float(group["lr"]), momentum=float(group["momentum"]), weight_decay=float(group["weight_decay"]))
    rate, momentum, decay = (torch.tensor(v, dtype=torch.float32) for v in (hyper.learning_rate, hyper.momentum, hyper.weight_decay))
    return rate, momentum, decay


def _check_gradients(parameters: Iterable[Tensor]) -> None:
    for parameter in parameters:
        gradient = parameter.grad
        assert gradient is not None
        if gradient.is_sparse:
            raise ValueError(f"the gradient of a parameter of shape {tuple(parameter.shape)} must be dense, not sparse")
        if wrong := int((~torch.isfinite(gradient)).sum()):
            raise NonFiniteError(f"the gradient of a parameter of shape {tuple(parameter.shape)} must be finite, and {wrong} of "
                                 f"{gradient.numel()} values are NaN or infinite: skip the step or lower the loss scale")
