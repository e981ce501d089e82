"""Operations with weights, but for the deformable ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hw.spec.ops.common import check_geometry, exact_matmul, weight_codes, windows
from hw.spec.ops.requant import Requant


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv2d:
    """K x K convolution in ``groups`` groups of channels. ``weight`` (OC, IC / groups, KH, KW); zero padding; x (N, IC, H, W).

    Group g maps input channels g * IC / groups to output channels g * OC / groups, each with as many channels; OC must be a
    multiple of groups.
    """

    op: ClassVar[str] = "conv2d"
    weight: np.ndarray
    requant: Requant
    stride: int = 1
    padding: int = 0
    groups: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 4))
        check_geometry(self.op, self.stride, self.padding)
        if self.groups < 1 or self.weight.shape[0] % self.groups:
            raise ValueError(f"conv2d groups must divide the {self.weight.shape[0]} output channels, not {self.groups}")

    @property
    def in_channels(self) -> int:
        return int(self.weight.shape[1]) * self.groups

    def accumulate(self, x: np.ndarray) -> np.ndarray:
        """The accumulators (N, OC, OH, OW) before bias and requantisation."""
        if x.shape[1] != self.in_channels:
            raise ValueError(f"conv2d expects {self.in_channels} input channels, not {x.shape[1]}")
        parts = zip(np.split(x, self.groups, axis=1), np.split(self.weight, self.groups), strict=True)
        return np.concatenate([self._group(part, weight) for part, weight in parts], axis=1)

    def _group(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        oc, ic, kh, kw = weight.shape
        patches = windows(x, (kh, kw), self.stride, self.padding)
        n, _, oh, ow = patches.shape[:4]
        columns = patches.transpose(0, 2, 3, 1, 4, 5).reshape(n * oh * ow, ic * kh * kw)
        return exact_matmul(columns, weight.reshape(oc, -1).T).reshape(n, oh, ow, oc).transpose(0, 3, 1, 2)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return self.requant(self.accumulate(x))


@dataclass(frozen=True, eq=False, kw_only=True)
class Linear:
    """Fully connected layer over channels. ``weight`` (OC, IC); x (N, IC, 1, 1) to (N, OC, 1, 1)."""

    op: ClassVar[str] = "linear"
    weight: np.ndarray
    requant: Requant

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 2))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1:] != (self.weight.shape[1], 1, 1):
            raise ValueError(f"linear expects (N, {self.weight.shape[1]}, 1, 1), not {x.shape}")
        acc = exact_matmul(x[:, :, 0, 0], self.weight.T)
        return self.requant(acc[:, :, None, None])


@dataclass(frozen=True, eq=False, kw_only=True)
class DepthwiseConv2d:
    """3 x 3 convolution, one filter per channel. ``weight`` (C, 3, 3); x (N, C, H, W)."""

    op: ClassVar[str] = "depthwise_conv2d"
    weight: np.ndarray
    requant: Requant
    stride: int = 1
    padding: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 3))
        check_geometry(self.op, self.stride, self.padding)
        if self.weight.shape[1:] != (3, 3):
            raise ValueError(f"depthwise_conv2d weight must be (C, 3, 3), not {self.weight.shape}")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(f"depthwise_conv2d expects {self.weight.shape[0]} channels, not {x.shape[1]}")
        patches = windows(x, (3, 3), self.stride, self.padding)
        return self.requant(np.einsum("nchwij,cij->nchw", patches, self.weight))


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale:
    """Per-channel multiply-add: a BatchNorm as a layer of its own. ``weight`` (C,), 8-bit codes; x (N, C, H, W)."""

    op: ClassVar[str] = "scale"
    weight: np.ndarray
    requant: Requant

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", weight_codes(self.op, self.weight, 1))

    def __call__(self, x: np.ndarray) -> np.ndarray:
        if x.shape[1] != self.weight.shape[0]:
            raise ValueError(f"scale expects {self.weight.shape[0]} channels, not {x.shape[1]}")
        return self.requant(x * self.weight[:, None, None])
