"""What PYNQ takes for the board: its classes above run unchanged, the core below is the Verilator model.

Simulated are the two copies of memory, register accesses as AXI-Lite transactions, the clock registers, the interrupt controller and
the interrupt line behind it, and what a download does: it resets the core. Not simulated, and seen on a board only: XRT and its
allocation, real caches, /dev/mem, the FPGA manager, binding of UIO devices, registers of port widths, and time.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pynq._3rdparty.tinynumpy as tinynumpy
from pynq import ps
from pynq.interrupt import _InterruptController
from pynq.pl_server.device import Device
from pynq.pl_server.embedded_device import bit2bin, parse_bit_header
from pynqmetadata.frontends import Metadata

from hw.sim.build import SimulationBuild
from hw.sim.loop import Loop, MemoryTiming
from hw.sim.pynq.bitstream import MAGIC, PART, payload
from hw.sim.pynq.memory import SimulatedBuffer, TwoCopies
from hw.sim.pynq.registers import Clocked, Held, Hook, InterruptController, Window

MEMORY_BASE, MEMORY_BYTES = 0x4000_0000, 1 << 21
CRL_APB, CRF_APB = 0xFF5E0000, 0xFD1A0000
_PLL = 1 << 16 | 90 << 8  # 33.333 MHz x 90 / 2: 1500 MHz
_WINDOW_BYTES = 0x1000
_SLICE = 2000  # cycles that pass at once while an interrupt is awaited


class InterruptLine:
    """In the place of a UIO device: tells its waiters when the controller's output is high. Time passes while they wait."""

    def __init__(self, board: SimulatedBoard) -> None:
        self._board, self._events = board, list[Any]()

    def add_event(self, event: Any, number: int) -> None:
        if not self._events:
            asyncio.get_running_loop().call_soon(self._look)
        self._events.append(event)

    def _look(self) -> None:
        if not self._board.open or self._board.line is not self:
            return
        if self._board.raised():
            events, self._events = self._events, []
            for event in events:
                event.set()
        else:
            self._board.clocked.pass_time(_SLICE)
            asyncio.get_running_loop().call_later(0.0002, self._look)


