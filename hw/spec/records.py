"""Records of proofs: what was compared with what, how much of it, and the hashes that bind it to one design and one program.

A *design record* says that one Verilog file did what the machine (``hw.spec.machine``) does; a *program record* that one program
did what its graph does, on that design. A record of anything but a complete pass cannot be constructed. Files are canonical
JSON with their own SHA-256, so that a change of one byte is refused; they carry no signature: the gate keeps mistakes out, not forgers.

    design = DesignRecord.load("design.record.json")
    require_design(design, verilog_sha256, arch)
    require_program(ProgramRecord.load("program.record.json"), program, design)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hw.spec.arch import Arch
from hw.spec.program import Program, write_atomically

SCHEMA = 1
"""Version of the files' content."""

DESIGN_FILE, PROGRAM_FILE = "design.record.json", "program.record.json"
"""Names of the records beside the artefacts that they prove."""

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

PROVE = "bitloom prove --arch ARCH --rtl FILE.v -o design.record.json"
VERIFY = "bitloom verify --graph GRAPH --program PROGRAM --inputs INPUTS --rtl FILE.v --record program.record.json"

_SHA_DIGITS, _ID_DIGITS = 64, 16
_SHOWN_DIGITS = 12
Self = TypeVar("Self", bound="_Record")


class RecordError(ValueError):
    """A record that does not prove anything: damaged, changed, incomplete, or of something that did not pass."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One hash that is not what the record says; both as text."""

    name: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: the record says {_short(self.recorded)}, here it is {_short(self.found)}"


