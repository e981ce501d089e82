"""Records of proofs: what was compared with what, how much of it, and the hashes that bind it to one design and one program.

A *design record* says that one Verilog file did what the machine (``hw.spec.machine``) does; a *program record* that one program
did what its graph does, on that design; a *training record* the same of the programs of a training step. A record of anything but a
complete pass cannot be constructed. The files are those of ``hw.spec.record_file``.

    design = DesignRecord.load("design.record.json")
    require_design(design, verilog_sha256, arch)
    require_program(ProgramRecord.load("program.record.json"), program, design)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hw.spec.arch import Arch
from hw.spec.program import Program
from hw.spec.record_file import (
    ID_DIGITS,
    Check,
    Difference,
    GateRefusal,
    Record,
    RecordError,
    record_kind,
    require_checks,
    require_hex,
)
from hw.spec.training_program import PROGRAMS, TrainingProgram

__all__ = [
    "DESIGN_CHECKS",
    "DESIGN_FILE",
    "PROGRAM_FILE",
    "PROGRAM_LINKS",
    "TRAINING_LINKS",
    "Check",
    "DesignRecord",
    "Difference",
    "GateRefusal",
    "ProgramRecord",
    "RecordError",
    "TrainingRecord",
    "definition_sha256",
    "load_program_record",
    "parameters_sha256",
    "require_arch",
    "require_build",
    "require_design",
    "require_program",
    "require_training",
]

DESIGN_FILE, PROGRAM_FILE = "design.record.json", "program.record.json"
"""Names of the records beside the artefacts that they prove; a training program's record is named as any program's."""

DESIGN_CHECKS = (
    "random programs",
    "stalls",
    "power-up states",
    "damaged programs",
    "error programs",
    "bus errors",
    "abort and watchdog",
    "timing",
    "registers",
    "bus protocol",
)
"""Checks that every design record must hold; more are allowed."""

PROGRAM_LINKS = ("graph_ops", "ops_machine", "machine_rtl")
"""Links of the chain that every program record must hold; more are allowed."""

TRAINING_LINKS = ("graph_machine", "machine_rtl", "memory")
"""Links that every training record must hold; more are allowed."""

PROVE = "bitloom prove --arch ARCH --rtl FILE.v -o design.record.json"
VERIFY = "bitloom verify --graph GRAPH --program PROGRAM --inputs INPUTS --rtl FILE.v --record program.record.json"
VERIFY_TRAINING = "bitloom verify --graph TRAINING_GRAPH --program TRAINING --inputs DATA --rtl FILE.v --record program.record.json"


@dataclass(frozen=True, kw_only=True)
class DesignRecord(Record):
    """One Verilog file that passed every check of ``DESIGN_CHECKS``.

    Parameters
    ----------
    verilog_sha256 : of the file's bytes, hex
    arch_id : of the architecture whose machine and registers it was compared with
    definition_sha256 : of the sources of ``hw.spec``, the definition it was compared with, hex
    checks : all checks that ran
    coverage : how often each required bin was hit; each at least once
    tools : versions by name
    """

    kind: ClassVar[str] = "design"
    command: ClassVar[str] = PROVE

    verilog_sha256: str
    definition_sha256: str
    checks: tuple[Check, ...]
    coverage: Mapping[str, int]
    tools: Mapping[str, str]

    def __post_init__(self) -> None:
        require_hex(self, "verilog_sha256", "definition_sha256")
        require_checks("design record", self.checks, DESIGN_CHECKS)
        if empty := sorted(name for name, count in self.coverage.items() if count < 1):
            raise RecordError(f"a design record must have no empty coverage bin, not {empty}")
        if not self.coverage:
            raise RecordError("a design record must have coverage bins, not none")

    @property
    def build_id(self) -> int:
        """First 64 bits of the digest: what the core's BUILD_ID register reads."""
        return int(self.digest[:ID_DIGITS], 16)


@dataclass(frozen=True, kw_only=True)
class ProgramRecord(Record):
    """One program that passed every link of ``PROGRAM_LINKS`` on one design.

    Parameters
    ----------
    program_sha256 : ``Program.digest``
    parameters_sha256 : of the parameter regions alone (:func:`parameters_sha256`): weights, biases, requantise records
    verilog_sha256 : the design that was simulated
    arch_id : of both
    graph_sha256 : of the integer graph's file
    images : inputs that were compared
    links : what was compared at each link, seeds included
    tools : versions by name
    """

    kind: ClassVar[str] = "program"
    command: ClassVar[str] = VERIFY

    program_sha256: str
    parameters_sha256: str
    verilog_sha256: str
    graph_sha256: str
    images: int
    links: tuple[Check, ...]
    tools: Mapping[str, str]

    def __post_init__(self) -> None:
        require_hex(self, "program_sha256", "parameters_sha256", "verilog_sha256", "graph_sha256")
        require_checks("program record", self.links, PROGRAM_LINKS)
        if self.images < 1:
            raise RecordError(f"a program record must be of at least 1 image, not {self.images}")


