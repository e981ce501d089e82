"""The build around the tools, with tools that only write files: whole or nothing, kept by digest, told in words."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from boards.build import MANIFEST_FILE
from boards.ecp5 import PATIENCE, REPORT_FILE, RoutingStalled, Step, TimingMissed, ToolError, run_step
from tests.boards.ulx3s_workshop import BIT, CLOCK, Workshop, open_workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return open_workshop(tmp_path, monkeypatch)


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
