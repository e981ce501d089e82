"""One small core and one small program for all tests; the simulator is built once and kept in the user's cache."""

from __future__ import annotations

import pytest

from hw.rtl.emit import EmittedVerilog
from hw.sim.build import SimulationBuild, build_simulation
from hw.sim.core import emit_core
from tests.e2e.tiny import ARCH, Tiny, make_tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture(scope="session")
def core_verilog() -> EmittedVerilog:
    return emit_core(ARCH)


@pytest.fixture(scope="session")
def core_build(core_verilog: EmittedVerilog) -> SimulationBuild:
    return build_simulation(core_verilog, random_state=True)
