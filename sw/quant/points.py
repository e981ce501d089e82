"""Learned binary points: the trainable part of a fixed-point format, of a weight or of a group of activations."""

from __future__ import annotations

import enum
from collections.abc import Callable

import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.quant.fake import code_range, fake_quantize, prepared, quantize_codes
from sw.quant.finite import refuse_non_finite
from sw.quant.hot import BINARY, DigitSet, fake_project, project_codes
from sw.quant.recipe import ACTIVATION_FRAC, LayerRecipe

__all__ = ["METHODS", "ActivationPoint", "BinaryPoint", "Mode", "best_integer_bits", "weight_point"]

METHODS = ("minmax", "mse")
"""How a binary point is chosen from values: the whole range fits, or the squared error is least."""

Quantise = Callable[[Tensor, Tensor], Tensor]

_SAMPLES_PER_BATCH = 8192


class Mode(enum.Enum):
    """What a quantised model computes."""

    FLOAT = "float"          # folded float layers, nothing is quantised
    CALIBRATE = "calibrate"  # as FLOAT, and ranges are observed
    QAT = "qat"              # fixed-point values with gradients; float sums, so not bit exact
    FROZEN = "frozen"        # integer codes, equal to the exported graph


def best_integer_bits(rows: Tensor, *, width: int, largest: int, method: str, quantise: Quantise) -> Tensor:
    """The integer bits for each row of ``rows`` (R, n): by range ("minmax") or least squared error ("mse"). Returns (R,).

    ``largest`` is the largest code of a format of ``width`` bits; ``quantise`` puts the rows on a grid of integer bits (R,).
    """
    if method not in METHODS:
        raise ValueError(f"calibration method must be one of {', '.join(METHODS)}, not {method!r}")
    peak = rows.abs().amax(1).clamp_min(2.0**-20)
    # The smallest I whose largest code, largest * 2**(I - width), reaches the peak.
    widest = torch.ceil(torch.log2(peak / largest)) + width
    if method == "minmax":
        return widest
    errors = [(quantise(rows, widest - step) - rows).square().sum(1) for step in range(5)]
    return widest - torch.stack(errors).argmin(0)


class BinaryPoint(nn.Module):
    """Integer bits ``I`` of a format of fixed width, learned: one value, or one per channel of axis 0.

    Parameters
    ----------
    width, signed, overflow : the format without its binary point; SAT or SAT_SYM
    channels : one binary point for each of so many channels; None is one for the tensor
    fixed : the whole format is given and nothing learns; it replaces ``width`` and ``signed``
    digits : the codes are limited to those of a `DigitSet` of this width (signed formats only)
    """

    ready: Tensor

    def __init__(
        self, *, width: int, signed: bool, overflow: Overflow, channels: int | None = None, fixed: FixedFormat | None = None,
        digits: DigitSet | None = None,
    ) -> None:
        super().__init__()
        if fixed is not None:
            width, signed = fixed.width, fixed.signed
        self.largest = code_range(width, signed, overflow)[1] if digits is None else digits.largest
        if digits is not None and (not signed or digits.width != width):
            raise ValueError(f"digits of {digits.width} bits must limit a signed format of as many bits, not "
                             f"{'a signed' if signed else 'an unsigned'} one of {width}")
        self.width, self.signed, self.overflow = width, signed, overflow
        self.fixed, self.digits = fixed, digits
        self.axis = None if channels is None else 0
        self.integer_bits = nn.Parameter(torch.zeros(() if channels is None else (channels,)))
        self.register_buffer("ready", torch.tensor(fixed is not None))
        if fixed is not None:
            self.integer_bits.data.fill_(fixed.integer_bits)
            self.integer_bits.requires_grad_(False)

    @torch.no_grad()
    def fit(self, values: Tensor, rounding: Rounding, method: str, what: str = "values to choose a binary point by") -> None:
        """Set the integer bits from values: all of them, or one row per channel; a given format stays.

        Errors call the values ``what``.
        """
        refuse_non_finite(values, what)
        if self.fixed is not None:
            return
        rows = values.reshape(1, -1) if self.axis is None else values.flatten(1)
        best = best_integer_bits(rows, width=self.width, largest=self.largest, method=method,
                                 quantise=lambda rows, bits: self._on_grid(rows, bits, rounding, 0))
        self.integer_bits.copy_(best.reshape(self.integer_bits.shape))
        self.ready.fill_(True)

    def within(self, low: Tensor | float, high: Tensor | float) -> Tensor:
        """The integer bits, limited so that frac lies in low..high (integers, scalar or per channel; one point for the tensor
        lies in all channels' limits).

        A given format is not moved: ValueError where it lies outside.
        """
        bits = self.integer_bits
        low_t, high_t = (torch.as_tensor(v, dtype=bits.dtype, device=bits.device) for v in (low, high))
        if self.axis is None:
            low_t, high_t = low_t.max(), high_t.min()
        limited = torch.clamp(bits, self.width - high_t, self.width - low_t)
        if self.fixed is not None and not torch.equal(limited, bits.expand_as(limited)):
            raise ValueError(f"the format {self.fixed} was given, and here the fraction bits must be {int(low_t.max())}.."
                             f"{int(high_t.min())}, so that shift and bias fit the core: give another format, or let it learn")
        return limited

    def frac(self, low: Tensor | float, high: Tensor | float) -> Tensor:
        """Fraction bits as int64, limited to low..high; one for each channel where the limits are per channel."""
        bits = torch.round(self.within(low, high).detach()).to(torch.int64)
        shapes = (tuple(v.shape) for v in (low, high) if isinstance(v, Tensor))
        return self.width - bits.expand(torch.broadcast_shapes(bits.shape, *shapes))

    def quantise(self, values: Tensor, rounding: Rounding, low: Tensor | float, high: Tensor | float) -> Tensor:
        """Values on the grid, with gradients; frac limited to low..high. Digits project to nearest, whatever the rounding."""
        return self._on_grid(values, self.within(low, high), rounding, self.axis)

    def _on_grid(self, values: Tensor, bits: Tensor, rounding: Rounding, axis: int | None) -> Tensor:
        axis = axis if bits.ndim else None
        if self.digits is not None:
            return fake_project(values, bits, self.digits, axis=axis)
        return fake_quantize(values, bits, width=self.width, signed=self.signed, rounding=rounding, overflow=self.overflow,
                             axis=axis)

    def codes(self, values: Tensor, frac: Tensor, rounding: Rounding) -> Tensor:
        """Integer codes in the float type of ``values``."""
        axis = 0 if frac.ndim else None
        if self.digits is not None:
            return project_codes(values, frac, self.digits, axis=axis)
        return quantize_codes(values, frac, width=self.width, signed=self.signed, rounding=rounding,
                              overflow=self.overflow, axis=axis)


