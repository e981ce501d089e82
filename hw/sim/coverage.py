"""Which kinds of instructions and endings a core has gone through: bins with counts, most of them read from the instruction table.

A field with few legal values has a bin per value, so that a value that the table gains must be exercised before a design is proven;
a size has a bin for 1 and one for more. Crosses, derived properties and the rest are listed here. Only retired instructions count.
"""

from __future__ import annotations

import importlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.sim.records import CHANNELS
from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import (
    DW_CONV,
    DW_DEFORM,
    DW_SAMPLE,
    MERGE_ADD,
    MERGE_NONE,
    MERGE_ZIP,
    OFFSET_PAIRS,
    SPACES,
    WINDOW_MAX,
)
from hw.spec.isa import INSTRUCTION_BYTES, Field, Instruction, Operation
from hw.spec.machine import Writes
from hw.spec.program import HEADER_BYTES
from hw.spec.regs import ErrorCode

FEW_VALUES = 9
"""A field with at most so many legal values has a bin for each."""

CROSSES = (
    ("LOAD", "space", "check_crc"),
    ("PW", "wide_weights", "merge"),
    ("PW", "merge", "merge_unsigned"),
    ("PW", "wide_weights", "in_unsigned"),
    ("PW", "in_unsigned", "rounding"),
    ("DW", "mode", "in_unsigned"),
    ("DW", "mode", "rounding"),
)
"""Pairs of fields of an operation of which every combination must occur."""


REQUANTISING = ("PW", "DW")
BETWEEN = "bytes between the clips"
SAMPLED = f"DW.mode={DW_SAMPLE}: {BETWEEN}"
LEAST_INSIDE = 1000
"""Bytes between the clips that each rounding of each operation, samples and each kind of addition must have written: at a clip no
wrong sum or rounding shows."""


@dataclass(frozen=True, kw_only=True)
class Property:
    """A bin of an operation that is hit where ``holds``; required where the architecture can have it."""

    operation: str
    name: str
    holds: Callable[[Any, Instruction], bool]
    possible: Callable[[Any], bool] = lambda arch: True


def _tile_words(arch: DeformArch, wide: int) -> int:
    return arch.cells // 16 * (1 if wide else 2)


def _both(
    name: str, holds: Callable[[Any, Instruction], bool], possible: Callable[[Any], bool]
) -> list[Property]:
    return [Property(operation=each, name=name, holds=holds, possible=possible) for each in ("LOAD", "STORE")]


def transfer_properties(words: Callable[[Any], int]) -> tuple[Property, ...]:
    """Of LOAD and STORE; ``words``: of the memory that the longest transfers fill."""
    return (
        *_both(
            "run longer than a burst",
            lambda arch, i: i["n0"] > arch.burst_beats,
            lambda arch: words(arch) > arch.burst_beats,
        ),
        *_both("gaps between runs", lambda arch, i: i["n1"] > 1 and i["stride1"] > i["n0"], lambda arch: True),
        *_both("waits for a token", lambda arch, i: i["wait"] != 0, lambda arch: True),
        *_both("pushes a token", lambda arch, i: i["push"] != 0, lambda arch: True),
    )


PLACES = tuple(f"{how} {side}" for how in ("across", "beyond", "far") for side in ("above", "below", "left", "right"))
"""What ``hw.spec.deform.machine`` notes of samples: it depends on the offsets in feature memory, not on the instruction alone."""

FRACTIONS = range(8)


def _has_tables(arch: DeformArch) -> bool:
    return arch.tables > 0


def _window(rows: int, cols: int) -> Property:
    """A convolution with that window."""
    return Property(
        operation="DW",
        name=f"convolution, window of {rows} x {cols}",
        holds=lambda arch, i: i["mode"] == DW_CONV and (i["kernel_h"], i["kernel_w"]) == (rows, cols),
    )


def _sampling(field: str, value: int) -> Property:
    """A sample with that value of a field."""
    return Property(
        operation="DW", name=f"sample, {field}={value}", holds=lambda arch, i: i["mode"] == DW_SAMPLE and i[field] == value
    )


def _merged_table(merge: int) -> Property:
    return Property(
        operation="PW",
        name=f"through a table, merge={merge}",
        holds=lambda arch, i: i["table"] > 0 and i["merge"] == merge,
        possible=_has_tables,
    )


