"""One user of a board at a time: an advisory lock that ends with the process that holds it, however that ends.

The lock is on a file in the machine's folder for temporary files, named after the board, with the holder in words inside. It keeps
programs of this package apart, of all users of the machine; not others.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import re
import tempfile
import time
from pathlib import Path

from sw.runtime.errors import DeviceError

__all__ = ["BoardLock"]


class BoardLock:
    """The lock of ``board``, any text that names it on this machine, such as its device file; taken when made.

    DeviceError where another holds it, with who and since when.
    """

    def __init__(self, board: str, folder: Path | None = None) -> None:
        name = re.sub(r"[^A-Za-z0-9]+", "-", board).strip("-")
        self.board, self.path = board, (folder or Path(tempfile.gettempdir())) / f"bitloom-{name}.lock"
        self._file: int | None = _opened(self.path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 200, 0).decode("utf-8", "replace").strip() or "another process"
            self.release()
            raise DeviceError(
                f"{board} is in use by {holder}: wait until that program has ended or has closed the device, or end it"
            ) from error
        self._sign()

    def release(self) -> None:
        """Give the board back; a second time does nothing. The file stays: removing it would part those who wait for it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> BoardLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _sign(self) -> None:
        """Who holds it, for the message of those who come later; where the file is another user's, their name stays."""
        assert self._file is not None
        words = f"process {os.getpid()} of {_user()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n"
        try:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, words.encode(), 0)
        except OSError:
            pass


def _opened(path: Path) -> int:
    """The file, made if it is not there, open to read at least: a lock needs no more.

    A file that is there is opened without the wish to make it, which systems refuse for other users' files in shared folders.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW
    for more in (os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_CREAT):
        try:
            file = os.open(path, flags | more, 0o666)
        except (FileNotFoundError, PermissionError) as error:
            last = error
            continue
        if more & os.O_CREAT:
            _open_to_all(file)
        return file
    raise DeviceError(f"the lock file {path} can be neither opened nor made ({last}): make its folder writable, or remove the file")


def _open_to_all(file: int) -> None:
    """Whatever the process's mask is: other users must be able to see who holds it."""
    try:
        os.fchmod(file, 0o666)
    except OSError:
        pass


def _user() -> str:
    try:
        return f"user {getpass.getuser()}"
    except (KeyError, OSError, ImportError):
        return f"user number {os.getuid()}"
