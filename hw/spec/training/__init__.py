"""Golden operations of training in FP16 and FP32: whole tensors, every order of operations and rounding written down.

Tensors are float16 (N, H, W, C); weights float32 masters (KH, KW, CI, CO). A core's program computes the same bits.
"""

from hw.spec.training.elementwise import (
    PoolWindow,
    add,
    average_pool,
    average_pool_backward,
    masked,
    max_pool,
    max_pool_backward,
    scaled,
    summed,
)
from hw.spec.training.loss import softmax_cross_entropy
from hw.spec.training.norm import (
    BiasState,
    Normalised,
    NormConstants,
    NormState,
    bias_forward,
    bias_gradient,
    norm_backward,
    norm_fixed,
    norm_forward,
)
from hw.spec.training.products import DEFINITION, Geometry, Products
from hw.spec.training.update import Hyper, updated
from hw.spec.training.weights import backward_weights, forward_weights

__all__ = [
    "DEFINITION",
    "BiasState",
    "Geometry",
    "Hyper",
    "NormConstants",
    "NormState",
    "Normalised",
    "PoolWindow", "Products",
    "add",
    "average_pool",
    "average_pool_backward",
    "backward_weights",
    "bias_forward",
    "bias_gradient",
    "forward_weights",
    "masked",
    "max_pool",
    "max_pool_backward",
    "norm_backward",
    "norm_fixed",
    "norm_forward",
    "scaled",
    "softmax_cross_entropy", "summed",
    "updated",
]  # fmt: skip
