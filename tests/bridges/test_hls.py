"""HLS C++ from integer graphs, compiled with the vendor's own ap_fixed headers: every code is the graph's."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import CORE_ROUNDINGS, OPERATIONS, SQUARE_FRAC_MAX, AvgPool2d, Conv2d, MaxPool2d, Requant, Scale
from sw.bridges.hls import hls_files, ranges
from sw.graph import IntegerGraph
from tests.bridges.hls_project import compared, images
from tests.compiler.graphs import S8, U8, Builder, assert_alive
from tests.compiler.random_graphs import Drawn, graphs, operations
from tests.e2e.test_operations import network

# --- every operation


def test_every_operation_is_exact(tmp_path: Path) -> None:
    graph = network()
    assert {node.operation.op for node in graph.nodes} == set(OPERATIONS)
    whole = IntegerGraph(tensors=graph.tensors, inputs=graph.inputs, nodes=graph.nodes,
                         outputs=tuple(node.output for node in graph.nodes))
    inputs = {"image": np.random.default_rng(3).integers(0, 256, (3, 3, 6, 6))}
    for name, codes in whole(inputs).items():
        assert_alive(name, codes)
    assert compared(whole, inputs, tmp_path / "every") == 3 * sum(int(np.prod(whole.tensors[t].shape)) for t in whole.outputs) > 40_000


def windows() -> IntegerGraph:
    """(3, 7, 5): padding and stride that differ, windows that leave rows over, two inputs, tensors used twice."""
    b = Builder(9)
    image, other = b.input("image", (3, 7, 5), U8), b.input("other", (4, 4, 3), S8)
    a = b.conv("a", image, 4, kernel=(3, 2), stride=2, padding=1, peak=127)
    total = b.sum("total", a, other)
    b.add("most", MaxPool2d(kernel=3, stride=2, padding=1), total)
    b.mean("mean", total, (3, 2), stride=2, padding=1)
    offset = b.conv("offset", total, 1, fmt=FixedFormat(6, 2))
    b.deform("square", total, offset)
    bend = b.conv("bend", total, 8, kernel=(3, 3), padding=1)
    b.deform_conv("bent", total, bend, 6, kernel=(2, 2), frac=2, padding=1, dilation=2, groups=2)
    b.table("table", total)
    return b.graph("total", "most", "mean", "square", "bent", "table")


def test_the_generated_program_is_clean_under_sanitizers(tmp_path: Path) -> None:
    graph = windows()
    assert compared(graph, images(graph, 12, 2), tmp_path / "windows", "SANITIZE=1") > 1_000


@pytest.mark.slow
def test_every_operation_is_clean_under_sanitizers(tmp_path: Path) -> None:
    graph = network()
    assert compared(graph, images(graph, 6, 4), tmp_path / "every", "SANITIZE=1") == 60


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [1, 4, "all"])
def test_how_much_is_parallel_changes_no_code(tmp_path: Path, parallel: int | str) -> None:
    graph = network()
    most = max(ranges.products(node.operation) for node in graph.nodes)
    assert most > 16
    assert compared(graph, images(graph, 6, 5), tmp_path / "every", parallel=most if parallel == "all" else parallel) == 60


# --- formats, roundings, multipliers

FORMATS = [
    (FixedFormat(8, 4), FixedFormat(8, 4)),
    (FixedFormat(8, 8, False), FixedFormat(8, 3, False)),
    (FixedFormat(6, -3), FixedFormat(5, -7)),
    (FixedFormat(4, 9), FixedFormat(7, 12, False)),
    (FixedFormat(8, 24, False), FixedFormat(2, -16)),
]
"""Input and output: unsigned, coarser than 1, more fraction bits than bits, and from one to the other."""

SHIFTS = np.array([-3, 0, 1, 2, 5, 7, 11, 20])


def scaled(b: Builder, source: str, rounding: Rounding, fmt: FixedFormat, variant: int) -> str:
    """A scale of eight channels: each its own weight, bias, shift and multiplier; so that most codes stay in the format."""
    rng, high = b.rng, b.tensors[source].fmt.max_code
    weight, multiplier = rng.integers(1, 128, 8) * rng.choice([-1, 1], 8), np.ones(8, np.int64)
    if variant == 1:
        multiplier = np.array([1, 3, 255, 40000, 65535, 2, 1000, 12345])
    target = np.log2(np.abs(weight) * multiplier * float(high) / max(fmt.max_code, 1))
    shift = np.clip(np.ceil(target).astype(np.int64), -32, 31) if variant else SHIFTS
    lo, hi = (fmt.min_code, fmt.max_code) if variant < 2 else (max(fmt.min_code, -1), fmt.max_code - 1)
    requant = Requant(bias=rng.integers(-high, high + 1, 8), multiplier=multiplier, shift=shift, rounding=rounding, lo=lo, hi=hi)
    name = f"{source}_{rounding.name}_{variant}"
    return b.add(name, Scale(weight=weight, requant=requant), source, fmt=fmt)


def formats_graph() -> IntegerGraph:
    b, made = Builder(21), []
    for k, (given_format, fmt) in enumerate(FORMATS):
        source = b.input(f"in{k}", (8, 1, 1 << given_format.width), given_format)
        made += [scaled(b, source, rounding, fmt, (k + j) % 3) for j, rounding in enumerate(CORE_ROUNDINGS)]
    return b.graph(*made)


def test_every_rounding_multiplier_and_format_is_exact_for_all_codes(tmp_path: Path) -> None:
    graph = formats_graph()
    steps = [node.operation.requant for node in graph.nodes]
    assert {step.rounding for step in steps} == set(CORE_ROUNDINGS)
    assert any((step.multiplier > 1).any() for step in steps) and any((step.shift < 0).any() for step in steps)
    inputs = {}
    for name in graph.inputs:
        fmt = graph.tensors[name].fmt
        inputs[name] = np.broadcast_to(np.arange(fmt.min_code, fmt.max_code + 1), (1, *graph.tensors[name].shape)).astype(np.int64)
    alive = [len(np.unique(codes)) for codes in graph(inputs).values()]
    assert min(alive) >= 2 and sum(alive) > 500
    assert compared(graph, inputs, tmp_path / "formats") == 3 * 8 * (256 + 256 + 64 + 16 + 256)


def test_an_accumulator_holds_what_its_weights_can_reach(tmp_path: Path) -> None:
    """Images that drive channels to both ends of what they can reach."""
    graph, inputs = extremes()
    assert "ap_fixed<13, " in hls_files(graph)["network.cpp"]
    assert compared(graph, inputs, tmp_path / "extremes") == 3 * 4


def extremes() -> tuple[IntegerGraph, dict[str, np.ndarray]]:
    """Sums that reach 2**12 - 1 and -2**12: a bit less would wrap."""
    weight = np.array([[4, 4, 4, 4], [-4, -4, -4, -4], [-3, 4, -4, 4], [1, 0, 0, -1]])
    ones = np.ones(4, np.int64)
    requant = Requant(bias=[15, -16, 0, 7] * ones, multiplier=ones, shift=5 * ones, rounding=Rounding.RND, lo=-128, hi=127)
    b = Builder(1)
    b.add("y", Conv2d(weight=weight[:, :, None, None], requant=requant), b.input("x", (4, 1, 1), U8), fmt=S8)
    return b.graph("y"), {"x": np.array([[255] * 4, [0] * 4, [0, 255, 0, 255]]).reshape(3, 4, 1, 1)}


def test_codes_keep_where_tensors_stand_at_other_binary_points(tmp_path: Path) -> None:
    """A graph's operations work on codes: where formats differ, values do and codes do not."""
    b = Builder(4)
    left, right = b.input("left", (2, 4, 4), FixedFormat(6, 3)), b.input("right", (2, 4, 4), FixedFormat(5, 0))
    total = b.sum("total", left, right, FixedFormat(8, -2))
    b.add("most", MaxPool2d(kernel=2, stride=2), total, fmt=FixedFormat(8, 5))
    b.clip("clipped", right, 0, 9, FixedFormat(4, 9, False))
    graph = b.graph("total", "most", "clipped", "left")
    assert compared(graph, images(graph, 8), tmp_path / "points") == 8 * (32 + 8 + 32 + 32)


