"""Runs a core in simulation: clock, registers, memory, and everything it does on its buses.

    loop = Loop(build_simulation(emit(core, "core")), memory_bytes=1 << 20)
    loop.reset()
    loop.memory[:5] = b"bytes"
    loop.write_register(0x00, 1)
    cycles = loop.run(100_000)
    assert loop.interrupt and not loop.violations().count

The hot loop and the memory are C++ (`loop.cpp`); this class starts them and hands out what they recorded. Timing of the
memory is defined in `axi_memory.h`, with the parameters of `MemoryTiming`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hw.sim import records
from hw.sim.build import SimulationBuild

BEAT_BYTES = 16
PAGE_BYTES = 4096
NO_INSTRUCTION = 0xFFFF_FFFF


class SimulationError(Exception):
    """The core did not do what the call needed it to do, or the loop was used wrongly."""


class Response(IntEnum):
    """AXI responses."""

    OKAY = 0
    EXOKAY = 1
    SLVERR = 2
    DECERR = 3


class RegisterError(SimulationError):
    """A register access was answered with an error; `response` says which."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.response = response


@dataclass(frozen=True, kw_only=True)
class MemoryTiming:
    """Timing of the memory in cycles, each number at least 1, per manager.

    A read accepted in cycle t has its first beat in cycle t + read_latency, or when the slot of the beat before is over if that is
    later. A beat has a slot of read_interval / read_beats cycles, at least 1: with 5 / 4 four beats come in five cycles. Slots follow
    each other without rounding, a beat comes in the first whole cycle behind the end of the slot before; one that comes a cycle or more
    later begins a slot anew. A write whose last beat (and address) is accepted by cycle t is answered in cycle t + write_latency; its
    data beats have slots of write_interval / write_beats cycles.
    """

    read_latency: int = 20
    write_latency: int = 10
    read_interval: int = 1
    write_interval: int = 1
    read_beats: int = 1
    write_beats: int = 1

    def __post_init__(self) -> None:
        for name in TIMING_FIELDS:
            _check_range(f"MemoryTiming.{name}", getattr(self, name), 1, 1_000_000)
        for what in ("read", "write"):
            interval, beats = getattr(self, f"{what}_interval"), getattr(self, f"{what}_beats")
            if interval < beats:
                raise ValueError(f"MemoryTiming.{what}_interval must be {what}_beats or more cycles, not {interval} for {beats} beats")


TIMING_FIELDS = ("read_latency", "write_latency", "read_interval", "write_interval", "read_beats", "write_beats")


@dataclass(frozen=True, kw_only=True)
class Stalls:
    """Random waits, per channel the probability in 1/256 per cycle (0 to 255) that READY or VALID is withheld.

    `aw`, `w`, `ar` withhold the memory's READY; `b` and `r` delay its VALID, which is held once raised; `control` delays
    each step of register accesses. The same `seed` gives the same waits.
    """

    aw: int = 0
    w: int = 0
    b: int = 0
    ar: int = 0
    r: int = 0
    control: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for channel in records.CHANNELS:
            _check_range(f"Stalls.{channel}", getattr(self, channel), 0, 255)
        _check_range("Stalls.seed", self.seed, 0, 2**32 - 1)

    @classmethod
    def everywhere(cls, probability: int, seed: int) -> Stalls:
        """The same probability on every channel."""
        return cls(**dict.fromkeys(records.CHANNELS, probability), seed=seed)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Addresses [start, end) in bytes that answer `response` (SLVERR or DECERR). Reads give 0xEE, writes are lost."""

    start: int
    end: int
    response: Response

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end < 2**64:
            raise ValueError(f"Fault range must be 0 <= start < end < 2**64, not {self.start:#x}, {self.end:#x}")
        if self.response not in (Response.SLVERR, Response.DECERR):
            raise ValueError(f"Fault response must be SLVERR or DECERR, not {self.response!r}")


@dataclass(frozen=True, kw_only=True)
class Violations:
    """`count` breaches of the bus protocol; `first` describes the first one, with its cycle."""

    count: int
    first: str


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What the core did since the last `clear_logs`, as numpy record arrays in the order of time.

    `instructions` (index, issue, retire): cycles, retire is `records.NEVER` where it did not retire. `memory_writes`
    (cycle, index, manager, address, strobe, data): each data beat, address in bytes, `data` 16 bytes. `chip_writes`
    (cycle, index, space, lane, address, data): writes of on-chip buffers, `space` an index into `spaces`, `lane` that of the
    watch net (0 where the space has one), address in words of 16 bytes. A write belongs to the instruction `index` that was
    issued last, NO_INSTRUCTION before the first.
    The two logs of writes are empty unless the loop was opened with `trace_writes`.
    """

    instructions: NDArray[Any]
    memory_writes: NDArray[Any]
    chip_writes: NDArray[Any]
    spaces: tuple[str, ...] = field(default=())

    def written(self, space: str) -> NDArray[Any]:
        """The writes of a space in the order of lanes, and of time within a lane.

        Lanes never write the same bytes in an instruction; where two write parts of one word, it is the lower lane's that comes first.
        """
        log = self.chip_writes[self.chip_writes["space"] == self.spaces.index(space)]
        return log[np.argsort(log["lane"], kind="stable")]


