"""What lies in the user's folder after a build: either everything with a manifest that names it, or logs and no bitstream."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from boards.folder import MANIFEST_FILE, mark_failed
from boards.vivado.board import VivadoBoard
from boards.vivado.plan import LOG_FILE, MESSAGES_FILE, TIMING_FILE, UTILISATION_FILE, Plan
from boards.vivado.results import Results
from boards.vivado.run import CONSOLE_FILE, RUN_LOGS
from hw.spec.program import write_atomically

LOGS = (CONSOLE_FILE, LOG_FILE, MESSAGES_FILE, TIMING_FILE, UTILISATION_FILE, "synth_1.log", "impl_1.log")
"""Logs and reports by their names in the user's folder."""


class Admission(Protocol):
    """Whether a core may be built, and the build's identity (``sw.flow.gate.Admission``)."""

    @property
    def build_id(self) -> int: ...

    @property
    def record(self) -> Path | None: ...

    def to_dict(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Built:
    """A bitstream: its folder, worst slacks in ns by kind, its manifest, and whether it was there before."""

    folder: Path
    bitstream: Path
    slack_ns: Mapping[str, float]
    manifest: Mapping[str, Any]
    cached: bool


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A folder that Vivado has still to be run in: ``command``, and what plan.json says; ``words`` for the user."""

    folder: Path
    command: str
    plan: Mapping[str, Any]
    words: str


def written(texts: Iterable[str], board: VivadoBoard) -> set[str]:
    """The texts, and what else but marks and logs a build writes into the user's folder, or is made there."""
    return {*texts, f"{board.name}.bit", f"{board.name}.hwh"}


def save_logs(folder: Path, out: Path, plan: Plan, error: str) -> None:
    """Copies all logs and reports that a run has left so far, with a mark that says whose they are and what ``error`` ended it."""
    mark_failed(out, board=plan.board.name, plan_sha256=plan.digest, error=error)
    for name in LOGS:
        if (folder / name).is_file():
            shutil.copy(folder / name, out / name)
    for log in folder.glob(RUN_LOGS):
        shutil.copy(log, out / f"{log.parent.name}.log")


def deliver(
    plan: Plan,
    results: Results,
    out: Path,
    admission: Admission,
    *,
    seconds: Mapping[str, float],
    cached: bool = False,
    imported: bool = False,
) -> Built:
    """Writes everything; the manifest comes last, when all that it names is there."""
    for name, text in plan.files.items():
        write_atomically(out / name, text.encode())
    for name, data in results.contents.items():
        write_atomically(out / name, data)
    told = {"seconds": dict(seconds), "cached": cached, "imported": imported}
    manifest = _manifest(plan, results, admission) | told
    write_atomically(out / MANIFEST_FILE, (json.dumps(manifest, indent=1) + "\n").encode())
    bitstream = out / plan.bitstream_file
    return Built(folder=out, bitstream=bitstream, slack_ns=results.timing.slack_ns, manifest=manifest, cached=cached)


def hashes(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 (hex) by file name."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def _manifest(plan: Plan, results: Results, admission: Admission) -> dict[str, Any]:
    bits = results.contents[plan.bitstream_file]
    found = hashes(results.contents)
    return {
        **plan.entries(),
        **admission.to_dict(),
        "bitstream": {"file": plan.bitstream_file, "bytes": len(bits), "sha256": found.pop(plan.bitstream_file)},
        "reports": found,
        "clock_mhz": plan.board.clock_mhz,
        "worst_slack_ns": dict(results.timing.slack_ns),
        "utilisation": results.utilisation["design"],
        "core_utilisation": results.utilisation.get("core"),
        "tools": {"vivado": results.vivado},
    }
