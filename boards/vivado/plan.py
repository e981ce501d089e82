"""What goes into a build with Vivado: every text, its hash, and one digest over all of them.

The digest names the build: the same plan gives the same bitstream, here or elsewhere. The version of Vivado is no part of it, because a
plan is often run on another machine; the manifest says which one it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from boards.fit import needs
from boards.vivado.board import VivadoBoard
from boards.vivado.project import CORE_FILE, project_files
from hw.sim.core import emit_core
from hw.spec.arch import Arch

SCRIPT_FILE = "build.tcl"
COMMAND = ("vivado", "-mode", "batch", "-source", SCRIPT_FILE)
"""What is run in the folder of the texts."""

TIMING_FILE, UTILISATION_FILE, MESSAGES_FILE, LOG_FILE = "timing.rpt", "utilization.rpt", "messages.rpt", "vivado.log"
DESIGN = "bitloom_wrapper"
"""The top of what is implemented; Vivado writes it into the bitstream's header."""

LARGE = 500
"""Multipliers of a core whose Verilog takes minutes to write."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A build.

    Parameters
    ----------
    board, arch : what it is for
    build_id : identity of the design record, tied off in the core's wrapper
    files : all texts by name; ``core.v`` is what the design record proves
    """

    board: VivadoBoard
    arch: Arch
    build_id: int
    files: Mapping[str, str]

    def __post_init__(self) -> None:
        if missing := [name for name in (CORE_FILE, SCRIPT_FILE) if name not in self.files]:
            raise ValueError(f"files must hold {', '.join(missing)}, not only {sorted(self.files)}")
        if odd := [name for name in self.files if "/" in name or "\\" in name or name.startswith(".")]:
            raise ValueError(f"files must be named without folders, not {odd}")

    @property
    def hashes(self) -> dict[str, str]:
        """SHA-256 (hex) of every text, by name."""
        return {name: text_sha256(text) for name, text in sorted(self.files.items())}

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of all texts with their names."""
        return digest_of(self.hashes)

    @property
    def bitstream_file(self) -> str:
        return f"{self.board.name}.bit"

    @property
    def hand_off_file(self) -> str | None:
        """What PYNQ reads; a card has none."""
        return f"{self.board.name}.hwh" if self.board.kind == "zynq" else None

    @property
    def made(self) -> tuple[str, ...]:
        """Everything that a run leaves and that is delivered, the bitstream first."""
        hand_off = (self.hand_off_file,) if self.hand_off_file else ()
        return (self.bitstream_file, *hand_off, TIMING_FILE, UTILISATION_FILE, MESSAGES_FILE, LOG_FILE)

    def entries(self) -> dict[str, Any]:
        """What manifest and plan.json say of it."""
        return {
            "board": self.board.name,
            "part": self.board.part,
            "arch": self.arch.to_dict(),
            "arch_id": f"{self.arch.arch_id:016x}",
            "plan_sha256": self.digest,
            "files": self.hashes,
        }


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def digest_of(hashes: Mapping[str, str]) -> str:
    """Digest of a plan whose texts have these hashes."""
    return hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()


def check_suits(board: VivadoBoard, arch: Arch) -> set[str]:
    """The names of all texts. BoardError where the core does not fit the part or suit the board; before the core is written."""
    return {CORE_FILE, *project_files(board, arch, build_id=0)}


def core_text(arch: Arch, say: Say = lambda words: None) -> str:
    """The core's Verilog: the one text that is simulated and proven, made or from the cache."""
    multipliers = sum(needs(arch).multipliers.values())
    large = f": a core of {multipliers:,} multipliers takes minutes, the first time" if multipliers > LARGE else ""
    text: str = emit_core(arch, progress=lambda words: say(f"{words}{large}")).text
    return text


def make_plan(board: VivadoBoard, arch: Arch, core: str, *, build_id: int) -> Plan:
    """Everything that goes into the board's bitstream; ``core`` is the core's Verilog."""
    files = {CORE_FILE: core, **project_files(board, arch, build_id=build_id)}
    return Plan(board=board, arch=arch, build_id=build_id, files=files)
