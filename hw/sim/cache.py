"""Folders in the user's cache that are made once, complete or not at all, also where several processes want the same."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_root() -> Path:
    """`$XDG_CACHE_HOME/bitloom`, or `~/.cache/bitloom`. Make and Verilator cannot work under a path with spaces."""
    base = os.environ.get("XDG_CACHE_HOME")
    root = (Path(base) if base else Path.home() / ".cache") / "bitloom"
    if any(character.isspace() for character in str(root)):
        raise ValueError(f"Cache folder must have no spaces in its path, as {root} does: set XDG_CACHE_HOME elsewhere")
    return root


def cached_folder(folder: Path, make: Callable[[Path], None]) -> bool:
    """Makes sure that `folder` exists, with `make(empty_temporary_folder)` where it does not; True if it was made.

    `make` fills a temporary folder beside `folder`, which is renamed when complete: a process that dies leaves nothing
    that could be mistaken for a result. Other processes that want the same folder wait.
    """
    with _locked(folder):
        if folder.is_dir():
            os.utime(folder)
            return False
        for left_over in folder.parent.glob(f".{folder.name}-*"):  # of a process that died
            shutil.rmtree(left_over, ignore_errors=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            make(temporary)
            temporary.chmod(0o755)
            temporary.rename(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return True


def drop_oldest(parent: Path, keep: int) -> None:
    """Removes all but the `keep` folders of `parent` that were made or used last."""
    folders = [path for path in parent.iterdir() if path.is_dir() and not path.name.startswith(".")]
    for folder in sorted(folders, key=_age, reverse=True)[keep:]:
        with _locked(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _age(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:  # another process was faster
        return 0.0


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The lock file stays: removing it would let two processes hold locks on different files of one name."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
