"""A card behind the XDMA Linux driver: where its core is, the system calls that reach it, and what the driver's errors mean."""

from __future__ import annotations

import errno
import os
import select
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from sw.runtime.errors import DeviceError
from sw.runtime.lock import BoardLock

MAX_CHUNK = 0x7FFF_F000
"""Most bytes of one call."""

CHUNK = 1 << 22
"""Default bytes of one call: the kernel pins so much memory at a time, and the driver's time-out is for so much."""

WAIT_SECONDS = 60.0
CARD_MEMORY_BYTES = 1 << 34
"""One 16 GB module, as the VCU1525 has in each of its slots."""

REGISTER_WINDOW = 4096
REGISTER_BYTES = 4
ALL_ONES = 0xFFFF_FFFF
OLD_TIMEOUT = 512
"""What older drivers return where newer ones return ETIMEDOUT; no error of user programs has this number."""

GONE = (errno.ENODEV, errno.ENXIO)
ADVICE = {
    errno.EINVAL: "the driver takes no such transfer (misaligned, or of the other direction), or its card has gone: "
    "give channel= a memory-mapped channel",
    errno.EFAULT: "the driver cannot pin the host's memory: hand it a copy in ordinary memory",
    errno.ENOMEM: "the kernel has no memory for so large a transfer: open the device with a smaller chunk=",
    errno.EBUSY: "the driver holds the card offline, as while it is reset: open the device again when it is back",
    errno.EIO: "the card's engine stopped with an error, as where no memory answers: check memory_base= and memory_bytes=, and that "
    "the card's memory is calibrated",
    errno.EPROTO: "the driver takes 4 bytes at multiples of 4 only: use this release's runtime with this driver",
    errno.ETIMEDOUT: "the card did not answer within the driver's time-out: is its memory calibrated, and does no other program use "
    "the channel?",
}
ADVICE[OLD_TIMEOUT] = ADVICE[errno.ETIMEDOUT]
RECOVERY = (
    "what its memory held is gone; rescan the bus (write 1 to the card's remove, then to /sys/bus/pci/rescan), else reset the card or "
    "load its bitstream again; then open the device anew, where a training session goes on from its last saved state"
)


class DeviceLost(DeviceError):
    """A card is gone: its link is down, or it was reset. This device stays lost; what to do is in the message."""


class SystemCalls:
    """All that asks the kernel; simulated nodes take its place in tests. Errors are OSError."""

    def lock(self, board: str) -> AbstractContextManager[object]:
        """The lock of a card, taken."""
        return BoardLock(board)

    def open(self, path: str, flags: int) -> int:
        return os.open(path, flags)

    def pread(self, file: int, count: int, offset: int) -> bytes:
        return os.pread(file, count, offset)

    def pwrite(self, file: int, data: memoryview, offset: int) -> int:
        return os.pwrite(file, data, offset)

    def poll(self, file: int, seconds: float) -> bool:
        """Whether the file has something to read, or an error to tell, within that time."""
        poller = select.poll()
        poller.register(file, select.POLLIN)
        return bool(poller.poll(1000 * seconds))

    def close(self, file: int) -> None:
        os.close(file)

    def clock(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True, kw_only=True)
class XdmaCard:
    """Where a card's core is.

    Parameters
    ----------
    index : N of the nodes xdmaN_*; ``root`` is their folder
    channel, event : C of the memory nodes and K of the events node, the user interrupt that the core is wired to
    register_base : offset of the core's registers in the AXI-Lite BAR, a multiple of 4096 bytes
    memory_base, memory_bytes : AXI addresses that programs may use, multiples of 4096
    chunk : most bytes of one call, a multiple of 4096, at most 0x7ffff000
    timeout : seconds that a program may take
    """

    index: int = 0
    root: Path = Path("/dev")
    channel: int = 0
    event: int = 0
    register_base: int = 0
    memory_base: int = 0
    memory_bytes: int = CARD_MEMORY_BYTES
    chunk: int = CHUNK
    timeout: float = WAIT_SECONDS

    def __post_init__(self) -> None:
        if self.index < 0 or not 0 <= self.channel < 4 or not 0 <= self.event < 16:
            raise ValueError(f"XdmaCard must have index >= 0, channel 0 to 3 and event 0 to 15, not {self}")
        for name in ("register_base", "memory_base", "memory_bytes", "chunk"):
            if (value := getattr(self, name)) < 0 or value % REGISTER_WINDOW:
                raise ValueError(f"XdmaCard.{name} must be a multiple of {REGISTER_WINDOW}, 0 or more, not {value:#x}")
        if not self.memory_bytes or self.memory_base + self.memory_bytes > 1 << 63:
            raise ValueError(f"XdmaCard memory must hold something and end at 2**63 or below, not {self}")
        if not 0 < self.chunk <= MAX_CHUNK or not self.timeout > 0:
            raise ValueError(f"XdmaCard.chunk must be {REGISTER_WINDOW} to {MAX_CHUNK:#x} and timeout above 0, not {self}")

    def node(self, name: str) -> str:
        """Path of a node such as ``user`` or ``h2c_0``."""
        return str(self.root / f"xdma{self.index}_{name}")

    @property
    def others(self) -> list[str]:
        """Cards that the driver shows."""
        return sorted(path.name.removesuffix("_user") for path in self.root.glob("xdma*_user"))


def explained(error: OSError) -> str:
    """An error of the driver in words, and what to do."""
    words = ADVICE.get(error.errno or 0, "the xdma driver is not known to report this: look at the kernel's log")
    name = "time-out, errno 512" if error.errno == OLD_TIMEOUT else errno.errorcode.get(error.errno or 0, "no errno")
    return f"{name}, {words}"
