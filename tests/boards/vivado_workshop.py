"""A build with Vivado in an empty cache, with a stand-in for Vivado that can be told what to do, and a core of one line."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from boards.vivado.board import load_vivado_board
from hw.rtl.emit import EmittedVerilog
from hw.spec.arch import Arch
from hw.spec.records import DESIGN_CHECKS, Check, DesignRecord, definition_sha256
from sw.flow.build_board import build_board, import_board
from tests.boards.fake_vivado import FakeVivado
from tests.e2e.tiny import ARCH

BOARD = load_vivado_board("ultra96v2")
BIT, HWH = "ultra96v2.bit", "ultra96v2.hwh"


@dataclass(kw_only=True)
class Workshop:
    """Members: ``emitted``, the architectures whose Verilog was asked for; ``told`` and ``words``, progress and lines of text."""

    folder: Path
    fake: FakeVivado
    core: str = "module deform_core; endmodule\n"
    emitted: list[Arch] = field(default_factory=list)
    told: list[tuple[str, int, int, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def emit(self, arch: Arch, *, progress: Callable[[str], None]) -> EmittedVerilog:
        self.emitted.append(arch)
        return EmittedVerilog(text=self.core, sha256="", name="deform_core", ports=(), watches=())

    def build(
        self, out: str = "out", *, without_proof: bool = True, board: str = "ultra96v2", arch: Arch = ARCH, **more: Any
    ) -> dict[str, Any]:
        progress = more.pop("progress", lambda *step: self.told.append(step))
        return build_board(
            board, self.folder / out, arch=arch, without_proof=without_proof, progress=progress, tell=self.words.append, **more
        )

    def bring_back(
        self, folder: str = "carried", out: str = "out", *, without_proof: bool = True, **more: Any
    ) -> dict[str, Any]:
        return import_board(
            self.folder / folder, self.folder / out, without_proof=without_proof, tell=self.words.append, **more
        )

    def prepare(self, folder: str = "carried", **more: Any) -> dict[str, Any]:
        """A build where there is no Vivado."""
        path = os.environ["PATH"]
        os.environ["PATH"] = "/usr/bin:/bin"
        try:
            return self.build(folder, **more)
        finally:
            os.environ["PATH"] = path

    def run_elsewhere(self, folder: Path) -> None:
        """The prepared folder's own command, on the machine that has the stand-in."""
        command = json.loads((folder / "plan.json").read_text())["command"].split()
        subprocess.run([str(self.fake.program), *command[1:]], cwd=folder, check=True, capture_output=True, timeout=60)

    def kept(self) -> list[Path]:
        """Folders of bitstreams in the cache, half-made ones too."""
        root = self.folder / "cache" / "bitloom" / "vivado"
        return [path for path in root.iterdir() if path.is_dir()] if root.exists() else []


def design_record(core: str, arch: Arch = ARCH, **tools: str) -> DesignRecord:
    """A record that says that this text was proven."""
    checks = tuple(Check(name=name, compared={"bytes": 7}, mismatches=0, seeds=(1,), seconds=0.25) for name in DESIGN_CHECKS)
    return DesignRecord(
        verilog_sha256=hashlib.sha256(core.encode()).hexdigest(), arch_id=arch.arch_id, definition_sha256=definition_sha256(),
        checks=checks, coverage={"LOAD": 3}, tools=tools,
    )  # fmt: skip


def contents(folder: Path) -> dict[str, bytes]:
    """Everything in a folder by relative path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
