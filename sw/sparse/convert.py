"""From a dense model to its N:M sparse copy and back."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from torch import nn

from sw.sparse.choose import Choice, choose
from sw.sparse.layers import Clock, SparseConv2d, SparseLayer, SparseLinear
from sw.sparse.rules import SRSTE_DECAY, Rule
from sw.sparse.select import NonFiniteError, refuse_non_finite

__all__ = ["choices", "densify", "set_step", "sparsify", "step_of"]


def sparsify(
    model: nn.Module, n: int, m: int, method: str = "bdwp", *, exclude: Sequence[str] = (), include: Sequence[str] = (),
    keep_ends: bool = True, decay: float | None = None, wu: tuple[int, int] | None = None, seed: int = 0,
    inplace: bool = False,
) -> nn.Module:
    """A copy of a model whose Linear and Conv2d layers train N:M-sparse; give *its* parameters to the optimiser.

    ========  ==================  ==========================  ================================
    method    weights of Y        dX from                     gradient of W
    ========  ==================  ==========================  ================================
    bdwp      N:M along inputs    W N:M along outputs         dense, to all of W
    srste     N:M along inputs    the weights of Y            the same + decay * (1 - mask) * W
    sdgp      dense               dY N:M along outputs,       dense, from dY unpruned
                                  rescaled
    sdwp      dense               W N:M along outputs         dense
    dense     dense               dense                       dense
    ========  ==================  ==========================  ================================

    Both masks of bdwp come from the one dense FP32 master, whose names in ``state_dict`` do not change. Groups run along the
    channels, for each kernel position; in each the n of largest magnitude stay.

    Parameters
    ----------
    exclude, include : shell patterns of layers that must be dense, or sparse
    keep_ends : leave the first and the last layer dense, unless included; `sw.sparse.choose` says how they are found
    decay : factor of the decay term, by default 2e-4 for srste and 0 for bdwp. It is part of the gradient, so a loss scale
        other than 1 divides it
    wu : (1, 2) or (2, 4): also prune dY for dW, at random and unbiased (`sw.sparse.mvue`)
    seed : of that randomness; the step is the number of calls of this model in training mode (`step_of`, `set_step`)
    inplace : change ``model`` itself in place of a copy

    Layers that cannot be sparse stay dense; `choices` lists every layer with the reason. Raises ValueError for bad options,
    for patterns that match no layer, for an included layer that cannot be sparse, and where no layer would be sparse;
    NonFiniteError, which names the layers, for weights with NaN or infinities: here, and in training when copies are made anew
    (in a compiled graph, of N:M copies only).

    ::

        model = sparsify(net, 2, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)   # and then train as ever
        print(report(model, images[:1]))                                        # what is sparse, and the limit of the speedup
        net.load_state_dict(model.state_dict())                                 # the dense master
    """
    default = SRSTE_DECAY if method == "srste" else 0.0
    rule = Rule(n=n, m=m, method=method, decay=default if decay is None else decay, wu=wu, seed=seed)
    if any(isinstance(module, SparseLayer) for module in model.modules()):
        raise ValueError("the model is sparse already: sparsify the dense model, or a densify(model)")
    chosen = choose(model, rule, exclude=exclude, include=include, keep_ends=keep_ends)
    if method != "dense" and not any(choice.sparse for choice in chosen):
        lines = "\n".join(f"  {choice}" for choice in chosen) or "  it has no Linear and no Conv2d"
        raise ValueError(f"no layer of the model would be sparse:\n{lines}\nname layers in include, or choose another m")
    _check_weights(model, chosen)
    model = model if inplace else copy.deepcopy(model)
    _convert(model, chosen, rule)
    return model


def _check_weights(model: nn.Module, chosen: list[Choice]) -> None:
    problems = []
    for choice in chosen:
        if choice.sparse:
            layer: Any = model.get_submodule(choice.name)
            try:
                refuse_non_finite(layer.weight, choice.name or type(layer).__name__)
            except NonFiniteError as error:
                problems.append(str(error))
    if problems:
        raise NonFiniteError("\n".join(problems))


def _convert(model: nn.Module, chosen: list[Choice], rule: Rule) -> None:
    clock = Clock()
    for number, choice in enumerate(c for c in chosen if c.sparse):
        layer: Any = model.get_submodule(choice.name)
        # The object stays: parents, hooks and optimisers keep what they hold.
        layer.__class__ = SparseLinear if isinstance(layer, nn.Linear) else SparseConv2d
        layer.become(rule, choice.name or "the model", number, clock)
    model.sparse_choices = tuple(chosen)  # type: ignore[assignment]
    model.sparse_clock = clock  # type: ignore[assignment]
    if rule.wu is not None:
        model.sparse_hook = model.register_forward_pre_hook(_advance)  # type: ignore[assignment]


def _advance(model: nn.Module, inputs: object) -> None:
    if model.training:
        clock: Any = model.sparse_clock
        clock.step = clock.step + 1


def choices(model: nn.Module) -> tuple[Choice, ...]:
    """Every Linear and Conv2d of a sparsified model, whether it is sparse, and why not."""
    found: tuple[Choice, ...] = _of(model, "sparse_choices")
    return found


def step_of(model: nn.Module) -> int:
    """Calls in training mode of a model sparsified with ``wu``; keep it beside a checkpoint to go on with the same draws."""
    return int(_of(model, "sparse_clock").step)


def set_step(model: nn.Module, step: int) -> None:
    """Go on from a step: the next call in training mode is step + 1."""
    if step < 0:
        raise ValueError(f"step must not be negative, not {step}")
    clock = _of(model, "sparse_clock")
    clock.step = clock.step.new_full((), step)


def _of(model: nn.Module, name: str) -> Any:
    if not hasattr(model, name):
        raise ValueError(f"the model must come from sparsify, not be a {type(model).__name__} that does not know its layers")
    return getattr(model, name)


def densify(model: nn.Module) -> nn.Module:
    """A dense copy with the same master weights: what `sparsify` was given, trained on."""
    model = copy.deepcopy(model)
    sparse: list[Any] = [module for module in model.modules() if isinstance(module, SparseLayer)]
    for module in sparse:
        for name in ("rule", "place", "number", "clock", "generated", "_kept"):
            del module.__dict__[name]
        module.__class__ = nn.Linear if isinstance(module, SparseLinear) else nn.Conv2d
    if "sparse_hook" in model.__dict__:
        model.__dict__.pop("sparse_hook").remove()
    for name in ("sparse_choices", "sparse_clock"):
        model.__dict__.pop(name, None)
    return model
