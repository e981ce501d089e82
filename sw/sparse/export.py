"""A torch model in training and its optimiser as a `TrainingGraph`, and the way back.

Nodes are named by the dotted places of the layers; biases are ``<layer>.bias``. Weights (O, I, KH, KW) become masters
(KH, KW, I, O); a Linear layer behind a flattened map is a convolution with a kernel as large as the map.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hw.spec.training import BiasState, NormState
from sw.sparse.problems import UnsupportedTrainingError
from sw.sparse.rates import check_optimizer, set_velocity, velocity_of
from sw.sparse.supported import CONVOLUTIONS, LINEARS
from sw.sparse.walk import TrainingWalk, walk
from sw.tracing.problems import Problem
from sw.training_graph import ConvNode, TrainingGraph, TrainingState, WeightState

__all__ = ["export", "load_into"]

Array = np.ndarray
Channel = tuple[str, Any, dict[str, str]]
_NORM = {"scale": "weight", "bias": "bias"}
_RUNNING = {"running_mean": "running_mean", "running_variance": "running_var"}


def export(model: nn.Module, optimizer: Optimizer, example: Tensor) -> TrainingGraph:
    """The training of a model as golden operations, with the parameters, momenta and running statistics that it has now.

    Parameters
    ----------
    model : plain, or from `sparsify` with bdwp, sdwp or dense; of Conv2d, BatchNorm2d, ReLU, residual sums, MaxPool2d, AvgPool2d,
        means, Flatten and Linear, in float32. It ends in logits; the loss is softmax cross-entropy
    optimizer : torch.optim.SGD (momentum, weight decay) or `ExactSGD`, of all parameters; `hyper_of` gives its rates
    example : a batch (N, C, H, W), whose shape fixes that of every step

    Raises UnsupportedTrainingError, which lists everything that the core cannot do with its place and a way out.
    """
    if not isinstance(example, Tensor) or example.ndim != 4 or 0 in example.shape:
        kind = tuple(example.shape) if isinstance(example, Tensor) else type(example).__name__
        raise ValueError(f"example must be a batch of images (N, C, H, W), not {kind}")
    batch, channels, height, width = example.shape
    found = walk(model, batch, (height, width, channels))
    unused = [] if found.problems else _check_unused(model, found)
    if problems := [*found.problems, *unused, *_check_ties(model), *check_optimizer(model, optimizer)]:
        raise UnsupportedTrainingError(problems)
    state = _state(model, optimizer, found)
    return TrainingGraph(batch=batch, shape=found.shape, nodes=tuple(found.nodes), output=found.output, state=state)


def load_into(model: nn.Module, optimizer: Optimizer, state: TrainingState) -> None:
    """Give a model and its optimiser the parameters, running statistics and momenta of a state of its exported graph.

    What the graph did not hold (``num_batches_tracked``, schedulers) stays. ValueError where the state is not of this model;
    nothing has changed then.
    """
    if problems := check_optimizer(model, optimizer):
        raise UnsupportedTrainingError(problems)
    weights, channels = dict(_layers(model)), {name: (owner, parts) for name, owner, parts in _channels(model)}
    for what, ours, theirs in (("weights", weights, state.weights), ("channels", channels, state.channels)):
        if set(ours) != set(theirs):
            differ = sorted(set(ours) ^ set(theirs))
            raise ValueError(f"the state must be of this model's graph, but the {what} of {differ} are in one of them only")
    moves = [*_weight_moves(weights, state), *_channel_moves(channels, state)]
    for name, target, values, _ in moves:
        if target.numel() != values.numel():
            raise ValueError(f"{name} must have the {target.numel()} values of the model, not {values.numel()}")
    with torch.no_grad():
        for _, target, values, velocity in moves:
            target.copy_(values.reshape(target.shape))
            if velocity is not None:
                set_velocity(optimizer, target, velocity)


def masters(values: Tensor, shape: tuple[int, int, int, int]) -> Array:
    """A weight of torch (O, I, KH, KW), or (O, I * KH * KW), as masters of shape (KH, KW, I, O); float32."""
    rows, columns, inputs, outputs = shape
    ordered = values.detach().cpu().reshape(outputs, inputs, rows, columns).permute(2, 3, 1, 0)
    return np.ascontiguousarray(ordered.numpy().astype(np.float32, copy=True))


def weights_of(array: Array) -> Tensor:
    """The other way: masters (KH, KW, I, O) as a weight (O, I, KH, KW)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(3, 2, 0, 1)))


