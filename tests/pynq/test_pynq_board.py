"""User code on the real ``pynq`` package, over the Verilator model of a core: what a notebook on the Ultra96-V2 runs.

``pynq`` lives in an environment of its own (``environment``). Everything runs there once for each release, one scenario after another
(``on_board*.py``); the tests here judge what came out. The image's own release, 3.0.1 on Python 3.10, is among them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from hw.spec.regs import Access, all_registers
from tests.e2e.tiny import ARCH
from tests.environments import NoEnvironment, facts
from tests.pynq.environment import NEWEST, OLDER, Release, environment
from tests.pynq.prepared import BOARD, IMAGES, STEPS, Prepared, prepare

RELEASES = [
    pytest.param(NEWEST, id=NEWEST.version),
    *(pytest.param(release, id=release.version, marks=pytest.mark.slow) for release in OLDER),
]
COMPARED = IMAGES * 10
ACCESS = {Access.RO: "read-only", Access.RW: "read-write", Access.WO: "write-only"}


@pytest.fixture(scope="module", params=RELEASES)
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    release: Release = request.param
    try:
        environment(release)
    except NoEnvironment as reason:
        pytest.skip(f"NOT TESTED with pynq {release.version}: {reason}")
    return prepare(release, tmp_path_factory.mktemp(f"pynq-{release.version}"))


@pytest.fixture
def found(prepared: Prepared, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the scenario of the test's name found; where it ended with an error, the test does."""
    name = request.function.__name__.removeprefix("test_")
    result = prepared.results[name]
    assert "error" not in result, result["error"]
    return result


def equal(result: dict[str, Any], compared: int = COMPARED) -> bool:
    return bool(result["compared"] == compared and result["mismatches"] == 0)


def test_every_scenario_is_judged(prepared: Prepared) -> None:
    judged = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert set(prepared.results) <= judged and len(prepared.results) == 25


