"""Whose the files in a build's folder are: a build replaces what a build of a board left there, and nothing else.

A folder of a build holds a mark, one of ``MARKS``: which board and plan it is of, and which texts lie there. Whatever has one of a
build's names while no mark accounts for it is somebody else's, and the build is refused before anything changes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from boards.board import BoardError
from hw.spec.program import write_atomically

CORE_FILE = "core.v"
MANIFEST_FILE, PLAN_FILE, FAILED_FILE, README_FILE = "manifest.json", "plan.json", "failed.json", "README.txt"
MARKS = (FAILED_FILE, PLAN_FILE, MANIFEST_FILE)
"""Of a build that failed, that was prepared for Vivado elsewhere, that is whole."""

_ANOTHER = "name another folder with --out"
_CORE = re.compile(r"^\s*module\s+\\?(deform|sat)_core\b", re.MULTILINE)
_SHOWN = 5


def check_free(out: Path, texts: Iterable[str], logs: Iterable[str]) -> None:
    """BoardError, with ``out`` as it was, where it is no folder, or a build there would take something from the user.

    Parameters
    ----------
    texts : names of what a build writes there, its marks apart
    logs : names of the logs and reports of its tools
    """
    _check_folder(out)
    if waiting := unclaimed(out):
        raise BoardError(
            f"{out} holds {', '.join(waiting)} of a prepared plan that was run there and never brought back: "
            f"do so with 'bitloom build --import {out} --out FOLDER', or {_ANOTHER}"
        )
    marks = {name: _read_mark(out / name) for name in MARKS if (out / name).exists()}
    if foreign := [name for name, mark in marks.items() if not mark]:
        raise BoardError(
            f"{out} belongs to another command: its {foreign[0]} is not of a board's build, and a build would replace and remove files "
            f"there: {_ANOTHER}"
        )
    ours = {name for file, mark in marks.items() for name in _left_by(file, mark)} | (set(logs) if marks else set())
    if _is_core(out / CORE_FILE):
        ours.add(CORE_FILE)
    if others := sorted(name for name in {*texts, *logs} - ours if (out / name).exists()):
        listed = ", ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        raise BoardError(f"{out} holds {listed}, which no board's build left there and this one would replace: {_ANOTHER}")


def clear(out: Path, logs: Iterable[str]) -> None:
    """Removes what an earlier build left, but for the core's Verilog; the marks go last, as they account for the rest."""
    marks = {name: _read_mark(out / name) for name in MARKS if (out / name).exists()}
    left = {name for file, mark in marks.items() for name in _left_by(file, mark)} - {CORE_FILE}
    for name in (*sorted(left - set(MARKS)), *logs, *MARKS):
        (out / name).unlink(missing_ok=True)


def unclaimed(out: Path) -> list[str]:
    """Bitstreams of a prepared folder that was run, which may have taken hours, and whose result was not yet taken."""
    if not (out / PLAN_FILE).exists() or (out / MANIFEST_FILE).exists():
        return []
    return sorted(path.name for path in out.glob("*.bit"))


def mark_failed(out: Path, *, board: str, plan_sha256: str, error: str) -> None:
    """Says of the logs that lie there whose they are, and why there is no bitstream."""
    data = {"board": board, "plan_sha256": plan_sha256, "built": False, "error": error}
    write_atomically(out / FAILED_FILE, (json.dumps(data, indent=1) + "\n").encode())


def copied_record(out: Path) -> str:
    """Digest of the design record that an earlier preparation copied into the folder, "" where none did."""
    return str(_read_mark(out / PLAN_FILE).get("copied_record", ""))


def _check_folder(out: Path) -> None:
    there = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise BoardError(f"--out must be a folder, and {there} is a file: {_ANOTHER}")


def _read_mark(path: Path) -> Mapping[str, Any]:
    """What a board's build wrote; empty where it is not there or another command's."""
    try:
        data = json.loads(path.read_bytes())
        named = re.fullmatch(r"\w+", data["board"]) and isinstance(data["plan_sha256"], str)
        return data if named and isinstance(data.get("files", {}), dict) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _left_by(file: str, mark: Mapping[str, Any]) -> set[str]:
    """Names that a mark accounts for; none that leads out of the folder."""
    texts = {str(name) for name in mark.get("files", {}) if not set("/\\") & set(str(name)) and not str(name).startswith(".")}
    readme = {README_FILE} if file == PLAN_FILE else set()
    return {file, CORE_FILE, f"{mark['board']}.bit", f"{mark['board']}.hwh"} | texts | readme if mark else set()


def _is_core(path: Path) -> bool:
    """Whether it is a core's Verilog, which a build that was refused leaves to be proven, or ``bitloom emit`` wrote."""
    try:
        return _CORE.search(path.read_text(encoding="utf-8", errors="replace")) is not None
    except OSError:
        return False
