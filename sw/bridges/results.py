"""Folders that bridges write: whole or not there, and nothing is lost that a bridge did not write itself.

One rule for all of them. A folder that is missing or empty is written. One that holds an earlier result of the same bridge, with
nothing changed and nothing added, is replaced without a question; with changed or added files it is refused with their names, unless
``overwrite``: then changed files are replaced, and added ones stay. Any other folder is refused. A manifest in the folder has the hash
of each file that was written, its own included, and names the products of the folder's own build, which go with the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sw.bridges.errors import BridgeError

__all__ = ["Kind", "check_free", "hashes", "manifest", "sha256", "write_folder"]

_VERSION = 2
_MOST_NAMES = 12


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a bridge's folders are known by.

    Parameters
    ----------
    command : that writes them, for messages
    mark : a key of the manifest that no one else uses
    manifest : its file's name
    """

    command: str
    mark: str
    manifest: str


def manifest(kind: Kind, facts: Mapping[str, Any], files: Mapping[str, str], products: Sequence[str]) -> str:
    """The manifest's text: ``files`` by name with their hashes; ``products`` are names that the folder's own build writes to."""
    return _sealed({kind.mark: _VERSION, **facts, "products": list(products), "files": dict(files)})


def _sealed(content: Mapping[str, Any]) -> str:
    return json.dumps({**content, "sha256": sha256(json.dumps(content).encode())}, indent=1) + "\n"


def hashes(folder: Path) -> dict[str, str]:
    """Name and hash of every file of a folder, sorted by name."""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {name: sha256((folder / name).read_bytes()) for name in files}


def sha256(data: bytes) -> str:
    """As hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def check_free(folder: str | Path, kind: Kind, *, overwrite: bool) -> tuple[str, ...]:
    """What was added to an earlier result and stays, folders with a slash behind them; BridgeError where the rule refuses."""
    target = _real(folder)
    if target.exists() and not target.is_dir():
        raise BridgeError(f"{target} must be a folder, and it is a file: name another")
    if not target.exists() or not any(target.iterdir()):
        return ()
    content = _earlier(target, kind)
    if (here := _working_folder()) and target in here.parents:
        inner = here.relative_to(target)
        raise BridgeError(f"{target} holds an earlier result, and this runs in its folder {inner}: go to {target} first")
    changed, added = _changed(target, kind, content), _added(target, kind, content)
    if (changed or added) and not overwrite:
        found = [f"{_listed(names)} {what}" for names, what in ((changed, "changed"), (added, "added")) if names]
        raise BridgeError(f"{target} holds an earlier result with {' and '.join(found)} since: name another folder, or say --overwrite "
                          "(in Python overwrite=True), which replaces what was written and lets added files stay")
    return tuple(added)


def _real(folder: str | Path) -> Path:
    """The folder itself, also by way of a link or as the one that one is in."""
    return Path(os.path.realpath(folder))


def _earlier(target: Path, kind: Kind) -> dict[str, Any]:
    """The manifest of an earlier result; BridgeError where there is none."""
    try:
        content = json.loads((target / kind.manifest).read_text(encoding="utf-8"))
        version = content[kind.mark]
    except (FileNotFoundError, IsADirectoryError, ValueError, LookupError, TypeError):
        found = _listed(sorted(path.name for path in target.iterdir()))
        raise BridgeError(f"{target} holds other files than '{kind.command}' writes ({found}), and they are never replaced: name an "
                          "empty folder, or one that is not there yet") from None
    try:
        if version == _VERSION:
            return {**content, "files": _plain(content["files"]), "products": sorted(_plain(dict.fromkeys(content["products"])))}
    except (LookupError, TypeError, ValueError, AttributeError):
        pass
    raise BridgeError(f"{target} holds a result of '{kind.command}' of another version, or its {kind.manifest} is damaged, so that "
                      "its files cannot be told from yours: name an empty folder, or one that is not there yet")


def _plain(names: Mapping[str, Any]) -> dict[str, Any]:
    """Entries whose name is of a file within the folder, written as this module writes it."""
    return {name: value for name, value in names.items()
            if name == PurePosixPath(name).as_posix() and not name.startswith("/") and ".." not in PurePosixPath(name).parts}


def _changed(target: Path, kind: Kind, content: Mapping[str, Any]) -> list[str]:
    """Files that are there and not as they were written."""
    text = (target / kind.manifest).read_text(encoding="utf-8")
    found = [name for name, digest in content["files"].items() if _differs(target / name, digest)]
    told = json.loads(text)
    return found if text == _sealed({key: value for key, value in told.items() if key != "sha256"}) else [*found, kind.manifest]


def _differs(path: Path, digest: str) -> bool:
    try:
        kind = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISDIR(kind):
        return False  # an added folder in the place of the file
    return not stat.S_ISREG(kind) or sha256(path.read_bytes()) != digest


def _added(target: Path, kind: Kind, content: Mapping[str, Any]) -> list[str]:
    """Files and folders, each with a slash behind it, that were not written here and that no build writes."""
    ours = {*content["files"], *content["products"], kind.manifest}
    parents = _parents(ours)
    found = []
    for place, folders, files in os.walk(target, onerror=_raise):
        here = Path(place).relative_to(target)
        links = {name for name in folders if os.path.islink(Path(place, name))}
        new = [name for name in folders if name not in links and (here / name).as_posix() not in parents]
        found += [f"{(here / name).as_posix()}/" for name in new]
        found += [name for name in ((here / each).as_posix() for each in (*files, *links)) if name not in ours]
        folders[:] = sorted({*folders} - links - {*new})
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _parents(names: Iterable[str]) -> set[str]:
    return {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}


def write_folder(folder: str | Path, kind: Kind, make: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Put what ``make`` writes into a folder, its manifest included, in the place of ``folder``.

    It is made beside the folder, gets hard links of all that was added to an earlier result, and takes its place by renaming: at no
    time is there half a result. An error leaves everything as it was.
    """
    target = _real(folder)
    check_free(target, kind, overwrite=overwrite)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as work:
        new = Path(work) / "new"
        new.mkdir()
        make(new)
        added = check_free(target, kind, overwrite=overwrite)  # once more: making takes its time
        _keep(target, new, added)
        _place(new, target)


