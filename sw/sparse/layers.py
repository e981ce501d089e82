"""Linear and Conv2d whose products use N:M copies of their weight; parameters, names and values are the dense layer's.

The copies are made when the weight changes, not when it is used: a layer keeps them with the weight's version counter, which
every optimiser, `load_state_dict` and in-place edit moves on. Edits that torch itself does not count (``weight.data`` in
place) need `refresh`. In a compiled graph the copies are made once in each forward pass, by one operator each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.sparse.functions import Backward, Geometry, Operands, sparse_conv2d, sparse_linear
from sw.sparse.ops import select_weight
from sw.sparse.rules import Rule
from sw.sparse.select import refuse_non_finite

__all__ = ["Clock", "SparseConv2d", "SparseLayer", "SparseLinear", "refresh"]

INPUTS, OUTPUTS = 1, 0
"""Axes of a weight."""


class Clock:
    """The step that all layers of a model share, an int64 scalar; a new tensor each step, so that saved ones stay."""

    def __init__(self) -> None:
        self.step = torch.zeros((), dtype=torch.int64)


@dataclass(eq=False)
class _Kept:
    """Copies of one state of a weight, by name and type. The weight is held, so no other takes its address."""

    weight: Tensor
    version: int
    address: int
    copies: dict[tuple[str, torch.dtype], Tensor] = field(default_factory=dict)

    def fits(self, weight: Tensor) -> bool:
        return self.weight is weight and self.version == weight._version and self.address == weight.data_ptr()


class SparseLayer(nn.Module):
    """What `SparseLinear` and `SparseConv2d` share. They are made by `sw.sparse.sparsify` from a dense layer in place."""

    weight: Tensor
    rule: Rule
    place: str
    number: int
    clock: Clock
    generated: int
    _kept: _Kept | None

    def become(self, rule: Rule, place: str, number: int, clock: Clock) -> None:
        """Take a rule; ``place`` is the name for messages, ``number`` the layer's of the random counter."""
        self.rule, self.place, self.number, self.clock = rule, place, number, clock
        self.generated, self._kept = 0, None

    def __getstate__(self) -> dict[str, Any]:
        """Copies belong to this weight in this process: neither pickled nor copied."""
        return {**self.__dict__, "_kept": None}

    def forward_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight of Y: N:M along the input channels, or dense; no gradient."""
        return self._copy("forward", dtype or self.weight.dtype)

    def backward_weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The weight of dX: N:M along the output channels (SR-STE: that of Y), or dense; no gradient."""
        return self._copy("backward" if self.rule.backward_pruned else "forward", dtype or self.weight.dtype)

    def _pruned(self) -> Tensor | None:
        """W - W_ff where it decays."""
        return self._copy("pruned", self.weight.dtype) if self.rule.decay else None

    def _copy(self, name: str, dtype: torch.dtype) -> Tensor:
        if torch.compiler.is_compiling() or self.weight.is_inference():
            return self._make(name, dtype)
        if self._kept is None or not self._kept.fits(self.weight):
            weight = self.weight
            self._kept = _Kept(weight, weight._version, weight.data_ptr())
            self.generated += 1
        copies = self._kept.copies
        if (name, dtype) not in copies:
            with torch.inference_mode(False), torch.no_grad():  # a copy made in evaluation must serve in training
                copies[name, dtype] = self._make(name, dtype)
        return copies[name, dtype]

    def _make(self, name: str, dtype: torch.dtype) -> Tensor:
        """Selection is that of the master; only then its type changes."""
        if dtype != self.weight.dtype:
            return self._copy(name, self.weight.dtype).to(dtype)
        weight, rule = self.weight.detach(), self.rule
        if name == "pruned":
            return weight - self._copy("forward", dtype)
        if name == "forward" and not rule.forward_pruned:
            if not torch.compiler.is_compiling():
                refuse_non_finite(weight, self.place)
            return weight
        return select_weight(weight, rule.n, rule.m, INPUTS if name == "forward" else OUTPUTS, self.place)

    def _how(self) -> Backward:
        rule = self.rule
        return Backward(rule.decay, (rule.n, rule.m) if rule.gradient_pruned else (0, 0), rule.wu[1] if rule.wu else 0,
                        rule.seed, self.number)

    def _operands(self, x: Tensor) -> tuple[Tensor, Operands]:
        """X and the other operands in the type that autocast asks for."""
        dtype, kind = self.weight.dtype, x.device.type
        if torch.is_autocast_enabled(kind) and x.is_floating_point() and x.dtype != torch.float64:
            dtype = torch.get_autocast_dtype(kind)
            x = x.to(dtype)
        learns = torch.is_grad_enabled()
        forward = self.forward_weight(dtype)
        backward = self.backward_weight(dtype) if learns else forward
        pruned = self._pruned() if learns else None
        step = self.clock.step if self.rule.wu else None
        bias: Any = self.bias
        return x, Operands(self.weight, bias, forward, backward, pruned, step)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.rule.n}:{self.rule.m} {self.rule.method}"


class SparseLinear(SparseLayer, nn.Linear):
    """(..., C) to (..., O)."""

    def forward(self, x: Tensor) -> Tensor:
        x, operands = self._operands(x)
        return sparse_linear(x, operands, self._how())


class SparseConv2d(SparseLayer, nn.Conv2d):
    """(N, C, H, W) or (C, H, W) to the same with O channels; groups = 1, any padding."""

    def forward(self, x: Tensor) -> Tensor:
        alone = x.ndim == 3
        x, operands = self._operands(x.unsqueeze(0) if alone else x)
        padding: Any = (0, 0)
        if self.padding_mode != "zeros":
            x = F.pad(x, self._reversed_padding_repeated_twice, self.padding_mode)
        elif isinstance(self.padding, str):  # "same" may be uneven
            x = F.pad(x, self._reversed_padding_repeated_twice)
        else:
            padding = self.padding
        y = sparse_conv2d(x, operands, Geometry(_pair(self.stride), padding, _pair(self.dilation)), self._how())
        return y.squeeze(0) if alone else y


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = values
    return rows, columns


def refresh(model: nn.Module) -> None:
    """Make the copies anew at the next use: after edits that torch does not count, such as ``weight.data.mul_(2)``."""
    for module in model.modules():
        if isinstance(module, SparseLayer):
            module._kept = None
