"""Post-training quantisation: binary points from a few batches, no training; the baseline of every learned result."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor, nn

from sw.quant.convert import quantize_model
from sw.quant.model import QuantModel
from sw.quant.recipe import Recipe

__all__ = ["post_training"]


def post_training(
    model: nn.Module, batches: Iterable[Tensor | tuple[Tensor, object]], recipe: Recipe | None = None, method: str = "mse"
) -> QuantModel:
    """A frozen fixed-point copy of a float model; the model itself stays as it is.

    Parameters
    ----------
    batches : inputs (N, C, H, W) or (N, features), or (input, label) pairs as a data loader gives them; a few hundred images do
    method : "minmax", the smallest format that holds every value seen, or "mse", the one with the least squared error

    Raises UnsupportedModelError and RecipeError as `quantize_model` does, ValueError where there is no batch, and
    NonFiniteError for NaN or infinite weights.
    """
    quantised = quantize_model(model, recipe)
    quantised.calibrate(_inputs(batches), method)
    quantised.freeze()
    return quantised.eval()


def _inputs(batches: Iterable[Tensor | tuple[Tensor, object]]) -> Iterator[Tensor]:
    for batch in batches:
        yield batch if isinstance(batch, Tensor) else batch[0]
