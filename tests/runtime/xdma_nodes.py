"""The XDMA driver's character devices in software, with its semantics, in front of a core in software or in Verilator.

What happens on a bad day comes from ``meddle``: it sees every call before it is done, and may raise OSError, shorten the call
(return the bytes to move), let the link die, or reset the card. A call that would crash or hang a machine is an AssertionError.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from sw.runtime.xdma import XdmaDevice, open_xdma
from sw.runtime.xdma_card import SystemCalls
from tests.runtime.copy_program import ARCH
from tests.runtime.xdma_cores import Core, SlowCore

HERTZ = 400_000
"""Clock cycles of a simulated second: slow, so that a wait that nothing ends is not long to simulate."""

BASE, SIZE, CHUNK = 0x9_0000_0000, 1 << 16, 4096
"""Memory of a card with a core in software, and the bytes of a call that tests ask for."""

BAR_BYTES = 1 << 16
KERNEL_CHUNK = 0x7FFF_F000


@dataclass(frozen=True, kw_only=True)
class Call:
    """A system call: its number among calls of that kind on that node, from 0; ``at`` and ``count`` as the caller gave them."""

    kind: str
    node: str
    number: int
    at: int = 0
    count: int = 0


@dataclass(kw_only=True, eq=False)
class _File:
    node: str
    flags: int
    generation: int


class SimulatedNodes(SystemCalls):
    """Nodes of one card.

    Parameters: ``events``: whether there is an events node; ``wired``: whether the interrupt reaches it; ``register_base``: of the core
    in the BAR; ``dead_errno``: what transfers over a dead link end with. Members: ``calls`` so far; ``dead``, from :meth:`die` to
    :meth:`replace`; ``now``: simulated seconds; ``pending``: the interrupt that the driver has latched.
    """

    def __init__(
        self, core: Core, *, events: bool = True, wired: bool = True, register_base: int = 0, dead_errno: int = errno.ETIMEDOUT
    ) -> None:
        self.core, self.wired, self.register_base, self.dead_errno = core, wired, register_base, dead_errno
        self.nodes = ["xdma0_user", "xdma0_h2c_0", "xdma0_c2h_0", *(["xdma0_events_0"] if events else [])]
        self.meddle: Callable[[Call], int | None] = lambda call: None
        self.calls: list[Call] = []
        self.files: dict[int, _File] = {}
        self.dead, self.removed, self.pending, self.now = False, False, False, 0.0
        self._generation, self._high = 0, False

    # what happens to a card -----------------------------------------------------------------------------------------------

    def die(self) -> None:
        """The link goes down."""
        self.dead = True

    def revive(self) -> None:
        """The link comes up again, and nothing else has changed."""
        self.dead = False

    def replace(self) -> None:
        """The card was reset and the bus rescanned: old files lead nowhere."""
        self.reset_unseen()
        self.dead = self.pending = False
        self._generation += 1

    def reset_unseen(self) -> None:
        """The core was reset and its memory holds anything; link and files are as before."""
        self.core.reset()
        garbage = np.random.default_rng(len(self.calls)).integers(0, 256, min(self.core.memory_bytes, 1 << 19), np.uint8)
        self.core.write_memory(self.core.memory_base, garbage.tobytes())
        self._high = False

    def run(self, cycles: int) -> int:
        """Let the core run, and latch its interrupt as the driver does; the cycles run."""
        ran = self.core.advance(cycles)
        self.now += ran / HERTZ
        self._latch()
        return ran

    # system calls ---------------------------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        folder, node = os.path.split(path)
        self._count("open", node, 0, 0)
        if folder != "/dev" or node not in self.nodes or self.removed:
            raise _error(errno.ENOENT)
        file = 100 + len(self.calls)
        self.files[file] = _File(node=node, flags=flags, generation=self._generation)
        return file

    def close(self, file: int) -> None:
        node = self.files.pop(file).node
        self._count("close", node, 0, 0)

    def pread(self, file: int, count: int, offset: int) -> bytes:
        node = self._node(file, reads=True)
        limit = self._count("pread", node, offset, count)
        if node == "xdma0_user":
            return self._read_register(offset).to_bytes(4, "little")
        if node == "xdma0_events_0":
            return self._read_event(count, offset)
        size = self._transfer(node, "c2h", offset, count, limit)
        return self.core.read_memory(offset, size)

    def pwrite(self, file: int, data: memoryview, offset: int) -> int:
        node = self._node(file, reads=False)
        limit = self._count("pwrite", node, offset, len(data))
        if node == "xdma0_user":
            return self._write_register(offset, data)
        size = self._transfer(node, "h2c", offset, len(data), limit)
        self.core.write_memory(offset, bytes(data[:size]))
        return size

    def poll(self, file: int, seconds: float) -> bool:
        node = self._node(file, reads=True)
        assert node == "xdma0_events_0", "other nodes cannot be polled"
        end = self.now + seconds
        self._count("poll", node, 0, 0)
        while not self.pending and not self.dead and self.now < end and self.run(max(round((end - self.now) * HERTZ), 1)):
            pass
        self.now = self.now if self.pending else max(self.now, end)
        return self.pending

    def clock(self) -> float:
        return self.now

    def lock(self, board: str) -> AbstractContextManager[object]:
        """These nodes are their test's alone."""
        return nullcontext()

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        self._count("sleep", "", 0, 0)
        if not self.dead:
            self.run(round(seconds * HERTZ))
        self.now = max(self.now, end)

    # the driver -----------------------------------------------------------------------------------------------------------

    def _count(self, kind: str, node: str, at: int, count: int) -> int | None:
        number = sum(call.kind == kind and call.node == node for call in self.calls)
        self.calls.append(Call(kind=kind, node=node, number=number, at=at, count=count))
        return self.meddle(self.calls[-1])

    def _node(self, file: int, *, reads: bool) -> str:
        if file not in self.files:
            raise _error(errno.EBADF)
        found = self.files[file]
        if self.removed or found.generation != self._generation:
            raise _error(errno.ENODEV)
        if found.flags & os.O_ACCMODE == (os.O_WRONLY if reads else os.O_RDONLY):
            raise _error(errno.EBADF)
        return found.node

    def _transfer(self, node: str, direction: str, address: int, count: int, limit: int | None) -> int:
        """The bytes that a call to a memory node moves."""
        if direction not in node or count == 0:
            raise _error(errno.EINVAL)
        if self.dead and limit is None:
            raise _error(self.dead_errno)
        size = min(count, KERNEL_CHUNK) if limit is None else limit
        if not self.core.memory_base <= address <= address + size <= self.core.memory_base + self.core.memory_bytes:
            raise _error(errno.EIO)
        return size

    def _read_register(self, offset: int) -> int:
        if self.dead:
            return 0xFFFF_FFFF
        value = self.core.read_register(self._register(offset))
        self._latch()
        return value

    def _write_register(self, offset: int, data: memoryview) -> int:
        assert len(data) >= 4, "the driver reads 4 bytes whatever the count"
        if not self.dead:
            self.core.write_register(self._register(offset), int.from_bytes(data[:4], "little"))
            self._latch()
        return 4

    def _register(self, offset: int) -> int:
        if offset % 4:
            raise _error(errno.EPROTO)
        assert 0 <= offset < BAR_BYTES, "the driver does not check the offset: the kernel crashes"
        return offset - self.register_base

    def _read_event(self, count: int, offset: int) -> bytes:
        if count != 4 or offset % 4:
            raise _error(errno.EPROTO)
        assert self.pending, "the read waits for ever"
        self.pending = False
        return (1).to_bytes(4, "little")

    def _latch(self) -> None:
        high = self.core.interrupt
        self.pending |= high and not self._high and self.wired
        self._high = high


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def soft_nodes(**options: Any) -> SimulatedNodes:
    """A card with the software core of ``copy_program``; options of SimulatedNodes."""
    return SimulatedNodes(SlowCore(ARCH, memory_base=BASE, memory_bytes=SIZE), **options)


def open_soft(nodes: SimulatedNodes, **options: Any) -> XdmaDevice:
    """The device of such a card; options of open_xdma."""
    return open_xdma(calls=nodes, **{"memory_base": BASE, "memory_bytes": SIZE, "chunk": CHUNK, "timeout": 2.0, **options})
