"""Artefacts on disk with their records beside them, for tests of the gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sw.runtime import Proof


@dataclass(frozen=True, kw_only=True)
class Proven:
    """A folder with core.v, tiny.graph, tiny.program, inputs.npy and both records."""

    folder: Path
    proof: Proof

    def path(self, name: str) -> Path:
        return self.folder / name
