"""Models that others could have made, node by node: what is read exactly."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from hw.spec.fixed import Rounding
from sw.bridges.qonnx import from_qonnx, to_qonnx
from tests.bridges.onnx_models import Model, exact
from tests.bridges.onnx_networks import every_operation


def test_pads_merge_into_the_next_window() -> None:
    m = Model(2, 6, 6)
    pads = m.ints(0, 0, 1, 1, 0, 0, 1, 1)
    conv = m.node("Conv", m.node("Pad", m.quant("x"), pads), m.weights((3, 2, 3, 3)))
    pool = m.node("AveragePool", m.node("Pad", m.quant(conv, 0.5), pads), kernel_shape=[2, 2], strides=[2, 2])
    graph = exact(m.model(m.quant(pool, 0.125)), "conv2d", "avg_pool2d")
    assert [n.operation.padding for n in graph.nodes] == [1, 1]


def test_batch_norm_merges_or_is_a_layer() -> None:
    numbers = [[1, -2, 0.5], [0.25, 0, -1], [0.5, 0.25, 0], [0.25, 1, 4]]
    m = Model(3, 5, 5)
    own = m.quant(m.node("BatchNormalization", m.quant("x"), *map(m.const, numbers), epsilon=0.0))
    merged = m.node("BatchNormalization", m.node("Conv", own, m.weights((3, 3, 1, 1))), *map(m.const, numbers), epsilon=0.0)
    graph = exact(m.model(m.quant(merged, 0.5, signed=0)), "scale", "conv2d")
    assert graph.nodes[0].operation.weight.tolist() == [1, -1, 1]


def test_a_factor_of_zero_leaves_the_bias() -> None:
    m = Model(2, 4, 4)
    conv = m.node("Conv", m.quant("x"), m.weights((2, 2, 1, 1)))
    scaled = m.node("Add", m.node("Mul", conv, m.const([[[[0]], [[1]]]])), m.const([[[[1.0]], [[0.25]]]]))
    graph = exact(m.model(m.quant(scaled, 0.25)), "conv2d")
    assert not graph.nodes[0].operation.weight[0].any()
    assert (graph({"x": np.ones((1, 2, 4, 4), int)})[graph.outputs[0]][:, 0] == 4).all()


@pytest.mark.parametrize("form", ["MatMul", "Gemm", "Gemm transposed", "Add"])
def test_products_of_flat_images(form: str) -> None:
    m = Model(3, 2, 2)
    flat = m.node("Flatten", m.quant("x"))
    if form == "Gemm transposed":
        value = m.node("Gemm", flat, m.weights((5, 12)), m.const(np.arange(5) / 8), transB=1)
    elif form == "Gemm":
        value = m.node("Gemm", flat, m.weights((12, 5)))
    else:
        value = m.node("MatMul", flat, m.node("Transpose", m.weights((5, 12), scale=0.25), perm=[1, 0]))
    value = m.node("Add", value, m.const(np.arange(5) / 4)) if form == "Add" else value
    second = m.node("MatMul", m.quant(m.node("Relu", value), 1, signed=0), m.weights((5, 4)))
    exact(m.model(m.quant(second, 1)), "conv2d", "linear")


def test_channels_last_and_back() -> None:
    """Transposes between layouts are followed; a flattened channel-last image permutes the weights."""
    m = Model(3, 4, 2)
    last = m.node("Transpose", m.quant("x"), perm=[0, 2, 3, 1])
    first = m.node("Transpose", last, perm=[0, 3, 1, 2])
    conv = m.quant(m.node("Conv", first, m.weights((5, 3, 1, 1))), 0.5)
    flat = m.node("Reshape", m.node("Transpose", conv, perm=[0, 2, 3, 1]), m.ints(2, -1))
    exact(m.model(m.quant(m.node("MatMul", flat, m.weights((40, 4))), 2)), "conv2d", "conv2d")


def test_means_over_the_image() -> None:
    m = Model(4, 4, 4)
    x = m.quant("x")
    pooled = m.quant(m.node("GlobalAveragePool", x), 0.0625)
    reduced = m.quant(m.node("ReduceMean", x, axes=[-2, -1], keepdims=0), 0.0625)
    first, second = (m.quant(m.node("MatMul", each, m.weights((4, 5)))) for each in (m.node("Flatten", pooled), reduced))
    exact(m.model(first, second), "avg_pool2d", "avg_pool2d", "linear", "linear")


def test_channels_are_cut_joined_and_shuffled() -> None:
    m = Model(6, 3, 3)
    left, right = m.node("Split", m.quant("x"), m.ints(2, 4), outputs=2, axis=1)
    joined = m.node("Concat", right, left, axis=1)
    groups = m.node("Transpose", m.node("Reshape", joined, m.ints(0, 3, 2, 3, 3)), perm=[0, 2, 1, 3, 4])
    shuffled = m.node("Reshape", groups, m.ints(2, 6, 3, 3))
    cut = m.node("Slice", shuffled, m.ints(-3), m.ints(100), m.ints(1))
    exact(m.model(cut), "slice", "slice", "concat", "shuffle", "slice")


def test_limits_sums_and_what_changes_nothing() -> None:
    m = Model(2, 4, 4)
    x = m.node("Identity", m.node("Dropout", m.quant("x", 0.5)))
    six = m.quant(m.node("Clip", m.node("Mul", x, m.const(0.5)), m.const(0), m.const(6)), 0.25, signed=0)
    narrow = m.quant(x, 0.5, 5, narrow=1)
    total = m.node("Relu", m.node("Add", x, narrow))
    graph = exact(m.model(six, m.quant(total, 0.5), m.node("Relu", narrow)), "scale", "clip", "add", "clip")
    assert (graph.nodes[0].operation.requant.lo, graph.nodes[0].operation.requant.hi) == (0, 24)
    assert (graph.nodes[1].operation.lo, graph.nodes[2].operation.lo, graph.nodes[3].operation.lo) == (-15, 0, 0)


def test_a_sum_that_changes_its_scale() -> None:
    m = Model(2, 4, 4)
    x = m.quant("x", 0.25)
    total = m.node("Add", x, m.quant(m.node("Conv", x, m.weights((2, 2, 3, 3)), pads=[1, 1, 1, 1]), 0.25))
    exact(m.model(m.quant(m.node("Relu", total), 0.375, signed=0)), "conv2d", "shuffle_join", "conv2d")


def test_folded_weights_need_no_quantiser() -> None:
    """Weights that a tool folded to floats on a grid of powers of two have codes; FLOOR is TRN; upsampling of older models."""
    m = Model(2, 4, 4, opset=9)
    weight = np.random.default_rng(0).integers(-20, 21, (3, 2, 3, 3)) * 0.125
    conv = m.quant(m.node("Conv", m.quant("x"), m.const(weight), pads=[1, 1, 1, 1], auto_pad="NOTSET"), 0.5, rounding="FLOOR")
    graph = exact(m.model(m.node("Upsample", conv, m.const([1, 1, 2, 2]), mode="nearest")), "conv2d", "upsample2x")
    assert graph.nodes[0].operation.requant.rounding is Rounding.TRN


def test_weights_round_as_their_quantiser_says() -> None:
    for rounding, codes in (("ROUND", [-2, 0, 2, 2]), ("FLOOR", [-2, 0, 1, 2]), ("CEIL", [-1, 1, 2, 3]), ("HALF_UP", [-2, 1, 2, 3]),
                            ("HALF_DOWN", [-1, 0, 1, 2]), ("UP", [-2, 1, 2, 3]), ("DOWN", [-1, 0, 1, 2])):
        m = Model(4, 2, 2)
        weight = m.quant(m.const(np.reshape([-1.5, 0.5, 1.5, 2.5], (4, 1, 1, 1))), 1, 4, rounding=rounding)
        graph = exact(m.model(m.quant(m.node("Conv", m.quant("x"), weight, group=4))), "conv2d")
        assert graph.nodes[0].operation.weight.reshape(-1).tolist() == codes, rounding


def test_constants_are_folded() -> None:
    m = Model(2, 3, 3)
    kernel = m.node("Reshape", m.weights((12,)), m.ints(6, 2, 1, 1))
    bias = m.node("Squeeze", m.node("Unsqueeze", m.node("Sub", m.const(np.arange(6)), m.const(2)), m.ints(0)), m.ints(0))
    half = m.node("Constant", value=numpy_helper.from_array(np.float32(0.5), "half"))
    value = m.node("Div", m.node("Conv", m.quant("x"), kernel, bias), m.node("Neg", half))
    exact(m.model(m.quant(value, 0.5)), "conv2d")


def test_models_that_qonnx_cleaned_up_are_read() -> None:
    """Its own transformations rename and fold; what comes out is the same network under other names."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.transformation.fold_constants import FoldConstants
    from qonnx.transformation.gemm_to_matmul import GemmToMatMul
    from qonnx.transformation.general import GiveReadableTensorNames, GiveUniqueNodeNames, GiveUniqueParameterTensors
    from qonnx.transformation.infer_shapes import InferShapes

    graph, wrapped = every_operation(), ModelWrapper(to_qonnx(every_operation(), batch=2))
    for step in (InferShapes, GiveUniqueParameterTensors, FoldConstants, GemmToMatMul, GiveUniqueNodeNames, GiveReadableTensorNames):
        wrapped = wrapped.transform(step())
    again = from_qonnx(wrapped.model)
    (name,), codes = again.inputs, np.random.default_rng(0).integers(-128, 128, (3, 4, 9, 8))
    ours, theirs = graph({"x": codes}), again({name: codes})
    assert [n.operation.op for n in again.nodes] == [n.operation.op for n in graph.nodes]
    assert all(np.array_equal(ours[a], theirs[b]) for a, b in zip(graph.outputs, again.outputs, strict=True))
