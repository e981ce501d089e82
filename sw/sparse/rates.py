"""What an optimiser of torch means for the core: one `Hyper` for all layers, and the velocities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from hw.spec.training import Hyper
from sw.sparse.problems import UnsupportedTrainingError
from sw.sparse.sgd import ExactSGD
from sw.sparse.supported import CONVOLUTIONS, LINEARS
from sw.tracing.problems import Problem

__all__ = ["check_optimizer", "hyper_of", "set_velocity", "velocity_of"]

_FLAGS = {
    "nesterov": "looks ahead (nesterov), which is another update", "maximize": "climbs (maximize)",
    "differentiable": "is differentiable", "amsgrad": "is amsgrad",
}
_BUFFER = "momentum_buffer"


def hyper_of(model: nn.Module, optimizer: Optimizer, loss_scale: float = 1024.0) -> Hyper:
    """The learning rate, momentum and weight decay that an optimiser has now, as a step of the core takes them.

    Weight decay may be that of all parameters, or of the weights alone (0 for biases and BatchNorm). Raises
    UnsupportedTrainingError, which lists what the core cannot do.
    """
    if problems := check_optimizer(model, optimizer):
        raise UnsupportedTrainingError(problems)
    group, decays = optimizer.param_groups[0], _decays(model, optimizer)
    decay = decays["weights"] or decays["channels"] or {0.0}
    return Hyper(
        learning_rate=float(group["lr"]), momentum=float(group["momentum"]), weight_decay=min(decay), loss_scale=loss_scale,
        decay_norm=decays["channels"] != {0.0} or decay == {0.0},
    )  # fmt: skip


def check_optimizer(model: nn.Module, optimizer: Any) -> list[Problem]:
    """Everything about an optimiser that the core's update does not do."""
    kind = type(optimizer).__name__
    if type(optimizer) not in (SGD, ExactSGD):
        return [Problem(place="optimizer", kind=kind, reason="is another update than the core's momentum SGD",
                        advice="use torch.optim.SGD or sw.sparse.ExactSGD")]
    faults = [(why, "leave it out") for name, why in _FLAGS.items() if any(g.get(name) for g in optimizer.param_groups)]
    if any(group.get("dampening") for group in optimizer.param_groups):
        faults.append(("dampens new gradients", "use dampening=0"))
    for name in ("lr", "momentum"):
        if len(found := {float(group[name]) for group in optimizer.param_groups}) > 1:
            faults.append((f"has several values of {name}: {sorted(found)}", "give all groups the same"))
    faults += _check_ranges(optimizer) + _check_decays(model, optimizer) + _check_members(model, optimizer)
    return [Problem(place="optimizer", kind=kind, reason=why, advice=do) for why, do in faults]


def velocity_of(optimizer: Optimizer, parameter: Tensor) -> Tensor:
    """The momentum of a parameter: zeros before the first step, and without momentum."""
    found = optimizer.state.get(parameter, {}).get(_BUFFER)
    return torch.zeros_like(parameter) if found is None else found


def set_velocity(optimizer: Optimizer, parameter: Tensor, values: Tensor) -> None:
    """Give a parameter's momentum new values."""
    optimizer.state[parameter][_BUFFER] = values.to(parameter.device).reshape(parameter.shape).clone()


def _check_ranges(optimizer: Optimizer) -> list[tuple[str, str]]:
    faults = []
    for group in optimizer.param_groups:
        try:
            with np.errstate(over="ignore"):
                Hyper(learning_rate=float(group["lr"]), momentum=float(group["momentum"]), weight_decay=float(group["weight_decay"]))
        except ValueError as error:
            faults.append((f"has values that FP32 does not take ({error})", "use finite numbers of at least 0"))
    return faults


def _kinds(model: nn.Module) -> dict[int, tuple[str, str]]:
    """(kind, dotted name) of every parameter by identity: the weights of layers, and all values per channel."""
    layers = {id(m.weight) for m in model.modules() if isinstance(m, CONVOLUTIONS + LINEARS)}
    return {id(p): ("weights" if id(p) in layers else "channels", name) for name, p in model.named_parameters()}


def _decays(model: nn.Module, optimizer: Optimizer) -> dict[str, set[float]]:
    kinds, found = _kinds(model), {"weights": set[float](), "channels": set[float]()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) in kinds:
                found[kinds[id(parameter)][0]].add(float(group["weight_decay"]))
    return found


def _check_decays(model: nn.Module, optimizer: Optimizer) -> list[tuple[str, str]]:
    decays = _decays(model, optimizer)
    weights, channels = decays["weights"], decays["channels"]
    if len(weights) < 2 and len(channels) < 2 and (channels in ({0.0}, set()) or channels == weights or not weights):
        return []
    return [(f"has weight decays of {sorted(weights)} for weights and of {sorted(channels)} for biases and BatchNorm",
             "use one for all, or one for the weights and 0 for the others")]


def _check_members(model: nn.Module, optimizer: Optimizer) -> list[tuple[str, str]]:
    kinds = _kinds(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    faults = []
    if missing := [name for place, (_, name) in kinds.items() if place not in held]:
        faults.append((f"does not have {', '.join(missing)}", "give it model.parameters(): the core trains every parameter"))
    if strange := len(held - set(kinds)):
        faults.append((f"has {strange} parameter(s) that are not the model's", "give it the parameters of this model alone"))
    return faults
