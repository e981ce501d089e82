"""Deformable convolutions with fractional offsets: what the program stores is what the golden operation computes, code by code."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import DW_SAMPLE
from hw.spec.fixed import FixedFormat
from hw.spec.isa import Instruction
from hw.spec.ops import Shuffle, ShuffleJoin, Slice, Upsample2x
from hw.spec.program import Program
from sw.compiler import check_graph
from sw.compiler.listing import listing
from sw.graph import IntegerGraph
from tests.compiler.graphs import S8, U8, Builder, compare

ARCH = DeformArch(rows=4, feature_words=4096, row_words=256)
SMALL = DeformArch(rows=3, feature_words=160, row_words=18, weight_words=600, parameter_words=32, tables=1)


def graph(seed: int, shape: tuple[int, int, int], channels: int, *, fmt: FixedFormat = S8, offset_fmt: FixedFormat = S8,
          **geometry: object) -> IntegerGraph:  # fmt: skip
    """One layer with its offsets as an input."""
    build = Builder(seed)
    build.input("x", shape, fmt)
    return build.graph(_layer(build, "x", channels, offset_fmt, **geometry))


def _layer(build: Builder, source: str, channels: int, offset_fmt: FixedFormat = S8, **geometry: object) -> str:
    kernel, stride = geometry.get("kernel", (3, 3)), geometry.get("stride", 1)
    padding, dilation = geometry.get("padding", 1), geometry.get("dilation", 1)
    _, *sides = build.tensors[source].shape
    size = [(n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip(sides, kernel, strict=True)]
    build.input("offsets", (2 * kernel[0] * kernel[1], *size), offset_fmt)
    return build.deform_conv("deform", source, "offsets", channels, **geometry)


def steps(program: Program, name: str) -> list[Instruction]:
    return [i for i in program.instructions() if i.name == name]


@pytest.mark.parametrize("arch", [ARCH, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("frac", range(8))
def test_every_number_of_fraction_bits(frac: int, arch: DeformArch) -> None:
    """Whole offsets reach far outside of the image, the smallest fractions stay within a pixel; signed and unsigned codes."""
    fmt = (S8, U8)[frac % 2]
    program, compared = compare(graph(frac, (5 + 11 * (frac % 3), 7, 6), 20, fmt=fmt, frac=frac, kernel=(3, 2)), arch, seed=frac)
    assert compared == 20 * 7 * 7
    assert {i["offset_frac"] for i in steps(program, "DW")} == {frac}
    if arch is SMALL:
        assert len(steps(program, "DW")) > 6 and len(steps(program, "PW")) > 1


GEOMETRIES = {
    "one tap": {"kernel": (1, 1), "padding": 0},
    "stride 2": {"stride": 2},
    "stride 3, padding 2": {"stride": 3, "padding": 2, "kernel": (3, 5)},
    "dilation 2": {"dilation": 2, "padding": 2},
    "dilation beyond the image": {"dilation": 7, "padding": 7},
    "single output": {"kernel": (7, 8), "padding": 0, "stride": 8},
    "5 x 5": {"kernel": (5, 5), "padding": 4},
    "wide weights": {"peak": 127},
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometries(name: str) -> None:
    geometry = GEOMETRIES[name]
    for arch, offset_fmt in ((ARCH, S8), (replace(SMALL, feature_words=700, weight_words=4000), FixedFormat(6, 0))):
        _, compared = compare(graph(3, (24, 7, 8), 33, offset_fmt=offset_fmt, **geometry), arch)
        assert compared >= 33


@pytest.mark.parametrize(("channels", "out", "groups"), [(32, 32, 2), (24, 36, 3), (40, 40, 40), (48, 96, 48), (17, 34, 17)])
@pytest.mark.parametrize("arch", [ARCH, replace(SMALL, feature_words=320, weight_words=1400)], ids=["large", "small"])
def test_groups(channels: int, out: int, groups: int, arch: DeformArch) -> None:
    _, compared = compare(graph(groups, (channels, 6, 5), out, groups=groups), arch)
    assert compared == out * 30


def test_words_are_sampled_once_for_all_output_channels() -> None:
    """96 output channels in groups that the weight memory holds one at a time: samples stay where their stripe does."""
    arch = DeformArch(rows=4, feature_words=1024, weight_words=16 * 9 * 3, parameter_words=64)
    program, _ = compare(graph(7, (48, 6, 5), 96), arch)
    taps = steps(program, "DW")
    assert len(steps(program, "PW")) > 2
    assert sum(i["words"] * i["out_rows"] * i["out_cols"] for i in taps) == 9 * 3 * 30
    assert {i["mode"] for i in taps} == {DW_SAMPLE}


@pytest.mark.parametrize("arch", [ARCH, replace(SMALL, feature_words=256)], ids=["large", "small"])
def test_what_a_convolution_takes_in(arch: DeformArch) -> None:
    """A table, a sum with limits and doubling behind it: no instruction of their own but loads and stores."""
    build = Builder(11)
    build.input("x", (16, 6, 6))
    moved = build.table("table", _layer(build, "x", 16, frac=3))
    build.input("y", (16, 6, 6))
    total = build.clip("clip", build.sum("sum", moved, "y"), -90, 120)
    program, _ = compare(build.graph(build.add("up", Upsample2x(), total)), arch)
    assert set(program.layers) == {"deform"}
    assert all(i["table"] == 1 and i["merge"] == 2 for i in steps(program, "PW"))
    assert not any(i["table"] for i in steps(program, "DW"))


def test_join() -> None:
    build = Builder(12)
    build.input("x", (32, 5, 6))
    build.input("y", (24, 5, 6))
    program, _ = compare(build.graph(build.add("join", ShuffleJoin(), "y", _layer(build, "x", 24))), ARCH)
    assert {i["merge"] for i in steps(program, "PW")} == {1}


def test_offsets_that_the_network_computes() -> None:
    """Offsets from parts of one convolution, which stay in plain order there: nothing is gathered, and nothing else is wrong."""
    build = Builder(13)
    build.input("x", (20, 8, 7), U8)
    offsets = build.conv("both", "x", 45, kernel=(3, 3), padding=1)
    for name, start in (("first", 0), ("second", 27)):
        part = build.add(name, Slice(start=start, stop=start + 18), offsets)
        build.deform_conv(f"at {name}", "x", part, 24, frac=5)
    zipped = build.conv("zipped", "x", 18, kernel=(1, 1))
    build.deform_conv("at zipped", "x", zipped, 18)
    build.add("join", ShuffleJoin(), zipped, "at zipped")
    program, compared = compare(build.graph("at first", "at second", "join"), ARCH)
    assert compared >= 2 * 24 * 56 + 36 * 56
    assert set(program.layers) == {"both", "at first", "at second", "zipped", "at zipped"}


def test_offsets_of_which_slices_take_odd_parts() -> None:
    """A cut between a pair would set it apart: the map keeps its plain order, and the slice is gathered."""
    build = Builder(14)
    build.input("x", (9, 6, 6))
    offsets = build.conv("offsets", "x", 18, kernel=(3, 3), padding=1)
    build.deform_conv("deform", "x", offsets, 9)
    build.conv("user", build.add("part", Slice(start=3, stop=9), offsets), 5)
    program, _ = compare(build.graph("deform", "user"), ARCH)
    assert "part" in program.layers


def test_the_listing_tells_of_samples() -> None:
    program, _ = compare(graph(1, (16, 4, 4), 16, frac=6), ARCH)
    assert "<- sample 4x4x1w@" in listing(program) and " s@1+2:0f6 k2x2" in listing(program)


def only(found: list) -> str:
    assert len(found) == 1, found
    return str(found[0])


def test_a_row_memory_that_is_too_small_for_the_reach() -> None:
    """Four fraction bits reach eight rows up and down: 19 rows of 30 columns are three turns of the banks."""
    layer = graph(1, (16, 40, 30), 16, frac=4)
    text = only(check_graph(layer, replace(ARCH, row_words=89)))
    assert "90 row_words (it has 89)" in text and "raise row_words" in text
    assert not check_graph(layer, replace(ARCH, row_words=90))
    assert not check_graph(graph(1, (16, 40, 30), 16, frac=4, offset_fmt=FixedFormat(6, 0)), replace(ARCH, row_words=60))


def test_a_feature_memory_that_is_too_small() -> None:
    text = only(check_graph(graph(1, (64, 4, 40), 16), replace(ARCH, feature_words=1000)))
    assert "feature_words (it has 1000)" in text and "raise feature_words" in text


def test_offsets_that_the_sampler_cannot_read() -> None:
    assert "offsets must be signed bytes" in only(check_graph(graph(1, (16, 4, 4), 8, offset_fmt=U8), ARCH))
    build = Builder(1)
    build.input("x", (18, 4, 4))
    build.deform_conv("deform", "x", build.add("mixed", Shuffle(groups=2), build.conv("wide", "x", 18)), 8)
    text = only(check_graph(build.graph("deform"), ARCH))
    assert "mixed does not have each tap's row and column offset in two lanes side by side; compute the offsets with" in text


def test_windows_that_the_instructions_cannot_name() -> None:
    build = Builder(1)
    build.input("x", (2, 20, 20))
    build.input("o", (2 * 256, 5, 5))
    build.deform_conv("many", "x", "o", 4, kernel=(16, 16), padding=0)
    assert "a window of 16x16 has too many taps" in only(check_graph(build.graph("many"), ARCH))
    text = only(check_graph(graph(1, (2, 9, 9), 4, kernel=(3, 3), padding=5, dilation=2), ARCH))
    assert "padding 5 leaves windows of 3x3 without any input" in text


def test_an_accumulator_that_could_overflow() -> None:
    layer = graph(1, (64, 4, 4), 8, peak=7, kernel=(3, 3))
    assert not check_graph(layer, replace(ARCH, feature_words=16384))
    found = check_graph(layer, replace(ARCH, field_bits=16))
    assert found and "the accumulator of output channel" in str(found[0])


def test_shapes_that_do_not_fit() -> None:
    build = Builder(1)
    build.input("x", (4, 6, 6))
    build.input("offsets", (18, 6, 6))
    with pytest.raises(ValueError, match=r"deform_conv2d expects offsets of shape \(18, 4, 4\), not \(18, 6, 6\)"):
        build.deform_conv("deform", "x", "offsets", 4, padding=0)
    assert np.prod(build.tensors["x"].shape) == 144