@dataclass(frozen=True, kw_only=True)
class TrainingRecord(Record):
    """The programs of one training step, each of which passed every link of ``TRAINING_LINKS`` on one design.

    Parameters
    ----------
    program_sha256 : ``TrainingProgram.digest``
    verilog_sha256 : the design that was simulated
    arch_id : of both
    graph_sha256 : identity of the training graph's structure
    steps : training steps that were compared
    programs : how often each of the step's programs ran; each at least once
    links : what was compared at each link, seeds included
    tools : versions by name
    """

    kind: ClassVar[str] = "training"
    command: ClassVar[str] = VERIFY_TRAINING

    program_sha256: str
    verilog_sha256: str
    graph_sha256: str
    steps: int
    programs: Mapping[str, int]
    links: tuple[Check, ...]
    tools: Mapping[str, str]

    def __post_init__(self) -> None:
        require_hex(self, "program_sha256", "verilog_sha256", "graph_sha256")
        require_checks("training record", self.links, TRAINING_LINKS)
        if self.steps < 1:
            raise RecordError(f"a training record must be of at least 1 step, not {self.steps}")
        if idle := [name for name in PROGRAMS if self.programs.get(name, 0) < 1]:
            raise RecordError(f"a training record must be of every program of a step; {idle} did not run")


def load_program_record(path: str | Path) -> ProgramRecord | TrainingRecord:
    """The record of a program or of a training program, whichever the file holds; GateRefusal where there is none."""
    kind = TrainingRecord if record_kind(path) == TrainingRecord.kind else ProgramRecord
    return kind.load(path)


def require_design(record: DesignRecord, verilog_sha256: str, arch: Arch) -> None:
    """GateRefusal where the record is not of this Verilog and this architecture."""
    pairs = (
        ("SHA-256 of the Verilog", record.verilog_sha256, verilog_sha256),
        ("arch_id", f"{record.arch_id:016x}", f"{arch.arch_id:016x}"),
    )
    _refuse("the design is not the one that its record proves", PROVE, pairs)


def require_arch(record: DesignRecord, arch: Arch) -> None:
    """GateRefusal where the record is of another architecture; this needs no Verilog, which may take minutes to write."""
    pairs = (("arch_id", f"{record.arch_id:016x}", f"{arch.arch_id:016x}"),)
    _refuse("the design record is of another architecture", PROVE, pairs)


def require_program(record: ProgramRecord, program: Program, design: DesignRecord) -> None:
    """GateRefusal where the record is not of this program on this design."""
    pairs = (
        ("SHA-256 of the weights (parameter regions)", record.parameters_sha256, parameters_sha256(program)),
        ("SHA-256 of the program", record.program_sha256, program.digest),
        *_on_design(record, program.arch, design),
    )
    _refuse("the program is not the one that its record proves on this design", VERIFY, pairs)


def require_training(record: TrainingRecord, program: TrainingProgram, design: DesignRecord) -> None:
    """GateRefusal where the record is not of this training program on this design."""
    pairs = (
        ("SHA-256 of the training program", record.program_sha256, program.digest),
        *_on_design(record, program.arch, design),
    )
    _refuse("the training program is not the one that its record proves on this design", VERIFY_TRAINING, pairs)


def _on_design(record: ProgramRecord | TrainingRecord, arch: Arch, design: DesignRecord) -> tuple[tuple[str, str, str], ...]:
    """Name, recorded and found, of what binds a program of an architecture to a design."""
    return (
        ("arch_id of the program", f"{record.arch_id:016x}", f"{arch.arch_id:016x}"),
        ("SHA-256 of the design's Verilog", record.verilog_sha256, design.verilog_sha256),
        ("arch_id of the design", f"{record.arch_id:016x}", f"{design.arch_id:016x}"),
    )


def require_build(record: DesignRecord, build_id: int) -> None:
    """GateRefusal where a running core was not built from this record's design."""
    pairs = (("build_id", f"{record.build_id:016x}", f"{build_id:016x}"),)
    _refuse("the core on the device was not built with this design record", "bitloom build", pairs)


def parameters_sha256(program: Program) -> str:
    """SHA-256 (hex) of the contents of a program's parameter regions, each with its name and size."""
    found = hashlib.sha256()
    for region in program.regions:
        if region.kind == "parameters":
            found.update(json.dumps([region.name, region.size, len(region.data)]).encode() + region.data)
    return found.hexdigest()


def definition_sha256() -> str:
    """SHA-256 (hex) of the sources of ``hw.spec``, by name."""
    root = Path(__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def _refuse(what: str, advice: str, pairs: Sequence[tuple[str, str, str]]) -> None:
    found = [Difference(name=name, recorded=a, found=b) for name, a, b in pairs if a != b]
    if found:
        raise GateRefusal(what, advice, found)
