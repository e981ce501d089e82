"""The instruction-table mechanism that every core shares: one table, from which encoder, RTL decoder, interpreter and docs read.

An instruction is 64 bytes, little endian: a common header (bits 0..63), an operation's own fields (from bit 64), zeros, and a
CRC-32 (IEEE 802.3, as ``zlib.crc32``) of the first 60 bytes in the last four. Bits that no field claims are reserved and must be
zero. A field with a ``maximum`` below what its width holds, or a ``minimum``, is checked by the core before the instruction issues.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

INSTRUCTION_BYTES = 64
CRC_OFFSET = 60
HEADER_BITS = 64
PAYLOAD_END = CRC_OFFSET * 8


@dataclass(frozen=True, kw_only=True)
class Field:
    """One field: ``width`` bits, two's complement if ``signed``; legal values are minimum..maximum (None: all that fit)."""

    name: str
    width: int
    doc: str
    signed: bool = False
    minimum: int | None = None
    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"field {self.name} must be at least 1 bit wide, not {self.width}")
        if not self.type_min <= self.low <= self.high <= self.type_max:
            raise ValueError(f"field {self.name} allows {self.low}..{self.high}, which {self.width} bits cannot hold")

    @property
    def type_min(self) -> int:
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def type_max(self) -> int:
        return (1 << (self.width - self.signed)) - 1

    @property
    def low(self) -> int:
        return self.type_min if self.minimum is None else self.minimum

    @property
    def high(self) -> int:
        return self.type_max if self.maximum is None else self.maximum

    def describe(self) -> dict[str, Any]:
        """Everything but the prose: what enters the architecture's identity."""
        return {"name": self.name, "width": self.width, "signed": self.signed, "low": self.low, "high": self.high}


HEADER = (
    Field(name="opcode", width=8, doc="which instruction"),
    Field(name="version", width=8, doc="version of the instruction table"),
    Field(name="flags", width=16, maximum=0, doc="reserved for common flags"),
    Field(name="wait", width=16, doc="token i must have been pushed once for each set bit i; it is consumed"),
    Field(name="push", width=16, doc="token i is pushed at retirement for each set bit i"),
)
TOKEN_COUNT = 16
TOKEN_MAX = 15
"""Most tokens of one kind that may be outstanding."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A check across fields: where ``when`` has one of ``values``, ``field`` must be in minimum..maximum (else FIELD_RANGE).

    ``field`` must be an unsigned one. Raises ValueError for a range that is empty or begins below 0.
    """

    when: str
    values: tuple[int, ...]
    field: str
    minimum: int
    maximum: int

    def __post_init__(self) -> None:
        if not 0 <= self.minimum <= self.maximum:
            raise ValueError(f"the rule on {self.field} must allow a range from 0 on, not {self.minimum}..{self.maximum}")

    def describe(self) -> list[Any]:
        return [self.when, list(self.values), self.field, self.minimum, self.maximum]

    def problem(self, values: Mapping[str, int]) -> str | None:
        """What is wrong with the fields' values, in words; None where nothing is."""
        when, value = values[self.when], values[self.field]
        if when not in self.values or self.minimum <= value <= self.maximum:
            return None
        legal = str(self.minimum) if self.minimum == self.maximum else f"in {self.minimum}..{self.maximum}"
        return f"{self.field} must be {legal} where {self.when} is {when}, not {value}"


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One kind of instruction. Fields stand one after the other from bit 64; ``offsets`` tells where."""

    name: str
    opcode: int
    doc: str
    fields: tuple[Field, ...]
    rules: tuple[Rule, ...] = ()
    offsets: Mapping[str, int] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        offsets, position = {}, 0
        for entry in HEADER + self.fields:
            if entry.name in offsets:
                raise ValueError(f"operation {self.name} has two fields named {entry.name}")
            offsets[entry.name] = position
            position += entry.width
        if position > PAYLOAD_END:
            raise ValueError(f"operation {self.name} needs {position} bits, only {PAYLOAD_END} are there")
        object.__setattr__(self, "offsets", offsets)

    @property
    def used_bits(self) -> int:
        """First bit after the last field: from here to the CRC all bits are reserved."""
        last = self.fields[-1] if self.fields else HEADER[-1]
        return self.offsets[last.name] + last.width

    def describe(self) -> dict[str, Any]:
        fields, rules = [f.describe() for f in self.fields], [r.describe() for r in self.rules]
        return {"name": self.name, "opcode": self.opcode, "fields": fields, "rules": rules}

    def illegal(self, values: Mapping[str, int]) -> str | None:
        """What is wrong with the fields' values, in words; None where nothing is."""
        for entry in HEADER + self.fields:
            if not entry.low <= values[entry.name] <= entry.high:
                return f"{self.name}.{entry.name} must be in {entry.low}..{entry.high}, not {values[entry.name]}"
        problems = (rule.problem(values) for rule in self.rules)
        return next((f"{self.name}.{problem}" for problem in problems if problem), None)


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """A decoded instruction: its operation and all its fields' values, header fields included."""

    operation: Operation
    values: Mapping[str, int]

    def __getitem__(self, name: str) -> int:
        return self.values[name]

    @property
    def name(self) -> str:
        return self.operation.name


