"""CoDeNet: its multiply-accumulates are those of the publication, and a detector runs through every link of the chain.

The five configurations at full size are slow: `pytest -m slow tests/e2e/test_codenet.py`, some ten minutes and 3 GB.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from boards.board import load_board_arch
from hw.sim.build import SimulationBuild
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import SPACES
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN
from hw.spec.program import HEADER_BYTES, Program, build_header
from hw.spec.regs import ErrorCode
from sw.compiler import check_graph, compile_graph
from sw.flow.chain import Report
from sw.flow.report_deform import BOARD, quantised, verified
from sw.flow.verify import Simulation, verify
from sw.graph import IntegerGraph
from sw.models.codenet import CONFIGURATIONS, WIDTHS, CodeNet, Detection, Operator, codenet
from sw.models.settled import settle, smooth_images
from sw.quant import Recipe, SquareDeform, codes_of, export, quantize_model
from sw.runtime import CoreFault
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.sim import SimDevice
from tests.compiler.graphs import Builder

PUBLISHED = {"a": (277.2, 0.280), "b": (277.2, 0.288), "c": (1108.8, 1.119), "d": (3496.7, 3.507), "e": (3496.7, 3.539)}
"""Millions of multiply-accumulates without the first layer, thousands of millions with it."""


def macs(net: nn.Module, size: int) -> dict[str, int]:
    """Multiply-accumulates of each layer, counted on a run of the float network."""
    found: dict[str, int] = {}
    layers = {name: module for name, module in net.named_modules() if isinstance(module, (nn.Conv2d, SquareDeform))}

    def count(name: str, weight: int) -> None:
        layers[name].register_forward_hook(lambda module, given, y: found.update({name: y.shape[2] * y.shape[3] * weight}))

    for name, module in layers.items():
        count(name, module.weight.numel())
    with torch.no_grad():
        net.eval()(torch.zeros(1, 3, size, size))
    assert len(found) == len(layers) > 60
    return found


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_multiply_accumulates_are_the_published_ones(name: str) -> None:
    found = macs(codenet(name), CONFIGURATIONS[name].size)
    total, first = sum(found.values()), found["first.0"]
    assert (round((total - first) / 1e6, 1), round(total / 1e9, 3)) == PUBLISHED[name]


@pytest.mark.parametrize("width, mebibytes", [(1, 0.748), (2, 2.883)])
def test_four_bit_weights_have_the_published_size(width: int, mebibytes: float) -> None:
    weights = {name: value.numel() for name, value in CodeNet(20, WIDTHS[width]).named_parameters() if value.dim() == 4}
    assert round((sum(weights.values()) - weights["first.0.weight"]) / 2**21, 3) == mebibytes


@pytest.mark.parametrize("operator", Operator)
@pytest.mark.parametrize("pool", [False, True])
def test_every_operator_gives_heads_of_a_quarter_and_learns(operator: Operator, pool: bool) -> None:
    net = small(operator, pool=pool)
    found = Detection(*net.train()(smooth_images(2, 64, 1)))
    assert found.heat.shape == (2, 10, 16, 16) and found.size.shape == found.shift.shape == (2, 2, 16, 16)
    sum(head.square().mean() for head in found).backward()
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in net.parameters())


def test_an_unknown_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="configuration must be one of a, b, c, d, e, not 'f'"):
        codenet("f")


def small(operator: Operator = Operator.SQUARE_DEPTHWISE, *, pool: bool = False) -> CodeNet:
    """Every kind of layer of the large ones, with a stage of several units."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return CodeNet(10, (16, 32, 48, 64, 96), pool=pool, units=(1, 2, 1), decoder=(48, 32, 32), operator=operator)


def check(graph: IntegerGraph, report: Report) -> None:
    assert report.first == [] and report.ok and set(report.links) == {"torch_graph", "graph_ops", "ops_machine", "machine_rtl"}
    assert report.timing is not None and report.timing.compared > 100
    alive = [life for life in report.alive if life.codes >= 1000]
    assert len(alive) > 20 and max(life.zero for life in alive) < 0.7 and max(life.saturated for life in alive) < 0.2
    assert max(life.constant_channels for life in alive) < 0.1


