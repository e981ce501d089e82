"""Builds a board's bitstream behind the proof gate: where ``boards`` and the records meet.

Boards with a ``board.toml`` are built with open tools, those with a ``vivado.toml`` with Vivado; which is which, the folders say.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import boards
from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from sw.flow.gate import Admission, admit_design, foresee_design
from sw.runtime import DeviceError

Progress = Callable[[str, int, int, str], None]
Tell = Callable[[str], None]

TELL_SECONDS = 20.0
"""Least time between two lines of text about one step; every step tells its beginning and its end."""

RESOURCES = {
    "LUT": "look-up tables",
    "FF": "flip-flops",
    "BRAM36": "block RAMs",
    "URAM288": "UltraRAMs",
    "DSP48E2": "multipliers",
    "TRELLIS_COMB": "logic cells",
    "TRELLIS_FF": "flip-flops",
    "MULT18X18D": "multipliers",
    "DP16KD": "block RAMs",
}
"""What users are told of the resources; the manifest has all of it."""


def build_board(
    name: str,
    out: Path,
    *,
    arch: Arch | None = None,
    arch_file: str = "",
    record: Path | None = None,
    without_proof: bool = False,
    vivado: Path | None = None,
    progress: Progress = lambda step, done, total, note: None,
    tell: Tell = lambda words: None,
    warn: Tell = lambda words: None,
) -> dict[str, Any]:
    """Build the bitstream into ``out`` and return its manifest with ``ok``, ``built``, ``folder`` and ``bitstream_path``.

    The design record is looked for beside the core's Verilog in ``out`` where ``record`` does not name it. A refusal leaves the
    Verilog there, to be proven, and names ``arch_file`` if it is known where ``arch`` is from. ``vivado`` names Vivado's program where
    it is not on the PATH. Without one, ``out`` is prepared for a run elsewhere, ``built`` is False, and the result holds what plan.json
    does, ``command`` and ``words``.
    """
    try:
        from boards.board import BoardError, board_names
        from boards.vivado.board import vivado_board_names
    except ImportError as error:
        raise _missing(error) from error
    if name not in (names := sorted([*board_names(), *vivado_board_names()])):
        raise BoardError(f"board must be one of {', '.join(names)}, not {name!r}")
    arch_file = arch_file or ("" if arch else _board_arch_file(name))
    gate = {
        "admit": _admit(record, without_proof, warn, arch_file=arch_file),
        "foresee": partial(foresee_design, record=record, without_proof=without_proof),
    }
    told = _in_words(progress, tell)
    if name in vivado_board_names():
        return _with_vivado(name, out, gate, arch, vivado, told, tell)
    if vivado is not None:
        raise BoardError(f"board {name} is built with open tools: leave out --vivado")
    return _with_open_tools(name, out, gate, arch, told, tell)


def import_board(
    folder: Path,
    out: Path,
    *,
    record: Path | None = None,
    without_proof: bool = False,
    tell: Tell = lambda words: None,
    warn: Tell = lambda words: None,
) -> dict[str, Any]:
    """Take back a folder that was prepared here and run elsewhere; the result is that of a build.

    The design record is looked for in ``folder`` where ``record`` does not name it.
    """
    try:
        from boards.vivado.build import import_build
    except ImportError as error:
        raise _missing(error) from error
    way_out = "name the record that the folder was prepared with, --record FILE; another one, even of the same core, does not fit it"
    return _result(import_build(folder, out, admit=_admit(record, without_proof, warn, way_out=way_out)), tell)


def sentence(result: Mapping[str, Any]) -> str:
    """A build's result in a line."""
    if not result["built"]:
        return f"{result['folder']}: {result['words']}"
    if "routed_mhz" in result:
        reached = f"routed at {result['routed_mhz']:.1f} MHz for a clock of {result['clock_mhz']:g} MHz"
    else:
        reached = f"timing met at {result['clock_mhz']:g} MHz with {result['worst_slack_ns']['setup']:g} ns to spare"
    proven = "" if result["proven"] else "; NOT PROVEN"
    return f"{result['bitstream_path']}: {result['bitstream']['bytes']:,} bytes, {reached}{proven}"


