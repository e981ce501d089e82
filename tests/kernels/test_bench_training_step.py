"""The training-step benchmark compares what it says: same layers, same tensors quantised."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import brevitas.nn as qnn
import pytest
import torch
from torch import nn

from sw.models.resnet import resnet20

BENCH = Path(__file__).parents[2] / "bench"
COMPILED = ["float_compiled", "float_folded_compiled", "ours_compiled"]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The bench's module, as the command sees it."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("step_cost", "training_step"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__("training_step")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(1)
    made = resnet20().train()
    with torch.no_grad():
        made(torch.randn(4, 3, 32, 32))
    return made


def test_the_folded_network_is_the_same_function(bench, model):
    x = torch.randn(2, 3, 32, 32)
    plain = bench.folded(model)
    assert not [m for m in plain.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(p.requires_grad for p in plain.parameters())
    model.eval()
    torch.testing.assert_close(plain(x), model(x), rtol=1e-4, atol=1e-4)
    model.train()


def test_both_sides_quantise_all_weights_biases_and_results(bench, model):
    x = torch.randn(2, 3, 32, 32)
    theirs, mine = bench.brevitas(model, x), bench.ours(model, x)
    layers = [m for m in theirs.modules() if isinstance(m, (qnn.QuantConv2d, qnn.QuantLinear))]
    assert len(layers) == len(list(mine.quant_layers())) == 22
    assert all(m.weight_quant.is_quant_enabled and m.bias_quant.is_quant_enabled for m in layers)
    acts = [m for m in theirs.modules() if isinstance(m, (qnn.QuantIdentity, qnn.QuantReLU))]
    assert all(m.act_quant.is_quant_enabled and float(m.act_quant.bit_width()) == 8 for m in acts)
    scales = torch.stack([m.act_quant.scale() for m in acts]).double()
    assert torch.equal(torch.log2(scales), torch.log2(scales).round())
    assert {layer.point.width for _, layer in mine.quant_layers()} == {point.width for point in mine.points.values()} == {8}


def test_the_report_has_a_ratio_for_each_pair(bench):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = bench.report(bench.measure(bench.candidates(2, COMPILED), 1), 2, 1)
    finally:
        torch.set_num_threads(threads)
    assert set(found["cpu_ms"]) == {"float", "float_folded", "ours", "brevitas"}
    assert set(found["ratios"]) == {"ours/float", "ours/float_folded", "ours/brevitas", "brevitas/float"}
    assert all(value > 0 for value in found["ratios"].values()) and found["kernels"]
