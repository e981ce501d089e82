"""Compiled training steps on the machine against the graph: every parameter, bit for bit, step after step."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.spec.program import ProgramError
from hw.spec.sat import SatArch
from hw.spec.training import Geometry, Hyper, PoolWindow
from hw.spec.training_program import TrainingProgram
from sw.compiler.problems import CompileError
from sw.compiler.training import compile_training
from sw.runtime import DeviceError, open_device
from sw.runtime.training import TrainingSession
from sw.training_graph import ChannelNode, ConvNode, PoolNode, TrainingGraph
from tests.sat.small_graphs import norm, random_batch, random_state, residual_network

HYPER = Hyper(learning_rate=0.05, weight_decay=1e-4)
SMALL = SatArch(
    rows=4, columns=8, vec_words=256, act_words=256, wgt_words=256, acc_words=128, tbl_words=64, chn_words=80
)  # fmt: skip
"""So small that every product is cut in stripes, tiles and parts of its reduction."""


def session(graph: TrainingGraph, arch: SatArch) -> TrainingSession:
    return open_device("interpreter", seed=3).open_session(compile_training(graph, arch), graph.state.arrays())


def same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> int:
    """Number of values compared; all must be the same bits."""
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name].view(np.uint32), array.view(np.uint32), err_msg=name)
    return sum(array.size for array in expected.values())


def train_both(graph: TrainingGraph, arch: SatArch, steps: int) -> int:
    """Number of values compared over some steps and an inference."""
    running, state, compared = session(graph, arch), graph.state, 0
    for step in range(steps):
        batch = random_batch(graph, step)
        report, expected = running.step(batch, HYPER), graph.step(state, *batch, HYPER)
        state = expected.state
        np.testing.assert_array_equal(report.logits, expected.logits)
        assert report.loss == expected.loss and report.skipped == expected.skipped is False
        compared += same(running.state(), state.arrays())
    images = random_batch(graph, 99)[0]
    np.testing.assert_array_equal(running.infer(images), graph.infer(state, images).reshape(graph.batch, -1))
    return compared


@pytest.mark.parametrize("pattern", [None, (2, 8), (1, 4), (2, 16)])
def test_five_steps_on_eight_by_eight(pattern: tuple[int, int] | None) -> None:
    assert train_both(residual_network(pattern, width=16), SatArch(), 5) > 5 * 30_000


@pytest.mark.parametrize("arch", [SatArch(rows=4, columns=4), SatArch(rows=4, columns=8, feed=2), SMALL, SatArch(rows=16, columns=32)])
def test_other_arrays_and_memories(arch: SatArch) -> None:
    assert train_both(residual_network((2, 4)), arch, 2) > 2 * 8_000


def test_small_memories_cut_everything() -> None:
    """The instructions that only cut products have: so that the test above cannot pass without them."""
    program = compile_training(residual_network((2, 4), width=32, size=16), SMALL)
    found = {name: [i for i in program.program(name).instructions()] for name in program.images}
    products = [i for i in found["forward"] if i.name == "GEMM"]
    assert any(i["resume"] for i in products) and any(not i["drain"] for i in products)
    assert any(i["preload"] for i in found["backward"] if i.name == "GEMM")
    assert any(i["resume"] for i in found["forward"] if i.name == "VEC")
    assert train_both(residual_network((2, 4), width=32, size=16), SMALL, 1) > 50_000


@pytest.mark.parametrize(
    "kernel, stride, padding, size", [(5, 1, 2, 6), (3, 2, 1, 7), (2, 2, 0, 6), (1, 2, 0, 5), (3, 3, 0, 9), (7, 2, 3, 9)]
)  # fmt: skip
def test_kernels_strides_and_phases(kernel: int, stride: int, padding: int, size: int) -> None:
    geometry = Geometry(height=size, width=size + 1, kernel_h=kernel, kernel_w=kernel, stride=stride, padding=padding)
    last = Geometry(height=geometry.out_height, width=geometry.out_width, kernel_h=geometry.out_height, kernel_w=geometry.out_width)
    nodes = (
        ConvNode(
            name="first", source="input", target="first.y", in_channels=3, out_channels=8,
            geometry=Geometry(height=size, width=size + 1, kernel_h=1, kernel_w=1),
        ),
        norm("n", "first.y", 8),
        ConvNode(name="c", source="n.z", target="c.y", geometry=geometry, in_channels=8, out_channels=16, backward_pattern=(2, 8)),
        norm("m", "c.y", 16),
        ConvNode(name="head", source="m.z", target="head.y", geometry=last, in_channels=16, out_channels=5),
        ChannelNode(name="bias", source="head.y", target="logits", channels=5),
    )  # fmt: skip
    state = random_state(np.random.default_rng(kernel), nodes)
    graph = TrainingGraph(batch=3, shape=(size, size + 1, 3), nodes=nodes, output="logits", state=state)
    assert train_both(graph, SatArch(rows=4, columns=4), 2) > 2 * 1_000


@pytest.mark.parametrize("kernel, stride, padding", [(3, 2, 1), (3, 1, 1), (2, 2, 0), (2, 1, 0), (3, 2, 0)])
@pytest.mark.parametrize("arch", [SatArch(rows=4, columns=4), replace(SMALL, vec_words=64)])
def test_pools(kernel: int, stride: int, padding: int, arch: SatArch) -> None:
    size = 6 if kernel == 2 else 7
    window = PoolWindow(kernel=(kernel, kernel), stride=(stride, stride), padding=(padding, padding))
    rows, cols = window.size(size, size)
    nodes = (
        ConvNode(name="c", source="input", target="y", in_channels=3, out_channels=8,
                 geometry=Geometry(height=size, width=size, kernel_h=1, kernel_w=1)),
        norm("n", "y", 8, relu=False),
        PoolNode(name="pool", source="n.z", target="p", window=window),
        ConvNode(name="head", source="p", target="head.y", in_channels=8, out_channels=5,
                 geometry=Geometry(height=rows, width=cols, kernel_h=rows, kernel_w=cols)),
        ChannelNode(name="bias", source="head.y", target="logits", channels=5),
    )  # fmt: skip
    state = random_state(np.random.default_rng(kernel), nodes)
    graph = TrainingGraph(batch=2, shape=(size, size, 3), nodes=nodes, output="logits", state=state)
    assert train_both(graph, arch, 2) > 2 * 300


def test_a_saturated_gradient_skips_the_update() -> None:
    graph = residual_network()
    running, batch = session(graph, SatArch()), random_batch(graph)
    hyper = replace(HYPER, loss_scale=2.0**40)
    report, expected = running.step(batch, hyper), graph.step(graph.state, *batch, hyper)
    assert report.skipped and expected.skipped
    assert same(running.state(), expected.state.arrays()) > 4_000
    report, expected = running.step(batch, HYPER), graph.step(expected.state, *batch, HYPER)
    assert not report.skipped
    same(running.state(), expected.state.arrays())


def test_a_session_goes_on_where_it_was_saved() -> None:
    graph = residual_network((2, 8))
    first, batches = session(graph, SatArch()), [random_batch(graph, seed) for seed in range(4)]
    for batch in batches[:2]:
        first.step(batch, HYPER)
    second = session(graph, SatArch())
    second.load_state(first.state())
    for batch in batches[2:]:
        assert first.step(batch, HYPER).loss == second.step(batch, HYPER).loss
    assert same(first.state(), second.state()) > 4_000


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    graph = residual_network()
    running = session(graph, SatArch())
    before = running.state()
    bad = {**before, "c1.master": np.full_like(before["c1.master"], np.inf)}
    with pytest.raises(DeviceError, match=r"state c1\.master must be finite float32 of shape \(3, 3, 8, 16\)"):
        running.load_state(bad)
    with pytest.raises(DeviceError, match=r"n1\.scale must be finite float32 .* not missing"):
        running.load_state({name: array for name, array in before.items() if name != "n1.scale"})
    with pytest.raises(DeviceError, match=r"the program has no state \['foreign'\]"):
        running.load_state({**before, "foreign": np.zeros(1, np.float32)})
    images, labels = random_batch(graph)
    with pytest.raises(DeviceError, match="images must be finite float16"):
        running.step((images[:1], labels[:1]), HYPER)
    same(running.state(), before)


def test_a_batch_too_large_for_memory_is_refused() -> None:
    program = compile_training(residual_network(batch=8), SatArch())
    with pytest.raises(DeviceError, match="bytes of memory and the device offers"):
        TrainingSession(open_device("interpreter", memory_bytes=1 << 16), program, residual_network(batch=8).state.arrays())


def test_what_the_core_lacks_is_listed_at_once() -> None:
    graph = residual_network(width=24)
    nodes = list(graph.nodes)
    for place, changes in ((3, {"forward_pattern": (3, 6)}), (5, {"backward_pattern": (4, 12)})):
        node = nodes[place]
        assert isinstance(node, ConvNode)
        nodes[place] = replace(node, **changes)
    with pytest.raises(CompileError) as caught:
        compile_training(replace(graph, nodes=tuple(nodes)), SatArch(regions=4, region_manager=(0,) * 4))
    text = str(caught.value)
    assert "c1: forward pattern 3:6 is not one of the core" in text and "c2: backward pattern 4:12" in text
    assert "architecture: a program needs 8 memory regions, it has 4" in text
    with pytest.raises(CompileError, match="one output row needs more than"):
        compile_training(residual_network(width=64), replace(SMALL, act_words=64))
    with pytest.raises(CompileError, match="raise chn_words"):
        compile_training(graph, SatArch(chn_words=64))


def test_a_program_file_round_trips_and_damage_is_refused() -> None:
    program = compile_training(residual_network((2, 8)), SatArch())
    data = program.to_bytes()
    assert TrainingProgram.from_bytes(data).to_bytes() == data
    for at in (3, 40, len(data) // 2, len(data) - 1):
        damaged = bytearray(data)
        damaged[at] ^= 4
        with pytest.raises(ProgramError, match=r"damaged|not a Bitloom training program"):
            TrainingProgram.from_bytes(bytes(damaged))
    with pytest.raises(ProgramError, match="damaged or truncated"):
        TrainingProgram.from_bytes(data[:-20])
