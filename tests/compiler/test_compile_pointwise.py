"""Scales, tables, limits and sums: each alone, and taken in by the step before where nothing else reads the tensor between."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import MERGE_ADD, MERGE_NONE, SPACES
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.isa import Instruction
from hw.spec.ops import Add, Clip, MaxPool2d, Requant, Scale, Shuffle, ShuffleJoin, Table, Upsample2x
from hw.spec.program import Program
from sw.compiler import check_graph, compile_graph
from sw.compiler.emit import Emitter
from tests.compiler.graphs import S8, U8, Builder, compare, operations, run_machine

ARCH = DeformArch()
TIGHT = DeformArch(rows=3, feature_words=48, row_words=16, weight_words=96, parameter_words=34)
S5, U4 = FixedFormat(5, 0), FixedFormat(4, 0, False)
SIZES = [(3, 4, 5), (5, 1, 7), (17, 9, 4), (24, 6, 6), (40, 13, 3)]


def steps(program: Program) -> list[Instruction]:
    return [i for i in program.instructions() if i.name in ("PW", "DW")]


def loads(program: Program, space: str) -> list[Instruction]:
    return [i for i in program.instructions() if i.name == "LOAD" and SPACES[i["space"]] == space]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("source", "target"), [(S8, S8), (U8, U4), (S5, U8)])
def test_scale(shape: tuple[int, int, int], source: FixedFormat, target: FixedFormat) -> None:
    for arch in (ARCH, TIGHT):
        build = Builder(shape[0])
        build.input("x", shape, source)
        build.scale("s", "x", target)
        program, _ = compare(build.graph("s"), arch)
        assert {(i["kernel_h"], i["kernel_w"], i["mode"]) for i in steps(program)} == {(1, 1, 0)}


def test_a_scale_at_the_ends_of_its_registers() -> None:
    """The largest products with the largest biases: 33 bits hold them, whatever the codes."""
    for sign in (1, -1):
        build = Builder(0)
        build.input("x", (16, 1, 2), U8)
        most = 2**31 - 1 if sign > 0 else 2**31
        requant = Requant(
            bias=np.full(16, sign * most), multiplier=np.arange(1, 17), shift=np.full(16, 28), rounding=Rounding.RND, lo=-128, hi=127
        )
        build.add("s", Scale(weight=np.full(16, 127 if sign > 0 else -128), requant=requant), "x", fmt=S8)
        graph, codes = build.graph("s"), np.array([0, 255] * 16).reshape(16, 1, 2)
        assert check_graph(graph, ARCH) == []
        got = run_machine(compile_graph(graph, ARCH), {"x": codes}, seed=1)["s"]
        np.testing.assert_array_equal(got, graph({"x": codes[None]})["s"][0])
        assert len(np.unique(got)) > 8


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("source", "target"), [(S8, S8), (U8, U8), (S8, U4), (U4, S8), (S5, S5)])
def test_table_alone(shape: tuple[int, int, int], source: FixedFormat, target: FixedFormat) -> None:
    for arch in (ARCH, TIGHT):
        build = Builder(shape[0])
        build.input("x", shape, source)
        build.table("t", "x", target)
        program, _ = compare(build.graph("t"), arch)
        assert {i["table"] for i in steps(program)} == {1} and len(loads(program, "tbl")) == 1


def test_every_code_is_looked_up() -> None:
    """All 256 codes, signed and unsigned, through a table whose values differ."""
    rng = np.random.default_rng(3)
    for fmt in (S8, U8):
        build = Builder(0)
        build.input("x", (1, 8, 32), fmt)
        build.add("t", Table(values=rng.permutation(256) - 128), "x", fmt=S8)
        graph, codes = build.graph("t"), np.arange(fmt.min_code, fmt.max_code + 1).reshape(1, 8, 32)
        got = run_machine(compile_graph(graph, ARCH), {"x": codes}, seed=1)["t"]
        np.testing.assert_array_equal(got, graph({"x": codes[None]})["t"][0])
        assert np.unique(got).size == 256


def test_limits_alone() -> None:
    for seed, (fmt, lo, hi, target) in enumerate(((S8, 0, 6, U4), (S8, -256, 99, S8), (U8, 3, 255, U8), (S5, -2, 5, S5))):
        build = Builder(seed)
        build.input("x", (17, 7, 5), fmt)
        build.clip("c", "x", lo, hi, target)
        program, _ = compare(build.graph("c"), TIGHT, seed)
        assert set(operations(program)) == {"LOAD", "DW", "STORE"}


Make = Callable[[Builder], str]
PRODUCERS: dict[str, Make] = {
    "conv": lambda b: b.conv("p", "x", 24, kernel=(3, 3), padding=1),
    "grouped": lambda b: b.conv("p", "x", 40, groups=20),
    "depthwise": lambda b: b.depthwise("p", "x"),
    "scale": lambda b: b.scale("p", "x"),
    "mean": lambda b: b.mean("p", "x", (2, 2)),
    "maximum": lambda b: b.add("p", MaxPool2d(kernel=2, stride=1), "x"),
    "deform": lambda b: b.deform("p", "x", b.conv("s", "x", 1)),
}
AFTER: dict[str, Make] = {
    "table": lambda b: b.table("a", "p", U8),
    "limits": lambda b: b.clip("a", "p", -3, 44),
    "one value": lambda b: b.clip("a", b.clip("m", "p", -100, -90), 5, 7),
    "limits, table": lambda b: b.table("a", b.clip("m", "p", -20, 30), S5),
    "table, limits": lambda b: b.clip("a", b.table("m", "p"), -7, 100),
    "two tables": lambda b: b.table("a", b.table("m", "p", S8), U4),
    "doubled": lambda b: b.add("a", Upsample2x(), "p"),
    "doubled, table, limits": lambda b: b.clip("a", b.table("m", b.add("u", Upsample2x(), "p")), 0, 90),
}


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("producer", PRODUCERS)
def test_what_follows_is_taken_in(producer: str, after: str) -> None:
    """One step, whatever follows; where the tensor between is an output too, a step of its own."""
    build = Builder(len(producer))
    build.input("x", (40, 6, 7))
    PRODUCERS[producer](build)
    AFTER[after](build)
    engines = 1 + (producer == "deform")
    program, _ = compare(build.graph("a"), ARCH, alive=after != "one value")
    assert len({layer for layer, name in zip(program.layers, operations(program), strict=True) if name in ("PW", "DW")}) == engines
    apart, _ = compare(build.graph("a", "p"), ARCH, alive=after != "one value")
    assert len(set(apart.layers)) == len(set(program.layers)) + 1


def test_tables_stay_until_their_place_is_needed() -> None:
    """a b a c a b: with two places b is loaded again, for c took its place; with four every table comes once."""
    for tables, expected in ((1, 6), (2, 4), (4, 3)):
        build = Builder(1)
        tensor = build.input("x", (17, 3, 5))
        values = [build.rng.integers(-128, 128, 256) for _ in range(3)]
        for step, which in enumerate([0, 1, 0, 2, 0, 1]):
            tensor = build.scale(f"s{step}", tensor)
            tensor = build.add(f"t{step}", Table(values=values[which]), tensor)
        program, _ = compare(build.graph(tensor), replace(ARCH, tables=tables))
        found = loads(program, "tbl")
        assert len(found) == expected
        assert all(i["check_crc"] and i["n0"] == 16 for i in found)
        assert len({i["offset"] for i in found}) == 3, "equal tables stand in memory once"


def test_a_core_without_tables_runs_everything_else() -> None:
    build = Builder(2)
    build.input("x", (17, 4, 4))
    build.clip("out", build.sum("s", build.scale("n", build.conv("c", "x", 17)), "x"), -99, 99)
    program, _ = compare(build.graph("out"), replace(ARCH, tables=0))
    assert {i["table"] for i in steps(program)} == {0} and not loads(program, "tbl")


def test_the_table_memory_is_used_in_turn() -> None:
    emitter = Emitter(replace(ARCH, tables=2))
    a, b, c = (np.full(256, value) for value in range(3))
    assert emitter.table("l", None) == 0
    assert [emitter.table("l", values) for values in (a, b, a, c, a, b)] == [1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("fmt", [S8, U8, S5, U4])
def test_sum_of_two_inputs(shape: tuple[int, int, int], fmt: FixedFormat) -> None:
    for arch in (ARCH, DeformArch(rows=5, columns=64), replace(TIGHT, feature_words=40)):
        build = Builder(shape[0])
        build.input("x", shape, fmt)
        build.input("y", shape, fmt)
        build.sum("s", "x", "y")
        build.add("t", Add(lo=-90, hi=120), "y", "y", fmt=S8)
        program, _ = compare(build.graph("s", "t"), arch)
        assert {i["merge"] for i in steps(program)} == {MERGE_ADD}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("fmt", [S8, U8, S5])
def test_a_convolution_takes_the_sum_in(order: tuple[int, int], fmt: FixedFormat) -> None:
    build = Builder(4)
    build.input("x", (24, 5, 6), fmt)
    build.conv("c", "x", 24, kernel=(3, 3), padding=1, fmt=fmt)
    names = ("x", "c")
    build.sum("s", *(names[i] for i in order))
    program, _ = compare(build.graph("s"), ARCH)
    assert operations(program) == ["LOAD"] * 4 + ["PW", "STORE"]


def test_a_residual_block_is_two_steps() -> None:
    """conv, table, conv, sum, limits: the first takes its table, the second everything else."""
    build = Builder(5)
    build.input("x", (40, 9, 5))
    build.table("silu", build.conv("a", "x", 17, kernel=(3, 3), padding=1))
    build.conv("b", "silu", 40, kernel=(3, 3), padding=1)
    build.clip("relu", build.sum("s", "b", "x"), 0, 127)
    build.conv("next", "relu", 8)
    for arch in (ARCH, DeformArch(rows=2, feature_words=160, weight_words=500, parameter_words=34)):
        program, _ = compare(build.graph("relu", "next"), arch)
        assert set(program.layers) == {"a", "b", "next"}
    (add,) = [i for i in compare(build.graph("relu"), ARCH)[0].instructions() if i.name == "PW" and i["merge"] == MERGE_ADD]
    assert (add["merge_lo"], add["merge_hi"], add["merge_unsigned"]) == (0, 127, 0)


def test_operations_on_single_codes_go_through_the_array_with_their_sum() -> None:
    """A BatchNorm, a table or limits before a sum or a join: one step, where the depthwise unit would need a second for the merge."""
    build = Builder(9)
    build.input("x", (40, 5, 6))
    build.add("mix", Shuffle(groups=8), "x")
    tensors = []
    for i, merge in enumerate((Add(lo=-128, hi=127), ShuffleJoin())):
        for root in ("scale", "table", "clip"):
            name = f"{root}{i}"
            made = build.clip(name, "x", -50, 60) if root == "clip" else getattr(build, root)(name, "x")
            tensors.append(build.add(f"m.{name}", merge, "mix", made))
        tensors.append(build.add(f"m.both{i}", merge, "mix", build.table(f"t{i}", build.scale(f"s{i}", "x"))))
    program, _ = compare(build.graph(*tensors), ARCH)
    assert set(operations(program)) == {"LOAD", "PW", "STORE"}
    assert len(set(program.layers)) == len(tensors) == 8


def test_a_table_before_a_merge_is_taken_in_and_one_after_is_not() -> None:
    build = Builder(6)
    build.input("x", (24, 4, 4))
    build.table("ta", build.conv("a", "x", 24))
    build.sum("s", "x", "ta")
    build.table("ts", "s")
    build.table("tb", build.conv("b", "ts", 24))
    build.add("j", ShuffleJoin(), "ts", "tb")
    build.clip("after", build.table("tj", "j"), -9, 99)
    program, _ = compare(build.graph("after"), ARCH)
    assert [layer for layer, name in zip(program.layers, operations(program), strict=True) if name in ("PW", "DW")] == [
        "a", "ts", "b", "tj"
    ]
    assert [(i["merge"] != MERGE_NONE if i.name == "PW" else None, i["table"] > 0) for i in steps(program)] == [
        (True, True), (None, True), (True, True), (None, True)
    ]


def test_the_later_of_two_convolutions_takes_the_sum_in() -> None:
    build = Builder(7)
    build.input("x", (17, 5, 5))
    build.conv("a", "x", 40)
    build.conv("b", "x", 40, kernel=(3, 3), padding=1, peak=127)
    build.sum("s", "b", "a")
    program, _ = compare(build.graph("s"), ARCH)
    assert [i["merge"] for i in steps(program)] == [MERGE_NONE, MERGE_ADD]
    assert list(dict.fromkeys(program.layers)) == ["a", "b"]


@pytest.mark.parametrize("groups", [2, 4, 10])
def test_sums_of_tensors_whose_channels_lie_differently(groups: int) -> None:
    """One operand is a shuffled view: the other is brought into its order, or a convolution writes it there."""
    build = Builder(groups)
    build.input("x", (40, 5, 4))
    build.add("mix", Shuffle(groups=groups), "x")
    build.sum("s", "x", "mix")
    build.conv("c", "x", 40)
    build.sum("t", "c", "mix")
    build.add("again", Shuffle(groups=5), "t")
    build.sum("u", "again", "s")
    program, _ = compare(build.graph("s", "t", "u"), ARCH)
    assert sum(i["merge"] == MERGE_ADD for i in steps(program)) >= 3


def test_sums_saturate_at_their_own_limits() -> None:
    """The convolution's own clip, the sum's and limits behind it, all different; the result equals all three in turn."""
    for seed, (lo, hi) in enumerate(((-100, 90), (-4, 3), (20, 127), (-128, -5))):
        build = Builder(seed)
        build.input("x", (24, 6, 6))
        build.conv("c", "x", 24)
        operation = build.nodes[-1].operation
        build.nodes[-1] = replace(build.nodes[-1], operation=replace(operation, requant=replace(operation.requant, lo=-30, hi=60)))
        build.add("s", Add(lo=lo, hi=hi), "x", "c")
        build.add("l", Clip(lo=-50, hi=50), "s")
        program, _ = compare(build.graph("l"), ARCH, seed, alive=False)
        assert len(steps(program)) == 1
