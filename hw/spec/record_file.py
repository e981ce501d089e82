"""The file of a record: canonical JSON with its own SHA-256, checks that passed, and refusals in words.

A change of one byte is refused. Records carry no signature: the gate keeps mistakes out, not forgers. What the records say is in
``hw.spec.records``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hw.spec.program import write_atomically

SCHEMA = 1
"""Version of the files' content."""

SHA_DIGITS, ID_DIGITS = 64, 16
_SHOWN_DIGITS = 12
Self = TypeVar("Self", bound="Record")


class _Advised:
    """``what`` is refused, without the way out, which a caller that knows files and options can put better."""

    what: str
    args: tuple[Any, ...]

    def advise(self, way_out: str) -> None:
        """Put this in place of the general way out."""
        self.args = (f"{self.what}: {way_out}",)


class RecordError(_Advised, ValueError):
    """A record that does not prove anything: damaged, changed, incomplete, or of something that did not pass.

    ``way_out`` is what to do about it, "" where the message says that itself.
    """

    def __init__(self, what: str, way_out: str = "") -> None:
        self.what = what
        super().__init__(f"{what}: {way_out}" if way_out else what)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One hash that is not what the record says; both as text."""

    name: str
    recorded: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}: the record says {_short(self.recorded)}, here it is {_short(self.found)}"


class GateRefusal(_Advised, RuntimeError):
    """Something is not proven. ``differences`` are the hashes that differ, empty where a record is missing.

    ``advice`` is the command that makes a record that fits.
    """

    def __init__(self, what: str, advice: str, differences: Sequence[Difference] = ()) -> None:
        self.differences = tuple(differences)
        listed = "; ".join(map(str, self.differences))
        self.what = f"{what}{f' ({listed})' if listed else ''}"
        super().__init__(f"{self.what}: run '{advice}'")


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
class Record:
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
        run = f"run '{cls.command}'"
        content = _json(data, where, run)
        if content.get("record") != cls.kind:
            raise RecordError(f"{where} must be a {cls.kind} record, not {content.get('record')!r}", run)
        if content["schema"] != SCHEMA:
            raise RecordError(f"{where} must have schema {SCHEMA}, not {content['schema']}", f"{run} of this version")
        try:
            record = cls._parse({key: value for key, value in content.items() if key not in ("record", "schema")})
        except RecordError as error:
            raise RecordError(f"{where} does not hold a valid record ({error})", run) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RecordError(f"{where} does not hold a valid record (an entry of it has a wrong form)", run) from error
        if record.to_bytes() != data:
            raise RecordError(f"{where} was changed after it was written (not its canonical form)", run)
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


def record_kind(path: str | Path) -> str:
    """What a file calls itself, "" where it is no record: which class should read it, no more."""
    try:
        return str(json.loads(Path(path).read_bytes()).get("record", ""))
    except (OSError, AttributeError, ValueError):
        return ""


def _json(data: bytes, where: str, way_out: str) -> dict[str, Any]:
    """A record file's entries but for its digest, which must be right."""
    try:
        content = json.loads(data.decode())
    except (ValueError, RecursionError):  # ValueError: not UTF-8 or not JSON
        content, wrong = None, "it is no JSON text, or was cut off"
    else:
        wrong = "" if isinstance(content, dict) else "it holds no table of entries"
        wrong = wrong or ("" if "digest" in content else "it has no digest")
    if wrong:
        raise RecordError(f"{where} is not a record, or is damaged ({wrong})", way_out)
    claimed = content.pop("digest")
    found = _digest(content)
    if claimed != found or "schema" not in content:
        raise RecordError(
            f"{where} was changed after it was written (SHA-256 of the record: it says {_short(claimed)}, "
            f"its content gives {_short(found)})",
            way_out,
        )
    return content


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:_SHOWN_DIGITS]}..." if len(text) > ID_DIGITS else text


def require_hex(record: object, *names: str) -> None:
    for name in names:
        value = getattr(record, name)
        if len(value) != SHA_DIGITS or set(value) - set("0123456789abcdef"):
            raise RecordError(f"{name} must be {SHA_DIGITS} hexadecimal digits, not {value!r}")


def require_checks(what: str, checks: Sequence[Check], wanted: Sequence[str]) -> None:
    names = [check.name for check in checks]
    if missing := [name for name in wanted if name not in names]:
        raise RecordError(f"a {what} must hold the checks {list(wanted)}; there is no {missing}")
    if len(set(names)) != len(names):
        raise RecordError(f"a {what} must hold each check once, not {names}")