def test_interrupts(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and equal(found["again"])
    assert found["counters"] == prepared.counters == found["again"]["counters"] and found["counters"]["CYCLES"] > 10_000
    assert found["interrupt_kept"] and found["raised"] >= 2 * IMAGES and found["loaded"] == 1
    assert found["identity"] == int.from_bytes(b"BTLM", "little") and found["clock_mhz"] == pytest.approx(
        BOARD.clock_mhz, abs=0.01
    )
    assert found["warnings"] == []


def test_registers_of_the_overlay(prepared: Prepared) -> None:
    """What PYNQ reads from the .hwh is the register table: names, offsets, access, bits."""
    found = prepared.results["interrupts"]["registers"]
    assert {name: (r["address_offset"], r["size"], r["access"], r["description"]) for name, r in found.items()} == {
        r.name: (r.offset, 32, ACCESS[r.access], r.doc) for r in all_registers(ARCH.regions)
    }
    bits = {(r.name, b.name): b.index for r in all_registers(ARCH.regions) for b in r.bits}
    assert bits == {(n, f): field["bit_offset"] for n, r in found.items() for f, field in r["fields"].items()} and len(bits) > 5


def test_the_release_is_the_one(prepared: Prepared, request: pytest.FixtureRequest) -> None:
    found = prepared.results["interrupts"]
    assert found["pynq"] == request.node.callspec.params["prepared"].version
    assert found["pynq"] != "3.0.1" or found["python"] == [3, 10]
    assert facts(environment(request.node.callspec.params["prepared"]))["megabytes"] > 100


def test_polling(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and found["counters"] == prepared.counters and found["raised"] == 0


def test_whole_buffers(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and found["counters"] == prepared.counters


def test_inside_a_loop(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and found["counters"] == prepared.counters and found["interrupt_kept"]
    assert equal(found["after"]) and found["warnings"] == []


def test_own_use_of_the_ip(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and found["has_irq"] and found["warnings"] == []


def test_uio_class(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and found["counters"] == prepared.counters and found["interrupt_kept"]
    assert equal(found["after"]) and found["warnings"] == [] and found["raised"] >= IMAGES


def test_uio_of_another_loop(prepared: Prepared, found: dict[str, Any]) -> None:
    assert (
        equal(found)
        and not found["interrupt_kept"]
        and ["polling from now on" in words for words in found["warnings"]] == [True]
    )


def test_closed_while_time_passes(prepared: Prepared, found: dict[str, Any]) -> None:
    assert (found["boards"], found["clashes"], found["failures"]) == (5, 0, [])


def test_registers_in_one_transaction(prepared: Prepared, found: dict[str, Any]) -> None:
    assert found["value"] == 0xDEADBEEF and found["accesses"] == 2


def test_missing_flush(prepared: Prepared, found: dict[str, Any]) -> None:
    """The core finds poison in place of the program; and nothing of it stays."""
    assert found["broken"]["fault"] == "HEADER_CRC" and equal(found["good"])


def test_missing_invalidate(prepared: Prepared, found: dict[str, Any]) -> None:
    """The host reads poison in place of the outputs."""
    assert found["broken"]["fault"] == "" and found["broken"]["mismatches"] > COMPARED // 2 and equal(found["good"])


def test_neighbours_in_a_line(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found, 2 * 50 * 4096)


def test_interrupt_left_over(prepared: Prepared, found: dict[str, Any]) -> None:
    """Some waits ended before the program did: from the second image on, the controller has the last one's interrupt left."""
    assert equal(found) and found["waits"] > found["images"]


def test_lost_interrupts(prepared: Prepared, found: dict[str, Any]) -> None:
    assert equal(found) and not found["interrupt_kept"]
    assert len(found["warnings"]) == 1
    assert re.search(r"interrupt core_0/irq did not come: polling from now on; poll=True does so at once", found["warnings"][0])


def test_damaged_program(prepared: Prepared, found: dict[str, Any]) -> None:
    first, second = found["said"]
    assert first.startswith("CoreFault: the core stopped with INSTRUCTION_CRC at instruction 4")
    assert re.match(
        r"CoreFault: the core stopped with BLOB_CRC at instruction \d+ \(layer \w+\): weights or parameters", second
    )
    assert equal(found)


def test_too_late(prepared: Prepared, found: dict[str, Any]) -> None:
    words = (
        r"CoreFault: the core stopped with ABORTED at instruction \d+ \(layer \w+\): .* the host waited no longer, and aborted it; "
        r"then: BUSY, \d+ instructions had retired, [\d,]+ cycles"
    )
    for poll in (False, True):
        assert re.fullmatch(words, found[f"poll={poll}"]), found[f"poll={poll}"]
        assert equal(found[f"after, poll={poll}"])


def test_silent_memory(prepared: Prepared, found: dict[str, Any]) -> None:
    stuck, refused, disobeyed = found["said"]
    assert stuck.startswith("CoreFault: the core stopped with BUS_STUCK") and "the host waited" not in stuck
    assert refused.endswith("(BUS_STUCK): reset the core before the next program")
    assert re.search(
        r"neither ended the program nor obeyed the abort \(BUSY, 0 instructions had retired, [\d,]+ cycles\): reset", disobeyed
    )
    assert found["held"] == [0, 1] and equal(found)
    assert len(found["warnings"]) == 1 and "its 524288 bytes of memory stay allocated" in found["warnings"][0]


def test_memory_is_given_back(prepared: Prepared, found: dict[str, Any]) -> None:
    assert found["busy"] and found["when_freed"] == ["idle"] and found["code"] == "ABORTED"
    assert found["spans"] == 0 and found["held"] == 1 and found["spans_after_error"] == 0
    assert found["closed"] == "DeviceError: the device is closed and its memory is given back: open it again"


def test_overlay_replaced(prepared: Prepared, found: dict[str, Any]) -> None:
    assert found["said"] == "DeviceError: another overlay was loaded since this device was opened: open it again"
    assert "is lost" in found["waited"] and found["spans"] == 0 and found["touched"] == 0


def test_refused_files(prepared: Prepared, found: dict[str, Any]) -> None:
    said, load = found["said"], "DeviceError: PYNQ cannot load FOLDER/"
    assert said["missing"].startswith("DeviceError: FOLDER/missing.bit is not there: PYNQ needs a .bit file and, beside it")
    assert said["without_hwh"].startswith("DeviceError: FOLDER/alone.hwh is not there")
    for name, reason in {
        "garbage": "", "broken_hwh": "ParseError", "short": "Invalid length found", "wrong_part": "is for zu7ev-ffvc1156-2-e",
        "other_core": "holds another core",
    }.items():  # fmt: skip
        assert said[name].startswith(load) and reason in said[name] and "under sudo -E?" in said[name], said[name]
    assert found["spans"] == 0 and found["downloads"] == 0


def test_refused_cores(prepared: Prepared, found: dict[str, Any]) -> None:
    said, there = found["said"], "it has core_0, interrupts: name the core as core="
    assert said["name"].startswith(f"DeviceError: the overlay has no 'core_1'; {there}")
    assert said["processor"].startswith(f"DeviceError: the overlay has no 'ps'; {there}")
    for name, read in (("controller", r"0x[0-9a-f]{8}"), ("nothing", "0x00000000")):
        assert re.match(rf"DeviceError: no Bitloom core answers: IDENTITY must read 0x4d4c5442, not {read};", said[name])
    assert (
        said["no_interrupt"]
        == "DeviceError: 'core_0' must have one interrupt in the overlay, not 0: open the device with poll=True"
    )
    assert re.match(
        r"DeviceError: the program was compiled for arch_id \w{16} and the device is \w{16}: compile it", said["other_arch"]
    )
    assert equal(found["polled"]) and found["spans"] == 0


def test_refused_memory(prepared: Prepared, found: dict[str, Any]) -> None:
    said = found["said"]
    assert {said["0"][-2:], said["100"][-5:]} == {" 0", "t 100"} and "memory_bytes must be a multiple of 4096" in said["0"]
    assert "the board has no 2097152 bytes of contiguous memory left (Allocate failed" in said[str(1 << 21)]
    assert re.search(
        r"the program needs \d+ bytes of memory and the device offers 4096: give it more with memory_bytes", said["program"]
    )
    assert "7 bytes at 0x40000ffa must lie in the device's memory at 0x40000000..0x40001000" in said["outside"]
    assert "the device's memory must be whole pages of 4096 bytes, not 4096 bytes at 0x40000040" in said["unaligned"]
    assert said["uio"].endswith("the interrupt core_0/irq cannot be used (no UIO device): open the device with poll=True")
    assert found["spans"] == 0


def test_opened_by_kind(prepared: Prepared, found: dict[str, Any]) -> None:
    said = found["said"]
    assert said["without"].startswith("GateRefusal: device kind 'pynq' is a board and runs only what is proven")
    assert said["another"].startswith("GateRefusal: ") and "build_id" in said["another"] and found["spans"] == 0
    assert said["other_program"].startswith("GateRefusal: the program is not the one")
    assert equal(found["unproven"]) and equal(found["proven"]) and found["proven"]["counters"] == prepared.counters
    assert len(found["warnings"]) == 1 and "NOT PROVEN: device 'pynq'" in found["warnings"][0]


def test_one_user(prepared: Prepared, found: dict[str, Any]) -> None:
    assert re.match(r"DeviceError: the board's programmable logic is in use by process \d+ of user", found["said"])
    assert found["downloads"] == 1 and "has no 'none'" in found["missing"] and equal(found) and equal(found["again"])


def test_training(prepared: Prepared, found: dict[str, Any]) -> None:
    """Two steps: every parameter, velocity and statistic as the graph has it, every counter as the simulated core has it."""
    assert found["mismatches"] == 0 and found["compared"] > STEPS * 5_000
    assert found["counters"] == prepared.training_counters and len(prepared.training_counters) == STEPS
    assert set(found["counters"][0]) == {"forward", "backward", "update"}


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be installed it says so, and leaves nothing behind that could be taken for an environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(NoEnvironment, match=r"could not install pynq==0\.0\.0 .*\(no network\?\): ERROR: .*pynq==0\.0\.0"):
        environment(Release(version="0.0.0"))
    assert [path for path in (tmp_path / "bitloom" / "venvs").iterdir() if path.is_dir()] == []


def test_no_such_python() -> None:
    with pytest.raises(NoEnvironment, match=r"there is no python3\.1 on the PATH: install Python 3\.1"):
        environment(Release(version="3.0.1", python="python3.1"))


def test_without_pynq(tmp_path: Path) -> None:
    """Outside of a board the package is not there, and a device says so, not an ImportError."""
    from sw.runtime import DeviceError
    from sw.runtime.pynq import open_pynq

    for name in ("x.bit", "x.hwh"):
        (tmp_path / name).touch()
    with pytest.raises(DeviceError, match=r"there is no package pynq here .*: run this on the board, whose image has it"):
        open_pynq(tmp_path / "x.bit")
