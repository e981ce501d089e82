"""What can go wrong when Vivado runs: each failure in words, logs and no bitstream, nothing that goes on, no damaged cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import boards.vivado.run as running
from boards.ecp5 import TimingMissed, ToolError
from boards.vivado.run import failure
from tests.boards.fake_vivado import HANG, bit_file, timing_report, utilisation_report
from tests.boards.vivado_workshop import BIT, BOARD, HWH, Workshop

PART, MHZ, OTHER = BOARD.part, BOARD.clock_mhz, "xczu7ev-ffvc1156-2-e"
CRITICAL = "CRITICAL WARNING: [Vivado 12-4739] set_false_path: no valid object\nCRITICAL WARNING: [Place 30-1] bad place\n"
LISTED = r"critical warnings, all in messages.rpt:\n  CRITICAL WARNING: .*Place 30-1.*\n  .*set_false_path"
UNFINISHED = {"PROGRESS": "50%", "STATUS": "{synth_design ERROR}"}


def nothing_delivered(shop: Workshop) -> bool:
    return not any((shop.out / name).exists() for name in (BIT, HWH, "manifest.json", "plan.json")) and shop.kept() == []


def left(name: str, content: str | bytes) -> dict[str, Any]:
    """Another content of what a command leaves."""
    return {"files": {name: content}}


def timing(**changes: Any) -> dict[str, Any]:
    return left("timing.rpt", timing_report(PART, MHZ, **changes))


def answer(**changes: str) -> dict[str, Any]:
    return {"answers": {name.replace("__", "."): value for name, value in changes.items()}}


FAILURES: dict[str, tuple[dict[str, Any], type[ToolError], str]] = {
    "set-up by the script": (answer(STATS__WNS="-0.2"), TimingMissed, r"set-up slack \(WNS\) is -0\.2 ns"),
    "hold by the script": (answer(STATS__WHS="-0.1"), TimingMissed, r"hold slack \(WHS\) is -0\.1 ns"),
    "pulse width by the script": (answer(STATS__TPWS="-1"), TimingMissed, r"pulse width slack \(TPWS\) is -1 ns"),
    "set-up by the report": (timing(wns="-0.3"), TimingMissed, "timing is missed: set-up slack is -0.3 ns"),
    "hold by the report": (timing(whs="-0.3"), TimingMissed, "hold slack is -0.3 ns"),
    "pulse width by the report": (timing(wpws="-0.3"), TimingMissed, "pulse width slack is -0.3 ns"),
    "not met in words": (timing(met=False), TimingMissed, "Timing constraints are not met"),
    "nothing timed": (timing(wns="NA"), ToolError, r"no set-up slack \(WNS\(ns\) is NA\)"),
    "no summary": (left("timing.rpt", timing_report(PART, MHZ).replace("Timing Summary", "x")), ToolError, "no design timing summary"),
    "another clock": (left("timing.rpt", timing_report(PART, 200)), ToolError, "no clock of 250 MHz.* it has 100, 200"),
    "critical warnings": ({"log": CRITICAL}, ToolError, LISTED),
    "a run fails": (answer(**UNFINISHED), ToolError, "synth_1 ended at 50% with 'synth_design ERROR'"),
    "no part": ({"parts": ""}, ToolError, f"this Vivado has no part {PART}"),
    "Vivado's error": (
        {"during": 'puts "ERROR: \\[Place 30-640\\] too full"; exit 1'}, ToolError, r"status 1:\n  ERROR: \[Place 30-640\] too full"),
    "an error without words": ({"during": "puts oops; exit 7"}, ToolError, r"ended with status 7. Its last lines:\n(.|\n)*oops"),
    "killed": ({"during": "puts KILL; flush stdout; after 9000"}, ToolError, "signal SIGKILL: the system does that where memory"),
    "ends early": ({"during": "exit 0"}, ToolError, "ended without an error, but not at the end of the script"),
    "no bitstream": ({"after_all": f"file delete {BIT}"}, ToolError, f"{BIT} missing in"),
    "no reports": ({"after_all": "file delete timing.rpt messages.rpt"}, ToolError, "timing.rpt, messages.rpt missing in"),
    "no hand-off": ({"after_all": f"file delete {HWH}"}, ToolError, f"{HWH} missing in"),
    "an empty bitstream": (left("made.bit", b""), ToolError, "is no bitstream with a header: it begins with nothing"),
    "a cut bitstream": (left("made.bit", bit_file(PART)[:-3]), ToolError, "cut off or damaged: its header counts 64 .*, 61 there"),
    "another part": (left("made.bit", bit_file(OTHER)), ToolError, f"is for {OTHER}, and Avnet Ultra96-V2 has {PART}"),
    "another design": (left("made.bit", bit_file(PART, design="blinky")), ToolError, "is of the design blinky, and this one is"),
    "another version": (left("made.bit", bit_file(PART, version="2024.1")), ToolError, r"by Vivado's version: .*bit 2024\.1"),
    "a report of another part": (
        left("utilization.rpt", utilisation_report(OTHER)), ToolError, r"utilization.rpt is of xczu7evffvc1156-2, and the"),
    "no table": (left("utilization.rpt", utilisation_report(PART).replace("Instance", "x")), ToolError, "no table of resources"),
    "too much used": (left("utilization.rpt", utilisation_report(PART, luts=90_000)), ToolError, "90000 of 70560 LUT"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_is_told_and_leaves_logs_only(case: str, workshop: Workshop) -> None:
    """An earlier build's bitstream is gone, logs lie in the folder, and the next good run delivers."""
    changes, kind, words = FAILURES[case]
    workshop.out.mkdir()
    for old in (BIT, HWH):
        (workshop.out / old).write_text("old")
    (workshop.out / "manifest.json").write_text('{"board": "ultra96v2", "plan_sha256": "old"}')
    good = dict(vars(workshop.fake))
    for name, value in changes.items():
        setattr(workshop.fake, name, value)
    workshop.fake.put()
    with pytest.raises(kind, match=words) as error:
        workshop.build()
    assert type(error.value) is kind and f"No bitstream is delivered; Vivado's logs and reports lie in {workshop.out}" in str(
        error.value
    )
    assert nothing_delivered(workshop) and (workshop.out / "console.txt").exists() and (workshop.out / "vivado.log").exists()
    assert "Traceback" not in str(error.value) and len(workshop.fake.calls) == 1
    if case == "a run fails":
        assert (workshop.out / "synth_1.log").exists()
    vars(workshop.fake).update(good)
    if case == "killed":
        workshop.fake.put()
        assert workshop.build()["built"] and not (workshop.out / "console.txt").exists()


