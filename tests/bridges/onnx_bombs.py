"""Models of a few bytes that ask for much memory or time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.bridges.onnx_damages import attribute, input_shape, replace


def _doubling(model: onnx.ModelProto) -> None:
    """Transposes of a large image, each a view as large."""
    input_shape(1, 64, 512, 256)(model)
    del model.graph.node[1:]
    quantised = model.graph.node[0].output[0]
    for i in range(40):
        model.graph.node.append(helper.make_node("Transpose", [quantised], [f"w{i}"], perm=[0, 1, 3, 2], name=f"turn{i}"))
    model.graph.output[0].name = "w39"


def _broadcasts(model: onnx.ModelProto) -> None:
    """Constants that grow by broadcasting."""
    for i in range(3):
        shape = [1] * 3
        shape[i] = 1 << 14
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), f"side{i}"))
    pairs = (("side0", "side1", "plane"), ("plane", "side2", "cube"))
    grow = [helper.make_node("Mul", [a, b], [made], name=made) for a, b, made in pairs]
    nodes = [*grow, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _products(model: onnx.ModelProto) -> None:
    """Outer products, none of which is too large, but all together."""
    for name, shape in (("tall", (4096, 1)), ("broad", (1, 4096))):
        model.graph.initializer.append(numpy_helper.from_array(np.ones(shape, np.float32), name))
    products = [helper.make_node("Mul", ["tall", "broad"], [f"w{i}"], name=f"w{i}") for i in range(2000)]
    replace(model, [*products, *model.graph.node])


def _channels(model: onnx.ModelProto) -> None:
    """An image of one pixel and more channels than any network has, from a few bytes."""
    input_shape(1, 1 << 17, 1, 1)(model)
    _again(model, 1)


def _requantised(model: onnx.ModelProto) -> None:
    """As many channels as a tensor may have, each requantised in every node."""
    input_shape(1, 1 << 16, 1, 1)(model)
    _again(model, 20)


def _again(model: onnx.ModelProto, times: int) -> None:
    """Only the input's quantiser, and more of them behind it, with another scale each time."""
    first = model.graph.node[0]
    del model.graph.node[1:]
    value, rest = first.output[0], list(first.input[1:])
    for i in range(times):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(0.3 + i), f"scale{i}"))
        again = helper.make_node("Quant", [value, f"scale{i}", *rest[1:]], [f"q{i}"], name=f"q{i}", domain=first.domain)
        model.graph.node.append(again)
        value = f"q{i}"
    model.graph.output[0].name = value


def _padded(model: onnx.ModelProto) -> None:
    """One convolution whose strides are as wide as its pads, so that the result is small."""
    for name, value in (("pads", [2**30] * 4), ("strides", [2**30] * 2)):
        attribute("Conv", name, value)(model)
    last = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "a")
    del model.graph.node[last + 1 :]
    model.graph.output[0].name = "a"


def _long_chain(model: onnx.ModelProto) -> None:
    """More nodes than a model may have."""
    value = model.graph.output[0].name
    for i in range(1 << 16):
        model.graph.node.add(op_type="Identity", input=[value], output=[f"w{i}"])
        value = f"w{i}"


BOMBS: dict[str, Callable[[onnx.ModelProto], None]] = {
    "many large transposes": _doubling, "growing constants": _broadcasts, "many large products": _products, "many channels": _channels,
    "many channels to requantise": _requantised, "pads beyond the image": _padded, "a long chain": _long_chain,
}  # fmt: skip
