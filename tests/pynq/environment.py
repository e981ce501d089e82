"""Virtual environments that hold a release of ``pynq``, made once and kept in the user's cache.

``pynq`` wants older numpy and protobuf than the rest of the project, so it never lives beside it. The simulated board needs Amaranth
besides, to import; its simulator is built outside and handed in as a file. Notebooks draw with Matplotlib, which the image has too.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tomllib

from hw.sim.cache import cache_root, cached_folder

ROOT = Path(__file__).parents[2]


class NoEnvironment(Exception):
    """It cannot be made here: no network, or no such Python."""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release of ``pynq``, and the Python that it is tested with; "" is the one that runs the tests."""

    version: str
    python: str = ""

    @property
    def requirements(self) -> list[str]:
        return [f"pynq=={self.version}", "pycparser<3", "numpy<2", "matplotlib<3.9", _amaranth()]


NEWEST = Release(version="4.0.0")
OLDER = (Release(version="3.1.2"), Release(version="3.0.1", python="python3.10"))
"""The last is what the Ultra96-V2's image has, with the Python of that image."""


@functools.cache
def environment(release: Release) -> Path:
    """The Python of a release's environment, made if it is not there; NoEnvironment, in words, where that fails."""
    if not release.python:
        python = sys.executable
    elif not (python := _working(release.python)):
        raise NoEnvironment(f"pynq {release.version} is tested with {release.python}, and there is none on the PATH")
    key = hashlib.sha256(json.dumps([release.requirements, os.path.realpath(python)]).encode()).hexdigest()[:8]
    folder = cache_root() / "venvs" / f"pynq-{release.version}-{key}"
    cached_folder(folder, lambda target: _make(target, python, release.requirements))
    return folder / "bin" / "python"


def facts(release: Release) -> dict[str, float]:
    """What making the environment took: seconds, megabytes."""
    found: dict[str, float] = json.loads((environment(release).parents[1] / "made.json").read_text())
    return found


def _make(folder: Path, python: str, requirements: Sequence[str]) -> None:
    start = time.monotonic()
    _run("make a virtual environment", [python, "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
    _run(f"install {' '.join(requirements)}", [*pip, *requirements])
    size = sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6
    (folder / "made.json").write_text(json.dumps({"seconds": round(time.monotonic() - start, 1), "megabytes": round(size)}))


def _run(what: str, command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines
        raise NoEnvironment(f"could not {what} (no network?): {reasons[-1].strip() if reasons else f'exit {done.returncode}'}")


@functools.cache
def _working(name: str) -> str:
    """The path of a Python that starts, or "": a name on the PATH may be a shim that has nothing behind it."""
    candidates = [shutil.which(name), *sorted(Path.home().glob(f".pyenv/versions/{name.removeprefix('python')}.*/bin/python"))]
    for path in filter(None, candidates):
        if subprocess.run([path, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
            return str(path)
    return ""


def _amaranth() -> str:
    """As pyproject.toml pins it, without its yosys: nothing is elaborated in these environments."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["sim"]
    return next(line for line in extras if line.startswith("amaranth")).replace("[builtin-yosys]", "")
