"""The products of training steps by compiled kernels, as golden operations take them."""

from __future__ import annotations

import numpy as np

from hw.spec.training import Geometry, Products
from sw.kernels.ordered import ordered_input_pass, ordered_output_pass, ordered_weight_pass

__all__ = ["ordered_products"]

Array = np.ndarray


def ordered_products(threads: int = 1) -> Products:
    """The three products of a convolution by `sw.kernels.ordered`: equal to `hw.spec.training.DEFINITION` on every bit."""

    def forward(x: Array, w: Array, g: Geometry) -> Array:
        return ordered_output_pass(x, w, stride=g.stride, padding=g.padding, threads=threads)

    def input_gradient(dy: Array, w: Array, g: Geometry) -> Array:
        return ordered_input_pass(dy, w, (g.height, g.width), stride=g.stride, padding=g.padding, threads=threads)

    def weight_gradient(x: Array, dy: Array, g: Geometry) -> Array:
        return ordered_weight_pass(x, dy, (g.kernel_h, g.kernel_w), stride=g.stride, padding=g.padding, threads=threads)

    return Products(forward=forward, input_gradient=input_gradient, weight_gradient=weight_gradient)
