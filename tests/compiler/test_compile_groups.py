"""Convolutions in groups of channels: on the array block by block, single channels with small windows on the depthwise unit."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.deform.timing import pw_cycles
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.isa import Instruction
from hw.spec.ops import Conv2d, Requant, Shuffle
from hw.spec.program import Program
from sw.compiler import check_graph
from sw.compiler.blocks import Block, blocks
from sw.compiler.tiling import Span
from sw.compiler.weights import expand
from tests.compiler.graphs import S8, U8, Builder, compare, operations

ARCH = DeformArch()
WIDE = DeformArch(rows=5, columns=64)
TIGHT = DeformArch(rows=3, feature_words=64, row_words=16, weight_words=160, parameter_words=34)


def steps(program: Program, name: str = "PW") -> list[Instruction]:
    return [i for i in program.instructions() if i.name == name]


@pytest.mark.parametrize("arch", [ARCH, WIDE], ids=["columns32", "columns64"])
@pytest.mark.parametrize("peak", [7, 127], ids=["narrow", "wide"])
@pytest.mark.parametrize(
    ("channels", "groups", "out", "kernel", "stride", "padding"),
    [
        (64, 4, 64, (1, 1), 1, 0),
        (40, 5, 15, (3, 3), 1, 1),
        (24, 3, 51, (1, 3), 2, 0),
        (34, 2, 80, (3, 1), 1, 1),
        (17, 17, 34, (3, 3), 2, 1),
        (40, 40, 40, (5, 5), 1, 2),
        (3, 3, 6, (2, 2), 1, 1),
        (5, 5, 5, (4, 1), 1, 0),
    ],
)
def test_grouped_convolution(arch: DeformArch, peak: int, channels: int, groups: int, out: int, kernel: tuple[int, int],
                             stride: int, padding: int) -> None:
    if padding >= min(kernel):
        padding = 0
    for seed, (source, target) in enumerate(((S8, U8), (U8, S8), (FixedFormat(5, 0, False), FixedFormat(6, 0)))):
        build = Builder(seed)
        build.input("x", (channels, 7, 6), source)
        build.conv("c", "x", out, kernel=kernel, stride=stride, padding=padding, peak=peak, fmt=target, groups=groups)
        program, count = compare(build.graph("c"), arch, seed)
        assert count > 0 and set(operations(program)) == {"LOAD", "PW", "STORE"}


def test_a_tile_reads_the_words_of_its_groups_alone() -> None:
    build = Builder(0)
    build.input("x", (128, 5, 5))
    build.conv("c", "x", 128, groups=4)
    program, _ = compare(build.graph("c"), ARCH)
    assert [(i["in_words"], i["out_words"]) for i in steps(program)] == [(2, 2)] * 4
    assert operations(program) == ["LOAD", "LOAD", "LOAD", *["PW"] * 4, "STORE"]


def test_groups_across_words_share_blocks() -> None:
    """Groups of 24 channels: a tile of 32 outputs reads the 3 or 4 words of the two groups that it touches."""
    build = Builder(1)
    build.input("x", (96, 4, 4))
    build.conv("c", "x", 96, groups=4)
    program, _ = compare(build.graph("c"), ARCH)
    assert [i["in_words"] for i in steps(program)] == [3, 4, 3]


def test_groups_of_shuffled_channels() -> None:
    """After a shuffle every group's channels lie in every word: exact all the same."""
    build = Builder(2)
    build.input("x", (40, 6, 5))
    build.conv("a", "x", 80, groups=4)
    build.add("mix", Shuffle(groups=4), "a")
    build.conv("b", "mix", 60, groups=20, kernel=(3, 3), padding=1)
    compare(build.graph("b", "mix"), ARCH)


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (3, 1), (2, 2), (3, 2), (3, 3)])
@pytest.mark.parametrize(("channels", "stride"), [(3, 1), (17, 2), (40, 1)])
def test_single_channels_with_small_windows_use_the_depthwise_unit(kernel: tuple[int, int], channels: int, stride: int) -> None:
    for seed, fmt in enumerate((S8, U8)):
        build = Builder(seed)
        build.input("x", (channels, 9, 7), fmt)
        padding = min(kernel) // 2
        build.conv("c", "x", channels, kernel=kernel, stride=stride, padding=padding, peak=127, fmt=U8, groups=channels)
        program, _ = compare(build.graph("c"), ARCH, seed)
        assert set(operations(program)) == {"LOAD", "DW", "STORE"}
        assert {(i["kernel_h"], i["kernel_w"]) for i in steps(program, "DW")} == {kernel}


