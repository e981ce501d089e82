"""What Vivado's reports say: slacks, clocks, resources, critical warnings, versions.

The formats are as documented and as public designs show them, not seen from a run of this project's own script. What is not found is
refused, never taken as met.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from boards.ecp5 import TimingMissed, ToolError
from boards.synth import Part
from boards.vivado.board import VivadoBoard
from boards.vivado.plan import MESSAGES_FILE, TIMING_FILE, UTILISATION_FILE
from boards.vivado.wrapper import CORE_INSTANCE

SLACKS = {"setup": ("WNS(ns)", "set-up"), "hold": ("WHS(ns)", "hold"), "pulse_width": ("WPWS(ns)", "pulse width")}
"""Kind to its column in the timing summary and its name in words."""

NOT_MET = ("Timing constraints are not met", "There are no user specified timing constraints")
CLOCK_TOLERANCE = 0.001
COLUMNS = {"LUT": "Total LUTs", "FF": "FFs", "RAMB36": "RAMB36", "RAMB18": "RAMB18", "URAM288": "URAM", "DSP48E2": "DSP"}
"""Resource to the beginning of its column's title."""

_CLOCK = re.compile(r"^\s*\S+\s+\{[^}]*\}\s+[\d.]+\s+([\d.]+)\s*$", re.MULTILINE)
_COUNTED = re.compile(r"^CRITICAL WARNING: (\d+)$", re.MULTILINE)
_CRITICAL = re.compile(r"^  (CRITICAL WARNING: \[([^\]]+)\].*)$", re.MULTILINE)
_DEVICE = re.compile(r"^\| Device\s*: (\S+)", re.MULTILINE)
_VERSION = re.compile(r"Vivado v\.?(\d{4}\.\d+)")


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Worst slacks in ns by kind (those of ``SLACKS``), all of them met."""

    slack_ns: Mapping[str, float]

    def __post_init__(self) -> None:
        if set(self.slack_ns) != set(SLACKS) or min(self.slack_ns.values()) < 0:
            raise ValueError(f"slack_ns must hold {list(SLACKS)}, none below 0, not {dict(self.slack_ns)}")


def read_timing(text: str, board: VivadoBoard) -> Timing:
    """The worst slacks. TimingMissed where one is negative; ToolError where one is not there, or the core's clock is not."""
    row = _summary_row(text)
    slacks = {kind: _slack(row, column, words) for kind, (column, words) in SLACKS.items()}
    if missed := [f"{SLACKS[kind][1]} slack is {slack:g} ns" for kind, slack in slacks.items() if slack < 0]:
        raise TimingMissed(f"timing is missed: {', '.join(missed)}; see {TIMING_FILE}")
    if said := [words for words in NOT_MET if words in text]:
        raise TimingMissed(f"timing is missed: {TIMING_FILE} says '{said[0]}'")
    clocks = [float(mhz) for mhz in _CLOCK.findall(text)]
    if not any(abs(mhz - board.clock_mhz) <= CLOCK_TOLERANCE * board.clock_mhz for mhz in clocks):
        listed = ", ".join(f"{mhz:g}" for mhz in sorted(set(clocks))) or "none"
        raise ToolError(f"{TIMING_FILE} has no clock of {board.clock_mhz:g} MHz, the core's; it has {listed}")
    return Timing(slack_ns=slacks)


def _summary_row(text: str) -> dict[str, str]:
    """The design's timing summary: column to value; columns stand two spaces apart at least."""
    lines = text.partition("| Design Timing Summary")[2].splitlines()
    for title, under, values in zip(lines, lines[1:], lines[2:], strict=False):
        if title.split()[:1] == ["WNS(ns)"] and set(under.strip()) <= set("- "):
            return dict(zip(re.split(r"\s{2,}", title.strip()), values.split(), strict=False))
    raise ToolError(f"{TIMING_FILE} has no design timing summary: nothing says that timing is met")


def _slack(row: Mapping[str, str], column: str, words: str) -> float:
    try:
        return float(row[column])
    except (KeyError, ValueError):
        raise ToolError(f"{TIMING_FILE} gives no {words} slack ({column} is {row.get(column)}): nothing was timed") from None


