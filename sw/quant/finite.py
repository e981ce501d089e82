"""NaN and infinity refused in words, with their place, before they become codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NonFiniteError", "check_finite", "refuse_non_finite"]


class NonFiniteError(ValueError):
    """Values that no fixed-point code stands for; the message says where and how many."""


_ADVICE = "look for a training that diverged (lower the learning rate) or damaged data"


def refuse_non_finite(values: Tensor, what: str) -> None:
    """Raise NonFiniteError where there are NaN or infinities among ``values``."""
    if wrong := int((~torch.isfinite(values)).sum()):
        raise NonFiniteError(f"{what} must be finite, and {wrong} of {values.numel()} values are NaN or infinite: {_ADVICE}")


def check_finite(model: nn.Module) -> None:
    """Raise NonFiniteError that names every parameter and buffer of a model with NaN or infinities in it."""
    wrong = {name: int((~torch.isfinite(values)).sum()) for name, values in model.state_dict().items()
             if isinstance(values, Tensor) and values.is_floating_point()}
    if lines := [f"  {name}: {count} values are NaN or infinite" for name, count in wrong.items() if count]:
        raise NonFiniteError("the model's weights must be finite to be quantised:\n" + "\n".join(lines) + f"\n{_ADVICE}")
