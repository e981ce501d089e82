"""The cycles in docs/compiler.md are those of the timing model, and its formulas say about the same."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.timing import MemoryTiming, instruction_cycles
from hw.spec.ops import Shuffle, Slice, Upsample2x
from sw.compiler import compile_graph
from tests.compiler.graphs import Builder

ARCH = DeformArch(feature_words=8192, row_words=1024, weight_words=8192, parameter_words=2048)
MEMORY = MemoryTiming(read_latency=20, write_latency=20)
DOCS = Path(__file__).parents[2] / "docs" / "compiler.md"
CASES: dict[str, Callable[[Builder], str]] = {
    "convolution 1 x 1": lambda b: b.conv("r", "x", 64),
    "the same with the sum": lambda b: b.sum("r", "y", b.conv("c", "x", 64)),
    "sum alone": lambda b: b.sum("r", "x", "y"),
    "convolution 3 x 3": lambda b: b.conv("r", "x", 64, kernel=(3, 3), padding=1),
    "in 2 groups": lambda b: b.conv("r", "x", 64, kernel=(3, 3), padding=1, groups=2),
    "in 64 groups, 3 x 3": lambda b: b.conv("r", "x", 64, kernel=(3, 3), padding=1, groups=64),
    "in 64 groups, 5 x 5": lambda b: b.conv("r", "x", 64, kernel=(5, 5), padding=2, groups=64),
    "deformable 3 x 3": lambda b: b.deform_conv("r", "x", "offsets", 64),
    "deformable 3 x 3 in 64 groups": lambda b: b.deform_conv("r", "x", "offsets", 64, groups=64),
    "scale": lambda b: b.scale("r", "x"),
    "table alone": lambda b: b.table("r", "x"),
    "doubling alone": lambda b: b.add("r", Upsample2x(), "x"),
    "gathered slice": lambda b: b.add("r", Slice(start=5, stop=37), b.add("m", Shuffle(groups=4), "x")),
}


def cycles(make: Callable[[Builder], str]) -> tuple[int, int, int]:
    """Cycles of loads, engines and stores on two inputs (64, 16, 16), and offsets of four fraction bits."""
    build = Builder(0)
    build.input("x", (64, 16, 16))
    build.input("y", (64, 16, 16))
    build.input("offsets", (18, 16, 16))
    program = compile_graph(build.graph(make(build)), ARCH)
    bases = np.cumsum([0, *(-(-region.size // 4096) * 4096 for region in program.regions)]).tolist()
    found = {"LOAD": 0, "PW": 0, "DW": 0, "STORE": 0}
    for instruction in program.instructions():
        found[instruction.name] += instruction_cycles(instruction, ARCH, MEMORY, bases)
    return found["LOAD"], found["PW"] + found["DW"], found["STORE"]


def test_the_cycles_in_the_docs() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|$", DOCS.read_text(), re.MULTILINE)
    told = {name: tuple(int(number.replace(",", "")) for number in numbers) for name, *numbers in rows}
    assert told == {name: cycles(make) for name, make in CASES.items()}
    assert len(told) == len(CASES) > 9


def test_the_formulas_in_the_docs() -> None:
    rows, tile, pixels, words = ARCH.rows, ARCH.columns // 16, 256, 4
    array = {
        "convolution 1 x 1": 16 * words + rows * (tile - 1),
        "the same with the sum": 16 * words + rows * tile + 12,
        "sum alone": 16 * tile + rows * tile + 12,
        "convolution 3 x 3": 16 * 9 * words + rows * (tile - 1),
        "in 2 groups": 16 * 9 * words // 2 + rows * (tile - 1),
    }
    for name, per_tile in array.items():
        exact = cycles(CASES[name])[1]
        assert abs(words // tile * pixels // rows * per_tile - exact) < 0.02 * exact, name
    exact, convolution = (cycles(CASES[name])[1] for name in ("deformable 3 x 3", "convolution 3 x 3"))
    assert abs(convolution + 2 * 9 * words * pixels - exact) < 0.02 * exact
    for name, per_pixel in {"in 64 groups, 3 x 3": 3, "scale": 1, "table alone": 1}.items():
        exact = cycles(CASES[name])[1]
        assert abs(words * pixels * per_pixel - exact) < 0.04 * exact, name
