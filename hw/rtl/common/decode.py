"""Hardware views of the instruction table: the same :class:`hw.spec.isa.Operation` that the encoder reads."""

from __future__ import annotations

from amaranth.hdl import Value, signed, unsigned
from amaranth.lib import data

from hw.rtl.arith.compare import at_least
from hw.spec.isa import HEADER, INSTRUCTION_BYTES, Field, Operation

INSTRUCTION_BITS = INSTRUCTION_BYTES * 8


def operation_layout(operation: Operation) -> data.FlexibleLayout:
    """Layout of the 512 instruction bits with every field of the operation, header fields included, by name."""
    fields = {
        entry.name: data.Field(signed(entry.width) if entry.signed else unsigned(entry.width), operation.offsets[entry.name])
        for entry in HEADER + operation.fields
    }
    return data.FlexibleLayout(INSTRUCTION_BITS, fields)


def view(operation: Operation, bits: Value) -> data.View:
    """The instruction bits seen as one operation."""
    return data.View(operation_layout(operation), bits)


def field_in_range(entry: Field, value: Value) -> Value | None:
    """Whether a field's value is legal; None where every value that fits is."""
    checks = []
    if entry.low > entry.type_min:
        checks.append(value >= entry.low if entry.signed else at_least(value, entry.low))
    if entry.high < entry.type_max:
        checks.append(value <= entry.high if entry.signed else ~at_least(value, entry.high + 1))
    if not checks:
        return None
    return checks[0] if len(checks) == 1 else checks[0] & checks[1]
