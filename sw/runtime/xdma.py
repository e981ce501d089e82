"""A PCIe card behind the XDMA Linux driver, such as the VCU1525: the transport over its nodes (``sw.runtime.xdma_nodes``).

    with open_device("xdma", index=0, proof=proof) as device:
        outputs, counters = device.run(program, inputs)

:func:`open_xdma` is what ``open_device`` calls behind the proof gate. A card that disappears raises :class:`DeviceLost`; a program runs
again, and a training session goes on from its last ``state()``, on a device that is opened anew.
"""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

from hw.spec.regs import BY_NAME
from sw.runtime.driver import CoreDevice
from sw.runtime.errors import DeviceError
from sw.runtime.xdma_card import CARD_MEMORY_BYTES, CHUNK, WAIT_SECONDS, DeviceLost, SystemCalls, XdmaCard
from sw.runtime.xdma_nodes import XdmaNodes

IRQ_ENABLE, STATUS = BY_NAME["IRQ_ENABLE"].offset, BY_NAME["STATUS"]
POLL = 0.001
"""Seconds between two looks at a core whose card has no events node."""

SLICE = 0.5
"""Seconds of waiting for an interrupt after which the core is looked at: one that was lost, or a card that is, is found so."""


class MissedInterrupt(UserWarning):
    """A program ended and its interrupt did not come: right results, late."""


class XdmaTransport:
    """Registers and memory of a card. ``missed`` counts interrupts that did not come though the program had ended.

    IRQ_ENABLE, which every program sets and a reset clears, tells with each transfer whether the core is still the one that ran the
    last program: a card that was reset unseen is lost, since nobody knows what its memory holds.
    """

    def __init__(self, card: XdmaCard, calls: SystemCalls | None = None) -> None:
        self.card, self.calls = card, calls or SystemCalls()
        self.memory_base, self.memory_bytes = card.memory_base, card.memory_bytes
        self.missed, self._enabled = 0, 0
        self.nodes = XdmaNodes(card, self.calls)

    def read_register(self, offset: int) -> int:
        return self.nodes.read_user(offset)

    def write_register(self, offset: int, value: int) -> None:
        if offset == IRQ_ENABLE:
            self._demand_same_core()
            self._enabled = value
        self.nodes.write_user(offset, value)

    def read_memory(self, address: int, count: int) -> bytes:
        self._check_window(address, count)
        data = self.nodes.read_memory(address, count)
        self._demand_same_core()
        return data

    def write_memory(self, address: int, data: bytes) -> None:
        self._check_window(address, len(data))
        self._demand_same_core()
        self.nodes.write_memory(address, data)

    def wait(self) -> bool:
        """Wait until the program has ended: for the interrupt, or looking again and again where the card has no events node.

        DONE decides, since an interrupt that is waiting may be an earlier program's. False after ``timeout``; DeviceLost where the
        card is gone or was reset.
        """
        end, late = self.calls.clock() + self.card.timeout, False
        while not self.read_register(STATUS.offset) & STATUS.mask("DONE"):
            self._demand_same_core()
            left = end - self.calls.clock()
            if left <= 0:
                return False
            late = not self._pause(left)
        self._forget_interrupt(late)
        return True

    def close(self) -> None:
        self.nodes.close()

    def _pause(self, left: float) -> bool:
        """Wait a little; whether there was a reason to look at the core after it."""
        if self.nodes.has_events:
            return self.nodes.take_event(min(left, SLICE))
        self.calls.sleep(min(left, POLL))
        return False

    def _demand_same_core(self) -> None:
        if self._enabled and (found := self.read_register(IRQ_ENABLE)) != self._enabled:
            raise self.nodes.lose(
                f"the core was reset since its program was started (IRQ_ENABLE reads {found}, not {self._enabled})"
            )

    def _forget_interrupt(self, late: bool) -> None:
        """Take the interrupt that is waiting, if one is, so that it does not wake the next program's wait."""
        if not self.nodes.has_events or self.nodes.take_event(0.0) or not late:
            return
        self.missed += 1
        if self.missed == 1:
            warnings.warn(self._missed_words(), MissedInterrupt, stacklevel=4)

    def _missed_words(self) -> str:
        return (
            f"a program ended and {self.card.node(f'events_{self.card.event}')} told of no interrupt: results are right and come up to "
            f"{SLICE} s late; give event= the interrupt that the core is wired to"
        )

    def _check_window(self, address: int, count: int) -> None:
        end = self.memory_base + self.memory_bytes
        if not self.memory_base <= address <= address + count <= end:
            raise DeviceError(
                f"addresses {address:#x}..{address + count:#x} must lie in the card's memory at {self.memory_base:#x}..{end:#x}"
            )


class XdmaDevice(CoreDevice):
    """A core on a card, of which there is one user at a time. DeviceError where another has it, or no core of this release answers;
    nothing is written to the card's memory by then."""

    def __init__(self, card: XdmaCard, *, watchdog: int = 0, calls: SystemCalls | None = None) -> None:
        with ExitStack() as opened:
            opened.enter_context((calls or SystemCalls()).lock(card.node("user")))
            self.link = XdmaTransport(card, calls)
            opened.callback(self.link.close)
            super().__init__(self.link, watchdog=watchdog)
            self._opened = opened.pop_all()

    def abort(self) -> None:
        """End a program that someone left running, as after an interrupted wait; the next program then runs. DeviceError where the core
        does not obey."""
        if not self.driver.status("BUSY"):
            return
        control = BY_NAME["CONTROL"]
        self.link.write_register(control.offset, control.mask("ABORT"))
        if not self.link.wait():
            raise DeviceError("the core does not obey the abort: reset the card or load its bitstream again")

    def close(self) -> None:
        self._opened.close()


def open_xdma(
    index: int = 0,
    *,
    root: Path = Path("/dev"),
    memory_base: int = 0,
    memory_bytes: int = CARD_MEMORY_BYTES,
    channel: int = 0,
    event: int = 0,
    register_base: int = 0,
    chunk: int = CHUNK,
    timeout: float = WAIT_SECONDS,
    watchdog: int = 0,
    calls: SystemCalls | None = None,
) -> XdmaDevice:
    """The core of card ``index``; the other options are those of :class:`XdmaCard`, ``watchdog`` that of ``CoreDriver``."""
    card = XdmaCard(
        index=index, root=Path(root), channel=channel, event=event, register_base=register_base, memory_base=memory_base,
        memory_bytes=memory_bytes, chunk=chunk, timeout=timeout,
    )  # fmt: skip
    return XdmaDevice(card, watchdog=watchdog, calls=calls)


__all__ = ["DeviceLost", "MissedInterrupt", "SystemCalls", "XdmaCard", "XdmaDevice", "XdmaTransport", "open_xdma"]
