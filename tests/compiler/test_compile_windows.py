"""Images written window by window: the same results from fewer cycles, and layouts that are what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.program import Intermediate, Program, TensorLayout, WindowLayout
from sw.compiler import compile_graph
from sw.compiler.memcheck import prove_memory
from sw.compiler.problems import CompileError
from sw.compiler.windows import choose_windows
from sw.graph import IntegerGraph
from tests.compiler.graphs import S8, U8, Builder, random_codes, run_machine

ARCH = DeformArch(rows=4, feature_words=4096, weight_words=4096, parameter_words=1024)
GEOMETRIES = [((3, 3), 1, 1), ((3, 3), 4, 1), ((3, 3), 2, 0), ((7, 7), 2, 3), ((2, 5), 3, 1), ((1, 1), 2, 0), ((4, 4), 4, 0)]


def stem(seed: int, channels: int, kernel: tuple[int, int], stride: int, padding: int, fmt: FixedFormat = S8) -> IntegerGraph:
    build = Builder(seed)
    build.input("image", (channels, 17, 14), fmt)
    first = build.conv("first", "image", 20, kernel=kernel, stride=stride, padding=padding, peak=100)
    return build.graph(build.conv("second", first, 9))


@pytest.mark.parametrize("channels, fmt", [(1, U8), (3, S8), (5, U8)])
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_windows_compute_what_pixels_compute(channels: int, fmt: FixedFormat, geometry: tuple[tuple[int, int], int, int]) -> None:
    kernel, stride, padding = geometry
    graph = stem(channels, channels, kernel, stride, padding, fmt)
    assert choose_windows(graph, ARCH) == {"image": WindowLayout(rows=kernel[0], columns=kernel[1], stride=stride, padding=padding)}
    program = compile_graph(graph, ARCH, windows=True)
    assert prove_memory(program, graph) > 0 and program.inputs[0].shape == (channels, 17, 14)
    codes = random_codes(graph, np.random.default_rng(channels))
    expected, found = graph.trace({"image": codes["image"][None]}), run_machine(program, codes, 3)
    assert set(found) == {"first", "second"}
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name][0], err_msg=name)
        assert values.size > 100 or stride > 2
    assert Program.from_bytes(program.to_bytes()) == program


def test_an_image_keeps_its_pixels_where_windows_cost_more_or_others_read_it() -> None:
    wide = stem(1, 64, (3, 3), 1, 1)  # a window would have nine times the words
    build = Builder(2)
    build.input("image", (3, 9, 9))
    shared = build.graph(build.conv("a", "image", 16, kernel=(3, 3)), build.conv("b", "image", 16, kernel=(3, 3)))
    build = Builder(3)
    pooled = build.graph(build.depthwise("d", build.input("image", (3, 9, 9))))
    for graph in (wide, shared, pooled):
        assert choose_windows(graph, ARCH) == {}
        assert compile_graph(graph, ARCH, windows=True) == compile_graph(graph, ARCH)


def test_a_window_layout_packs_by_the_definition() -> None:
    window, rng, compared = WindowLayout(rows=3, columns=2, stride=2, padding=1), np.random.default_rng(4), 0
    slots = tuple(int(slot) for slot in rng.permutation(12)) + (-1,) * 4
    layout = TensorLayout(name="x", region=1, offset=0, shape=(2, 5, 7), fmt=S8, slots=slots, window=window)
    image = rng.integers(-128, 128, (2, 5, 7))
    data = np.frombuffer(layout.pack(image), np.int8).reshape(3, 4, 16)
    assert layout.device_shape == (12, 3, 4) and layout.size == data.size and layout.words == 1
    for (y, x, slot), value in np.ndenumerate(data):
        if slots[slot] < 0:
            assert value == 0
            continue
        place, channel = divmod(slots[slot], 2)
        row, column = y * 2 - 1 + place // 2, x * 2 - 1 + place % 2
        inside = 0 <= row < 5 and 0 <= column < 7
        assert value == (image[channel, row, column] if inside else 0)
        compared += 1
    assert compared == 144
    with pytest.raises(ValueError, match="tensor x is an input stored in windows, which are not read back"):
        layout.unpack(layout.pack(image))


@pytest.mark.parametrize("change, message", [
    ({"rows": 0}, "rows of a window must be an integer of at least 1, not 0"),
    ({"padding": -1}, "padding of a window must be an integer of at least 0, not -1"),
    ({"padding": 3}, "padding of a window must be below its 3 rows and 3 columns, not 3"),
    ({"columns": 20}, r"tensor image: no window of .* fits into its shape \(3, 17, 14\)"),
    ({"rows": 2}, "tensor image: slots must hold each of 18 channels once"),
])  # fmt: skip
def test_a_wrong_window_is_refused(change: dict[str, int], message: str) -> None:
    (layout,) = compile_graph(stem(1, 3, (3, 3), 2, 1), ARCH, windows=True).inputs
    assert layout.window is not None
    with pytest.raises(ValueError, match=message):
        replace(layout, window=replace(layout.window, **change))


def test_only_inputs_are_stored_in_windows() -> None:
    program = compile_graph(stem(1, 3, (3, 3), 2, 1), ARCH, windows=True)
    (windowed,) = program.inputs
    for change in ({"outputs": (windowed,)}, {"intermediates": (Intermediate(after=0, layout=windowed),)}):
        with pytest.raises(ValueError, match="tensor image is no input, and only inputs are stored in windows"):
            replace(program, **change)


def test_a_padding_beyond_the_window_is_told_as_without_windows() -> None:
    graph = stem(1, 3, (1, 1), 2, 1)
    for windows in (False, True):
        with pytest.raises(CompileError, match="padding 1 leaves windows of 1x1 without any input"):
            compile_graph(graph, ARCH, windows=windows)
