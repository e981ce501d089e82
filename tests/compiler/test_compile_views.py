"""Concatenations, slices, shuffles and doubling: words stay where they are if they can, and are copied exactly if not."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.ops import Concat, MaxPool2d, Shuffle, ShuffleJoin, Slice, Upsample2x
from hw.spec.program import Program
from sw.compiler.memcheck import touched
from sw.compiler.slots import segments, shuffled, sliced
from tests.compiler.graphs import S8, U8, Builder, compare, operations

ARCH = DeformArch()
TIGHT = DeformArch(rows=3, feature_words=48, row_words=16, weight_words=192, parameter_words=34)
CHANNELS = [3, 5, 17, 24, 40]


def layers(program: Program) -> list[str]:
    """Names of the layers in the order of their first instruction."""
    return list(dict.fromkeys(program.layers))


def bytes_stored(program: Program) -> int:
    return 16 * sum(len(touched(i)) for i in program.instructions() if i.name == "STORE")


@pytest.mark.parametrize("a", CHANNELS)
@pytest.mark.parametrize("b", [1, 16, 40])
def test_concatenation_in_place(a: int, b: int) -> None:
    """Both parts are written into their words; readers see one tensor."""
    for fmt, arch in ((S8, ARCH), (U8, ARCH), (FixedFormat(5, 0), TIGHT)):
        build = Builder(a)
        build.input("x", (7, 5, 3), fmt)
        build.conv("a", "x", a, fmt=fmt)
        build.scale("b", build.conv("m", "x", b), fmt)
        build.add("cat", Concat(), "a", "b")
        build.conv("out", "cat", 11)
        build.depthwise("deep", "cat")
        program, _ = compare(build.graph("out", "deep"), arch)
        assert layers(program) == ["a", "m", "b", "out", "deep"]
        assert [t.layout.name for t in program.intermediates] == ["m", "cat"]


def test_concatenations_in_concatenations() -> None:
    """A dense block: each layer reads all before it, and all lie in the last concatenation."""
    build = Builder(3)
    build.input("x", (3, 6, 6))
    tensor = build.conv("stem", "x", 24)
    for i in range(4):
        build.conv(f"grow{i}", tensor, 12, kernel=(3, 3), padding=1)
        tensor = build.add(f"cat{i}", Concat(), tensor, f"grow{i}")
    build.conv("out", tensor, 10)
    program, _ = compare(build.graph("out"), ARCH)
    assert layers(program) == ["stem", *(f"grow{i}" for i in range(4)), "out"]
    assert [t.layout.name for t in program.intermediates] == ["cat3"]


def test_parts_that_lie_elsewhere_are_copied() -> None:
    """An input, an output, a part of another concatenation, the same part again, a slice."""
    build = Builder(4)
    build.input("x", (17, 5, 4))
    build.conv("a", "x", 24)
    build.conv("b", "x", 40)
    build.half("h", "b", 1)
    build.add("first", Concat(), "a", "x", "b")
    build.add("second", Concat(), "a", "a", "h", "b")
    build.conv("out", "second", 5)
    for arch in (ARCH, TIGHT):
        program, _ = compare(build.graph("first", "out", "b"), arch)
        copied = [layer for layer, name in zip(program.layers, operations(program), strict=True) if name == "STORE"]
        assert {"first", "second"} < set(copied)


@pytest.mark.parametrize("channels", [6, 24, 42, 60])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_shuffle_is_free(channels: int, groups: int) -> None:
    build = Builder(channels + groups)
    build.input("x", (5, 4, 6))
    build.conv("a", "x", channels)
    build.add("mix", Shuffle(groups=groups), "a")
    build.depthwise("d", "mix")
    build.add("again", Shuffle(groups=channels // groups), "d")
    build.conv("out", "again", 17)
    program, _ = compare(build.graph("out", "d"), ARCH)
    assert layers(program) == ["a", "d", "out"]


def test_slots_of_shuffles() -> None:
    order, checked = Shuffle(groups=3).order(12), 0
    before = segments(12, {5})
    after = shuffled(before, order)
    for old, new in zip(before, after, strict=True):
        assert (old < 0) == (new < 0)
        if old >= 0:
            assert order[new] == old
            checked += 1
    assert checked == 12


@pytest.mark.parametrize("cuts", [(5,), (16,), (3, 7, 20), (1, 2, 3, 4, 5, 6, 7, 8)])
def test_slices_of_a_computed_tensor(cuts: tuple[int, ...]) -> None:
    """Few parts lie on words of their own; many are gathered."""
    build = Builder(len(cuts))
    build.input("x", (9, 5, 4), U8)
    build.conv("a", "x", 24)
    borders = [0, *cuts, 24]
    names = [build.add(f"s{i}", Slice(start=borders[i], stop=borders[i + 1]), "a") for i in range(len(cuts) + 1)]
    outs = [build.depthwise(f"d{i}", name) for i, name in enumerate(names)]
    program, _ = compare(build.graph(*outs), ARCH)
    gathered = [name for name in names if name in program.layers]
    assert (gathered == []) == (len(cuts) < 4)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (4, 12), (15, 17), (30, 47), (7, 40)])
def test_slices_off_word_boundaries(start: int, stop: int) -> None:
    """Slices of a shuffled input: its slots are given, so that the channels are gathered one by one."""
    for arch in (ARCH, DeformArch(rows=3, feature_words=36, weight_words=160, parameter_words=34)):
        build = Builder(start)
        build.input("x", (48, 6, 3), U8)
        build.add("mix", Shuffle(groups=8), "x")
        build.add("s", Slice(start=start, stop=stop), "mix")
        build.add("again", Slice(start=0, stop=(stop - start + 1) // 2), "s")
        build.conv("c", "again", 5)
        program, _ = compare(build.graph("s", "c"), arch)
        assert "s" in program.layers and "again" not in program.layers


def test_slices_of_slices_are_views() -> None:
    build = Builder(9)
    build.input("x", (40, 4, 4))
    build.half("h", "x", 1)
    build.add("p", MaxPool2d(kernel=2, stride=1), "h")
    build.add("q", Slice(start=3, stop=9), "p")
    program, _ = compare(build.graph("q"), ARCH)
    assert layers(program) == ["p", "output q"]


def test_split_transform_merge_in_torch_words() -> None:
    """Halves, a branch, concatenation and a shuffle in two groups, twice: as ShuffleNet V2 is written with ordinary operations."""
    for channels in (10, 58, 32):
        build = Builder(channels)
        tensor = build.conv("stem", build.input("x", (3, 5, 5)), 2 * channels)
        for unit in range(2):
            left, right = (build.half(f"u{unit}.h{i}", tensor, i) for i in (0, 1))
            build.conv(f"u{unit}.b", build.depthwise(f"u{unit}.a", right), channels)
            build.add(f"u{unit}.cat", Concat(), left, f"u{unit}.b")
            tensor = build.add(f"u{unit}.mix", Shuffle(groups=2), f"u{unit}.cat")
        build.conv("head", tensor, 5)
        program, _ = compare(build.graph("head"), ARCH)
        # The first pair of concatenation and shuffle is a join, made by the branch; nobody takes halves of the second.
        assert layers(program) == ["stem", "u0.a", "u0.b", "u1.a", "u1.b", "u1.cat", "head"]


@pytest.mark.parametrize(
    ("parts", "groups", "cut"), [((6, 10), 2, 8), ((8, 8), 4, 8), ((8, 8), 2, 5), ((4, 8, 4), 2, 8)]
)
def test_shuffles_that_are_no_join(parts: tuple[int, ...], groups: int, cut: int) -> None:
    """Unequal parts, other groups, no halves, three parts: concatenation and shuffle stay views, and slices gather."""
    build = Builder(cut)
    build.input("x", (5, 3, 4))
    names = [build.conv(f"p{i}", "x", channels) for i, channels in enumerate(parts)]
    build.add("mix", Shuffle(groups=groups), build.add("cat", Concat(), *names))
    build.add("first", Slice(start=0, stop=cut), "mix")
    build.conv("out", build.add("last", Slice(start=cut, stop=16), "mix"), 7)
    program, _ = compare(build.graph("first", "out"), ARCH)
    assert layers(program) == [*names, "first", "last", "out"]


def test_a_shuffled_concatenation_that_others_read_stays() -> None:
    build = Builder(1)
    build.input("x", (5, 3, 4))
    cat = build.add("cat", Concat(), build.conv("a", "x", 8), build.conv("b", "x", 8))
    build.half("h", build.add("mix", Shuffle(groups=2), cat), 0)
    for extra in (["cat"], [build.conv("c", "cat", 3)]):
        compare(build.graph("h", *extra), ARCH)


@pytest.mark.parametrize("shape", [(3, 1, 1), (17, 3, 5), (40, 4, 2), (64, 1, 3)])
def test_doubling_alone(shape: tuple[int, int, int]) -> None:
    """Each byte is written once; stripes and pieces of rows where memory is small."""
    for arch in (ARCH, DeformArch(feature_words=16)):
        for fmt in (S8, U8):
            build = Builder(shape[0])
            build.input("x", shape, fmt)
            build.add("u", Upsample2x(), "x")
            program, _ = compare(build.graph("u"), arch)
            assert set(operations(program)) == {"LOAD", "STORE"}
            assert bytes_stored(program) == program.outputs[0].size


def test_doubling_in_the_store_of_a_step() -> None:
    build = Builder(2)
    build.input("x", (17, 5, 4))
    build.input("y", (17, 5, 4))
    build.add("u1", Upsample2x(), build.conv("a", "x", 24, kernel=(3, 3), padding=1))
    build.add("u2", Upsample2x(), build.depthwise("b", "x", stride=2))
    build.add("u3", Upsample2x(), build.sum("s", build.conv("c", "x", 17), "y"))
    build.add("u4", Upsample2x(), build.add("j", ShuffleJoin(), "x", build.conv("d", "x", 17)))
    build.add("u6", Upsample2x(), build.add("u5", Upsample2x(), build.scale("e", "x")))
    for arch in (ARCH, DeformArch(rows=3, feature_words=130, row_words=32)):
        program, _ = compare(build.graph("u1", "u2", "u3", "u4", "u6"), arch)
        assert layers(program) == ["a", "b", "c", "d", "e", "u6"]
        assert bytes_stored(program) == sum(t.size for t in program.outputs) + program.intermediates[0].layout.size


def test_a_feature_pyramid() -> None:
    """Doubled and added to the finer level, then concatenated with it: what detection heads do."""
    build = Builder(6)
    build.input("x", (16, 8, 8))
    build.conv("fine", "x", 40, kernel=(3, 3), padding=1)
    build.conv("coarse", "fine", 24, kernel=(3, 3), stride=2, padding=1)
    build.add("up", Upsample2x(), build.conv("lateral", "coarse", 40))
    build.sum("sum", "up", "fine")
    build.add("cat", Concat(), "sum", "fine", "up")
    build.conv("out", "cat", 5)
    for arch in (ARCH, DeformArch(rows=2, feature_words=400, row_words=64)):
        compare(build.graph("out", "sum"), arch)


def test_copies_of_every_kind_of_view_as_outputs() -> None:
    build = Builder(8)
    build.input("x", (24, 3, 5))
    build.add("mix", Shuffle(groups=4), build.conv("a", "x", 24))
    build.add("part", Slice(start=2, stop=21), "mix")
    build.add("cat", Concat(), "mix", "part")
    build.add("inner", Shuffle(groups=43), "cat")
    compare(build.graph("mix", "part", "cat", "inner", "x"), ARCH)
    compare(build.graph("inner", "mix"), TIGHT)


def test_where_a_slice_is_a_view() -> None:
    slots = segments(20, {3, 20})
    assert sliced(slots, 0, 3) == (0, slots[:16])
    assert sliced(slots, 3, 20) == (1, tuple(s - 3 if s >= 0 else -1 for s in slots[16:]))
    assert sliced(slots, 0, 20) == (0, slots)
    assert sliced(slots, 1, 3) is None and sliced(slots, 2, 5) is None
    held = [s for s in slots if s >= 0]
    assert held == list(range(20)) and np.count_nonzero(np.asarray(slots) < 0) == 28