def read_utilisation(text: str, part: Part) -> dict[str, dict[str, dict[str, float]]]:
    """Of the design and of the core in it: used and available by resource; a RAMB18 is half a BRAM36.

    ToolError where there is no table by hierarchy, or more is used than the part has.
    """
    rows = _hierarchy(text)
    counts = {"design": next(iter(rows.values())), **({"core": rows[CORE_INSTANCE]} if CORE_INSTANCE in rows else {})}
    found = {whose: _of_part(count, part) for whose, count in counts.items()}
    design = found["design"].items()
    if over := [f"{use['used']:g} of {use['available']:g} {kind}" for kind, use in design if use["used"] > use["available"]]:
        raise ToolError(f"{UTILISATION_FILE} is of another part than {part.name}: it tells {', '.join(over)}")
    return found


def _of_part(counts: Mapping[str, int], part: Part) -> dict[str, dict[str, float]]:
    brams = {"BRAM36": counts["RAMB36"] + counts["RAMB18"] / 2}
    used = {**{kind: float(count) for kind, count in counts.items() if not kind.startswith("RAMB")}, **brams}
    return {kind: {"used": used[kind], "available": float(there)} for kind, there in part.resources.items() if kind in used}


def _hierarchy(text: str) -> dict[str, dict[str, int]]:
    """Counts by instance, the top first."""
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    start = next((i for i, cells in enumerate(lines) if cells[:2] == ["Instance", "Module"]), None)
    if start is None or len(lines) < start + 2:
        raise ToolError(f"{UTILISATION_FILE} has no table of resources by hierarchy")
    columns = {kind: i for kind, title in COLUMNS.items() for i, cell in enumerate(lines[start]) if cell.startswith(title)}
    if missing := sorted(set(COLUMNS) - {"URAM288"} - set(columns)):
        raise ToolError(f"{UTILISATION_FILE} tells no {', '.join(missing)}: its columns are {lines[start]}")
    rows = [cells for cells in lines[start + 1 :] if len(cells) == len(lines[start])]
    if not rows:
        raise ToolError(f"{UTILISATION_FILE} has an empty table of resources")
    return {cells[0]: {kind: _count(cells[i]) for kind, i in columns.items()} for cells in rows}


def _count(cell: str) -> int:
    """Newer versions may add a share in brackets or separate thousands."""
    found = re.match(r"[\d,]+", cell)
    if found is None:
        raise ToolError(f"{UTILISATION_FILE} has {cell!r} where a number must stand")
    return int(found[0].replace(",", ""))


def check_messages(text: str, board: VivadoBoard) -> None:
    """ToolError where there is a critical warning that the board does not allow; one that is counted must be listed too."""
    found, counted = _CRITICAL.findall(text), _COUNTED.search(text)
    if refused := [line for line, name in found if name not in board.allowed_critical]:
        listed = "".join(f"\n  {line}" for line in refused)
        raise ToolError(f"{MESSAGES_FILE} has critical warnings:{listed}")
    if counted is None:
        raise ToolError(f"{MESSAGES_FILE} counts no messages")
    if int(counted[1]) and not found:
        raise ToolError(f"{MESSAGES_FILE} is cut off: it counts {counted[1]} critical warnings and lists none")


def check_device(text: str, name: str, part: str) -> None:
    """ToolError where a report's head names another device; older versions leave out dashes, some the prefix and the grade."""
    found = _DEVICE.search(text)
    if found is None or not same_part(found[1], part):
        raise ToolError(f"{name} is of {found[1] if found else 'no part that it names'}, and the board has {part}")


def same_part(name: str, part: str) -> bool:
    """Whether a tool's name is that of the part: with or without dashes, the prefix "xc", and grades after the package."""
    plain, wanted = (text.lower().replace("-", "").removeprefix("xc") for text in (name, part))
    shortest = "".join(part.lower().split("-")[:2]).removeprefix("xc")
    return wanted.startswith(plain) and plain.startswith(shortest)


def version_in(text: str) -> str | None:
    """Vivado's version, such as 2022.1, that a report or log names."""
    found = _VERSION.search(text)
    return found[1] if found else None