def test_a_failed_vivado_leaves_no_run_behind(workshop: Workshop) -> None:
    """A run that the session has started goes on when the session alone dies."""
    workshop.fake.during = "exec sh -c {echo $$ > ../orphan; exec sleep 300} > /dev/null 2> /dev/null &\nafter 200\nexit 1"
    workshop.fake.put()
    with pytest.raises(ToolError, match="ended with status 1"):
        workshop.build()
    assert ended(int((workshop.folder / "cache" / "bitloom" / "vivado" / "orphan").read_text()))


def test_a_status_counts_after_the_last_step_too(workshop: Workshop) -> None:
    workshop.fake.after_all = "puts late; exit 5"
    workshop.fake.put()
    with pytest.raises(ToolError, match=r"ended with status 5\. Its last lines:\n(.|\n)*BITLOOM DONE ultra96v2\.bit\nlate"):
        workshop.build()
    assert nothing_delivered(workshop)


def test_status_and_lines_of_a_failure() -> None:
    """What a shell makes of a signal, a cause of many lines, and a script that is only echoed."""
    assert "signal SIGKILL" in str(failure(137, "")) and "signal SIGSEGV;" in str(failure(139, ""))
    assert "it printed nothing" in str(failure(3, ""))
    echoed = '# proc bitloom::stop {why} { error "BITLOOM: $why" }\nERROR: [A 1-1] real\nERROR: [A 1-1] real\n'
    assert str(failure(1, echoed)) == "Vivado ended with status 1:\n  ERROR: [A 1-1] real"
    many = "BITLOOM: first\nsecond\n    while executing\nthird"
    assert str(failure(1, many)) == "first\n  second"


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_build_stops_everything(
    stop: type[BaseException], workshop: Workshop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ctrl-C while a run of Vivado's hangs that has left the session and ignores a request to end."""
    monkeypatch.setattr(running, "BEAT_SECONDS", 0.05)
    workshop.fake.during = HANG
    workshop.fake.put()
    found: list[int] = []

    def interrupt(step: str, done: int, total: int, note: str) -> None:
        pids = list((tmp_path / "cache").rglob("pid"))
        if "Phase 2.1 Floorplanning" in note and pids and pids[0].read_text():
            found.append(int(pids[0].read_text()))
            raise stop

    with pytest.raises(stop):
        workshop.build(progress=interrupt)
    assert nothing_delivered(workshop) and "Floorplanning" in (workshop.out / "impl_1.log").read_text()
    assert any(words.startswith("stopped: Vivado was ended, no bitstream is delivered") for words in workshop.words)
    assert ended(found[0]) and not commands_with(str(tmp_path / "fake"))


def ended(pid: int) -> bool:
    """Whether a process is gone, or dead and not yet taken note of."""
    for _ in range(100):
        path = Path(f"/proc/{pid}/stat")
        if not path.exists() or path.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def commands_with(words: str) -> list[str]:
    """Command lines of running processes that hold the words."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if words in line:
            found.append(line)
    return found


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "the bitstream": (lambda kept: (kept / BIT).write_bytes(bit_file(PART, data=bytes(64))), f"the kept {BIT} in .* changed after"),
    "a report": (lambda kept: (kept / "timing.rpt").write_text(timing_report(PART, MHZ, wns="0.9")), "the kept timing.rpt in"),
    "a lost file": (lambda kept: (kept / HWH).unlink(), f"the kept bitstream in .* is damaged \\({HWH} missing"),
    "no hashes": (lambda kept: (kept / "result.json").write_text("{}"), "the kept bitstream in .* is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_a_changed_cache_is_noticed(case: str, workshop: Workshop) -> None:
    workshop.build()
    damage, words = DAMAGE[case]
    (kept,) = workshop.kept()
    damage(kept)
    with pytest.raises(ToolError, match=words) as error:
        workshop.build()
    assert "remove that folder and build again" in str(error.value)
    assert not (workshop.out / BIT).exists() and not (workshop.out / "manifest.json").exists()
