"""`export`: a quantised model to an integer graph that computes the same codes without torch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sw.graph import IntegerGraph, Node, TensorSpec
from sw.quant.model import QuantModel

__all__ = ["codes_of", "export"]

Shape = tuple[int, int, int]


def export(model: QuantModel, example_input: Tensor) -> IntegerGraph:
    """The integer graph of a calibrated model; nodes and tensors are named by the layers' places.

    ``example_input`` (N, C, H, W) or (N, features) gives the shapes only. The model is left frozen: its forward pass and
    the graph then agree on every code.
    """
    if not isinstance(model, QuantModel):
        raise TypeError(f"export takes the model that quantize_model returned, not {type(model).__name__}")
    model.freeze()
    shapes = {name: _shape(codes) for name, codes in model.trace(example_input[:1]).items()}
    formats = model.formats()
    nodes = tuple(
        Node(name=step.name, operation=model.layer(step.name).operation(tuple(shapes[t] for t in step.inputs)),
             inputs=step.inputs, output=step.name)
        for step in model.steps
    )
    return IntegerGraph(
        tensors={name: TensorSpec(shape=shape, fmt=formats[name]) for name, shape in shapes.items()},
        inputs=(model.input_name,), outputs=model.outputs, nodes=nodes,
    )


def codes_of(model: QuantModel, x: Tensor) -> np.ndarray:
    """The graph's input codes (N, C, H, W) of float inputs, int64."""
    return np.asarray(model.input_codes(x).to(torch.int64).cpu().numpy())


def _shape(codes: Tensor) -> Shape:
    _, channels, height, width = codes.shape
    return int(channels), int(height), int(width)
