"""One small core and one small program for all tests; the simulator is built once and kept in the user's cache."""

from __future__ import annotations

import numpy as np
import pytest

import sw.runtime
from hw.rtl.emit import EmittedVerilog
from hw.sim.build import SimulationBuild, build_simulation
from hw.sim.core import emit_core
from hw.spec.deform import DeformArch
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE, DesignRecord
from sw.flow.gate import find_proof, verify_and_record
from sw.flow.prove_design import prove_design
from sw.runtime.sim import SimDevice
from tests.e2e.proven import Proven
from tests.e2e.tiny import ARCH, Tiny, make_tiny


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture(scope="session")
def core_arch() -> DeformArch:
    """The architecture of ``core_build``."""
    return ARCH


@pytest.fixture(scope="session")
def core_verilog() -> EmittedVerilog:
    return emit_core(ARCH)


@pytest.fixture(scope="session")
def separate_verilog() -> EmittedVerilog:
    """The core with a module for each instance, so that a fault can be planted in one of many lanes."""
    return emit_core(ARCH, merge=False)


@pytest.fixture(scope="session")
def core_build(core_verilog: EmittedVerilog) -> SimulationBuild:
    return build_simulation(core_verilog, random_state=True)


@pytest.fixture(scope="session")
def design(core_build: SimulationBuild) -> DesignRecord:
    return prove_design(ARCH, build=core_build, seeds=(1,), programs=20)


@pytest.fixture(scope="session")
def proven(tiny: Tiny, core_verilog: EmittedVerilog, design: DesignRecord, tmp_path_factory: pytest.TempPathFactory) -> Proven:
    folder = tmp_path_factory.mktemp("gate")
    (folder / "core.v").write_text(core_verilog.text)
    tiny.graph.save(folder / "tiny.graph")
    tiny.program.save(folder / "tiny.program")
    np.save(folder / "inputs.npy", tiny.inputs["image"])
    design.save(folder / DESIGN_FILE)
    files = [folder / name for name in ("tiny.graph", "tiny.program", "inputs.npy", PROGRAM_FILE)]
    report = verify_and_record(*files, rtl=folder / "core.v")
    assert report.ok
    return Proven(folder=folder, proof=find_proof(folder / "tiny.program"))


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch, core_build: SimulationBuild, proven: Proven) -> None:
    """The simulated core in the place of a board."""

    def opened(kind: str, options: dict[str, object]) -> SimDevice:
        return SimDevice(ARCH, build=core_build, build_id=proven.proof.design.build_id)

    monkeypatch.setattr(sw.runtime, "KINDS", ("interpreter", "sim", "uart"))
    monkeypatch.setattr(sw.runtime, "_open", opened)