@pytest.mark.parametrize("pool", [False, True])
def test_a_small_detector_runs_whole(pool: bool, core_build: SimulationBuild, core_arch: DeformArch) -> None:
    model = quantize_model(settle(small(pool=pool), smooth_images(8, 64, 1)), Recipe())
    model.calibrate([smooth_images(8, 64, 2)])
    images = smooth_images(2, 64, 3)
    graph = export(model, images)
    trace = {name: codes.numpy() for name, codes in model.trace(images).items()}
    program = compile_graph(graph, core_arch, windows=pool)
    assert (program.inputs[0].window is not None) == pool
    report = verify(graph, program, {graph.inputs[0]: codes_of(model, images)}, torch_trace=trace,
                    simulation=Simulation(build=core_build))  # fmt: skip
    check(graph, report)
    assert report.links["machine_rtl"].compared > 500_000


def test_what_does_not_fit_is_refused_in_words(core_arch: DeformArch) -> None:
    """An offset map of another size, a map too wide for the row memory, an image of another size."""
    model = quantize_model(settle(small(), smooth_images(4, 64, 1)), Recipe())
    model.calibrate([smooth_images(4, 64, 2)])
    graph = export(model, smooth_images(1, 64, 3))
    deform = next(node for node in graph.nodes if node.operation.op == "deform_depthwise_conv2d")
    moved = replace(deform, inputs=(deform.inputs[0], graph.nodes[0].output))
    broken = replace(graph, nodes=tuple(moved if node is deform else node for node in graph.nodes))
    (problem,) = [found for found in check_graph(broken, core_arch) if found.place == deform.name]
    assert problem.reason == "deform_depthwise_conv2d expects offsets of shape (1, 2, 2), not (16, 16, 16)"
    wide = export(quantised("c"), smooth_images(1, 512, 3))
    problems = check_graph(wide, replace(load_board_arch(BOARD), row_words=64))
    assert {problem.place for problem in problems} == {
        "stages.0.0.left.0.0", "stages.0.0.right.1.0", "decoder.2.0.deform", "heat.1", "size.1", "shift.1"
    }  # fmt: skip
    assert {problem.reason for problem in problems} == {"one output row of 16 channels needs 128 row_words (it has 64)"}
    program = compile_graph(graph, core_arch)
    with pytest.raises(ValueError, match=r"tensor input must have shape \(3, 64, 64\), not \(3, 96, 96\)"):
        InterpreterDevice(core_arch).run(program, {"input": np.zeros((1, 3, 96, 96), np.int64)})


def test_a_map_too_wide_is_an_error_code_at_run_time(core_build: SimulationBuild, core_arch: DeformArch) -> None:
    """Instructions for a larger row memory, as no compiler would give them to this core; then a program of its own."""

    def program_for(arch: DeformArch, cols: int) -> Program:
        build = Builder(cols)
        build.deform("wide", build.input("x", (16, 2, cols)), build.input("s", (1, 2, cols)))
        return compile_graph(build.graph("wide"), arch)

    row = core_arch.row_words
    large = program_for(replace(core_arch, row_words=4 * row), row + 1)
    header = build_header(core_arch.arch_id, large.instruction_count)
    forged = replace(large, arch=core_arch, image=header + large.image[HEADER_BYTES:])
    first = next(place for place, i in enumerate(forged.instructions()) if i.name == "LOAD" and i["space"] == SPACES.index("row"))
    good = program_for(core_arch, row)
    outputs = []
    for device in (InterpreterDevice(core_arch), SimDevice(core_arch, build=core_build)):
        with device:
            with pytest.raises(CoreFault, match=r"BUFFER_RANGE at instruction \d+ \(layer wide\)") as fault:
                device.run(forged, {layout.name: np.ones(layout.shape, np.int64) for layout in forged.inputs})
            assert (fault.value.code, fault.value.index) == (ErrorCode.BUFFER_RANGE, first)
            outputs.append(device.run(good, {layout.name: np.ones(layout.shape, np.int64) for layout in good.inputs})[0]["wide"])
    assert outputs[0].size == 32 * row and len(np.unique(outputs[0])) > 4
    np.testing.assert_array_equal(outputs[0], outputs[1])


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_runs_whole_at_full_size(name: str) -> None:
    graph, _, report, trace = verified(name, load_board_arch(BOARD))
    check(graph, report)
    assert report.links["machine_rtl"].compared > 15_000_000
    offsets = [trace[node.inputs[1]] for node in graph.nodes if node.operation.op == "deform_depthwise_conv2d"]
    assert len(offsets) == 3 and all(codes.min() < OFFSET_MIN and codes.max() > OFFSET_MAX for codes in offsets)
    assert set(range(OFFSET_MIN, OFFSET_MAX + 1)) <= {int(code) for codes in offsets for code in codes.flat}
