"""Virtual environments that hold a release of ``pynq``, made once and kept in the user's cache.

``pynq`` wants older numpy and protobuf than the rest of the project, so it never lives beside it. The simulated board needs Amaranth
besides, to import; its simulator is built outside and handed in as a file. Notebooks draw with Matplotlib, which the image has too.
"""

from __future__ import annotations

import functools
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests import environments
from tests.environments import ROOT, clean, pinned

START = """
import importlib, sys, types
sys.modules["tests"] = types.ModuleType("tests")  # a package of that name may be installed beside pynq
sys.modules["tests"].__path__ = [sys.argv[1] + "/tests"]
sys.path.insert(0, sys.argv[1])
from pathlib import Path
importlib.import_module(sys.argv[2]).main(Path(sys.argv[3]))
"""


@dataclass(frozen=True, kw_only=True)
class Release:
    """A release of ``pynq``, and the Python that it is tested with; "" is the one that runs the tests."""

    version: str
    python: str = ""

    @property
    def requirements(self) -> list[str]:
        """Amaranth is without its yosys: nothing is elaborated in these environments."""
        amaranth = pinned("amaranth")[0].replace("[builtin-yosys]", "")
        return [f"pynq=={self.version}", "pycparser<3", "numpy<2", "matplotlib<3.9", amaranth]


NEWEST = Release(version="4.0.0")
OLDER = (Release(version="3.1.2"), Release(version="3.0.1", python="python3.10"))
"""The last is what the Ultra96-V2's image has, with the Python of that image."""


@functools.cache
def environment(release: Release) -> Path:
    """The Python of a release's environment, made if it is not there; NoEnvironment, in words, where that fails."""
    return environments.environment(f"pynq-{release.version}", release.python, release.requirements)


def run_main(release: Release, module: str, folder: Path) -> None:
    """``main(folder)`` of a module of the tests, inside and in that folder; locks and temporary files lie there too."""
    ran = subprocess.run(
        [str(environment(release)), "-c", START, str(ROOT), module, str(folder)], cwd=folder, capture_output=True, text=True,
        check=False, env=clean(TMPDIR=str(folder)),
    )  # fmt: skip
    assert ran.returncode == 0, f"{module} ended with {ran.returncode}:\n{ran.stdout}\n{ran.stderr}"