def test_a_mean_s_reciprocal_is_exact(tmp_path: Path) -> None:
    b = Builder(6)
    source = b.input("x", (2, 5, 7), FixedFormat(8, 3))
    means = [b.mean(f"mean{k}", source, kernel) for k, kernel in enumerate([(5, 7), (2, 2), (3, 1), (1, 6)])]
    graph = b.graph(*means)
    assert all(isinstance(node.operation, AvgPool2d) for node in graph.nodes)
    assert compared(graph, images(graph, 40), tmp_path / "means") > 4_000


def test_a_square_deformable_convolution_is_exact_for_every_number_of_offset_bits(tmp_path: Path) -> None:
    """Offsets of all codes: whole pixels and 1..3 fraction bits, beyond the sampler's range too; signed and unsigned samples."""
    b = Builder(14)
    sources, made = [b.input("signed", (2, 6, 22), S8), b.input("unsigned", (2, 6, 22), U8)], []
    for frac in range(SQUARE_FRAC_MAX + 1):
        offset = b.input(f"offset{frac}", (1, 6, 22), FixedFormat(8, frac))
        made += [b.deform(f"{source}{frac}", source, offset) for source in sources]
        halved = b.input(f"halved{frac}", (1, 3, 11), FixedFormat(8, frac))
        made.append(b.deform(f"halved_out{frac}", sources[frac % 2], halved, stride=2))
    graph = b.graph(*made)
    assert {node.operation.offset_frac for node in graph.nodes} == {0, 1, 2, 3}
    inputs = images(graph, 8, 3)
    near = np.random.default_rng(6).integers(-9, 11, (4, 1, 6, 22))  # half of the images stay close to the image
    for frac in range(SQUARE_FRAC_MAX + 1):
        steps = near * 2**frac + np.random.default_rng(frac).integers(0, 2**frac, near.shape)
        inputs[f"offset{frac}"][:4], inputs[f"halved{frac}"][:4] = steps, steps[:, :, ::2, ::2]
    for name, codes in graph(inputs).items():
        assert_alive(name, codes)
    assert compared(graph, inputs, tmp_path / "square") == 8 * 4 * (2 * 2 * 6 * 22 + 2 * 3 * 11)


# --- random graphs


def drawn_graphs(examples: int) -> list[Drawn]:
    found: list[Drawn] = []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    @given(graphs(most=8))
    def each(drawn: Drawn) -> None:
        found.append(drawn)

    each()
    return found


def check_random(chosen: list[Drawn], folder: Path) -> Counter[str]:
    seen: Counter[str] = Counter()
    for k, drawn in enumerate(chosen):
        graph = drawn.graph
        assert compared(graph, images(graph, 3, drawn.seed), folder / f"random{k}", name=f"random{k}") > 0
        seen.update(operations(graph))
    return seen


def test_random_graphs_are_exact(tmp_path: Path) -> None:
    """The three of most kinds of operation among forty."""
    found = sorted(drawn_graphs(40), key=lambda drawn: -len(set(operations(drawn.graph))))
    assert len(check_random(found[:3], tmp_path)) >= 8


@pytest.mark.slow
def test_many_random_graphs_are_exact(tmp_path: Path) -> None:
    assert len(check_random(drawn_graphs(60), tmp_path)) >= 12
