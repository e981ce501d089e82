"""What the modules of Brevitas say of themselves: the grid of a quantiser, the codes and scales of a layer's weights.

Whatever has no counterpart on a core (a zero point, a scale per group, more than 8 bits) raises `RefusedError`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.scales import binary_point
from sw.tracing.problems import RefusedError

__all__ = ["Quantiser", "Weights", "quantiser_of", "weights_of"]

_ROUNDINGS = {"ROUND": Rounding.RND_CONV, "FLOOR": Rounding.TRN}


@dataclass(frozen=True, kw_only=True)
class Quantiser:
    """A per-tensor activation quantiser: value = code * scale, codes ``low``..``high``, and whether a ReLU comes first."""

    scale: Fraction
    low: int
    high: int
    signed: bool
    width: int
    rounding: Rounding
    relu: bool

    @property
    def fmt(self) -> FixedFormat:
        """The format of its codes; without fraction bits where the scale is no power of two."""
        return FixedFormat(self.width, binary_point(self.scale) or 0, self.signed)


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """A layer's weights: int64 ``codes`` as the layer lays them out, output channels first; per output channel their scale
    and the bias as a value."""

    codes: np.ndarray
    scales: list[Fraction]
    biases: list[Fraction]


# -- quantisers of activations ------------------------------------------------------------------------------------


def quantiser_of(proxy: Any, *, relu: bool) -> Quantiser:
    """The facts of an activation quantiser's proxy; ``relu`` says that a ReLU comes first. Raises RefusedError."""
    _check_statistics(proxy)
    if getattr(proxy, "is_groupwise", False):
        raise RefusedError("is quantised in groups", "use one scale per tensor")
    scale, zero = _single("scale", proxy.scale()), _single("zero point", proxy.zero_point())
    width = _single("bit width", proxy.bit_width())
    _check_grid(scale, zero, width)
    if proxy.rounding_mode not in _ROUNDINGS:
        raise RefusedError(f"rounds by {proxy.rounding_mode}", "use ROUND or FLOOR: the core rounds half to even, or down")
    low, high = _code_range(proxy, int(width))
    return Quantiser(scale=Fraction(scale), low=max(low, 0) if relu else low, high=high, signed=bool(proxy.is_signed),
                     width=int(width), rounding=_ROUNDINGS[proxy.rounding_mode], relu=relu)


def _check_statistics(proxy: Any) -> None:
    for module in proxy.modules():
        steps = getattr(module, "collect_stats_steps", None)
        if steps is not None and int(module.counter) <= int(steps):
            raise RefusedError(f"still collects statistics (step {int(module.counter)} of {int(steps)}): its scale is not the "
                               "one that training will use",
                               "train or calibrate further, or set collect_stats_steps lower")


def _single(name: str, value: Any) -> float:
    tensor = torch.as_tensor(value)
    if tensor.numel() != 1:
        raise RefusedError(f"has {tensor.numel()} {name}s (per channel or per group)", f"quantise with one {name} per tensor")
    return float(tensor)


def _check_grid(scale: float, zero: float, width: float) -> None:
    if zero:
        raise RefusedError(f"has zero point {zero:g}", "use a symmetric quantiser: the core's zero point is 0")
    if not math.isfinite(scale) or scale <= 0:
        raise RefusedError(f"has scale {scale:g}", "train or calibrate it")
    if width != int(width) or not 1 <= width <= 8:
        raise RefusedError(f"has {width:g} bits", "use 8 bits or fewer")


def _code_range(proxy: Any, width: int) -> tuple[int, int]:
    """Smallest and largest code; a narrow range lacks the smallest of a signed and the largest of an unsigned quantiser."""
    signed, narrow = bool(proxy.is_signed), bool(proxy.is_narrow_range)
    if signed:
        return narrow - 2 ** (width - 1), 2 ** (width - 1) - 1
    return 0, 2**width - 1 - narrow


# -- weights and biases -------------------------------------------------------------------------------------------


def weights_of(layer: Any, unit: Fraction) -> Weights:
    """Weights and bias of a convolution or linear layer; ``unit`` is the scale of its input. Raises RefusedError."""
    if not layer.weight_quant.is_quant_enabled:
        raise RefusedError("has float weights", "give it a weight quantiser")
    quant = layer.quant_weight()
    if torch.as_tensor(quant.zero_point).abs().max() != 0:
        raise RefusedError("has weights with a zero point", "use a symmetric weight quantiser")
    if float(torch.as_tensor(quant.bit_width).max()) > 8:
        raise RefusedError(f"has weights of {float(quant.bit_width):g} bits", "use 8 bits or fewer")
    codes, scales = quant.int().to(torch.int64).numpy(), _weight_scales(quant)
    return Weights(codes=codes, scales=scales, biases=_biases(layer, quant, unit, len(scales)))


def _weight_scales(quant: Any) -> list[Fraction]:
    """One scale per output channel of a quantised weight tensor."""
    scale, channels = torch.as_tensor(quant.scale).detach(), int(quant.value.shape[0])
    if scale.numel() not in (1, channels) or (scale.numel() > 1 and scale.shape[0] != channels):
        raise RefusedError(f"has weight scales of shape {tuple(scale.shape)}", "use one per tensor or per output channel")
    return [Fraction(float(s)) for s in scale.reshape(-1).expand(channels)]


def _biases(layer: Any, weight: Any, unit: Fraction, channels: int) -> list[Fraction]:
    """The bias per channel as a value, quantised where the layer does so."""
    from brevitas.quant_tensor import IntQuantTensor

    if layer.bias is None:
        return [Fraction(0)] * channels
    bias = layer.bias
    if layer.bias_quant.is_quant_enabled:
        source = IntQuantTensor(torch.zeros(1, 1), scale=torch.tensor(float(unit)), zero_point=torch.tensor(0.0),
                                bit_width=torch.tensor(8.0), signed=True, training=False)
        bias = layer.bias_quant(bias, source, weight)
    value = getattr(bias, "value", bias)
    return [Fraction(float(b)) for b in value.detach().reshape(-1)]
