"""A board under PYNQ, such as the Ultra96-V2: the core's registers and a piece of the board's memory, through the ``pynq`` package.

    with open_device("pynq", bitstream="bitloom.bit", proof=proof) as device:
        outputs, counters = device.run(program, inputs)

:func:`open_pynq` is what ``open_device`` calls behind the proof gate. It uses only what ``pynq`` has from release 3.0.1 to 4.0.0. The
package is imported when a device is opened: elsewhere this module needs numpy alone.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hw.spec.program import Program
from sw.runtime.driver import CoreDevice
from sw.runtime.errors import DeviceError
from sw.runtime.lock import BoardLock
from sw.runtime.placement import MEMORY_BYTES, PAGE_BYTES, Placement
from sw.runtime.pynq_interrupt import InterruptPin
from sw.runtime.pynq_transport import TIMEOUT, PynqTransport

BOARD = "the board's programmable logic"
"""What has one user at a time."""

CORE = "core_0"
"""Name of the core in the block design of every board."""


class PynqDevice(CoreDevice):
    """A core in an overlay; options as those of :func:`open_pynq`."""

    def __init__(self, overlay: Any, board: PynqTransport, *, lock: BoardLock, watchdog: int = 0) -> None:
        self.overlay, self.board, self._lock = overlay, board, lock
        super().__init__(board, watchdog=watchdog)

    def start(self, program: Program, placement: Placement, *, record: bool = False) -> None:
        if not self.overlay.is_loaded():
            raise DeviceError("another overlay was loaded since this device was opened: open it again")
        super().start(program, placement, record=record)

    def close(self) -> None:
        try:
            self.board.close(core_answers=self.overlay.is_loaded())
        finally:
            self._lock.release()


def open_pynq(
    bitstream: Path | str,
    *,
    core: str = CORE,
    memory_bytes: int = MEMORY_BYTES,
    poll: bool = False,
    timeout: float = TIMEOUT,
    watchdog: int = 0,
) -> PynqDevice:
    """Load an overlay and open the core in it.

    Parameters
    ----------
    bitstream : a .bit file with its .hwh file beside it
    core : name of the core in the block design
    memory_bytes : contiguous memory for programs and tensors, whole pages
    poll : look for the end of a program again and again, in place of waiting for the interrupt
    timeout : seconds that a program may take
    watchdog : most cycles between two instructions' ends, 0 for no limit

    DeviceError, in words, where a file, the package, the board's memory, the core or its interrupt is not there.
    """
    path = _checked(Path(bitstream))
    with ExitStack() as opened:
        lock = opened.enter_context(BoardLock(BOARD))
        overlay = _load(path)
        entry = _entry(overlay, core)
        buffer = _allocate(overlay, memory_bytes)
        opened.callback(buffer.freebuffer)
        from pynq import MMIO

        mmio = MMIO(entry["phys_addr"], entry["addr_range"], device=overlay.device)
        interrupt = None if poll else InterruptPin(_interrupt_name(entry, core))
        board = PynqTransport(mmio, buffer, interrupt=interrupt, timeout=timeout)
        device = PynqDevice(overlay, board, lock=lock, watchdog=watchdog)
        opened.pop_all()
    return device


def _checked(bitstream: Path) -> Path:
    for path in (bitstream, bitstream.with_suffix(".hwh")):
        if not path.is_file():
            raise DeviceError(f"{path} is not there: PYNQ needs a .bit file and, beside it, a .hwh file of the same name")
    return bitstream.resolve()


def _load(bitstream: Path) -> Any:
    try:
        from pynq import Overlay
    except ImportError as error:
        raise DeviceError(f"there is no package pynq here ({error}): run this on the board, whose image has it") from error
    try:
        return Overlay(str(bitstream))
    except Exception as error:  # PYNQ has no error of its own
        raise DeviceError(
            f"PYNQ cannot load {bitstream} ({type(error).__name__}: {error}): is it for this board, and does this run as root with "
            "PYNQ's environment, as in its notebooks or under sudo -E?"
        ) from error


def _entry(overlay: Any, core: str) -> dict[str, Any]:
    """What the overlay says of the core."""
    found = {name: entry for name, entry in overlay.ip_dict.items() if "phys_addr" in entry}
    if core not in found:
        raise DeviceError(
            f"the overlay has no {core!r}; it has {', '.join(sorted(found)) or 'nothing with an address'}: name the core as core=, "
            "and call pynq.PL.reset() if the .hwh file was changed"
        )
    entry: dict[str, Any] = found[core]
    return entry


def _interrupt_name(entry: dict[str, Any], core: str) -> str:
    pins = entry["interrupts"]
    if len(pins) != 1:
        raise DeviceError(f"{core!r} must have one interrupt in the overlay, not {len(pins)}: open the device with poll=True")
    return next(f"{core}/{pin}" for pin in pins)


def _allocate(overlay: Any, count: int) -> Any:
    from pynq import allocate

    if count < 1 or count % PAGE_BYTES:
        raise DeviceError(f"memory_bytes must be a multiple of {PAGE_BYTES}, not {count}")
    try:
        return allocate(shape=(count,), dtype="u1", target=overlay.device)
    except Exception as error:  # PYNQ has no error of its own
        raise DeviceError(
            f"the board has no {count} bytes of contiguous memory left ({error}): ask for less with memory_bytes, or close what "
            "holds it"
        ) from error
