"""BatchNorm in a quantised model: its parameters and statistics, as a scale and a bias per channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FoldedNorm"]


class FoldedNorm(nn.Module):
    """A BatchNorm1d or BatchNorm2d as scale and bias per channel; by default with frozen statistics."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d) -> None:
        super().__init__()
        if norm.running_mean is None or norm.running_var is None:
            raise ValueError("a BatchNorm must keep running statistics to be quantised: track_running_stats=True")
        channels = norm.num_features
        gamma, beta = (torch.ones(channels), torch.zeros(channels)) if norm.weight is None else (norm.weight, norm.bias)
        self.weight, self.bias = nn.Parameter(gamma.detach().clone()), nn.Parameter(beta.detach().clone())
        self.register_buffer("running_mean", norm.running_mean.clone())
        self.register_buffer("running_var", norm.running_var.clone())
        self.eps, self.momentum = norm.eps, 0.1 if norm.momentum is None else norm.momentum
        self.frozen_statistics = True

    def fold(self, weight: Tensor, bias: Tensor, batch: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
        """Weights (C, ...) and bias (C,) of a layer with the normalisation behind it folded in.

        ``batch`` (mean, variance) replaces the running statistics.
        """
        mean, var = batch or (self.running_mean, self.running_var)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return weight * scale.view(-1, *[1] * (weight.ndim - 1)), self.bias + (bias - mean) * scale

    def observe(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance per channel of ``y`` (N, C, H, W); the running statistics follow."""
        mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        count = y.numel() // y.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / max(1, count - 1)), self.momentum)
        return mean, var
