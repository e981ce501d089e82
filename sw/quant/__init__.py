"""Fixed-point training in torch: learned binary points, exact emulation, export to an integer graph."""

from sw.quant.convert import UnsupportedModelError, quantize_model, unsupported
from sw.quant.deform import DeformConv2d, deform_conv2d
from sw.quant.export import codes_of, export
from sw.quant.fake import fake_quantize
from sw.quant.finite import NonFiniteError
from sw.quant.guard import InexactBackendError
from sw.quant.model import QuantModel
from sw.quant.points import Mode
from sw.quant.primitives import ChannelSplit, ShuffleJoin, SquareDeform
from sw.quant.ptq import post_training
from sw.quant.recipe import LayerRecipe, Recipe, RecipeError
from sw.tracing.problems import Problem

__all__ = [
    "ChannelSplit",
    "DeformConv2d",
    "InexactBackendError",
    "LayerRecipe",
    "Mode",
    "NonFiniteError",
    "Problem",
    "QuantModel",
    "Recipe",
    "RecipeError",
    "ShuffleJoin",
    "SquareDeform",
    "UnsupportedModelError",
    "codes_of",
    "deform_conv2d",
    "export",
    "fake_quantize",
    "post_training",
    "quantize_model",
    "unsupported",
]
