"""`bitloom resources`: refusals before anything is synthesised, and what is printed afterwards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from boards import synth
from boards.synth import synthesise
from hw.spec.deform import DeformArch
from sw.cli import app
from sw.flow.resources import CoreResources, show_resources

COUNTER = """
module top(input clk, step, output reg [15:0] count);
  always @(posedge clk) if (step) count <= count + 16'd1;
endmodule
"""


def call(folder: Path, *arguments: str) -> tuple[int, str, dict]:
    """Exit code, everything printed, and the JSON result."""
    result = CliRunner().invoke(app, ["resources", *arguments, "--json", str(folder / "result.json")], env={"COLUMNS": "200"})
    return result.exit_code, result.output, json.loads((folder / "result.json").read_text())


def test_a_core_that_does_not_fit_is_refused_at_once_with_numbers(tmp_path: Path):
    (tmp_path / "arch.json").write_text(json.dumps(DeformArch(rows=16, columns=64).to_dict()))
    code, printed, data = call(tmp_path, "--arch", str(tmp_path / "arch.json"))
    assert code == 1 and not data["ok"]
    assert "DSP48E2: 592 needed" in printed and "360 there" in printed


def test_an_unknown_part_is_refused_with_the_known_ones(tmp_path: Path):
    code, printed, _ = call(tmp_path, "--part", "xc7z020")
    assert code == 1
    assert "xczu3eg-sbva484-1-i" in printed and "Traceback" not in printed


def test_the_table_tells_use_share_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(synth, "cache_root", lambda: tmp_path)
    result = CoreResources(arch=DeformArch(), synthesis=synthesise(COUNTER, "top"))
    console = Console(record=True, width=200)
    show_resources(console, result, paths=3)
    printed = console.export_text()
    assert result.ok and result.to_dict()["ok"]
    told = ("logic levels (modelled): 1.4", "count[1] -> CARRY4 x4 -> count.D", "step -> count.CE")
    for words in ("xczu3eg-sbva484-1-i", "70,560", "FF", *told):
        assert words in printed
    assert result.to_dict()["logic_levels"] == result.to_dict()["paths"][0]["levels"] == 1.4
