"""Simulates a board's whole top, as it is built, from the other end of its serial line.

The texts are those of the build's plan, wrapper included; only the vendor's PLL is a stand-in that passes the clock through, so a
cycle of the input clock stands for one of the design's. :class:`SimulatedLine` is the byte stream that ``sw.runtime.uart`` drives.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from boards.board import Board
from hw.sim.build import BuildError
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.sim.verilator_root import verilator_environment, verilator_root, verilator_version

BUILDS_KEPT = 20
FINE = 256
"""Parts of a cycle in which bit times are given."""

_LIBRARY, _LOOP = "line.so", "line.cpp"
_WAIVED = (
    "WIDTHEXPAND", "WIDTHTRUNC", "CASEOVERLAP", "CASEINCOMPLETE", "UNUSEDSIGNAL", "UNUSEDPARAM", "UNDRIVEN", "PINMISSING",
)  # fmt: skip
_FLAGS = (
    "--cc", "--exe", "--build", "--prefix", "Vdut", "--no-timing", "--threads", "1", "--build-jobs", "2", "--verilate-jobs", "1",
    "-O3", "-Wno-fatal", "-Wno-DECLFILENAME", *(f"-Wno-{name}" for name in _WAIVED), "--x-assign", "unique", "--x-initial", "unique",
    "--Mdir", "objects", "-o", _LIBRARY, "-CFLAGS", "-fPIC -fno-gnu-unique -w", "-LDFLAGS", "-shared -Wl,-Bsymbolic",
    "-MAKEFLAGS", "OPT_FAST=-O1", "-MAKEFLAGS", "OPT_SLOW=-O0", "-MAKEFLAGS", "OPT_GLOBAL=-O1",
)  # fmt: skip


def build_line(sources: Mapping[str, str], top: str, *, progress: Callable[[str], None] | None = None) -> Path:
    """The shared library that simulates module ``top`` of the Verilog ``sources`` (text by file name), made or from the cache.

    Every register and memory without an initial value starts with random contents. BuildError where the tools refuse.
    """
    loop = Path(__file__).with_name(_LOOP)
    parts = [dict(sources), top, loop.read_text(), _FLAGS, verilator_version()]
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_root() / "line" / key

    def make(target: Path) -> None:
        if progress:
            progress(f"compiling the simulator of {top}")
        _compile(target, sources, top, loop)

    if cached_folder(folder, make):
        drop_oldest(folder.parent, BUILDS_KEPT)
    return folder / _LIBRARY


def _compile(target: Path, sources: Mapping[str, str], top: str, loop: Path) -> None:
    for name, text in sources.items():
        (target / name).write_text(text)
    root = verilator_root()
    command = [str(root / "bin" / "verilator"), *_FLAGS, "--top-module", top, *sources, str(loop.resolve())]
    done = subprocess.run(command, cwd=target, env=verilator_environment(root), capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"the simulator of {top} could not be built:\n{(done.stdout + done.stderr)[-3000:]}")
    (target / "objects" / _LIBRARY).rename(target / _LIBRARY)
    shutil.rmtree(target / "objects")


class SimulatedLine:
    """A board at the other end of a serial line; time passes only in calls.

    Parameters
    ----------
    library : from :func:`build_line`
    board : gives clock and baud rate
    baud_error : how much faster this end is than its nominal rate, as a fraction
    state_seed : draws what registers and memories hold at power-up
    """

    def __init__(self, library: Path, board: Board, *, baud_error: float = 0.0, state_seed: int = 1) -> None:
        self._library = _load(library)
        self._clock_hz = board.clock_hz
        bit_time = round(FINE * board.clock_hz / board.baud / (1 + baud_error))
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p(self._library.line_open(bit_time, state_seed))

    # the byte stream ------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        self._library.line_send(self._handle, data, len(data))

    def read(self, count: int, timeout: float) -> bytes:
        """``count`` bytes, or what came within ``timeout`` seconds of simulated time."""
        self._library.line_run(self._handle, count, max(round(timeout * self._clock_hz), 1))
        buffer = ctypes.create_string_buffer(count)
        taken = self._library.line_take(self._handle, buffer, count)
        return buffer.raw[:taken]

    def sleep(self, seconds: float) -> None:
        self.run(max(round(seconds * self._clock_hz), 1))

    def close(self) -> None:
        if self._handle is not None:
            self._library.line_close(self._handle)
            self._handle = None

    # the bench ------------------------------------------------------------------------------------------------------------

    def run(self, cycles: int) -> None:
        """Run so many cycles, whatever comes."""
        self._library.line_run(self._handle, 2**63, cycles)

    def press(self, down: bool) -> None:
        """The reset button."""
        self._library.line_button(self._handle, down)

    @property
    def lamps(self) -> int:
        """The eight LEDs, lowest bit first."""
        return int(self._library.line_lamps(self._handle)) & 0xFF

    @property
    def wifi_gpio0(self) -> bool:
        return bool(self._library.line_lamps(self._handle) >> 8)

    @property
    def broken(self) -> int:
        """Bytes that came without a stop bit."""
        return int(self._library.line_broken(self._handle))

    @property
    def cycle(self) -> int:
        """Cycles since power-up."""
        return int(self._library.line_cycle(self._handle))


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u64, pointer, integer = ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_int
    signatures = {
        "line_open": (handle, u64, integer),
        "line_close": (None, handle),
        "line_send": (None, handle, pointer, u64),
        "line_run": (u64, handle, u64, u64),
        "line_take": (u64, handle, pointer, u64),
        "line_button": (None, handle, integer),
        "line_lamps": (ctypes.c_uint32, handle),
        "line_broken": (u64, handle),
        "line_cycle": (u64, handle),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
