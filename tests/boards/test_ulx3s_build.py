"""The build around the tools, with tools that only write files: whole or nothing, kept by digest, told in words."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import boards.build as building
from boards.board import load_board, load_board_arch
from boards.build import CORE_FILE, MANIFEST_FILE, SYSTEM_FILE, TOP_FILE, Plan
from boards.ecp5 import PATIENCE, REPORT_FILE, RoutingStalled, Step, TimingMissed, ToolError, run_step, steps
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

    def build(self, out: str = "out") -> dict[str, Any]:
        return build_board(
            "ulx3s", self.folder / out, without_proof=True, progress=lambda *step: self.told.append(step), tell=self.words.append
        )

    def runs(self) -> list[str]:
        counts = self.folder / "counts"
        return counts.read_text().splitlines() if counts.exists() else []

    def kept(self) -> list[Path]:
        """Folders of bitstreams in the cache, half-made ones too."""
        return [path for path in (cache_root() / "bitstream").iterdir() if path.is_dir()]


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
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
    yield shop


def test_a_build_is_whole_and_kept(workshop: Workshop) -> None:
    """Three tools run once; the same plan is taken from the cache, another core is built anew."""
    first = workshop.build()
    out = workshop.folder / "out"
    bits = (out / BIT).read_bytes()
    assert bits == b"bits of module deform_core" and first["ok"] and not first["cached"]
    assert first["bitstream"] == {"file": BIT, "bytes": len(bits), "sha256": hashlib.sha256(bits).hexdigest()}
    assert first["routed_mhz"] == CLOCK + 2 and first["utilisation"]["MULT18X18D"] == {"used": 100, "available": 156}
    assert set(first["seconds"]) == {"synthesis", "place and route", "packing"}
    assert json.loads((out / MANIFEST_FILE).read_text()).items() <= first.items()
    assert workshop.runs() == ["synthesis", "place and route", "packing"]

    again = workshop.build("elsewhere")
    assert again["cached"] and again["bitstream"] == first["bitstream"] and again["seconds"] == first["seconds"]
    assert (workshop.folder / "elsewhere" / BIT).read_bytes() == bits and len(workshop.runs()) == 3

    workshop.core = "module another"
    assert workshop.build()["bitstream"] != first["bitstream"] and len(workshop.runs()) == 6
    assert len(workshop.kept()) == 2


def test_progress_and_result_are_told(workshop: Workshop) -> None:
    workshop.build()
    notes = [note for step, _, _, note in workshop.told if step == "place and route"]
    assert notes == [
        "", ": packing", ": placing", ": placing, iteration 7", ": refining the placement", ": refining the placement, iteration 2",
        ": routing", ": routing, round 1, 9,000 wires in conflict", ": routing, round 2, 3,000 wires in conflict",
        ": routing, round 3, 40 wires in conflict", "",
    ]  # fmt: skip
    assert ("place and route", 6000, 9000, ": routing, round 2, 3,000 wires in conflict") in workshop.told
    text = "\n".join(workshop.words)
    assert "place and route begins" in text and "packing: done in " in text
    assert "LFE5U-85F-6BG381C: 40,000 of 83,640 logic cells, 100 of 156 multipliers" in text
    assert f"routed at {CLOCK + 2:.2f} MHz, clock {CLOCK:g} MHz: {2 / CLOCK:.1%} to spare" in text


def test_a_missed_clock_leaves_no_bitstream(workshop: Workshop) -> None:
    """Nothing is packed; not even the bitstream of an earlier build stays in the folder. The report does."""
    workshop.build()
    workshop.core = "module slow"
    workshop.tools(achieved=CLOCK - 1)
    out = workshop.folder / "out"
    for _ in range(2):  # a failure is not kept as a result
        with pytest.raises(TimingMissed, match=rf"runs at {CLOCK - 1:.1f} MHz and the board's clock is {CLOCK:g} MHz"):
            workshop.build()
        assert not (out / BIT).exists() and not (out / MANIFEST_FILE).exists() and (out / REPORT_FILE).exists()
    assert workshop.runs().count("packing") == 1 and workshop.runs().count("place and route") == 3
    assert len(workshop.kept()) == 1


def test_a_router_in_circles_gets_another_placement(workshop: Workshop) -> None:
    """It is given up when conflicts get no fewer, and the next seed is tried; there is an end to that too."""
    workshop.tools(routable=4)
    assert workshop.build()["ok"] and workshop.runs().count("place and route") == 4
    notes = [note for step, _, _, note in workshop.told if step == "place and route" and "attempt" in note]
    assert notes == [
        f": the router has {40 + (3 + PATIENCE) % 3} wires in conflict after {3 + PATIENCE} rounds and no fewer than {PATIENCE} rounds "
        f"ago; attempt {number} of 4" for number in (2, 3, 4)
    ]  # fmt: skip
    workshop.core = "module dense"
    workshop.tools(routable=5)
    with pytest.raises(RoutingStalled, match=r"for each of --seed 2, --seed 3, --seed 1, --seed 4: make the core smaller"):
        workshop.build()
    assert workshop.runs().count("place and route") == 4 + 4 and not (workshop.folder / "out" / BIT).exists()


def test_a_failing_packer_leaves_no_bitstream(workshop: Workshop) -> None:
    workshop.tools(fails=3)
    with pytest.raises(ToolError, match=r"packing failed; whole log: packing.txt(.|\n)*No bitstream is delivered; .* lie in .*/out"):
        workshop.build()
    out = workshop.folder / "out"
    assert not (out / BIT).exists() and not (out / MANIFEST_FILE).exists() and (out / "packing.txt").exists()
    assert workshop.kept() == []
    workshop.tools()
    assert workshop.build()["ok"] and (out / BIT).exists()


def test_an_interrupted_build_stops_its_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while a tool runs: the tool does not go on, and the interrupt goes through."""
    (tmp_path / "sleeper.py").write_text(
        "import os, pathlib, time\n"
        "def sleep(arguments):\n"
        "    pathlib.Path('pid').write_text(str(os.getpid()))\n"
        "    print('asleep', flush=True)\n"
        "    time.sleep(300)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def interrupt(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_step(Step(name="routing", run="sleeper.sleep", arguments=(), watch=lambda: interrupt), tmp_path, lambda *step: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_kept_bitstream_that_was_changed_is_refused(workshop: Workshop) -> None:
    workshop.build()
    (kept,) = workshop.kept()
    (kept / BIT).write_bytes(b"bits of something else")
    with pytest.raises(ToolError, match="was changed after it was made: remove that folder"):
        workshop.build()
    assert not (workshop.folder / "out" / BIT).exists()
