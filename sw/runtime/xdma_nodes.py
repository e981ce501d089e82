"""The character devices that the XDMA Linux driver makes of a card, and what their errors mean.

=======================  =====================================================================================================
xdmaN_h2c_C, xdmaN_c2h_C  memory: the offset is the AXI address and never advances; a call may move less than it was asked to,
                          which hides an error
xdmaN_user                registers: 4 bytes a call at an offset of the BAR, which the driver does not check against its size
xdmaN_events_K            interrupts: poll tells of one, a read of 4 bytes takes it; a read alone would wait for ever
=======================  =====================================================================================================

A link that is down reads all ones and swallows writes; only registers tell. Calls are pread and pwrite alone: the driver has vectored
ones for asynchronous use only.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import partial
from typing import Protocol, TypeVar

from hw.spec.regs import BY_NAME, IDENTITY
from sw.runtime.errors import DeviceError
from sw.runtime.xdma_card import (
    ALL_ONES,
    GONE,
    RECOVERY,
    REGISTER_BYTES,
    REGISTER_WINDOW,
    DeviceLost,
    SystemCalls,
    XdmaCard,
    explained,
)

MAX_SHORT = 16
"""Short counts in a row after which a transfer is given up, though each moved something."""

Result = TypeVar("Result")


class Move(Protocol):
    """Moves ``size`` bytes from byte ``at`` of a transfer on; how many it moved."""

    def __call__(self, file: int, at: int, size: int) -> int: ...


class XdmaNodes:
    """The open nodes of a card. Any error is a DeviceError in words, DeviceLost where the card is gone, and then for good.

    ``has_events``: whether there is an events node. ``short_counts``: calls that moved less than they were asked to.
    """

    def __init__(self, card: XdmaCard, calls: SystemCalls) -> None:
        self.card, self.short_counts = card, 0
        self._calls, self._lost = calls, ""
        self._files: dict[str, int] = {}
        self._h2c, self._c2h, self._events = f"h2c_{card.channel}", f"c2h_{card.channel}", f"events_{card.event}"
        try:
            for name, flags in (("user", os.O_RDWR), (self._h2c, os.O_WRONLY), (self._c2h, os.O_RDONLY)):
                self._open(name, flags)
            self.has_events = self._open(self._events, os.O_RDONLY, needed=False)
        except BaseException:
            self.close()
            raise

    def read_user(self, offset: int) -> int:
        """A register of the core; DeviceLost where it reads all ones and so does the whole card."""
        value = self._read_word(self._checked(offset))
        if value == ALL_ONES:
            self._demand_identity(f"register {offset:#05x} reads {ALL_ONES:#010x}")
        return value

    def write_user(self, offset: int, value: int) -> None:
        at, data = self.card.register_base + self._checked(offset), memoryview(value.to_bytes(REGISTER_BYTES, "little"))
        moved = self._call("user", f"write of register {offset:#05x}", lambda file: self._calls.pwrite(file, data, at))
        if moved != REGISTER_BYTES:
            raise DeviceError(
                f"{self.card.node('user')}: the write of register {offset:#05x} moved {moved} of {REGISTER_BYTES} bytes"
            )

    def write_memory(self, address: int, data: bytes) -> None:
        view = memoryview(bytes(data))

        def move(file: int, at: int, size: int) -> int:
            return self._calls.pwrite(file, view[at : at + size], address + at)

        self._move(self._h2c, f"write of {len(view)} bytes at {address:#x}", len(view), move)

    def read_memory(self, address: int, count: int) -> bytes:
        parts: list[bytes] = []

        def move(file: int, at: int, size: int) -> int:
            parts.append(self._calls.pread(file, size, address + at))
            return len(parts[-1])

        self._move(self._c2h, f"read of {count} bytes at {address:#x}", count, move)
        return b"".join(parts)

    def take_event(self, seconds: float) -> bool:
        """Wait for an interrupt and take it; False where none came in that time. It may be an earlier program's."""
        return self._call(self._events, "wait for the interrupt", lambda file: self._take_event(file, seconds))

    def lose(self, reason: str) -> DeviceLost:
        """From now on every access raises DeviceLost; the error to raise."""
        self._lost = f"the card of {self.card.node('*')} is lost: {reason}; {RECOVERY}"
        return DeviceLost(self._lost)

    def close(self) -> None:
        """Close every node; never fails, also on a card that is gone."""
        while self._files:
            _, file = self._files.popitem()
            try:
                self._calls.close(file)
            except OSError:
                continue

    # ----------------------------------------------------------------------------------------------------------------------

    def _open(self, name: str, flags: int, *, needed: bool = True) -> bool:
        try:
            self._files[name] = self._calls.open(self.card.node(name), flags)
        except OSError as error:
            if error.errno == errno.ENOENT and not needed:
                return False
            raise DeviceError(f"{self.card.node(name)} cannot be opened: {self._why_not_open(error)}") from error
        return True

    def _why_not_open(self, error: OSError) -> str:
        if error.errno == errno.ENOENT:
            there = f"the driver shows {', '.join(self.card.others)}: " if self.card.others else ""
            return f"there is no such node; {there}is the xdma driver loaded, and was the bus scanned after the bitstream was loaded?"
        if error.errno in (errno.EACCES, errno.EPERM):
            return "not permitted; give this user the nodes with a udev rule, or run as one who has them"
        return explained(error)

    def _call(self, name: str, what: str, call: Callable[[int], Result]) -> Result:
        """A system call on an open node, its errors in words."""
        if self._lost:
            raise DeviceLost(self._lost)
        if name not in self._files:
            raise DeviceError(f"{self.card.node(name)} is closed: open the device again")
        try:
            return call(self._files[name])
        except OSError as error:
            if error.errno in GONE or (name, error.errno) == ("user", errno.EINVAL):  # that node has no other reason for EINVAL
                raise self.lose(f"{what} found no device ({error.strerror})") from error
            if name != "user":
                self._demand_identity(f"{what} failed ({error.strerror})")
            raise DeviceError(f"{self.card.node(name)}: {what} failed: {explained(error)}") from error

    def _demand_identity(self, reason: str) -> None:
        """DeviceLost where the identity register is not there to be read."""
        try:
            found = self._read_word(BY_NAME["IDENTITY"].offset)
        except DeviceError as error:
            raise self.lose(f"{reason}, and the identity register cannot be read") from error
        if found != IDENTITY:
            raise self.lose(f"{reason}, and IDENTITY reads {found:#010x}, not {IDENTITY:#010x}")

    def _read_word(self, offset: int) -> int:
        at, what = self.card.register_base + offset, f"read of register {offset:#05x}"
        data = self._call("user", what, lambda file: self._calls.pread(file, REGISTER_BYTES, at))
        if len(data) != REGISTER_BYTES:
            raise DeviceError(f"{self.card.node('user')}: the {what} moved {len(data)} of {REGISTER_BYTES} bytes")
        return int.from_bytes(data, "little")

    def _take_event(self, file: int, seconds: float) -> bool:
        if not self._calls.poll(file, seconds):
            return False
        try:
            self._calls.pread(file, REGISTER_BYTES, 0)  # the word says that there was one, not how many
        except (BlockingIOError, InterruptedError):  # newer drivers end a read so when a signal comes
            return False
        return True

    def _move(self, name: str, what: str, total: int, move: Move) -> None:
        """``move(file, at, size)`` in chunks until ``total`` bytes are moved; goes on where a short count stopped."""
        at = short = 0
        while at < total:
            part = partial(move, at=at, size=min(self.card.chunk, total - at))
            moved = self._call(name, f"{what}, from byte {at} on,", part)
            short = short + 1 if moved < part.keywords["size"] else 0
            self.short_counts += short > 0
            if moved <= 0 or short > MAX_SHORT:
                raise self._stalled(name, what, at, short)
            at += moved

    def _stalled(self, name: str, what: str, at: int, short: int) -> DeviceError:
        reason = f"{what} stopped at byte {at}, after {short} short counts"
        self._demand_identity(reason)
        return DeviceError(
            f"{self.card.node(name)}: {reason}, which hide an error that the driver does not name: look at the kernel's log, and check "
            "that the card's memory answers"
        )

    def _checked(self, offset: int) -> int:
        if offset % REGISTER_BYTES or not 0 <= offset < REGISTER_WINDOW:
            raise ValueError(f"register offset must be a multiple of {REGISTER_BYTES} below {REGISTER_WINDOW}, not {offset}")
        return offset
