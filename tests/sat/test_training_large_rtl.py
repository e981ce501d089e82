"""One layer in each pass on 32 x 32 processing elements in Verilog: minutes to build, so among the slow tests."""

from __future__ import annotations

import numpy as np
import pytest

from hw.sim.core import build_core
from hw.sim.loop import MemoryTiming
from hw.spec.sat import SatArch
from hw.spec.training import Hyper, PoolWindow
from sw.compiler.training import compile_training
from sw.flow.predict import training_predictor
from sw.flow.training_chain import verify_training
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.sim import SimDevice
from sw.sparse import ordered_products
from sw.training_graph import ChannelNode, PoolNode, TrainingGraph
from tests.sat.small_graphs import conv, norm, random_batch, random_state

LARGE = SatArch(rows=32, columns=32, latency=5, feed=2, act_words=4096, wgt_words=4096, acc_words=4096)
SIZE, WIDTH = 16, 64


@pytest.mark.slow
def test_a_layer_per_pass_on_32_by_32() -> None:
    """3 x 3, 64 to 64 channels, 2:8, of which the gradients of input and weights are computed too: all bytes and all cycles."""
    nodes = (
        conv("stem", "input", SIZE, (3, WIDTH)),
        norm("stem_norm", "stem.y", WIDTH),
        conv("layer", "stem_norm.z", SIZE, (WIDTH, WIDTH), pattern=(2, 8)),
        norm("layer_norm", "layer.y", WIDTH),
        PoolNode(name="mean", source="layer_norm.z", target="mean.z", window=PoolWindow(kernel=(SIZE, SIZE)), average=True),
        conv("head", "mean.z", 1, (WIDTH, 10), kernel=1),
        ChannelNode(name="head_bias", source="head.y", target="logits", channels=10),
    )
    state = random_state(np.random.default_rng(0), nodes)
    graph = TrainingGraph(batch=2, shape=(SIZE, SIZE, 3), nodes=nodes, output="logits", state=state)
    program = compile_training(graph, LARGE)
    with SimDevice(LARGE, build=build_core(LARGE), state_seed=2) as core:
        report = verify_training(
            graph, program, [random_batch(graph)], Hyper(learning_rate=0.05), InterpreterDevice(LARGE, seed=5), core=core,
            products=ordered_products(), predictor=training_predictor(MemoryTiming()),
        )  # fmt: skip
    assert report.ok, report.first
    assert report.links["machine_rtl"].compared > 1_000_000 and report.links["timing"].compared > 400
    layers = {(name, program.layers[name][t.index]) for name, times in report.times.items() for t in times}
    assert {("forward", "layer"), ("backward", "layer"), ("update", "layer")} <= layers