class GateRefusal(RuntimeError):
    """Something is not proven. ``differences`` are the hashes that differ, empty where a record is missing."""

    def __init__(self, what: str, advice: str, differences: Sequence[Difference] = ()) -> None:
        self.differences = tuple(differences)
        listed = "; ".join(map(str, self.differences))
        super().__init__(f"{what}{f' ({listed})' if listed else ''}: run '{advice}'")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One passed check.

    Parameters
    ----------
    name : what was checked
    compared : how much was compared, by unit; each at least 1
    mismatches : 0, or the check cannot be constructed
    seeds : of everything random in it
    seconds : wall time, None where it was not taken apart
    """

    name: str
    compared: Mapping[str, int]
    mismatches: int
    seeds: tuple[int, ...] = ()
    seconds: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "compared", dict(self.compared))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        if self.mismatches != 0:
            raise RecordError(f"check {self.name!r} must have 0 mismatches to be recorded, not {self.mismatches}")
        if not self.compared or min(self.compared.values()) < 1:
            raise RecordError(f"check {self.name!r} must have compared something of each kind, not {dict(self.compared)}")


@dataclass(frozen=True, kw_only=True)
class _Record:
    """What both kinds share: the identity, and one file with a digest."""

    kind: ClassVar[str]
    command: ClassVar[str]

    arch_id: int

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON."""
        return _digest(self._content())

    def to_bytes(self) -> bytes:
        """The file: JSON with sorted keys and the digest."""
        return (json.dumps({**self._content(), "digest": self.digest}, sort_keys=True, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls: type[Self], data: bytes, where: str = "record") -> Self:
        """The record in a file's bytes; RecordError says what is wrong with any others."""
        content = _json(data, where, cls.command)
        if content.get("record") != cls.kind:
            raise RecordError(f"{where} must be a {cls.kind} record, not {content.get('record')!r}: run '{cls.command}'")
        if content["schema"] != SCHEMA:
            raise RecordError(
                f"{where} must have schema {SCHEMA}, not {content['schema']}: run '{cls.command}' of this version"
            )
        try:
            record = cls._parse({key: value for key, value in content.items() if key not in ("record", "schema")})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{where} does not hold a valid record ({error}): run '{cls.command}'") from error
        if record.to_bytes() != data:
            raise RecordError(f"{where} was changed after it was written (not its canonical form): run '{cls.command}'")
        return record

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        write_atomically(path, self.to_bytes())

    @classmethod
    def load(cls: type[Self], path: str | Path) -> Self:
        """The record in a file; GateRefusal where there is none."""
        if not Path(path).is_file():
            raise GateRefusal(f"there is no {cls.kind} record {path}", cls.command)
        return cls.from_bytes(Path(path).read_bytes(), str(path))

    def _content(self) -> dict[str, Any]:
        """Plain JSON data; ``arch_id`` in hex, because JSON numbers of 64 bits do not survive every reader."""
        data = {**asdict(self), "record": self.kind, "schema": SCHEMA, "arch_id": f"{self.arch_id:016x}"}
        return json.loads(json.dumps(data))

    @classmethod
    def _parse(cls: type[Self], data: Mapping[str, Any]) -> Self:
        names = {f.name for f in fields(cls)}
        if set(data) != names:
            raise RecordError(f"its entries must be {sorted(names)}, not {sorted(data)}")
        lists = {key: tuple(Check(**entry) for entry in data[key]) for key in ("checks", "links") if key in data}
        return cls(**{**data, **lists, "arch_id": int(data["arch_id"], 16)})


@dataclass(frozen=True, kw_only=True)
class DesignRecord(_Record):
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
        _require_hex(self, "verilog_sha256", "definition_sha256")
        _require_checks("design record", self.checks, DESIGN_CHECKS)
        if empty := sorted(name for name, count in self.coverage.items() if count < 1):
            raise RecordError(f"a design record must have no empty coverage bin, not {empty}")
        if not self.coverage:
            raise RecordError("a design record must have coverage bins, not none")

    @property
    def build_id(self) -> int:
        """First 64 bits of the digest: what the core's BUILD_ID register reads."""
        return int(self.digest[:_ID_DIGITS], 16)


@dataclass(frozen=True, kw_only=True)
class ProgramRecord(_Record):
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
        _require_hex(self, "program_sha256", "parameters_sha256", "verilog_sha256", "graph_sha256")
        _require_checks("program record", self.links, PROGRAM_LINKS)
        if self.images < 1:
            raise RecordError(f"a program record must be of at least 1 image, not {self.images}")


def require_design(record: DesignRecord, verilog_sha256: str, arch: Arch) -> None:
    """GateRefusal where the record is not of this Verilog and this architecture."""
    pairs = (
        ("SHA-256 of the Verilog", record.verilog_sha256, verilog_sha256),
        ("arch_id", f"{record.arch_id:016x}", f"{arch.arch_id:016x}"),
    )
    _refuse("the design is not the one that its record proves", PROVE, pairs)


def require_program(record: ProgramRecord, program: Program, design: DesignRecord) -> None:
    """GateRefusal where the record is not of this program on this design."""
    pairs = (
        ("SHA-256 of the weights (parameter regions)", record.parameters_sha256, parameters_sha256(program)),
        ("SHA-256 of the program", record.program_sha256, program.digest),
        ("arch_id of the program", f"{record.arch_id:016x}", f"{program.arch.arch_id:016x}"),
        ("SHA-256 of the design's Verilog", record.verilog_sha256, design.verilog_sha256),
        ("arch_id of the design", f"{record.arch_id:016x}", f"{design.arch_id:016x}"),
    )
    _refuse("the program is not the one that its record proves on this design", VERIFY, pairs)


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


def _json(data: bytes, where: str, command: str) -> dict[str, Any]:
    """A record file's entries but for its digest, which must be right."""
    try:
        content = json.loads(data.decode())
        claimed = content.pop("digest")
        found = _digest(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{where} is not a record, or is damaged ({error}): run '{command}'") from error
    if claimed != found or "schema" not in content:
        raise RecordError(
            f"{where} was changed after it was written (SHA-256 of the record: it says {_short(claimed)}, "
            f"its content gives {_short(found)}): run '{command}'"
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:_SHOWN_DIGITS]}..." if len(text) > _ID_DIGITS else text


def _require_hex(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if len(value) != _SHA_DIGITS or set(value) - set("0123456789abcdef"):
            raise RecordError(f"{name} must be {_SHA_DIGITS} hexadecimal digits, not {value!r}")


def _require_checks(what: str, checks: Sequence[Check], wanted: Sequence[str]) -> None:
    names = [check.name for check in checks]
    if missing := [name for name in wanted if name not in names]:
        raise RecordError(f"a {what} must hold the checks {list(wanted)}; there is no {missing}")
    if len(set(names)) != len(names):
        raise RecordError(f"a {what} must hold each check once, not {names}")