@pytest.mark.parametrize("peak", [7, 127])
@pytest.mark.parametrize(("channels", "groups", "out", "kernel"), [(96, 6, 96, 3), (48, 48, 144, 5), (72, 3, 72, 1)])
def test_grouped_convolution_in_stripes_and_groups(channels: int, groups: int, out: int, kernel: int, peak: int) -> None:
    build = Builder(groups)
    build.input("x", (channels, 11, 3), U8)
    build.conv("c", "x", out, kernel=(kernel, kernel), padding=kernel // 2, peak=peak, groups=groups)
    arch = TIGHT if kernel == 1 else DeformArch(rows=3, feature_words=128, weight_words=900, parameter_words=50)
    program, _ = compare(build.graph("c"), arch)
    assert len(steps(program)) > 5
    assert sum(i["out_words"] * i["out_rows"] for i in steps(program)) == out // 16 * 11 + (11 if out % 16 else 0)


def test_groups_divide_the_cycles() -> None:
    """By the exact timing model: four groups of whole words take less than a third of what one takes."""
    cycles = []
    for groups in (1, 4):
        build = Builder(0)
        build.input("x", (128, 8, 8))
        build.conv("c", "x", 128, groups=groups)
        program, _ = compare(build.graph("c"), ARCH)
        cycles.append(sum(pw_cycles(i, ARCH) for i in steps(program)))
    assert 3 < cycles[0] / cycles[1] <= 4


def test_expanded_weights_are_those_of_the_groups() -> None:
    rng, checked = np.random.default_rng(0), 0
    weight = rng.integers(1, 100, (6, 2, 1, 1))
    out, inner = (4, -1, 0, 5), (3, 0, -1, 5, 2, 4, 1)
    full = expand(weight, 3, out, inner)
    for i, oc in enumerate(out):
        for j, ic in enumerate(inner):
            inside = oc >= 0 and ic >= 0 and oc // 2 == ic // 2
            assert full[i, j, 0, 0] == (weight[oc, ic % 2, 0, 0] if inside else 0)
            checked += inside
    assert checked == 6


def test_blocks_cover_a_group_once() -> None:
    spans = tuple(Span(start=s, stop=s + 2) for s in (0, 0, 1, 1, 1))
    found = list(blocks(spans, 2, Span(start=2, stop=9)))
    assert found == [
        Block(out=Span(start=2, stop=4), source=spans[0]), Block(out=Span(start=4, stop=9), source=spans[2])
    ]  # fmt: skip


def test_the_accumulator_proof_counts_a_group_alone() -> None:
    """18 terms of 7 * 255 fit 16 bits; all 36 of an ordinary convolution do not."""
    ones = np.ones(4, np.int64)
    requant = Requant(bias=ones * 0, multiplier=ones, shift=ones * 8, rounding=Rounding.TRN, lo=-128, hi=127)
    for groups, expected in ((2, 0), (1, 1)):
        build = Builder(0)
        build.input("x", (36, 4, 4), U8)
        build.add("c", Conv2d(weight=np.full((4, 36 // groups, 1, 1), 7), requant=requant, groups=groups), "x", fmt=S8)
        problems = check_graph(build.graph("c"), DeformArch(field_bits=16))
        assert len(problems) == expected
    assert "can reach 0..64260" in problems[0].reason
