"""Virtual environments that tests make, of other packages or of another Python: once, whole or not at all, in the user's cache.

Only the standard library is imported here at first, so that what runs inside such an environment may import this too.
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
from pathlib import Path

from hw.sim.cache import cache_root, cached_folder

ROOT = Path(__file__).parents[1]
FACTS_FILE = "made.json"


class NoEnvironment(Exception):
    """It cannot be made here: no such Python, no such wheel, or no network."""


def environment(name: str, python: str, requirements: Sequence[str], *, wheels_only: bool = False) -> Path:
    """The Python of an environment ``name`` of a Python ("" for the running one, else a name such as python3.10), made if it is not
    there; NoEnvironment, in words, where that fails. With ``wheels_only`` nothing is built."""
    base = interpreter(python)
    key = hashlib.sha256(json.dumps([list(requirements), os.path.realpath(base)]).encode()).hexdigest()[:8]
    folder = cache_root() / "venvs" / f"{name}-{key}"
    cached_folder(folder, lambda target: _make(target, base, requirements, wheels_only))
    return folder / "bin" / "python"


def facts(python: Path) -> dict[str, float]:
    """What making an environment took: seconds, megabytes."""
    found: dict[str, float] = json.loads((python.parents[1] / FACTS_FILE).read_text())
    return found


@functools.cache
def interpreter(name: str) -> str:
    """The path of a Python that starts: a name on the PATH may be a shim that has nothing behind it."""
    if not name:
        return sys.executable
    version = name.removeprefix("python")
    candidates = [shutil.which(name), *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    for path in filter(None, candidates):
        if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    raise NoEnvironment(
        f"there is no {name} on the PATH: install Python {version}; in CI, actions/setup-python lists it before 3.11"
    )


def pinned(*names: str) -> list[str]:
    """Requirements by name, with the versions of pyproject.toml's extras."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].values()
    found = {line.split(">=")[0].split("==")[0].split("[")[0]: line for lines in extras for line in lines}
    return [found[name] for name in names]


def clean(**more: str) -> dict[str, str]:
    """This process's environment variables without what would let its own packages be seen."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONNOUSERSITE": "1", **more}


def _make(folder: Path, python: str, requirements: Sequence[str], wheels_only: bool) -> None:
    """Without a pip of its own: the one that installed the project fills it."""
    start = time.monotonic()
    _run("make a virtual environment", [python, "-m", "venv", "--without-pip", str(folder)])
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check", "--no-input"]
    options = ["--quiet", *(["--only-binary", ":all:"] if wheels_only else [])]
    _run(f"install {' '.join(requirements)}", [*pip, "install", *options, *requirements])
    size = sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6
    (folder / FACTS_FILE).write_text(json.dumps({"seconds": round(time.monotonic() - start, 1), "megabytes": round(size)}))


def _run(what: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean())
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines
        raise NoEnvironment(f"could not {what} (no network?): {reasons[-1].strip() if reasons else f'exit {done.returncode}'}")