def _keep(target: Path, new: Path, added: Sequence[str]) -> None:
    """Added files and folders in the new folder as well; BridgeError where a new file would be in their place."""
    files = set(hashes(new))
    taken = files | _parents(files)
    if clashes := [name for name in added if name.rstrip("/") in taken or _parents([name]) & files]:
        raise BridgeError(f"{target} holds {_listed(clashes)}, added since it was written, in the place of new files: name another "
                          "folder, or move what was added")
    for name in added:
        (new / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            shutil.copytree(target / name, new / name, symlinks=True, copy_function=_link)
        else:
            _link(target / name, new / name)
    if target.exists():
        shutil.copymode(target, new)


def _link(source: str | Path, goal: str | Path) -> None:
    """The same file a second time; a copy where the file system has no links."""
    try:
        os.link(source, goal, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, goal, follow_symlinks=False)


def _place(new: Path, target: Path) -> None:
    """By renaming, which is undone where it fails. The folder that the command runs in stays the same one, with other contents."""
    inside = target == _working_folder()
    if not inside and (not target.exists() or not any(target.iterdir())):
        os.replace(new, target)
        return
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
    old = beside / target.name
    moves = [(target, old), (new, target)]
    if inside:
        old.mkdir()
        moves = [(path, old / path.name) for path in target.iterdir()] + [(path, target / path.name) for path in new.iterdir()]
    try:
        for source, goal in moves:
            os.replace(source, goal)
    except BaseException:  # Ctrl-C too: whatever comes between two renamings, the earlier folder is put back, and it is raised again
        for source, goal in reversed(moves):
            if os.path.lexists(goal) and not os.path.lexists(source):
                os.replace(goal, source)
        for empty in (old, beside):
            with contextlib.suppress(OSError):
                empty.rmdir()
        raise
    shutil.rmtree(beside, ignore_errors=True)


def _working_folder() -> Path | None:
    try:
        return Path(os.path.realpath(os.getcwd()))
    except FileNotFoundError:  # it was removed
        return None


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