class SimulatedBoard(Device):
    """One board with one core, PYNQ's active device while it is open; use it in a ``with`` statement.

    Parameters
    ----------
    build : simulator of the core (``hw.sim.core.build_core``)
    core : name of the core in the block design
    memory_base, memory_bytes : contiguous memory that can be allocated
    timing : of the memory
    build_id : what the board's wrapper ties the core's port to
    cycles_between : cycles that pass before each register access
    whole : flushing and invalidating work on whole buffers (``TwoCopies``)
    deaf : the interrupt line never goes high
    line : put :class:`InterruptLine` in the place of the UIO device; without it, PYNQ looks for one
    """

    name = "simulated"
    arch = "aarch64"
    capabilities = {"MEMORY_MAPPED": True}

    def __init__(
        self,
        build: SimulationBuild,
        *,
        core: str = "core_0",
        memory_base: int = MEMORY_BASE,
        memory_bytes: int = MEMORY_BYTES,
        timing: MemoryTiming | None = None,
        build_id: int = 0,
        cycles_between: int = 200,
        whole: bool = False,
        deaf: bool = False,
        line: bool = True,
        seed: int = 1,
    ) -> None:
        super().__init__("simulated")
        self.build, self.core, self.deaf, self.open, self._own_line = build, core, deaf, True, line
        self.loop = Loop(
            build, memory_bytes=memory_bytes, memory_base=memory_base, timing=timing, build_id=build_id, state_seed=seed
        )
        self.clocked = Clocked(self.loop, cycles_between)
        self.copies = TwoCopies(self.loop.memory, memory_base, seed=seed, whole=whole)
        self._clocks = {CRL_APB: Held({0x20: _PLL, 0x30: _PLL}), CRF_APB: Held({0x20: _PLL, 0x2C: _PLL, 0x38: _PLL})}
        self.windows: dict[int, Window] = dict(self._clocks)
        self.controller: InterruptController | None = None
        self.line: InterruptLine | None = None
        self.downloads = 0
        self._install()

    def raised(self) -> bool:
        """Whether the interrupt reaches the processor."""
        return not self.deaf and self.controller is not None and self.controller.pending()

    def close(self) -> None:
        """Take the board out of PYNQ and free the model."""
        if self.open:
            self.open = False
            _forget()
            self.clocked.close()

    def __enter__(self) -> SimulatedBoard:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # what PYNQ asks of a device -------------------------------------------------------------------------------------------

    def get_bitfile_metadata(self, bitfile_name: str, partial: bool = False) -> Any:
        path = Path(bitfile_name).with_suffix(".hwh")
        if not path.exists():
            raise RuntimeError("Unable to find metadata for bitstream")
        parser = _parser_class()(Metadata(input=path))
        parser.bin_data = bit2bin(Path(bitfile_name).read_bytes())
        return parser

    def download(self, bitstream: Any, parser: Any = None) -> None:
        """Configure: what a board refuses is refused, then the core is reset and its registers lie where the .hwh says."""
        data = Path(bitstream.bitfile_name).read_bytes()
        self._check(parse_bit_header(data), parser.bin_data, Path(bitstream.bitfile_name).with_suffix(".hwh").read_text())
        self.clocked.reset()
        self.downloads += 1
        self.windows = dict(self._clocks)
        entry = parser.ip_dict.get(self.core)
        if entry is not None:
            self.windows[entry["phys_addr"]] = self.clocked
        self._connect(parser)
        self.post_download(bitstream, parser)

    def allocate(self, shape: Any, dtype: Any, **options: Any) -> SimulatedBuffer:
        return self.copies.allocate(shape, dtype, self)

    def flush(self, bo: int, offset: int, pointer: int, size: int) -> None:
        self.copies.flush(bo, offset, size)

    def invalidate(self, bo: int, offset: int, pointer: int, size: int) -> None:
        self.copies.invalidate(bo, offset, size)

    def mmap(self, base_addr: int, length: int) -> Any:
        """An array of words, each access of which is one access of a register."""
        base = base_addr // _WINDOW_BYTES * _WINDOW_BYTES
        if base not in self.windows:
            raise RuntimeError(f"bus error: nothing answers at {base_addr:#x}")
        hook = Hook(window=self.windows[base], offset=base_addr - base)
        return tinynumpy.ndarray(shape=(length // 4,), dtype="u4", hook=hook)

    # --------------------------------------------------------------------------------------------------------------------

    def _check(self, header: dict[str, Any], configuration: bytes, hwh: str) -> None:
        if header["part"] != PART.removeprefix("xc"):
            raise OSError(f"[Errno 22] fpga_manager: the bitstream is for {header['part']}, and the part is {PART}")
        found = np.frombuffer(configuration, "<u4").byteswap().tobytes()
        if not found.startswith(MAGIC):
            raise OSError("[Errno 22] fpga_manager: no configuration of a simulated board")
        if found != payload(self.build.verilog_sha256, hwh):
            raise OSError(
                "[Errno 22] fpga_manager: the bitstream holds another core, or another block design, than is simulated"
            )

    def _connect(self, parser: Any) -> None:
        """The interrupt of the core, if the design has one, through its controller to the processor."""
        self.controller = self.line = None
        pins = {name: pin for name, pin in parser.interrupt_pins.items() if name.startswith(f"{self.core}/")}
        for pin in pins.values():
            self.controller, self.line = InterruptController(self.clocked, pin["index"]), InterruptLine(self)
            self.windows[parser.ip_dict[pin["controller"]]["phys_addr"]] = self.controller
            raw = parser.interrupt_controllers[pin["controller"]]["raw_irq"]
            if self._own_line:
                _InterruptController._uio_devices[raw] = self.line

    def _install(self) -> None:
        _forget()
        Device.active_device = self
        if not hasattr(ps.Clocks, "set_device"):  # up to 3.0 the clocks belong to the processor that runs this
            ps.CPU_ARCH = self.arch


def _forget() -> None:
    """What PYNQ keeps for the life of a process."""
    for owner, name in ((ps.Clocks, "_real_instance"), (Device, "_active_device")):
        if name in vars(owner):
            delattr(owner, name)
    if hasattr(ps.Clocks, "set_device"):
        ps.Clocks.set_device(None)
    _InterruptController._controllers.clear()
    _InterruptController._uio_devices.clear()


def _parser_class() -> Any:
    try:
        from pynqmetadata.views.runtime import RuntimeMetadataParser
    except ImportError:  # up to 3.1
        from pynq.metadata.runtime_metadata_parser import RuntimeMetadataParser
    return RuntimeMetadataParser
