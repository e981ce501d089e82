"""The instruction-table mechanism: round trips, layout, refusals in the core's order."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from hw.spec.deform import INSTRUCTIONS
from hw.spec.isa import HEADER, Field, InstructionError, InstructionSet, Operation, Rule, seal


def random_values(op: Operation, rng: np.random.Generator) -> dict[str, int]:
    values = {f.name: int(rng.integers(f.low, f.high, endpoint=True)) for f in op.fields}
    for rule in op.rules:
        if values[rule.when] in rule.values:
            values[rule.field] = int(rng.integers(rule.minimum, rule.maximum, endpoint=True))
    return {**values, "wait": int(rng.integers(1 << 16)), "push": int(rng.integers(1 << 16))}


@pytest.mark.parametrize("op", INSTRUCTIONS.operations, ids=lambda op: op.name)
def test_every_field_survives_encoding(op: Operation) -> None:
    rng = np.random.default_rng(1)
    extremes = [{f.name: f.low for f in op.fields}, {f.name: f.high for f in op.fields}]
    for case in extremes:
        case.update({r.field: r.maximum for r in op.rules if case[r.when] in r.values})
    cases = extremes + [random_values(op, rng) for _ in range(200)]
    compared = 0
    for values in cases:
        decoded = INSTRUCTIONS.decode(INSTRUCTIONS.encode(op.name, **values))
        assert decoded.name == op.name
        for name, value in values.items():
            assert decoded[name] == value
            compared += 1
    assert compared >= 200 * len(op.fields)


def test_layout_is_little_endian_and_sealed_by_zlib_crc() -> None:
    data = INSTRUCTIONS.encode("STORE", region=3, offset=0x12345678, n0=1, n1=1, n2=1, wait=0x8001, push=2)
    assert len(data) == 64
    assert data[:8] == bytes([2, 3, 0, 0, 0x01, 0x80, 2, 0])
    assert int.from_bytes(data[8:13], "little") & 0xF == 3
    assert (int.from_bytes(data[8:13], "little") >> 4) & 0xFFFFFFFF == 0x12345678
    assert data[60:] == zlib.crc32(data[:60]).to_bytes(4, "little")


def test_every_single_bit_flip_is_seen() -> None:
    data = INSTRUCTIONS.encode("LOAD", n0=5, n1=6, n2=7, crc=99)
    seen = 0
    for bit in range(512):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InstructionError) as error:
            INSTRUCTIONS.decode(bytes(damaged))
        assert error.value.reason == "INSTRUCTION_CRC"
        seen += 1
    assert seen == 512


def patched(data: bytes, **bits: int) -> bytes:
    """Overwrite bytes and seal again: what a CRC cannot see."""
    body = bytearray(data[:60])
    for where, value in bits.items():
        body[int(where[1:])] = value
    return seal(bytes(body))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (patched(INSTRUCTIONS.encode("LOAD"), b1=9, b0=77), "INSTRUCTION_VERSION"),
        (patched(INSTRUCTIONS.encode("LOAD"), b0=77), "OPCODE"),
        (patched(INSTRUCTIONS.encode("LOAD"), b59=1, b2=1), "RESERVED"),
        (patched(INSTRUCTIONS.encode("LOAD"), b2=1), "FIELD_RANGE"),
        (INSTRUCTIONS.encode("LOAD")[:63], "BAD_LENGTH"),
    ],
)
def test_refusals_come_in_the_cores_order(data: bytes, reason: str) -> None:
    with pytest.raises(InstructionError) as error:
        INSTRUCTIONS.decode(data)
    assert error.value.reason == reason


def test_rules_across_fields_hold_for_encoder_and_decoder() -> None:
    with pytest.raises(ValueError, match=r"DW\.kernel_h must be 3 where mode is 1, not 5"):
        INSTRUCTIONS.encode("DW", mode=1, kernel_h=5, kernel_w=3)
    with pytest.raises(ValueError, match=r"DW\.kernel_w must be 3 where mode is 1, not 2"):
        INSTRUCTIONS.encode("DW", mode=1, kernel_h=3, kernel_w=2)
    with pytest.raises(ValueError, match=r"DW\.kernel_w must be in 1\.\.3 where mode is 0, not 4"):
        INSTRUCTIONS.encode("DW", mode=0, kernel_h=1, kernel_w=4)
    for side, other in (("kernel_h", "kernel_w"), ("kernel_w", "kernel_h")):
        for wrong in (1, 3):
            with pytest.raises(ValueError, match=rf"DW\.{side} must be 2 where mode is 4, not {wrong}"):
                INSTRUCTIONS.encode("DW", mode=4, **{side: wrong, other: 2})
    assert INSTRUCTIONS.decode(INSTRUCTIONS.encode("DW", mode=2, kernel_h=5, kernel_w=4))["kernel_h"] == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: INSTRUCTIONS.encode("LOAD", nonsense=1), r"no field \['nonsense'\]"),
        (lambda: INSTRUCTIONS.encode("LOAD", n0=0), "LOAD.n0 must be in 1..65535, not 0"),
        (lambda: INSTRUCTIONS.encode("LOAD", region=16), "must be in 0..15, not 16"),
        (lambda: INSTRUCTIONS.encode("JUMP"), "no operation 'JUMP'"),
        (lambda: Field(name="f", width=0, doc=""), "at least 1 bit"),
        (lambda: Field(name="f", width=2, maximum=9, doc=""), "2 bits cannot hold"),
        (lambda: Operation(name="o", opcode=1, doc="", fields=(HEADER[0],)), "two fields named opcode"),
        (lambda: Operation(name="o", opcode=1, doc="", fields=(Field(name="f", width=500, doc=""),)), "only 480 are there"),
        (lambda: Rule(when="m", values=(0,), field="f", minimum=2, maximum=1), "must allow a range from 0 on, not 2..1"),
        (lambda: InstructionSet(core="c", version=1, operations=INSTRUCTIONS.operations * 2), "two operations of one name"),
    ],
)
def test_bad_tables_and_values_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_docs_name_every_field() -> None:
    text = INSTRUCTIONS.to_markdown()
    names = [f.name for op in INSTRUCTIONS.operations for f in op.fields]
    assert len(names) > 60
    assert all(f"| {name} |" in text for name in names)
