"""The tutorial, run as its reader would: files written as they stand there, commands in their order, then its Python."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
_FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block: its language, what the fence says after it, its text."""

    language: str
    note: str
    text: str


def blocks() -> list[Block]:
    return [Block(language=lang, note=note.strip(), text=text) for lang, note, text in _FENCE.findall(PAGE.read_text())]


def follow(folder: Path, *, slow: bool) -> dict[str, int]:
    """Write and run everything; counts what was done, by kind."""
    done = {"file": 0, "command": 0, "python": 0}
    for block in blocks():
        if block.note.startswith("file="):
            (folder / block.note.removeprefix("file=")).write_text(block.text)
            done["file"] += 1
        elif block.language == "sh" and (slow or block.note != "slow"):
            for line in block.text.strip().splitlines():
                _run(folder, ["-m", "sw.cli", *shlex.split(line)[1:]])
                done["command"] += 1
        elif block.language == "python" and block.note == "run":
            _run(folder, ["-c", block.text])
            done["python"] += 1
    return done


def _run(folder: Path, arguments: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    done = subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(arguments)[:200]}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_the_tutorial_works(tmp_path: Path) -> None:
    assert follow(tmp_path, slow=False) == {"file": 2, "command": 9, "python": 1}
    run = tmp_path / "run"
    assert {"checkpoint.pt", "history.json", "curves.png", "manifest.json", "model.graph"} <= {p.name for p in run.iterdir()}


@pytest.mark.slow
def test_the_tutorial_works_in_the_simulator(tmp_path: Path) -> None:
    assert follow(tmp_path, slow=True)["command"] == 10
