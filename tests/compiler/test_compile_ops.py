"""Each operation alone: the compiled program on the machine equals the graph on every element."""

from __future__ import annotations

import pytest

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.ops import MaxPool2d, ShuffleJoin
from sw.compiler import compile_graph
from sw.compiler.slots import ceil16, segments, spread, zip_slots
from tests.compiler.graphs import S8, U8, Builder, compare, operations

ARCH = DeformArch()
TINY = DeformArch(rows=3, feature_words=96, row_words=32, weight_words=160, parameter_words=40)
WIDE = DeformArch(rows=5, columns=64)


@pytest.mark.parametrize("arch", [ARCH, WIDE], ids=["columns32", "columns64"])
@pytest.mark.parametrize("peak", [7, 127], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    ("shape", "channels", "kernel", "stride", "padding"),
    [
        ((1, 1, 1), 1, (1, 1), 1, 0),
        ((3, 7, 5), 40, (3, 3), 1, 1),
        ((20, 6, 9), 17, (1, 1), 2, 0),
        ((16, 5, 5), 70, (1, 3), 1, 0),
        ((33, 9, 4), 64, (3, 1), 3, 0),
        ((5, 8, 8), 33, (5, 5), 2, 2),
        ((4, 3, 11), 96, (2, 4), 1, 1),
    ],
)
def test_convolution(arch: DeformArch, peak: int, shape: tuple[int, int, int], channels: int, kernel: tuple[int, int],
                     stride: int, padding: int) -> None:
    for seed, fmt in enumerate((S8, U8)):
        build = Builder(seed)
        build.input("x", shape, fmt)
        build.conv("c", "x", channels, kernel=kernel, stride=stride, padding=padding, peak=peak, fmt=U8 if seed else S8)
        program, count = compare(build.graph("c"), arch, seed)
        assert count > 0
        wide = [i["wide_weights"] for i in program.instructions() if i.name == "PW"]
        assert wide == [int(peak > 7)]


def test_one_large_weight_makes_a_layer_wide() -> None:
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("c", "x", 16)
    build.nodes[0].operation.weight[3, 4, 0, 0] = -128
    program, _ = compare(build.graph("c"), ARCH)
    assert [i["wide_weights"] for i in program.instructions() if i.name == "PW"] == [1]


@pytest.mark.parametrize(("inputs", "channels"), [(1, 1), (100, 10), (64, 33), (17, 128)])
def test_linear(inputs: int, channels: int) -> None:
    build = Builder(inputs)
    build.input("x", (inputs, 1, 1), U8)
    build.linear("fc", "x", channels)
    compare(build.graph("fc"), ARCH)


@pytest.mark.parametrize(
    ("shape", "stride", "padding"),
    [((1, 3, 3), 1, 0), ((20, 7, 5), 1, 1), ((16, 9, 9), 2, 1), ((40, 11, 6), 3, 2), ((17, 5, 12), 2, 0)],
)
def test_depthwise(shape: tuple[int, int, int], stride: int, padding: int) -> None:
    for seed, fmt in enumerate((S8, U8)):
        build = Builder(seed)
        build.input("x", shape, fmt)
        build.depthwise("d", "x", stride=stride, padding=padding)
        compare(build.graph("d"), ARCH, seed)


@pytest.mark.parametrize(("shape", "stride"), [((1, 1, 1), 1), ((20, 13, 10), 1), ((16, 20, 7), 2), ((33, 9, 9), 3)])
def test_deformable(shape: tuple[int, int, int], stride: int) -> None:
    rows, cols = (-(-side // stride) for side in shape[1:])
    for seed, fmt in enumerate((S8, U8)):
        build = Builder(seed)
        build.input("x", shape, fmt)
        build.input("s", (1, rows, cols), FixedFormat(5, 0) if seed else S8)
        build.deform("d", "x", "s", stride=stride)
        compare(build.graph("d"), ARCH, seed)


@pytest.mark.parametrize(
    ("shape", "stride", "frac"), [((1, 1, 1), 1, 3), ((20, 13, 10), 1, 3), ((16, 20, 7), 2, 1), ((33, 9, 9), 3, 2)]
)
def test_deformable_with_fractional_offsets(shape: tuple[int, int, int], stride: int, frac: int) -> None:
    """Beyond both limits, and with formats whose range is smaller than the limits."""
    rows, cols = (-(-side // stride) for side in shape[1:])
    for seed, fmt in enumerate((S8, U8)):
        build = Builder(seed)
        build.input("x", shape, fmt)
        build.input("s", (1, rows, cols), FixedFormat(5, frac) if seed else FixedFormat(8, frac))
        build.deform("d", "x", "s", stride=stride)
        compare(build.graph("d"), ARCH, seed)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 1, 2), (5, 3, 2), (7, 8, 3)]
)
def test_max_pool(kernel: int, stride: int, padding: int) -> None:
    for seed, fmt in enumerate((S8, U8, FixedFormat(4, 1))):
        build = Builder(seed)
        build.input("x", (19, 10, 9), fmt)
        build.add("m", MaxPool2d(kernel=kernel, stride=stride, padding=padding), "x")
        compare(build.graph("m"), ARCH, seed)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [((1, 1), 1, 0), ((2, 2), 2, 0), ((10, 9), 1, 0), ((3, 3), 2, 1), ((4, 5), 1, 2)]
)
def test_average_pool(kernel: tuple[int, int], stride: int, padding: int) -> None:
    for seed, fmt in enumerate((S8, U8)):
        build = Builder(seed)
        build.input("x", (35, 10, 9), fmt)
        build.mean("m", "x", kernel, stride=stride, padding=padding)
        compare(build.graph("m"), ARCH, seed)