PROPERTIES = (
    *transfer_properties(lambda arch: arch.feature_words),
    Property(operation="PW", name="padded", holds=lambda arch, i: i["pad_top"] > 0 and i["pad_left"] > 0),
    Property(operation="PW", name="unsigned output", holds=lambda arch, i: i["clip_hi"] > 127),
    Property(
        operation="PW",
        name="several weight tiles",
        holds=lambda arch, i: i["out_words"] > _tile_words(arch, i["wide_weights"]),
        possible=lambda arch: _tile_words(arch, 1) < 3,
    ),
    Property(
        operation="PW",
        name="rows of the array left over",
        holds=lambda arch, i: i["out_rows"] * i["out_cols"] % arch.rows != 0,
        possible=lambda arch: arch.rows > 1,
    ),
    Property(operation="DW", name="first row outside", holds=lambda arch, i: i["row0"] < 1),
    Property(operation="DW", name="first column outside", holds=lambda arch, i: i["col0"] < 0),
    Property(
        operation="DW",
        name="window of more than three rows",
        holds=lambda arch, i: i["kernel_h"] > 3 and i["mode"] not in (DW_CONV, DW_DEFORM),
    ),
    *(_sampling("offset_frac", frac) for frac in FRACTIONS),
    *(_sampling("offset_pair", pair) for pair in range(OFFSET_PAIRS)),
    *(_window(rows, cols) for rows in range(1, WINDOW_MAX + 1) for cols in range(1, WINDOW_MAX + 1)),
    *(_merged_table(merge) for merge in (MERGE_NONE, MERGE_ZIP, MERGE_ADD)),
    Property(
        operation="DW", name="deformable, through a table", possible=_has_tables,
        holds=lambda arch, i: i["mode"] == DW_DEFORM and i["table"] > 0,
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CoverageTable:
    """What is binned of a core beside the fields of its instruction table.

    ``limits`` : highest values of fields, by name, with which an instruction can end well on an architecture. ``measured`` : names of
    further bins. ``met`` : those of them that an instruction hit with what it wrote. ``possible`` : those that it may hit.
    """

    crosses: Sequence[tuple[str, str, str]]
    properties: Sequence[Property]
    limits: Callable[[Any], Mapping[str, int]]
    measured: Callable[[Any], Iterator[str]]
    met: Callable[[Instruction, Writes], Iterator[str]] = lambda instruction, writes: iter(())
    possible: Callable[[Instruction], Iterator[str]] = lambda instruction: iter(())


def table_for(arch: Arch) -> CoverageTable:
    """The table of an architecture's core."""
    table: CoverageTable = importlib.import_module(_TABLES[arch.core]).TABLE
    return table


_TABLES = {"deform": "hw.sim.coverage", "sat": "hw.sim.sat_coverage"}


class Coverage:
    """Counts of all required bins of an architecture."""

    def __init__(self, arch: Arch) -> None:
        self.arch, self.table = arch, table_for(arch)
        self.counts: dict[str, int] = dict.fromkeys(_required(arch), 0)

    @property
    def empty(self) -> list[str]:
        """Required bins that nothing has hit, or not enough."""
        return [name for name, count in self.counts.items() if count < (LEAST_INSIDE if name.endswith(BETWEEN) else 1)]

    def retired(self, image: bytes, written: Sequence[Writes]) -> None:
        """Instructions of a program's image have retired, and wrote this."""
        for writes in written:
            start = HEADER_BYTES + writes.index * INSTRUCTION_BYTES
            instruction = self.arch.instructions.decode(image[start : start + INSTRUCTION_BYTES])
            self._hit({name: _inside(instruction, writes) if name.endswith(BETWEEN) else 1 for name in self.bins(instruction)})
            self._hit({name: 1 for name in self.table.met(instruction, writes)})

    def ended(self, error: ErrorCode) -> None:
        """A program has ended."""
        self._hit({_ending(error): 1})

    def stalled(self, counts: Mapping[str, int]) -> None:
        """Cycles of random stalls, by channel."""
        self._hit({f"stall on {channel}": count for channel, count in counts.items()})

    def bins(self, instruction: Instruction) -> Iterator[str]:
        """The bins that an instruction hits."""
        name = instruction.name
        yield name
        for field in instruction.operation.fields:
            if _is_binned(field):
                yield f"{name}.{field.name}={_label(field, instruction[field.name])}"
        for operation, one, other in self.table.crosses:
            if operation == name:
                yield _cross(name, one, instruction[one], other, instruction[other])
        for entry in self.table.properties:
            if entry.operation == name and entry.holds(self.arch, instruction):
                yield f"{name}: {entry.name}"
        merge = instruction.values.get("merge", MERGE_NONE)
        if name in REQUANTISING and merge == MERGE_NONE and not instruction["table"]:
            yield _between(name, instruction["rounding"])
            if instruction.values.get("mode") == DW_SAMPLE:
                yield SAMPLED
        if merge == MERGE_ADD:
            yield _sums(instruction["merge_unsigned"])

    def possible(self, instruction: Instruction) -> Iterator[str]:
        """The bins that an instruction hits, and those that it hits if the data is such."""
        yield from self.bins(instruction)
        yield from self.table.possible(instruction)

    def _hit(self, hits: Mapping[str, int]) -> None:
        for name, count in hits.items():
            if name in self.counts:
                self.counts[name] += count


def _required(arch: Arch) -> Iterator[str]:
    """Names of all bins, in the order of the instruction table."""
    table = table_for(arch)
    for operation in arch.instructions.operations:
        yield operation.name
        for field in operation.fields:
            if _is_binned(field):
                yield from (f"{operation.name}.{field.name}={label}" for label in _labels(arch, field))
    for name, one, other in table.crosses:
        operation = arch.instructions.operation(name)
        fields = {f.name: f for f in operation.fields}
        pairs = itertools.product(_values(arch, fields[one]), _values(arch, fields[other]))
        yield from (_cross(name, one, a, other, b) for a, b in pairs if not _forbidden(operation, {one: a, other: b}))
    yield from (f"{entry.operation}: {entry.name}" for entry in table.properties if entry.possible(arch))
    yield from table.measured(arch)
    yield from (_ending(error) for error in ErrorCode)
    yield from (f"stall on {channel}" for channel in CHANNELS)


def _forbidden(operation: Operation, pair: Mapping[str, int]) -> bool:
    """Whether a rule across fields forbids two values."""
    return any(rule.problem(pair) for rule in operation.rules if {rule.when, rule.field} <= set(pair))


def _measured(arch: DeformArch) -> Iterator[str]:
    yield SAMPLED
    yield from map(_place, PLACES)
    for name in REQUANTISING:
        rounding = next(f for f in arch.instructions.operation(name).fields if f.name == "rounding")
        yield from (_between(name, value) for value in _values(arch, rounding))
    yield from (_sums(unsigned) for unsigned in (0, 1))


def _inside(instruction: Instruction, writes: Writes) -> int:
    """Bytes that an instruction wrote and that are none of its last two clips, as bytes."""
    _, data = writes.sorted("fm")
    clip = "merge" if instruction.values.get("merge") == MERGE_ADD else "clip"
    low, high = (instruction[f"{clip}_{end}"] & 0xFF for end in ("lo", "hi"))
    return int(np.count_nonzero((data != low) & (data != high)))


def _place(name: str) -> str:
    return f"DW: sample {name}"


def _between(name: str, rounding: int) -> str:
    return f"{name}.rounding={rounding}: {BETWEEN}"


def _sums(unsigned: int) -> str:
    return f"PW.merge={MERGE_ADD}, merge_unsigned={unsigned}: {BETWEEN}"


def _is_binned(field: Field) -> bool:
    """Fields whose values say what an instruction does; reserved ones have a single value."""
    return 1 < field.high - field.low + 1 <= FEW_VALUES or field.minimum == 1


def _values(arch: Arch, field: Field) -> range:
    """Legal values that an instruction can have and end well on an architecture."""
    high = table_for(arch).limits(arch).get(field.name, field.high)
    return range(field.low, high + 1)


def _labels(arch: Arch, field: Field) -> list[str]:
    return list(Counter(_label(field, value) for value in _values(arch, field)[: FEW_VALUES + 1]))


def _label(field: Field, value: int) -> str:
    if field.high - field.low + 1 <= FEW_VALUES or value == field.low:
        return str(value)
    return f">{field.low}"


def _cross(name: str, one: str, a: int, other: str, b: int) -> str:
    return f"{name}.{one}={a}, {other}={b}"


def _ending(error: ErrorCode) -> str:
    return f"ending {error.name}"


TABLE = CoverageTable(
    crosses=CROSSES,
    properties=PROPERTIES,
    limits=lambda arch: {"table": arch.tables, "space": len(SPACES) - 1 - (not arch.tables)},
    measured=_measured,
    met=lambda instruction, writes: map(_place, sorted(writes.met)),
    possible=lambda instruction: map(_place, PLACES if instruction.values.get("mode") == DW_SAMPLE else ()),
)
"""Of the inference core."""
