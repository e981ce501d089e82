"""Which layers of a model become sparse, and for every other one the reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from sw.sparse.layers import SparseLayer
from sw.sparse.rules import Rule

__all__ = ["Choice", "choose"]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A layer's name, its type's name and whether it is sparse; else ``reason`` says why not."""

    name: str
    kind: str
    sparse: bool
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.kind}): {'sparse' if self.sparse else f'dense, {self.reason}'}"


def choose(
    model: nn.Module, rule: Rule, *, exclude: Sequence[str] = (), include: Sequence[str] = (), keep_ends: bool = True
) -> list[Choice]:
    """A choice for every Linear and Conv2d of a model (their subclasses too), in the order of ``named_modules``.

    ``exclude`` and ``include`` are shell patterns of layer names (``*`` matches dots as well); a layer's own name is one.
    A layer is dense, in this order, if a pattern of ``exclude`` has it; if ``keep_ends`` holds, no pattern of ``include`` has
    it, and it is the first or the last layer in that order, which are the stem and the classifier of models whose layers are
    made in the order of use; or if it cannot be sparse (see `obstacle`). Raises ValueError for a pattern that matches no
    layer, and for an ``include`` layer that cannot be sparse or is also excluded.
    """
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))}
    for what, patterns in (("exclude", exclude), ("include", include)):
        _check_patterns(what, patterns, list(layers))
    names = list(layers)
    ends = {names[0]: "the first layer", names[-1]: "the last layer"} if keep_ends and names else {}
    return [_choice(name, module, rule, exclude, include, ends.get(name, "")) for name, module in layers.items()]


def _check_patterns(what: str, patterns: Sequence[str], names: list[str]) -> None:
    if isinstance(patterns, str):
        raise ValueError(f"{what} must be a list of patterns, not the string {patterns!r}: write [{patterns!r}]")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"{what} pattern {pattern!r} matches no Linear or Conv2d layer; the model has: {', '.join(names)}")


def _choice(
    name: str, module: nn.Module, rule: Rule, exclude: Sequence[str], include: Sequence[str], end: str
) -> Choice:
    kind, asked = type(module).__name__, next((p for p in include if fnmatchcase(name, p)), None)
    excluded = next((p for p in exclude if fnmatchcase(name, p)), None)
    if rule.method == "dense":
        return Choice(name=name, kind=kind, sparse=False, reason="the method is dense")
    reason = f"excluded by {excluded!r}" if excluded is not None else end if asked is None else ""
    reason = reason or obstacle(module, rule)
    if asked is not None and reason:
        raise ValueError(f"layer {name} must be sparse by include pattern {asked!r}, but it cannot be: {reason}")
    return Choice(name=name, kind=kind, sparse=not reason, reason=reason)


def obstacle(module: nn.Module, rule: Rule) -> str:
    """Why a layer cannot be sparse; empty if it can.

    Only nn.Linear and nn.Conv2d themselves: a subclass may compute something else, or its weight may be read by another
    module (as attention reads its projections').
    """
    if isinstance(module, SparseLayer):
        return "it is sparse already: sparsify the dense model"
    if type(module) is nn.Linear:
        inputs, outputs = module.in_features, module.out_features
    elif type(module) is nn.Conv2d:
        if module.groups != 1:
            return f"it has {module.groups} groups, and grouped convolutions stay dense"
        inputs, outputs = module.in_channels, module.out_channels
    else:
        return "it is a subclass, and only Linear and Conv2d themselves are known to compute what they are"
    wrong = [f"{count} {side} channels" for count, side, needed in (
        (inputs, "input", rule.divides_inputs), (outputs, "output", rule.divides_outputs)) if needed and count % rule.m]
    return f"m = {rule.m} does not divide its {' and '.join(wrong)}" if wrong else ""
