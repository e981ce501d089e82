"""Multiply-accumulates of a training step, layer by layer, dense and as the pruned operands allow.

FF, BP and WU of a layer have the same count. A pass that autograd does not run is not counted: BP of a layer whose input needs
no gradient, as the first one's, and WU of a frozen weight (a layer that runs twice counts as in its last run). A pass whose
operand is N:M along its reduction costs N / M of it: FF with W_ff, BP with W_bp (or SDGP's dY), WU with pruned dY (1:2 and
2:4 both halve it). SR-STE's mask runs along the input channels, which is not the reduction of BP, so it does not reduce BP.
Element-wise work is not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sw.sparse.choose import Choice
from sw.sparse.layers import SparseLayer

__all__ = ["LayerMacs", "Report", "report"]

PASSES = ("FF", "BP", "WU")
_DENSE = dict.fromkeys(PASSES, Fraction(1))


@dataclass(frozen=True, kw_only=True)
class LayerMacs:
    """One layer's multiply-accumulates for the example: ``macs`` of each dense pass, and the share of it that stays.

    ``passes`` are those that run; ``reason`` says why a layer is dense. All products outside layers (attention) are one last
    entry, "products".
    """

    name: str
    kind: str
    macs: int
    share: dict[str, Fraction] = field(default_factory=lambda: dict(_DENSE))
    passes: tuple[str, ...] = PASSES
    reason: str = ""

    def dense_pass(self, name: str) -> int:
        """Multiply-accumulates of FF, BP or WU, 0 where it does not run."""
        return self.macs if name in self.passes else 0

    def sparse_pass(self, name: str) -> Fraction:
        return self.dense_pass(name) * self.share[name]

    @property
    def dense(self) -> int:
        """Of all passes."""
        return sum(self.dense_pass(name) for name in PASSES)

    @property
    def sparse(self) -> Fraction:
        return sum((self.sparse_pass(name) for name in PASSES), Fraction(0))


@dataclass(frozen=True, kw_only=True)
class Report:
    """Layers in the order of first use, and the reduction of the whole step."""

    layers: tuple[LayerMacs, ...]

    @property
    def dense(self) -> int:
        return sum(layer.dense for layer in self.layers)

    @property
    def sparse(self) -> Fraction:
        return sum((layer.sparse for layer in self.layers), Fraction(0))

    @property
    def reduction(self) -> float:
        """Dense over sparse multiply-accumulates of a step: the limit of any speedup."""
        return float(self.dense / self.sparse)

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        lines = [f"{'layer':{width}}  {'MACs a pass':>15}  {'FF':>6} {'BP':>6} {'WU':>6}"]
        for layer in self.layers:
            shares = " ".join(f"{float(layer.share[name]):6.3f}" if name in layer.passes else f"{'-':>6}" for name in PASSES)
            lines.append(f"{layer.name:{width}}  {layer.macs:15,}  {shares}  {layer.reason}".rstrip())
        lines.append(f"{'step':{width}}  {self.dense:,} dense, {float(self.sparse):,.0f} sparse: {self.reduction:.3f} times fewer")
        return "\n".join(lines)


def report(model: nn.Module, example_input: Tensor) -> Report:
    """Count one step on ``example_input`` (its batch included); the model, sparse or dense, is left as it is.

    Raises ValueError for a model that runs no Linear, Conv2d or matrix product on it.
    """
    twin = copy.deepcopy(model).eval()
    found: dict[str, LayerMacs] = {}
    reasons: dict[str, Choice] = {c.name: c for c in getattr(model, "sparse_choices", ())}
    with torch.enable_grad(), _counting(twin, found, reasons), FlopCounterMode(display=False) as counter:
        twin(example_input)
    rest = counter.get_total_flops() // 2 - sum(layer.macs for layer in found.values())
    if rest:
        found["products"] = LayerMacs(name="products", kind="matmul", macs=rest, reason="not a Linear or Conv2d: dense")
    if not found:
        raise ValueError(f"the model must run a Linear, a Conv2d or a matrix product, and a {type(model).__name__} runs none")
    return Report(layers=tuple(found.values()))


@contextmanager
def _counting(model: nn.Module, found: dict[str, LayerMacs], reasons: dict[str, Choice]) -> Iterator[None]:
    """Hooks that count each layer every time it runs."""
    def hook(name: str) -> Any:
        def count(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            runs = {"FF": True, "BP": inputs[0].requires_grad, "WU": module.weight.requires_grad}
            macs = output.numel() * module.weight[0].numel()
            macs += found[name].macs if name in found else 0
            reason = reasons[name].reason if name in reasons else ""
            found[name] = LayerMacs(name=name, kind=type(module).__name__, macs=macs, share=_share(module), reason=reason,
                                    passes=tuple(name for name in PASSES if runs[name]))
        return count

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules()
               if isinstance(module, (nn.Linear, nn.Conv2d))]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _share(module: nn.Module) -> dict[str, Fraction]:
    if not isinstance(module, SparseLayer):
        return dict(_DENSE)
    rule, part = module.rule, Fraction(module.rule.n, module.rule.m)
    return {"FF": part if rule.forward_pruned else Fraction(1),
            "BP": part if rule.backward_pruned or rule.gradient_pruned else Fraction(1),
            "WU": Fraction(*rule.wu) if rule.wu else Fraction(1)}
