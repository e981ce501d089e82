"""A build for the ULX3S in an empty cache, with a core of one line and tools that only write files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import boards.build as building
from boards.board import load_board, load_board_arch
from boards.build import CORE_FILE, SYSTEM_FILE, TOP_FILE, Plan
from boards.ecp5 import Step, steps
from hw.rtl.emit import EmittedVerilog
from hw.sim.cache import cache_root
from sw.flow.build_board import build_board

BOARD = load_board("ulx3s")
CLOCK = BOARD.clock_hz / 1e6
BIT = "ulx3s.bit"

TOOLS = '''
import json, pathlib, sys

def count(name):
    with open({counts!r}, "a") as file:
        file.write(name + "\\n")

def synthesise(arguments):
    count("synthesis")
    pathlib.Path("netlist.json").write_text(pathlib.Path("core.v").read_text())

def route(arguments):
    count("place and route")
    for line in {log!r}:
        print("Info: " + line)
    if int(arguments[arguments.index("--seed") + 1]) < {routable}:
        for number in range(4, 10_000_000):
            print(f"Info:     iter={{number}} wires=734530 overused={{40 + number % 3}} overuse=44 archfail=NA", flush=True)
    hop = dict(delay=1.5, type="routing", to=dict(cell="sum", port="D"))
    pathlib.Path("report.json").write_text(json.dumps(dict(
        fmax=dict(clk=dict(achieved={achieved}, constraint={clock})),
        utilization=dict(MULT18X18D=dict(used=100, available=156), TRELLIS_COMB=dict(used=40000, available=83640)),
        critical_paths=[{{"from": "posedge clk", "to": "posedge clk", "path": [hop]}}],
    )))
    pathlib.Path("routed.config").write_text(pathlib.Path("netlist.json").read_text())

def pack(arguments):
    count("packing")
    pathlib.Path("ulx3s.bit").write_bytes(b"bits of " + pathlib.Path("routed.config").read_bytes())
    return {fails}
'''

LOG = [
    "Packing constants..",
    "Running Static placer...",
    "iter=7 steplen=0.5 a=4.9 penalty=[0.00, 0.00]",
    "Running simulated annealing placer for refinement.",
    "  at iteration #2: temp = 0.000000, timing cost = 8, wirelen = 9",
    "Running router2...",
    "    iter=1 wires=734530 overused=9000 overuse=12000 archfail=NA",
    "    iter=2 wires=734530 overused=3000 overuse=4000 archfail=NA",
    "    iter=3 wires=734530 overused=40 overuse=40 archfail=0",
]


@dataclass(kw_only=True)
class Workshop:
    """A build in an empty cache, with tools that can be told what to do."""

    folder: Path
    core: str = "module deform_core"
    told: list[tuple[str, int, int, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def tools(self, *, achieved: float = CLOCK + 2, fails: int = 0, routable: int = 1) -> None:
        """``routable`` is the first seed with which the router gets through."""
        options = {"achieved": achieved, "clock": CLOCK, "fails": fails, "routable": routable}
        text = TOOLS.format(counts=str(self.folder / "counts"), log=LOG, **options)
        (self.folder / "fake_tools.py").write_text(text)

    def build(self, out: str = "out", *, without_proof: bool = True, **more: Any) -> dict[str, Any]:
        progress = lambda *step: self.told.append(step)  # noqa: E731
        return build_board(
            "ulx3s", self.folder / out, without_proof=without_proof, progress=progress, tell=self.words.append, **more
        )

    def runs(self) -> list[str]:
        counts = self.folder / "counts"
        return counts.read_text().splitlines() if counts.exists() else []

    def kept(self) -> list[Path]:
        """Folders of bitstreams in the cache, half-made ones too."""
        return [path for path in (cache_root() / "bitstream").iterdir() if path.is_dir()]


def open_workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    """For a fixture of each file of tests."""
    shop = Workshop(folder=tmp_path)
    functions = {"synthesis": "synthesise", "place and route": "route", "packing": "pack"}

    def fake_steps(board: object, **names: str) -> tuple[Step, ...]:
        real = steps(BOARD, **names)
        return tuple(
            Step(name=step.name, run=f"fake_tools.{functions[step.name]}", arguments=(), watch=step.watch, report=step.report,
                 attempts=step.attempts)
            for step in real
        )

    def fake_plan(board: object, arch: object, *, build_id: int, say: object) -> Plan:
        files = {CORE_FILE: shop.core, SYSTEM_FILE: "b", TOP_FILE: "c", "synthesis.ys": "d", "ulx3s.lpf": "e"}
        return Plan(board=BOARD, arch=load_board_arch("ulx3s"), build_id=build_id, files=files, tools={"yosys": "1"})

    def fake_core(board: object, arch: object, say: object) -> EmittedVerilog:
        return EmittedVerilog(text=shop.core, sha256="", name="deform_core", ports=(), watches=())

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # the tools' file is written anew within a second
    monkeypatch.setattr(building, "steps", fake_steps)
    monkeypatch.setattr(building, "plan", fake_plan)
    monkeypatch.setattr(building, "core_verilog", fake_core)
    shop.tools()
    return shop
