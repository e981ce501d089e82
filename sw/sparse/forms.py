"""Functions and methods of a model's forward as the layers of torch.nn that compute the same, in a training."""

from __future__ import annotations

from torch import nn

from sw.tracing.forms import COMMON, forms

__all__ = ["FORMS"]


def _dropout(p: float = 0.5, training: bool = True, inplace: bool = False) -> nn.Module:
    """The core trains, so that what the function does while the model is traced says nothing: p alone decides."""
    return nn.Dropout(p)


def _identity() -> nn.Module:
    return nn.Identity()


FORMS = forms(COMMON) | forms({_dropout: ("dropout", "dropout2d"), _identity: ("contiguous",)})
"""The maker of every function's layer."""
