"""Learned binary points: the trainable part of a fixed-point format, of a weight or of a group of activations."""

from __future__ import annotations

import enum

import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.quant.fake import code_range, fake_quantize, quantize_codes

__all__ = ["ActivationPoint", "BinaryPoint", "Mode", "best_integer_bits"]

ACTIVATION_FRAC = (-16, 24)
"""Binary points that an activation may learn; weights then keep every requantise shift in the core's range."""

_SAMPLES_PER_BATCH = 8192


class Mode(enum.Enum):
    """What a quantised model computes."""

    FLOAT = "float"          # folded float layers, nothing is quantised
    CALIBRATE = "calibrate"  # as FLOAT, and ranges are observed
    QAT = "qat"              # fixed-point values with gradients; float sums, so not bit exact
    FROZEN = "frozen"        # integer codes, equal to the exported graph


def best_integer_bits(
    rows: Tensor, *, width: int, signed: bool, rounding: Rounding, overflow: Overflow, method: str
) -> Tensor:
    """The integer bits for each row of ``rows`` (R, n): by range ("minmax") or least squared error ("mse"). Returns (R,)."""
    if method not in ("mse", "minmax"):
        raise ValueError(f"calibration method must be 'mse' or 'minmax', not {method!r}")
    high = code_range(width, signed, overflow)[1]
    peak = rows.abs().amax(1).clamp_min(2.0**-20)
    # The smallest I whose largest code, high * 2**(I - width), reaches the peak.
    widest = torch.ceil(torch.log2(peak / high)) + width
    if method == "minmax":
        return widest
    errors = []
    for step in range(5):
        on_grid = fake_quantize(rows, widest - step, width=width, signed=signed, rounding=rounding,
                                overflow=overflow, axis=0)
        errors.append((on_grid - rows).square().sum(1))
    return widest - torch.stack(errors).argmin(0)


class BinaryPoint(nn.Module):
    """Integer bits ``I`` of a format of fixed width, learned: one value, or one per channel of axis 0."""

    ready: Tensor

    def __init__(self, *, width: int, signed: bool, overflow: Overflow, channels: int | None = None) -> None:
        super().__init__()
        code_range(width, signed, overflow)
        self.width, self.signed, self.overflow = width, signed, overflow
        self.axis = None if channels is None else 0
        self.integer_bits = nn.Parameter(torch.zeros(() if channels is None else (channels,)))
        self.register_buffer("ready", torch.tensor(False))

    @torch.no_grad()
    def fit(self, values: Tensor, rounding: Rounding, method: str) -> None:
        """Set the integer bits from values: all of them, or one row per channel."""
        rows = values.reshape(1, -1) if self.axis is None else values.flatten(1)
        best = best_integer_bits(rows, width=self.width, signed=self.signed, rounding=rounding,
                                 overflow=self.overflow, method=method)
        self.integer_bits.copy_(best.reshape(self.integer_bits.shape))
        self.ready.fill_(True)

    def within(self, low: Tensor | float, high: Tensor | float) -> Tensor:
        """The integer bits, limited so that frac lies in low..high (integers, scalar or per channel)."""
        bits = self.integer_bits
        low_t, high_t = (torch.as_tensor(v, dtype=bits.dtype, device=bits.device) for v in (low, high))
        return torch.minimum(torch.maximum(bits, self.width - high_t), self.width - low_t)

    def frac(self, low: Tensor | float, high: Tensor | float) -> Tensor:
        """Fraction bits as int64, limited to low..high."""
        return self.width - torch.round(self.within(low, high).detach()).to(torch.int64)

    def quantise(self, values: Tensor, rounding: Rounding, low: Tensor | float, high: Tensor | float) -> Tensor:
        """Values on the grid, with gradients; frac limited to low..high."""
        return fake_quantize(values, self.within(low, high), width=self.width, signed=self.signed,
                             rounding=rounding, overflow=self.overflow, axis=self.axis)

    def codes(self, values: Tensor, frac: Tensor, rounding: Rounding) -> Tensor:
        """Integer codes in the float type of ``values``."""
        return quantize_codes(values, frac, width=self.width, signed=self.signed, rounding=rounding,
                              overflow=self.overflow, axis=self.axis)


class ActivationPoint(BinaryPoint):
    """The one format that all tensors of a sharing group have; fixed if ``fixed`` is given."""

    def __init__(self, *, width: int, signed: bool, fixed: FixedFormat | None = None) -> None:
        if fixed is not None:
            width, signed = fixed.width, fixed.signed
        super().__init__(width=width, signed=signed, overflow=Overflow.SAT)
        self.fixed = fixed
        self.mode = Mode.FLOAT
        self._seen: list[Tensor] = []
        if fixed is not None:
            self.integer_bits.data.fill_(fixed.integer_bits)
            self.integer_bits.requires_grad_(False)
            self.ready.fill_(True)

    @property
    def limits(self) -> tuple[int, int]:
        return ACTIVATION_FRAC if self.fixed is None else (self.fixed.frac, self.fixed.frac)

    @property
    def fmt(self) -> FixedFormat:
        """The format as it stands now."""
        return FixedFormat(self.width, int(self.frac(*self.limits)), self.signed)

    def forward(self, values: Tensor, rounding: Rounding) -> Tensor:
        """Values of a tensor of the group: as they are, observed or quantised, by the mode."""
        if self.mode is Mode.CALIBRATE and self.fixed is None:
            flat = values.detach().flatten()
            stride = max(1, flat.numel() // _SAMPLES_PER_BATCH)
            self._seen.append(torch.cat([flat[::stride], flat.amin().reshape(1), flat.amax().reshape(1)]))
        if self.mode is not Mode.QAT:
            return values
        return self.quantise(values, rounding, *self.limits)

    def finish(self, rounding: Rounding, method: str) -> None:
        """Choose the binary point from what was observed."""
        if self.fixed is not None:
            return
        if not self._seen:
            raise ValueError("calibration saw no values: give it at least one batch")
        self.fit(torch.cat(self._seen), rounding, method)
        self._seen = []
