"""The gate of a device: with a proof, only the recorded program runs, and only on the core that was built from the recorded design."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from hw.spec.program import Program
from hw.spec.records import (
    VERIFY,
    VERIFY_TRAINING,
    DesignRecord,
    Difference,
    GateRefusal,
    ProgramRecord,
    TrainingRecord,
    require_build,
    require_program,
    require_training,
)
from hw.spec.training_program import TrainingProgram

BOARDS = ("uart", "pynq", "xdma")
"""Kinds of devices that run nothing without a proof."""

WAY_OUT = "bitloom run PROGRAM --design-record design.record.json --program-record program.record.json"


class UnprovenWarning(UserWarning):
    """A board runs what nothing has proven."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The two records that let a program run, or a training session be opened, on a board."""

    design: DesignRecord
    program: ProgramRecord | TrainingRecord

    def admit_core(self, arch_id: int, build_id: int) -> None:
        """GateRefusal where the core that answers is not the recorded design."""
        if arch_id != self.design.arch_id:
            found = Difference(name="arch_id", recorded=f"{self.design.arch_id:016x}", found=f"{arch_id:016x}")
            raise GateRefusal(
                "the core on the device has another architecture than the design record", "bitloom build", [found]
            )
        require_build(self.design, build_id)

    def admit_program(self, program: Program) -> None:
        """GateRefusal where the program is not the recorded one, or was recorded on another design."""
        if not isinstance(self.program, ProgramRecord):
            raise GateRefusal("the record is of a training program, and this is a program of inference", VERIFY)
        require_program(self.program, program, self.design)

    def admit_training(self, program: TrainingProgram) -> None:
        """Likewise of a training program."""
        if not isinstance(self.program, TrainingRecord):
            raise GateRefusal("the record is of a program of inference, and this is a training program", VERIFY_TRAINING)
        require_training(self.program, program, self.design)


def require_proof(kind: str, proof: Proof | None, *, without_proof: bool) -> None:
    """GateRefusal where a board is opened without a proof; a loud warning where that is wanted."""
    if kind not in BOARDS or proof is not None:
        return
    if not without_proof:
        raise GateRefusal(f"device kind {kind!r} is a board and runs only what is proven, and no records were given", WAY_OUT)
    warnings.warn(
        f"NOT PROVEN: device {kind!r} runs a program without records; nothing says that its results are right",
        UnprovenWarning,
        stacklevel=3,
    )