def test_a_single_window_may_have_any_stride() -> None:
    build = Builder(2)
    build.input("x", (70, 16, 12), U8)
    build.mean("m", "x", (16, 12), stride=16)
    build.add("p", MaxPool2d(kernel=12, stride=12), build.conv("c", "x", 80, kernel=(5, 1)))
    build.conv("last", build.input("y", (5, 16, 12)), 70, kernel=(16, 12), stride=11)
    compare(build.graph("m", "p", "last"), DeformArch(weight_words=16384, feature_words=4096))


@pytest.mark.parametrize("kernel", [1, 3])
def test_shuffle_join_is_merged_into_the_right_convolution(kernel: int) -> None:
    build = Builder(kernel)
    build.input("x", (64, 5, 6))
    left, right = (build.half(f"half{i}", "x", i) for i in (0, 1))
    build.conv("c", right, 32, kernel=(kernel, kernel), padding=kernel // 2)
    build.add("join", ShuffleJoin(), left, "c")
    program, _ = compare(build.graph("join"), ARCH)
    assert operations(program) == ["LOAD", "LOAD", "LOAD", "LOAD", "PW", "STORE"]


def test_shuffle_join_of_anything_else_is_carried_by_an_identity() -> None:
    """The right side is a depthwise result, an input, a view, or a convolution that others read too."""
    build = Builder(1)
    build.input("x", (20, 4, 5))
    build.depthwise("d", "x")
    build.add("j1", ShuffleJoin(), "x", "d")
    build.conv("c", "x", 20)
    build.add("j2", ShuffleJoin(), "d", "c")
    build.conv("also", "c", 3)
    build.add("j3", ShuffleJoin(), "c", "x")
    build.conv("out", "x", 20)
    build.add("j4", ShuffleJoin(), "x", "out")
    build.add("j5", ShuffleJoin(), "j4", "j4")
    compare(build.graph("j1", "j2", "also", "j3", "out", "j5"), ARCH)


def shuffle_units(channels: int, units: int) -> tuple[Builder, str]:
    """A convolution and shuffle units of two halves of ``channels``; the builder and the last tensor."""
    build = Builder(channels)
    tensor = build.conv("stem", build.input("x", (3, 4, 4)), 2 * channels)
    for unit in range(units):
        left, right = (build.half(f"u{unit}.half{i}", tensor, i) for i in (0, 1))
        build.conv(f"u{unit}.a", right, channels)
        build.depthwise(f"u{unit}.b", f"u{unit}.a")
        build.conv(f"u{unit}.c", f"u{unit}.b", channels)
        tensor = build.add(f"u{unit}.join", ShuffleJoin(), left, f"u{unit}.c")
    return build, tensor


@pytest.mark.parametrize(("channels", "units"), [(32, 1), (32, 7), (20, 3), (58, 1), (58, 3), (6, 3), (116, 7)])
def test_shuffle_units_with_any_width(channels: int, units: int) -> None:
    """Splits stay word-aligned through zips although the halves are no multiples of 16."""
    build, tensor = shuffle_units(channels, units)
    build.conv("head", tensor, 5)
    compare(build.graph(tensor, "head"), ARCH)


def test_halves_of_every_width_stay_on_words_through_many_units() -> None:
    checked = 0
    for channels in range(1, 300):
        slots = segments(2 * channels, {channels})
        for _ in range(10):
            words = [slots[: len(slots) // 2], slots[len(slots) // 2 :]]
            assert [sorted(s for s in half if s >= 0) for half in words] == [
                list(range(channels)), list(range(channels, 2 * channels))
            ]
            assert len(words[0]) == ceil16(channels)
            slots = zip_slots(words[0], spread(channels, len(words[0]), odd=True))
            checked += 1
    assert checked == 2990


def test_views_and_inputs_as_outputs() -> None:
    build = Builder(3)
    build.input("x", (32, 3, 3))
    build.input("y", (2, 1, 9), U8)
    for half in (0, 1):
        build.half(f"h{half}", "x", half)
    build.half("quarter", build.conv("c", "h1", 64), 1)
    compare(build.graph("h1", "x", "y", "quarter", "c"), ARCH)
    compare(build.graph("h1", "x", "y", "quarter", "c"), TINY)


def test_several_inputs_and_outputs() -> None:
    build = Builder(4)
    build.input("a", (3, 6, 6))
    build.input("b", (16, 6, 6), U8)
    build.conv("c", "a", 16, fmt=U8)
    build.add("join", ShuffleJoin(), "b", "c")
    build.conv("d", "join", 5)
    build.mean("m", "join", (6, 6))
    program, _ = compare(build.graph("d", "m", "join"), ARCH)
    assert [t.name for t in program.inputs] == ["a", "b"]
    assert [t.name for t in program.outputs] == ["d", "m", "join"]
    ends = sorted((t.offset, t.offset + t.size) for t in program.outputs)
    assert [start for start, _ in ends] == [0, *(end for _, end in ends[:-1])]
    assert ends[-1][1] == program.regions[2].size


def test_equal_graphs_give_equal_bytes() -> None:
    programs = []
    for _ in range(2):
        build = Builder(5)
        build.input("x", (16, 9, 9))
        build.conv("c", "x", 40, kernel=(3, 3), padding=1)
        build.depthwise("d", "c", stride=2)
        programs.append(compile_graph(build.graph("c", "d"), TINY).to_bytes())
    assert programs[0] == programs[1]
