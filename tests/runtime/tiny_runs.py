"""The tiny program of the tests on any device: its records, and a run that is compared with the graph."""

from __future__ import annotations

import numpy as np

from hw.spec.arch import Arch
from hw.spec.records import (
    DESIGN_CHECKS,
    PROGRAM_LINKS,
    TRAINING_LINKS,
    Check,
    DesignRecord,
    ProgramRecord,
    TrainingRecord,
    definition_sha256,
    parameters_sha256,
)
from hw.spec.training_program import PROGRAMS, TrainingProgram
from sw.runtime import Device, Proof
from tests.e2e.tiny import ARCH, Tiny


def design_record(arch: Arch = ARCH) -> DesignRecord:
    """As a proof would leave it; what it holds is not what is tested here."""
    checks = tuple(Check(name=name, compared={"bytes": 1}, mismatches=0, seeds=(1,), seconds=0.1) for name in DESIGN_CHECKS)
    return DesignRecord(
        verilog_sha256="a1" * 32,
        arch_id=arch.arch_id,
        definition_sha256=definition_sha256(),
        checks=checks,
        coverage={"LOAD": 1},
        tools={},
    )


def proof_of(tiny: Tiny) -> Proof:
    """Records as a proof of the tiny program would leave them."""
    links = tuple(Check(name=name, compared={"bytes": 1}, mismatches=0, seeds=(1,), seconds=0.1) for name in PROGRAM_LINKS)
    design = design_record()
    program = ProgramRecord(
        program_sha256=tiny.program.digest,
        parameters_sha256=parameters_sha256(tiny.program),
        verilog_sha256=design.verilog_sha256,
        arch_id=ARCH.arch_id,
        graph_sha256="b2" * 32,
        images=1,
        links=links,
        tools={},
    )
    return Proof(design=design, program=program)


def training_proof_of(program: TrainingProgram) -> Proof:
    """Likewise of a training program."""
    design = design_record(program.arch)
    record = TrainingRecord(
        program_sha256=program.digest,
        verilog_sha256=design.verilog_sha256,
        arch_id=program.arch.arch_id,
        graph_sha256=program.graph_sha256,
        steps=1,
        programs=dict.fromkeys(PROGRAMS, 1),
        links=tuple(Check(name=name, compared={"bytes": 1}, mismatches=0) for name in TRAINING_LINKS),
        tools={},
    )
    return Proof(design=design, program=record)


def run_and_compare(device: Device, tiny: Tiny) -> int:
    """Codes compared with the graph's; all are equal."""
    outputs, _ = device.run(tiny.program, tiny.inputs)
    wanted = tiny.graph(tiny.inputs)
    assert outputs.keys() == wanted.keys()
    for name, codes in wanted.items():
        assert np.array_equal(outputs[name], codes)
    return sum(codes.size for codes in wanted.values())
