"""Simulators of the two test cores, built once and kept in the user's cache."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hw.rtl.emit import EmittedVerilog, emit
from hw.sim.build import SimulationBuild, build_simulation
from hw.sim.loop import Loop
from tests.sim import copy_engine
from tests.sim.copy_engine import BASE, MEMORY_BYTES, TARGET_OFFSET, CopyEngine
from tests.sim.streamer import Streamer


@pytest.fixture(scope="session")
def engine_verilog() -> EmittedVerilog:
    return emit(CopyEngine(), "copy_engine")


@pytest.fixture(scope="session")
def engine_build(engine_verilog: EmittedVerilog) -> SimulationBuild:
    return build_simulation(engine_verilog)


@pytest.fixture(scope="session")
def random_build(engine_verilog: EmittedVerilog) -> SimulationBuild:
    return build_simulation(engine_verilog, random_state=True)


@pytest.fixture(scope="session")
def streamer_build() -> SimulationBuild:
    return build_simulation(emit(Streamer(), "streamer"))


@pytest.fixture
def open_loop() -> Iterator[Callable[..., Loop]]:
    """Opens a loop on a build, with random bytes in memory, and resets it; closed after the test."""
    loops: list[Loop] = []

    def opened(build: SimulationBuild, **options: object) -> Loop:
        loop = Loop(build, memory_bytes=MEMORY_BYTES, **{"memory_base": BASE, **options})
        loops.append(loop)
        loop.memory[:] = np.random.default_rng(5).integers(0, 256, MEMORY_BYTES)
        loop.reset()
        return loop

    yield opened
    for loop in loops:
        loop.close()


@pytest.fixture
def start_copy() -> Callable[..., int]:
    """Programs and starts the copy engine; returns the number of bytes that it will copy."""

    def start(loop: Loop, bursts: int, *, fault: int = 0, target: int = BASE + TARGET_OFFSET) -> int:
        for register, value in (
            (copy_engine.FAULT, fault),
            (copy_engine.SOURCE, BASE),
            (copy_engine.TARGET, target),
            (copy_engine.BURSTS, bursts),
            (copy_engine.START, 1),
        ):
            loop.write_register(register, value)
        return bursts * copy_engine.BURST_BYTES

    return start
