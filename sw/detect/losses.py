"""CenterNet's loss: penalty-reduced focal loss of the heat map, L1 of size and shift at the centres (arXiv 1904.07850, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor
from torch.nn import functional as F

from sw.detect.targets import Targets

__all__ = ["SHIFT_WEIGHT", "SIZE_WEIGHT", "Losses", "detection_loss", "focal_loss", "masked_l1"]

SIZE_WEIGHT, SHIFT_WEIGHT = 0.1, 1.0


class Losses(NamedTuple):
    """Scalars: ``total`` = ``heat`` + 0.1 ``size`` + ``shift``."""

    total: Tensor
    heat: Tensor
    size: Tensor
    shift: Tensor


def focal_loss(logits: Tensor, heat: Tensor, alpha: float = 2.0, beta: float = 4.0) -> Tensor:
    """Scalar from ``logits`` and target ``heat`` in 0..1, of one shape. With p = sigmoid(logit), summed over all cells and divided
    by the number of cells whose target is 1 (by 1 if there is none):

    -(1 - p)^alpha log p where the target Y is 1, else -(1 - Y)^beta p^alpha log(1 - p).

    The logarithms are those of logits, so that no p has to be clipped.
    """
    centre = heat.eq(1).to(logits.dtype)
    p = logits.sigmoid()
    found = (1 - p) ** alpha * F.logsigmoid(logits) * centre
    quiet = p**alpha * F.logsigmoid(-logits) * (1 - heat) ** beta * (1 - centre)
    return -(found + quiet).sum() / centre.sum().clamp(min=1)


def masked_l1(values: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean |difference| of (N, 2, h, w) tensors over the cells of ``mask`` (N, h, w) and both channels; 0 for an empty mask."""
    chosen = mask.unsqueeze(1).to(values.dtype)
    return ((values - target).abs() * chosen).sum() / (chosen.sum() * values.shape[1]).clamp(min=1)


def detection_loss(
    outputs: Sequence[Tensor], targets: Targets, *, size_weight: float = SIZE_WEIGHT, shift_weight: float = SHIFT_WEIGHT,
) -> Losses:
    """The loss of a detector's ``outputs``: heat logits, size and shift, shaped as those of `Targets`. ValueError for other shapes."""
    if len(outputs) != 3:
        raise ValueError(f"a detector must give heat, size and shift, not {len(outputs)} outputs")
    heat, size, shift = outputs
    for name, values, wanted in (("heat", heat, targets.heat), ("size", size, targets.size), ("shift", shift, targets.shift)):
        if values.shape != wanted.shape:
            raise ValueError(f"the output {name} must be of shape {tuple(wanted.shape)}, not {tuple(values.shape)}: make targets with "
                             "the model's number of classes and its stride")
    parts = focal_loss(heat, targets.heat), masked_l1(size, targets.size, targets.mask), masked_l1(shift, targets.shift, targets.mask)
    return Losses(parts[0] + size_weight * parts[1] + shift_weight * parts[2], *parts)