def weight_point(entry: LayerRecipe, channels: int) -> BinaryPoint:
    """The binary point of a layer's weights, by the layer's complete recipe (`Recipe.layer`)."""
    assert entry.weight_bits is not None and entry.digit_kind is not None
    digits, width = None, entry.weight_bits
    if width == 1:
        digits, width = DigitSet(kind=BINARY, digits=1, width=2), 2
    elif entry.weight_digits:
        digits = DigitSet(kind=entry.digit_kind, digits=entry.weight_digits, width=width)
    return BinaryPoint(width=width, signed=True, overflow=Overflow.SAT_SYM, fixed=entry.weight_format,
                       channels=channels if entry.per_channel else None, digits=digits)


class ActivationPoint(BinaryPoint):
    """The one format that all tensors of a sharing group have; fixed if ``fixed`` is given."""

    def __init__(self, *, width: int, signed: bool, fixed: FixedFormat | None = None) -> None:
        super().__init__(width=width, signed=signed, overflow=Overflow.SAT, fixed=fixed)
        self.mode = Mode.FLOAT
        self._seen: list[Tensor] = []

    @property
    def limits(self) -> tuple[int, int]:
        return ACTIVATION_FRAC if self.fixed is None else (self.fixed.frac, self.fixed.frac)

    @property
    def fmt(self) -> FixedFormat:
        """The format as it stands now."""
        low, high = (self.width - limit for limit in reversed(self.limits))
        # Plain numbers: this is read several times in a step. Both this and torch.round take ties to even.
        return FixedFormat(self.width, self.width - round(min(max(self.integer_bits.item(), low), high)), self.signed)

    def forward(
        self, values: Tensor, rounding: Rounding, *, addend: Tensor | None = None, relu: bool = False
    ) -> Tensor:
        """Values of a tensor of the group (plus an addend, through a ReLU): as they are, observed or quantised, by the mode."""
        if self.mode is Mode.QAT:
            return fake_quantize(values, self.integer_bits, width=self.width, signed=self.signed, rounding=rounding,
                                 overflow=self.overflow, addend=addend, relu=relu, limits=self.limits)
        values = prepared(values, addend, relu)
        if self.mode is Mode.CALIBRATE and self.fixed is None and values.numel():
            flat = values.detach().flatten()
            stride = max(1, flat.numel() // _SAMPLES_PER_BATCH)
            self._seen.append(torch.cat([flat[::stride], flat.amin().reshape(1), flat.amax().reshape(1)]))
        return values

    def finish(self, rounding: Rounding, method: str, name: str = "an activation") -> None:
        """Choose the binary point from what was observed; ``name`` is for errors."""
        if self.fixed is not None:
            return
        if not self._seen:
            raise ValueError(f"calibration saw no values of {name}: give it at least one batch that is not empty")
        seen, self._seen = torch.cat(self._seen), []
        self.fit(seen, rounding, method, f"the values of {name} in the calibration")
