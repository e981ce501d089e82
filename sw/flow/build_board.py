"""Builds a board's bitstream behind the proof gate: where ``boards`` and the records meet."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from sw.flow.gate import admit_design
from sw.runtime import DeviceError

Progress = Callable[[str, int, int, str], None]


def build_board(
    name: str,
    out: Path,
    *,
    arch: DeformArch | None = None,
    record: Path | None = None,
    without_proof: bool = False,
    progress: Progress = lambda step, done, total, note: None,
    tell: Callable[[str], None] = lambda words: None,
    warn: Callable[[str], None] = lambda words: None,
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

    built = build(name, out, admit=admit, arch=arch, progress=progress, say=tell)
    return {"ok": True, "folder": str(built.folder), "bitstream_path": str(built.bitstream), **built.manifest}