def _layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers with weights, by the name of their node."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, CONVOLUTIONS + LINEARS))


def _channels(model: nn.Module) -> Iterator[Channel]:
    """What has values per channel: node, module, and the parameter or buffer of each part of its state."""
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            yield name, module, _NORM | _RUNNING
        elif isinstance(module, CONVOLUTIONS + LINEARS) and module.bias is not None:
            yield f"{name}.bias", module, {"bias": "bias"}


def _state(model: nn.Module, optimizer: Optimizer, found: TrainingWalk) -> TrainingState:
    layers, channels = dict(_layers(model)), {name: (owner, parts) for name, owner, parts in _channels(model)}
    weights, values = {}, {}
    for node in found.nodes:
        if isinstance(node, ConvNode):
            weight = layers[node.name].weight
            velocity = masters(velocity_of(optimizer, weight), node.shape)
            weights[node.name] = WeightState(master=masters(weight, node.shape), velocity=velocity)
        elif node.name in channels:
            values[node.name] = _channel_state(*channels[node.name], optimizer)
    return TrainingState(weights=weights, channels=values)


def _channel_state(owner: Any, parts: dict[str, str], optimizer: Optimizer) -> BiasState:
    found = {part: _flat(getattr(owner, name)) for part, name in parts.items()}
    for part in parts.keys() & _NORM.keys():
        found[f"{part}_velocity"] = _flat(velocity_of(optimizer, getattr(owner, parts[part])))
    if "scale" in found:
        return NormState(**found)
    zero = np.zeros_like(found["bias"])
    return BiasState(scale=zero, scale_velocity=zero, **found)


def _flat(values: Tensor) -> Array:
    return values.detach().cpu().numpy().astype(np.float32, copy=True)


Move = tuple[str, Tensor, Tensor, Tensor | None]
"""A name, the tensor of the model, its new values and velocity."""


def _weight_moves(layers: dict[str, Any], state: TrainingState) -> Iterator[Move]:
    for name, layer in layers.items():
        weight = state.weights[name]
        yield name, layer.weight, weights_of(weight.master), weights_of(weight.velocity)


def _channel_moves(channels: dict[str, tuple[Any, dict[str, str]]], state: TrainingState) -> Iterator[Move]:
    for node, (owner, parts) in channels.items():
        values = vars(state.channels[node])
        if missing := sorted(set(parts) - set(values)):
            raise ValueError(f"the state must be of this model's graph, but {node} has no {', '.join(missing)}")
        for part, name in parts.items():
            velocity = torch.from_numpy(values[f"{part}_velocity"].copy()) if part in _NORM else None
            yield f"{node}.{part}", getattr(owner, name), torch.from_numpy(values[part].copy()), velocity


def _check_unused(model: nn.Module, found: TrainingWalk) -> list[Problem]:
    """Parameters that the traced forward pass does not use: the graph could not hold them."""
    used = {node.name for node in found.nodes}
    held = {id(layer.weight) for name, layer in _layers(model) if name in used}
    held |= {id(getattr(owner, part)) for name, owner, parts in _channels(model) if name in used for part in parts.values()}
    return [Problem(place=name, kind="parameter", reason="is not used by forward", advice="remove it from the model")
            for name, parameter in model.named_parameters() if id(parameter) not in held]


def _check_ties(model: nn.Module) -> list[Problem]:
    """Parameters that two layers share."""
    owners: dict[int, dict[int, str]] = {}
    for place, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), {})[id(module)] = f"{place}.{name}"
    shared = [list(names.values()) for names in owners.values() if len(names) > 1]
    return [Problem(place=names[0], kind="parameter", reason=f"is shared by {', '.join(names)}",
                    advice="give each layer parameters of its own") for names in shared]
