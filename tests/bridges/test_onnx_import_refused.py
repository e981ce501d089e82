"""Models that no integer graph expresses: each refused with its node's name, and all problems at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sw.bridges.errors import BridgeError
from sw.bridges.qonnx import read_qonnx
from tests.bridges.onnx_models import DOMAIN, Model


def _conv(m: Model, **options: Any) -> str:
    return m.quant(m.node("Conv", m.quant("x"), m.weights((2, 2, 3, 3)), **options))


REFUSED: dict[str, tuple[Callable[[Model], str], str]] = {
    "zero point": (lambda m: m.quant("x", zero=3), "zero point 3"),
    "rounding": (lambda m: m.quant("x", rounding="CEIL"), "rounds by CEIL"),
    "channels": (lambda m: m.quant("x", [[[[1]], [[2]]]]), "2 scales"),
    "wide": (lambda m: m.quant("x", bits=12), "bit width of 12"),
    "half a bit": (lambda m: m.quant("x", bits=3.5), "bit width of 3.5"),
    "bipolar": (lambda m: m.quant("x", bits=1), "one bit"),
    "nan scale": (lambda m: m.quant("x", float("nan")), "the scale nan"),
    "no quantiser before": (lambda m: m.quant(m.node("Conv", "x", m.weights((2, 2, 3, 3)))), "not quantised"),
    "no quantiser behind": (lambda m: m.node("Conv", m.quant("x"), m.weights((2, 2, 3, 3))), "not quantised"),
    "dilation": (lambda m: _conv(m, dilations=[2, 2]), "dilation"),
    "two strides": (lambda m: _conv(m, strides=[1, 2]), "strides"),
    "one-sided": (lambda m: _conv(m, pads=[0, 0, 1, 1]), "pads"),
    "same": (lambda m: _conv(m, auto_pad="SAME_UPPER", strides=[2, 2]), "pads by SAME_UPPER"),
    "float weights": (lambda m: m.quant(m.node("Conv", m.quant("x"), m.const(np.full((1, 2, 1, 1), 0.3)))), "float weights"),
    "16-bit weights": (lambda m: m.quant(m.node("Conv", m.quant("x"), m.quant(m.const(np.full((1, 2, 1, 1), 200)), 1, 8, signed=0))),
                       "weight codes"),
    "group scales": (lambda m: m.quant(m.node("Conv", m.quant("x"), m.weights((2, 2, 1, 1), scale=[[[[0.5]], [[0.25]]]]))),
                     "differ within an output channel"),
    "product": (lambda m: m.node("Mul", m.quant("x"), m.quant("x")), "multiplies two tensors"),
    "other scales": (lambda m: m.node("Add", m.quant("x"), m.quant(_conv(m, pads=[1] * 4), 0.5)), "adds tensors of the scales"),
    "second way": (lambda m: m.node("Add", m.quant("x"), m.quant("x", 0.5)), "second way"),
    "behind a relu": (lambda m: m.quant(m.node("Mul", m.node("Relu", m.node("Mul", m.quant("x"), m.const(3))), m.const(2))),
                      "behind a ReLU"),
    "pixels": (lambda m: m.quant(m.node("Add", m.quant("x"), m.const(np.arange(16).reshape(1, 1, 4, 4)))), "differs between pixels"),
    "transposed": (lambda m: m.node("MaxPool", m.node("Transpose", m.quant("x"), perm=[0, 1, 3, 2]), kernel_shape=[2, 2]),
                   "were moved"),
    "batch": (lambda m: m.node("Transpose", m.quant("x"), perm=[1, 0, 2, 3]), "batch in front"),
    "rows": (lambda m: m.node("Slice", m.quant("x"), m.ints(0), m.ints(2), m.ints(2)), "slice channels only"),
    "ceil": (lambda m: m.node("MaxPool", m.quant("x"), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), "ceil_mode"),
    "means": (lambda m: m.quant(m.node("AveragePool", m.quant("x"), kernel_shape=[3, 3], pads=[1] * 4)), "count_include_pad"),
    "bilinear": (lambda m: m.node("Resize", m.quant("x"), "", m.const([1, 1, 2, 2]), mode="linear"), "resizes"),
    "thrice": (lambda m: m.node("Resize", m.quant("x"), "", m.const([1, 1, 3, 3]), coordinate_transformation_mode="asymmetric",
                                nearest_mode="floor"), "resizes"),
    "sigmoid": (lambda m: m.quant(m.node("Sigmoid", m.quant("x"))), "Sigmoid is an operation without"),
    "domain": (lambda m: m.node("Quant", m.quant("x"), domain="somewhere"), "of the domain somewhere"),
    "trunc": (lambda m: m.node("Trunc", m.quant("x"), domain=DOMAIN), "plain average pool"),
    "inexact": (lambda m: m.quant(m.node("Conv", m.quant("x"), m.weights((1, 2, 4, 4), scale=0.0371), m.const([0.3])), 0.913),
                "no 16-bit multiplier"),
    "alpha": (lambda m: m.quant(m.node("Gemm", m.node("Flatten", m.quant("x")), m.weights((32, 3)), alpha=2.0)), "alpha"),
    "joined formats": (lambda m: m.node("Concat", m.quant("x"), m.quant(_conv(m, pads=[1] * 4), 0.5), axis=1),
                       "joins tensors of the formats"),
    "offsets": (lambda m: m.quant(m.node("DeformConv", m.quant("x"), m.weights((2, 2, 1, 1)), m.quant("x"))), "steps of 0.125 pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_graph_expresses_is_refused(name: str) -> None:
    make, words = REFUSED[name]
    m = Model(2, 4, 4, opset=19)
    with pytest.raises(BridgeError, match=words) as caught:
        read_qonnx(m.model(make(m)))
    assert all(p.place and p.reason and p.advice for p in caught.value.problems)


def test_all_problems_are_told_before_anything_is_done() -> None:
    m = Model(2, 4, 4)
    first = m.quant(m.node("Conv", m.quant("x", zero=1), m.weights((2, 2, 3, 3)), dilations=[2, 2]))
    m.node("Sigmoid", first)
    other = m.node("MaxPool", m.quant("x"), kernel_shape=[2, 3])
    with pytest.raises(BridgeError) as caught:
        read_qonnx(m.model(other))
    assert [(p.place, p.kind) for p in caught.value.problems] == [("Quant0", "Quant"), ("Sigmoid4", "Sigmoid"), ("MaxPool6", "MaxPool")]
    assert str(caught.value).count("\n") == 3