def _missing(error: ImportError) -> DeviceError:
    return DeviceError(f"building a bitstream needs: pip install 'bitloom[sim,synth]' ({error})")


def _board_arch_file(name: str) -> str:
    """The architecture that lies beside the board's description, by the shortest name from here."""
    file = Path(boards.__file__).parent / name / "arch.toml"
    here = os.path.relpath(file)
    return str(file) if here.startswith("..") else here


def _admit(
    record: Path | None, without_proof: bool, warn: Tell, *, arch_file: str = "", way_out: str = ""
) -> Callable[[Path, Arch], Admission]:
    return partial(
        admit_design, record=record, without_proof=without_proof, warn=warn, arch_file=arch_file, way_out=way_out
    )


def _with_open_tools(
    name: str, out: Path, gate: Mapping[str, Any], arch: Arch | None, progress: Progress, tell: Tell
) -> dict[str, Any]:
    try:
        from boards.build import build
    except ImportError as error:
        raise _missing(error) from error
    if arch is not None and not isinstance(arch, DeformArch):
        raise ValueError(f"board {name} takes an architecture of core 'deform', the inference core, not of {arch.core!r}")
    return _result(build(name, out, **gate, arch=arch, progress=progress, say=tell), tell)


def _with_vivado(
    name: str, out: Path, gate: Mapping[str, Any], arch: Arch | None, vivado: Path | None, progress: Progress, tell: Tell
) -> dict[str, Any]:
    try:
        from boards.vivado.build import build
        from boards.vivado.deliver import Prepared
    except ImportError as error:
        raise _missing(error) from error
    made = build(name, out, **gate, arch=arch, vivado=vivado, progress=progress, say=tell)
    if isinstance(made, Prepared):
        return {"ok": True, "built": False, "folder": str(made.folder), "words": made.words, **made.plan}
    return _result(made, tell)


def _result(built: Any, tell: Tell) -> dict[str, Any]:
    for words in _summary(built.manifest):
        tell(words)
    return {"ok": True, "built": True, "folder": str(built.folder), "bitstream_path": str(built.bitstream), **built.manifest}


def _in_words(progress: Progress, tell: Tell) -> Progress:
    """Progress that is also told in lines of text, with seconds: logs of unattended builds have no bars."""
    began: dict[str, float] = {}
    told: dict[str, float] = {}

    def advance(step: str, done: int, total: int, note: str) -> None:
        progress(step, done, total, note)
        now = time.monotonic()
        seconds = now - began.setdefault(step, now)
        if done == total and not note:
            tell(f"{step}: done in {seconds:.0f} s")
        elif step not in told or now - told[step] >= TELL_SECONDS:
            told[step] = now
            tell(f"{step}{note} ({seconds:.0f} s)" if note else f"{step} begins")

    return advance


def _summary(manifest: Mapping[str, Any]) -> list[str]:
    """What was used of the part, what was reached and how long the tools took, from the manifest."""
    used = [
        f"{_count(use['used'])} of {_count(use['available'])} {words}"
        for kind, words in RESOURCES.items()
        if (use := manifest["utilisation"].get(kind)) is not None
    ]
    seconds = ", ".join(f"{step} {took:.0f} s" for step, took in manifest["seconds"].items())
    return [
        f"{manifest['part']}: {', '.join(used)}",
        _reached(manifest),
        f"taken from the cache; it was made with {seconds}"
        if manifest["cached"]
        else seconds or "how long it took is not told",
    ]


def _count(number: float) -> str:
    """In full, with a half where there is one: ``g`` would round what has more than six digits."""
    return f"{number:,.1f}".removesuffix(".0")


def _reached(manifest: Mapping[str, Any]) -> str:
    if "routed_mhz" in manifest:
        spare = manifest["routed_mhz"] / manifest["clock_mhz"] - 1
        return f"routed at {manifest['routed_mhz']:.2f} MHz, clock {manifest['clock_mhz']:g} MHz: {spare:.1%} to spare"
    slacks = ", ".join(f"{kind.replace('_', ' ')} {slack:g} ns" for kind, slack in manifest["worst_slack_ns"].items())
    return f"clock {manifest['clock_mhz']:g} MHz met by Vivado {manifest['tools']['vivado']}; worst slacks: {slacks}"