class Loop:
    """One simulated core with its memory; `close` it, or use it in a `with` statement.

    `memory_bytes` (a multiple of 4096) of memory at `memory_base` are shared by all managers; everything else answers
    DECERR. `state_seed` draws the initial contents of registers and memories (needs a build with `random_state`).
    Cycles are counted from the opening of the loop and go on across resets.
    """

    def __init__(
        self,
        build: SimulationBuild,
        *,
        memory_bytes: int,
        memory_base: int = 0,
        timing: MemoryTiming | None = None,
        stalls: Stalls | None = None,
        faults: Sequence[Fault] = (),
        build_id: int = 0,
        state_seed: int | None = None,
        trace_writes: bool = False,
    ) -> None:
        _check_memory(memory_base, memory_bytes)
        _check_range("build_id", build_id, 0, 2**64 - 1)
        if state_seed is not None and not build.random_state:
            raise ValueError("state_seed needs a build with random state: build_simulation(..., random_state=True)")
        self.build = build
        self.memory: NDArray[np.uint8] = np.zeros(memory_bytes, np.uint8)
        self._library = _load(build.library)
        config = _config(memory_base, memory_bytes, timing or MemoryTiming(), stalls or Stalls(), state_seed, trace_writes)
        self._handle: ctypes.c_void_p | None = ctypes.c_void_p(
            self._library.loop_open(ctypes.byref(config), self.memory.ctypes.data_as(ctypes.c_void_p))
        )
        self._library.loop_set_build_id(self._handle, build_id)
        self.set_faults(faults)

    def reset(self, cycles: int = 4) -> None:
        """Holds reset for `cycles` cycles. Forgets bursts under way; memory and logs stay as they are."""
        _check_range("Reset cycles", cycles, 1, 1_000_000)
        self._library.loop_reset(self._open(), cycles)

    def run(self, max_cycles: int, *, until_interrupt: bool = True) -> int:
        """Runs until the first cycle with the interrupt high, at most `max_cycles`; returns the cycles run.

        A loop that ran out of cycles is told by `interrupt` being False.
        """
        _check_range("max_cycles", max_cycles, 1, 2**62)
        return int(self._library.loop_run(self._open(), max_cycles, until_interrupt))

    def write_register(self, offset: int, value: int, *, max_cycles: int = 10_000) -> None:
        """Writes a 32-bit register at `offset` bytes; the clock goes on until it is answered.

        Raises RegisterError for an error answer, SimulationError where there is none in `max_cycles`.
        """
        _check_offset(offset)
        _check_range("Register value", value, 0, 2**32 - 1)
        response = self._library.loop_write_register(self._open(), offset, value, max_cycles)
        self._check_response(f"Write of register {offset:#05x}", response, max_cycles)

    def read_register(self, offset: int, *, max_cycles: int = 10_000) -> int:
        """Reads a 32-bit register at `offset` bytes, with the errors of `write_register`."""
        _check_offset(offset)
        value = ctypes.c_uint32()
        response = self._library.loop_read_register(self._open(), offset, ctypes.byref(value), max_cycles)
        self._check_response(f"Read of register {offset:#05x}", response, max_cycles)
        return value.value

    def set_faults(self, faults: Sequence[Fault]) -> None:
        """Replaces the address ranges that answer with errors."""
        ranges = (records.FaultRange * len(faults))(
            *(records.FaultRange(fault.start, fault.end, fault.response) for fault in faults)
        )
        self._library.loop_set_faults(self._open(), ranges, len(faults))

    def set_silence(self, from_cycle: int | None) -> None:
        """From that cycle on the memory accepts and answers nothing; None ends it."""
        cycle = records.NEVER if from_cycle is None else from_cycle
        _check_range("from_cycle", cycle, 0, records.NEVER)
        self._library.loop_set_silence(self._open(), cycle)

    @property
    def cycle(self) -> int:
        """Clock cycles since the loop was opened, resets included."""
        return int(self._library.loop_cycle(self._open()))

    @property
    def interrupt(self) -> bool:
        """Whether the interrupt was high in the last cycle."""
        return bool(self._library.loop_interrupt(self._open()))

    def trace(self) -> Trace:
        """Copies of the logs."""
        return Trace(
            instructions=self._log("loop_instructions", records.INSTRUCTION)[["index", "issue", "retire"]],
            memory_writes=self._log("loop_memory_writes", records.MEMORY_WRITE),
            chip_writes=self._chip_writes(),
            spaces=self.build.binding.spaces,
        )

    def _chip_writes(self) -> NDArray[Any]:
        """The log of writes, of which the loop told the watch net's number in place of the space."""
        log, watches, spaces = self._log("loop_chip_writes", records.CHIP_WRITE), self.build.binding.watches, self.build.binding.spaces
        if watches:
            net = log["space"].copy()
            log["space"] = np.array([spaces.index(space) for space, _ in watches], np.uint32)[net]
            log["lane"] = np.array([lane or 0 for _, lane in watches], np.uint32)[net]
        return log[["cycle", "index", "space", "lane", "address", "data"]]

    def bus_errors(self) -> NDArray[Any]:
        """Bursts that were answered with an error: (cycle, address, manager, is_write, response), one record each."""
        return self._log("loop_bus_errors", records.BUS_ERROR)

    def clear_logs(self) -> None:
        """Empties trace, bus errors and violations."""
        self._library.loop_clear_logs(self._open())

    def stall_counts(self) -> dict[str, int]:
        """Cycles that random stalls cost, per channel, over all managers; READY counts only where VALID waited."""
        total = np.zeros(len(records.CHANNELS), np.uint64)
        counts = np.zeros_like(total)
        for manager in range(self.build.binding.managers):
            self._library.loop_stalls(self._open(), manager, counts.ctypes.data_as(ctypes.c_void_p))
            total += counts
        named = dict(zip(records.CHANNELS, map(int, total), strict=True))
        return named | {"control": int(self._library.loop_control_stalls(self._open()))}

    def violations(self) -> Violations:
        """Breaches of the AXI protocol by the core."""
        first = ctypes.c_char_p()
        count = self._library.loop_violations(self._open(), ctypes.byref(first))
        return Violations(count=int(count), first=(first.value or b"").decode())

    def close(self) -> None:
        """Frees the simulation; `memory` stays valid."""
        if self._handle is not None:
            self._library.loop_close(self._handle)
            self._handle = None

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def _open(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise SimulationError("Loop must be open, and this one has been closed")
        return self._handle

    def _log(self, function: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        data = ctypes.c_void_p()
        count = int(getattr(self._library, function)(self._open(), ctypes.byref(data)))
        if not count or data.value is None:
            return np.empty(0, dtype)
        return np.frombuffer(ctypes.string_at(data.value, count * dtype.itemsize), dtype).copy()

    def _check_response(self, what: str, response: int, max_cycles: int) -> None:
        if response == -2:
            raise SimulationError(f"{what} must wait for the answer to an earlier access, which never came: reset the core")
        if response < 0:
            raise SimulationError(f"{what} got no answer within {max_cycles} cycles (now cycle {self.cycle})")
        if response != Response.OKAY:
            raise RegisterError(f"{what} was answered {Response(response).name}", Response(response))


def _config(
    base: int, size: int, timing: MemoryTiming, stalls: Stalls, state_seed: int | None, trace_writes: bool
) -> records.Config:
    return records.Config(
        memory_base=base,
        memory_bytes=size,
        stall_seed=stalls.seed,
        state_seed=_checked_seed(state_seed),
        stall=tuple(getattr(stalls, channel) for channel in records.CHANNELS),
        trace_writes=trace_writes,
        random_state=state_seed is not None,
        **{name: getattr(timing, name) for name in TIMING_FIELDS},
    )


def _checked_seed(seed: int | None) -> int:
    """Verilator takes a positive 31-bit seed; 0 would mean a seed of its own choice."""
    if seed is None:
        return 1
    _check_range("state_seed", seed, 1, 2**31 - 1)
    return seed


def _check_range(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} must be {low} to {high}, not {value}")


def _check_offset(offset: int) -> None:
    if offset % 4 or not 0 <= offset < 4096:
        raise ValueError(f"Register offset must be a multiple of 4 from 0 to 4092, not {offset}")


def _check_memory(base: int, size: int) -> None:
    if size <= 0 or size % PAGE_BYTES:
        raise ValueError(f"memory_bytes must be a positive multiple of {PAGE_BYTES}, not {size}")
    if base < 0 or base % PAGE_BYTES or base + size > 2**64:
        raise ValueError(f"memory_base must be a multiple of {PAGE_BYTES} with the end below 2**64, not {base:#x}")


@functools.cache
def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    handle, u32, u64, pointer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p
    signatures: dict[str, tuple[Any, ...]] = {
        "loop_open": (handle, pointer, pointer),
        "loop_close": (None, handle),
        "loop_reset": (None, handle, u64),
        "loop_run": (u64, handle, u64, ctypes.c_int),
        "loop_cycle": (u64, handle),
        "loop_interrupt": (ctypes.c_int, handle),
        "loop_set_build_id": (None, handle, u64),
        "loop_set_silence": (None, handle, u64),
        "loop_set_faults": (None, handle, pointer, u64),
        "loop_write_register": (ctypes.c_int, handle, u32, u32, u64),
        "loop_read_register": (ctypes.c_int, handle, u32, pointer, u64),
        **dict.fromkeys(
            ("loop_instructions", "loop_memory_writes", "loop_chip_writes", "loop_bus_errors", "loop_violations"),
            (u64, handle, pointer),
        ),
        "loop_clear_logs": (None, handle),
        "loop_stalls": (None, handle, u32, pointer),
        "loop_control_stalls": (u64, handle),
    }
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
