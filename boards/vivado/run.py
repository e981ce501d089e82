"""Runs Vivado on a folder: progress from the script's lines, failures in words, and nothing that goes on when the build is stopped."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from boards.ecp5 import Progress, TimingMissed, ToolError
from boards.vivado.plan import COMMAND, LOG_FILE
from boards.vivado.script import PROJECT

POLL_SECONDS = 0.5
BEAT_SECONDS = 10.0
"""Between two notes of one step."""

SILENT_SECONDS = 300.0
"""Without a new line in any log, after which the note says so."""

TOGETHER_SECONDS = 10.0
"""Logs that were written within this time are of the same step: the session's and those of its runs."""

GRACE_SECONDS = 5.0
"""From asking Vivado to end to ending it."""

CONSOLE_FILE = "console.txt"
STARTING = "starting Vivado"
RUN_LOGS = f"{PROJECT}/bitloom.runs/*/runme.log"
LAST_LINES = 25
SHOWN = 20
"""Most lines of one kind that an error lists."""

_STEP = re.compile(r"BITLOOM STEP (\S+) (\d+)/(\d+)\s*")
_SAID = re.compile(r"(?:ERROR: (?:\[[^\]]*\] )?)?BITLOOM: (.*)")
_TRACE = re.compile(r"\s*$|\s+while executing|INFO: \[Common 17-206\]")
_PHASE = re.compile(r"(?:Phase \d[\d.]* \S|Start(?:ed|ing)? \S|Running \S).*")
_TAIL_BYTES = 65536


def find_vivado(given: Path | None = None) -> Path | None:
    """Vivado's program: the one that is named, or the PATH's, or None. ToolError where a named one is no program."""
    if given is None:
        found = shutil.which(COMMAND[0])
        return None if found is None else Path(found).absolute()
    if not (given.is_file() and os.access(given, os.X_OK)):
        raise ToolError(f"{given} is no program: name the file 'vivado' in the bin folder of Vivado's installation")
    return given.absolute()


def run_vivado(program: Path, folder: Path, progress: Progress) -> dict[str, float]:
    """Runs the script in its folder and returns the seconds of its steps.

    ToolError or TimingMissed where it fails. On any exception, Ctrl-C too, Vivado and everything that it started is ended first.
    """
    console = folder / CONSOLE_FILE
    process = _start(program, folder, console)
    try:
        watch = _Watch(folder, progress)
        _follow(process, console, watch)
        if process.returncode or not watch.done:
            raise failure(process.returncode, console.read_text(errors="replace"))
    except BaseException:
        _stop(process)
        raise
    return watch.finish()


def _start(program: Path, folder: Path, console: Path) -> subprocess.Popen[bytes]:
    """In a session of its own: Ctrl-C reaches this process alone, which then ends that one and all that it started."""
    command = [str(program), *COMMAND[1:]]
    try:
        with console.open("w") as file:
            return subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
    except OSError as error:
        raise ToolError(f"{program} cannot be started: {error}") from error


def _follow(process: subprocess.Popen[bytes], console: Path, watch: _Watch) -> None:
    """Hands the console's lines over until the process has ended and everything is read."""
    left = ""
    with console.open(errors="replace") as lines:
        while True:
            try:
                ended = process.wait(timeout=POLL_SECONDS) is not None
            except subprocess.TimeoutExpired:
                ended = False
            *whole, left = (left + lines.read()).split("\n")
            for line in whole:
                watch.line(line)
            if ended:
                return
            watch.beat()


