"""From a C++ file beside this one to a loaded library, kept in the user's cache.

The key is a hash of the source, the headers beside it, the flags, the compiler and the processor that ``-march=native``
names, so an entry is never stale, also where machines share a home folder. The file appears in one rename: processes that
build the same library at once do no harm.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import subprocess
import tempfile
import warnings
from pathlib import Path

__all__ = ["SWITCH", "KernelBuildError", "available", "build", "library"]

SWITCH = "BITLOOM_KERNELS"
"""Environment variable; "off" at the start makes every caller use its definition in torch or numpy."""

ENABLED = os.environ.get(SWITCH, "").lower() != "off"

_FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-shared",
          "-fPIC", "-pthread")
"""No contraction and nothing of -ffast-math: every operation is the IEEE one. The two -fno flags give up errno and
exception flags, which nothing reads; without them rounding is not vectorised."""


class KernelBuildError(RuntimeError):
    """The compiler is missing or refused a kernel; the message has its last lines."""


def available() -> bool:
    """Whether kernels can be used here; the first call compiles them, which takes some seconds."""
    return library("fake_quantize") is not None


def library(name: str) -> ctypes.CDLL | None:
    """The loaded kernel ``name``, or None where it is switched off or does not compile, which is warned of once."""
    return _loaded(name) if ENABLED else None


@functools.cache
def _loaded(name: str) -> ctypes.CDLL | None:
    try:
        return ctypes.CDLL(str(build(Path(__file__).with_name(f"{name}.cpp"))))
    except (KernelBuildError, OSError) as error:
        warnings.warn(f"the compiled kernel {name} cannot be used, and slower code stands in for it, with equal "
                      f"results: {error}", RuntimeWarning, stacklevel=3)
        return None


def build(source: Path) -> Path:
    """Compile a C++ file, or find its library in the cache. Raises KernelBuildError."""
    texts = [path.read_bytes() for path in (source, *sorted(source.parent.glob("*.h")))]
    parts = [*texts, " ".join(_FLAGS).encode(), _ask("--version"), _ask("-march=native", "-Q", "--help=target")]
    target = _cache() / f"{source.stem}-{hashlib.sha256(b'|'.join(parts)).hexdigest()[:32]}.so"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(suffix=".so", dir=target.parent)
        os.close(handle)
        try:
            _run("g++", *_FLAGS, "-o", temporary, str(source))
            os.replace(temporary, target)
        finally:
            Path(temporary).unlink(missing_ok=True)
    return target


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bitloom" / "kernels"


@functools.cache
def _ask(*arguments: str) -> bytes:
    return _run("g++", *arguments)


def _run(*command: str) -> bytes:
    try:
        return subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise KernelBuildError(f"{command[0]} is not on the PATH: install it") from None
    except subprocess.CalledProcessError as error:
        last = "\n".join(error.stderr.decode(errors="replace").splitlines()[-12:])
        raise KernelBuildError(f"{' '.join(command)} failed:\n{last}") from None