class InstructionError(ValueError):
    """An instruction that a core would refuse. ``reason`` is the key of the error code in ``hw.spec.regs.ErrorCode``."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, kw_only=True)
class InstructionSet:
    """A core's table: its version and operations with distinct names and opcodes (1..255)."""

    core: str
    version: int
    operations: tuple[Operation, ...]

    def __post_init__(self) -> None:
        for key in ("name", "opcode"):
            values = [getattr(op, key) for op in self.operations]
            if len(set(values)) != len(values):
                raise ValueError(f"instruction set of {self.core} has two operations of one {key}: {values}")

    def operation(self, name: str) -> Operation:
        for op in self.operations:
            if op.name == name:
                return op
        raise ValueError(f"core {self.core} has no operation {name!r}; it has {[op.name for op in self.operations]}")

    def encode(self, name: str, /, **values: int) -> bytes:
        """64 bytes of one instruction. Fields not named are 0 (or their minimum, if that is above 0)."""
        op = self.operation(name)
        known = {f.name: f for f in HEADER + op.fields}
        if unknown := sorted(set(values) - set(known)):
            raise ValueError(f"{name} has no field {unknown}; it has {sorted(known)}")
        given = {entry.name: max(entry.low, 0) for entry in known.values()}
        given.update(opcode=op.opcode, version=self.version, **{key: int(value) for key, value in values.items()})
        if problem := op.illegal(given):
            raise ValueError(problem)
        word = 0
        for entry in known.values():
            word |= (given[entry.name] & ((1 << entry.width) - 1)) << op.offsets[entry.name]
        return seal(word.to_bytes(CRC_OFFSET, "little"))

    def decode(self, data: bytes) -> Instruction:
        """The instruction in 64 bytes; raises InstructionError with the core's reason, checked in the core's order."""
        if len(data) != INSTRUCTION_BYTES:
            raise InstructionError("BAD_LENGTH", f"an instruction must be {INSTRUCTION_BYTES} bytes, not {len(data)}")
        if seal(data[:CRC_OFFSET]) != data:
            raise InstructionError("INSTRUCTION_CRC", "the instruction's CRC-32 does not match its bytes")
        word = int.from_bytes(data[:CRC_OFFSET], "little")
        if (version := word >> 8 & 0xFF) != self.version:
            raise InstructionError("INSTRUCTION_VERSION", f"instruction version must be {self.version}, not {version}")
        op = next((op for op in self.operations if op.opcode == word & 0xFF), None)
        if op is None:
            raise InstructionError("OPCODE", f"opcode {word & 0xFF} is not one of core {self.core}")
        if word >> op.used_bits:
            raise InstructionError("RESERVED", f"{op.name}: reserved bits above {op.used_bits} must be zero")
        values = {f.name: _extract(word, op.offsets[f.name], f) for f in HEADER + op.fields}
        if problem := op.illegal(values):
            raise InstructionError("FIELD_RANGE", problem)
        return Instruction(operation=op, values=values)

    def describe(self) -> dict[str, Any]:
        header = [f.describe() for f in HEADER]
        return {"version": self.version, "header": header, "operations": [op.describe() for op in self.operations]}

    def to_markdown(self) -> str:
        """The reference table of the docs."""
        lines = [f"# Instructions of the `{self.core}` core, version {self.version}", ""]
        for op in self.operations:
            lines += [
                f"## {op.name} (opcode {op.opcode})",
                "",
                op.doc,
                "",
                "| bits | field | legal | meaning |",
                "|---|---|---|---|",
            ]
            for entry in HEADER + op.fields:
                start = op.offsets[entry.name]
                lines.append(f"| {start + entry.width - 1}:{start} | {entry.name} | {entry.low}..{entry.high} | {entry.doc} |")
            lines.append("")
        return "\n".join(lines)


def _extract(word: int, offset: int, entry: Field) -> int:
    value = word >> offset & ((1 << entry.width) - 1)
    return value - (1 << entry.width) if entry.signed and value >> (entry.width - 1) else value


def seal(body: bytes) -> bytes:
    """60 bytes and their CRC-32."""
    return bytes(body) + zlib.crc32(body).to_bytes(4, "little")
