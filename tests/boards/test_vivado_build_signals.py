"""The command in a process of its own that is asked to end: Vivado ends with it, and so does what it started."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.boards.fake_vivado import HANG
from tests.boards.test_vivado_failures import commands_with, ended, nothing_delivered
from tests.boards.vivado_workshop import Workshop
from tests.e2e.tiny import ARCH

COMMAND = """
import signal, sys
from types import SimpleNamespace
import boards.vivado.plan as planning
import sw.cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test that runs in the background ignores it
planning.emit_core = lambda arch, progress: SimpleNamespace(text="module deform_core; endmodule\\n")
sys.argv[0] = "bitloom"
sw.cli.main()
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_vivado_too(number: signal.Signals, status: int, workshop: Workshop) -> None:
    (workshop.folder / "arch.json").write_text(json.dumps(ARCH.to_dict()))
    workshop.fake.during = HANG
    workshop.fake.put()
    arguments = ["--board", "ultra96v2", "--arch", str(workshop.folder / "arch.json"), "--out", str(workshop.out), "--without-proof"]
    process = subprocess.Popen([sys.executable, "-c", COMMAND, "build", *arguments], stderr=subprocess.PIPE, text=True)
    try:
        pid = _hanging(workshop, process)
        process.send_signal(number)
        errors = " ".join(process.communicate(timeout=60)[1].split())
    finally:
        process.kill()
    assert process.returncode == status and "Traceback" not in errors and "its logs lie in" in errors
    assert ended(pid) and not commands_with(str(workshop.folder / "fake"))
    assert nothing_delivered(workshop) and (workshop.out / "vivado.log").exists()


def _hanging(workshop: Workshop, process: subprocess.Popen[str]) -> int:
    """The process that has left the stand-in's session and does not listen."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for path in (workshop.folder / "cache").rglob("pid"):
            if text := path.read_text():
                return int(text)
        time.sleep(0.05)
    raise AssertionError("the stand-in did not come to its implementation")