class _Watch:
    """Turns the script's lines into steps, and the newest phase in any log into notes."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._step, self.done = STARTING, False
        self._seconds: dict[str, float] = {}
        self._began = self._told = time.monotonic()
        self._tell("")

    def line(self, text: str) -> None:
        if found := _STEP.fullmatch(text):
            self._close()
            self._step, self._began = found[1], time.monotonic()
            self._tell("")
        elif text.startswith("BITLOOM DONE "):
            self.done = True

    def beat(self) -> None:
        """A note, if it is time for one."""
        if time.monotonic() - self._told >= BEAT_SECONDS:
            self._tell(_phase_words(self._folder))

    def finish(self) -> dict[str, float]:
        self._close()
        return self._seconds

    def _close(self) -> None:
        self._seconds[self._step] = round(time.monotonic() - self._began, 1)
        self._progress(self._step, 1, 1, "")

    def _tell(self, note: str) -> None:
        self._told = time.monotonic()
        self._progress(self._step, 0, 1, note)


def logs(folder: Path) -> list[Path]:
    """The session's log and those of its runs, as far as they are there, the one written last at the end."""
    found = [folder / LOG_FILE, *folder.glob(RUN_LOGS)]
    return sorted((path for path in found if path.is_file()), key=lambda path: path.stat().st_mtime)


def _phase_words(folder: Path) -> str:
    """The last line that names a phase, in the log that was written last or together with it; and how long nothing has come."""
    times = {log: log.stat().st_mtime for log in reversed(logs(folder))}
    newest = max(times.values(), default=time.time())
    phases = (_phase(log) for log, written in times.items() if written >= newest - TOGETHER_SECONDS)
    silent = time.time() - newest
    quiet = f", nothing new for {silent / 60:.0f} min" if silent > SILENT_SECONDS else ""
    return f": {next((phase for phase in phases if phase), 'at work')}{quiet}"


def _phase(log: Path) -> str:
    """Without times and checksums; "" where the end of the log names none."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    phases = [line for line in lines if _PHASE.match(line)]
    return phases[-1].split(" : ")[0].split(" | ")[0].strip()[:70] if phases else ""


def failure(status: int, console: str) -> ToolError:
    """What went wrong, from the exit status and everything that was printed."""
    lines = console.splitlines()
    if said := _said(lines):
        return TimingMissed(said) if said.startswith("timing is missed") else ToolError(said)
    if number := -status if status < 0 else status - 128 if status > 128 else 0:
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        reason = ": the system does that where memory runs out" if name == "SIGKILL" else ""
        return ToolError(f"Vivado was ended from outside by signal {name}{reason}{_last(lines)}")
    if status == 0:
        return ToolError(f"Vivado ended without an error, but not at the end of the script{_last(lines)}")
    errors = list(dict.fromkeys(line for line in lines if line.startswith("ERROR: ")))[:SHOWN]
    told = "".join(f"\n  {line}" for line in errors)
    return ToolError(f"Vivado ended with status {status}{f':{told}' if told else _last(lines)}")


def _said(lines: list[str]) -> str:
    """The script's own reason, of one line or more; "" where it gave none."""
    for i, line in enumerate(lines):
        if found := _SAID.match(line):
            more = []
            for other in lines[i + 1 :]:
                if _TRACE.match(other):
                    break
                more.append(f"\n  {other}")
            return found[1] + "".join(more)
    return ""


def _last(lines: list[str]) -> str:
    return ". Its last lines:\n" + "\n".join(lines[-LAST_LINES:]) if lines else "; it printed nothing"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the process, its group and all that descend from it, gently first."""
    started = set() if process.poll() is not None else {process.pid, *_descendants(process.pid)}
    try:
        _signal(process.pid, started, signal.SIGTERM)
        process.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal(process.pid, started - {process.pid}, signal.SIGKILL)
        process.wait()


def _signal(group: int, started: set[int], number: signal.Signals) -> None:
    for send, target in [(os.killpg, group), *((os.kill, pid) for pid in started)]:
        try:
            send(target, number)
        except (ProcessLookupError, PermissionError):
            continue


def _descendants(pid: int) -> list[int]:
    """Processes that descend from one, also those that made a session of their own; none where the system does not tell."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text(errors="replace").rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError, ValueError):  # it has just ended
            continue
        children.setdefault(parent, []).append(int(path.parent.name))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found[1:]
