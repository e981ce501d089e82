"""Builds a board's bitstream behind the proof gate: where ``boards`` and the records meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from sw.flow.gate import admit_design
from sw.runtime import DeviceError

Progress = Callable[[str, int, int, str], None]
Tell = Callable[[str], None]

TELL_SECONDS = 20.0
"""Least time between two lines of text about one step; every step tells its beginning and its end."""

RESOURCES = {
    "TRELLIS_COMB": "logic cells",
    "TRELLIS_FF": "flip-flops",
    "MULT18X18D": "multipliers",
    "DP16KD": "block RAMs",
}
"""What users are told of place and route's report; the manifest has all of it."""


def build_board(
    name: str,
    out: Path,
    *,
    arch: DeformArch | None = None,
    record: Path | None = None,
    without_proof: bool = False,
    progress: Progress = lambda step, done, total, note: None,
    tell: Tell = lambda words: None,
    warn: Tell = lambda words: None,
) -> dict[str, Any]:
    """Build the bitstream into ``out`` and return its manifest with ``ok``, ``folder`` and ``bitstream_path``.

    The design record is looked for beside the core's Verilog in ``out`` where ``record`` does not name it. A refusal leaves the
    Verilog there, to be proven.
    """
    try:
        from boards.build import build
    except ImportError as error:
        raise DeviceError(f"building a bitstream needs: pip install 'bitloom[sim,synth]' ({error})") from error

    def admit(verilog: Path, of: Arch) -> Any:
        return admit_design(verilog, of, record, without_proof=without_proof, warn=warn)

    built = build(name, out, admit=admit, arch=arch, progress=_in_words(progress, tell), say=tell)
    for words in _summary(built.manifest):
        tell(words)
    return {"ok": True, "folder": str(built.folder), "bitstream_path": str(built.bitstream), **built.manifest}


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
    """What was used of the part, what place and route reached and how long the tools took, from the manifest."""
    used = [
        f"{use['used']:,} of {use['available']:,} {words}"
        for kind, words in RESOURCES.items()
        if (use := manifest["utilisation"].get(kind)) is not None
    ]
    seconds = ", ".join(f"{step} {took:.0f} s" for step, took in manifest["seconds"].items())
    return [
        f"{manifest['part']}: {', '.join(used)}",
        f"routed at {manifest['routed_mhz']:.2f} MHz, clock {manifest['clock_mhz']:g} MHz: "
        f"{manifest['routed_mhz'] / manifest['clock_mhz'] - 1:.1%} to spare",
        f"taken from the cache; it was made with {seconds}" if manifest["cached"] else seconds,
    ]
