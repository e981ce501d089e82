"""Everything that a run of the script leaves in its folder, read and judged: the same for a build here and one brought back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from boards.ecp5 import ToolError
from boards.synth import PARTS
from boards.vivado.bitfile import BitHeader, read_header
from boards.vivado.handoff import check_hand_off
from boards.vivado.plan import DESIGN, LOG_FILE, MESSAGES_FILE, TIMING_FILE, UTILISATION_FILE, Plan
from boards.vivado.reports import (
    Timing,
    check_device,
    check_messages,
    read_timing,
    read_utilisation,
    same_part,
    version_in,
)

Usage = Mapping[str, Mapping[str, Mapping[str, float]]]
_BEGAN = re.compile(r"^# Start of session at: (.+)$", re.MULTILINE)
_ENDED = re.compile(r"^INFO: \[Common 17-206\] Exiting Vivado at (.+?)\.*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A run that is right: contents of its files, worst slacks, resources of design and core, Vivado's version."""

    contents: Mapping[str, bytes]
    timing: Timing
    utilisation: Usage
    vivado: str


def read_results(folder: Path, plan: Plan) -> Results:
    """ToolError or TimingMissed where a file is missing, damaged, of another design or part, or tells of a failed run."""
    if missing := [name for name in plan.made if not (folder / name).is_file()]:
        raise ToolError(f"{', '.join(missing)} missing in {folder}: the script was not run to its end there")
    contents = {name: (folder / name).read_bytes() for name in plan.made}
    texts = {name: data.decode(errors="replace") for name, data in contents.items() if name != plan.bitstream_file}
    header = read_header(contents[plan.bitstream_file], plan.bitstream_file)
    _check_header(header, plan)
    _check_end(texts[LOG_FILE], plan)
    for name in (TIMING_FILE, UTILISATION_FILE):
        check_device(texts[name], name, plan.board.part)
    check_messages(texts[MESSAGES_FILE], plan.board)
    versions = {name: version_in(texts[name]) for name in (TIMING_FILE, UTILISATION_FILE, LOG_FILE)}
    versions[plan.bitstream_file] = header.version
    if plan.hand_off_file:
        versions[plan.hand_off_file] = check_hand_off(texts[plan.hand_off_file], plan.hand_off_file, plan.board, plan.arch)
    return Results(
        contents=contents,
        timing=read_timing(texts[TIMING_FILE], plan.board),
        utilisation=read_utilisation(texts[UTILISATION_FILE], PARTS[plan.board.fit_part]),
        vivado=_one_version(versions),
    )


def _check_header(header: BitHeader, plan: Plan) -> None:
    if not same_part(header.part, plan.board.part):
        raise ToolError(f"{plan.bitstream_file} is for {header.part}, and {plan.board.title} has {plan.board.part}")
    if header.design and header.design != DESIGN:
        raise ToolError(f"{plan.bitstream_file} is of the design {header.design}, and this one is {DESIGN}")


def _check_end(log: str, plan: Plan) -> None:
    """The script prints its last line after everything is checked and written."""
    if f"BITLOOM DONE {plan.bitstream_file}" not in log.splitlines():
        raise ToolError(
            f"{LOG_FILE} does not say that the script came to its end: run it whole, or put the log of that run back "
            f"(a later start of Vivado renames it to vivado_<number>.backup.log)"
        )


def _one_version(versions: Mapping[str, str | None]) -> str:
    """What all files that tell a version agree on."""
    told = {name: version for name, version in versions.items() if version}
    if len(set(told.values())) != 1:
        listed = ", ".join(f"{name} {version}" for name, version in told.items())
        raise ToolError(
            f"the files are of different runs, by Vivado's version: {listed}" if told else "no file tells Vivado's version"
        )
    return next(iter(told.values()))


def session_seconds(results: Results) -> dict[str, float]:
    """Of a run elsewhere: the whole session, as far as its log tells."""
    log = results.contents[LOG_FILE].decode(errors="replace")
    began, ended = _BEGAN.search(log), _ENDED.search(log)
    try:
        times = [datetime.strptime(found[1].strip(), "%a %b %d %H:%M:%S %Y") for found in (began, ended) if found]
    except ValueError:  # written in another language
        return {}
    return {"session": (times[1] - times[0]).total_seconds()} if len(times) == 2 else {}
