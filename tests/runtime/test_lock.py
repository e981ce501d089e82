"""One user of a board: refused with the holder's name, freed by close and by the end of a process, however it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sw.runtime.errors import DeviceError
from sw.runtime.lock import BoardLock

BOARD = "/dev/ttyUSB7"


def test_a_second_user_is_refused_with_the_holders_name(tmp_path: Path) -> None:
    with BoardLock(BOARD, tmp_path) as lock:
        assert lock.path == tmp_path / "bitloom-dev-ttyUSB7.lock"
        with pytest.raises(DeviceError, match=re.escape(f"{BOARD} is in use by process {os.getpid()} of user ")):
            BoardLock(BOARD, tmp_path)
        with BoardLock("another board", tmp_path):
            pass
    with BoardLock(BOARD, tmp_path):
        pass


def test_release_is_once_and_for_all(tmp_path: Path) -> None:
    lock = BoardLock(BOARD, tmp_path)
    lock.release()
    with BoardLock(BOARD, tmp_path):
        lock.release()
        with pytest.raises(DeviceError, match="is in use by"):
            BoardLock(BOARD, tmp_path)


def test_a_process_that_is_killed_gives_the_board_back(tmp_path: Path) -> None:
    code = f"import sys; from pathlib import Path; from sw.runtime.lock import BoardLock; BoardLock({BOARD!r}, Path(sys.argv[1])); "
    child = subprocess.Popen(
        [sys.executable, "-c", code + "lock = BoardLock('two', Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()",
         str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    with pytest.raises(DeviceError, match=f"two is in use by process {child.pid} of "):
        BoardLock("two", tmp_path)
    child.kill()
    child.wait()
    with BoardLock("two", tmp_path) as lock:
        assert f"process {os.getpid()} of " in lock.path.read_text()


def test_a_lock_file_that_may_only_be_read_is_enough(tmp_path: Path) -> None:
    with BoardLock(BOARD, tmp_path) as lock:
        assert lock.path.stat().st_mode & 0o777 == 0o666
    lock.path.chmod(0o444)
    with BoardLock(BOARD, tmp_path), pytest.raises(DeviceError, match="is in use by"):
        BoardLock(BOARD, tmp_path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"the lock file .*bitloom-x.lock can be neither opened nor made .*: make its folder"):
        BoardLock("x", tmp_path / "none")
