"""Programs that a core must refuse, derived from the instruction table, and the endings that a disturbed run must have."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.sim.bench import BASE, PROGRAM, bench_regions
from hw.sim.random_programs import WRAP, Generator
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import DW_CONV, DW_SAMPLE, MERGE_ADD, MERGE_ZIP, SPACES, TABLES_MAX
from hw.spec.isa import CRC_OFFSET, INSTRUCTION_BYTES, TOKEN_MAX, Operation, seal
from hw.spec.machine import Outcome
from hw.spec.program import HEADER_BYTES, build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode

HEADER_PARTS = {"magic": 0, "container version": 8, "count": 12, "arch_id": 16}
"""First byte of each part of a program's header."""


NARROW = 8
"""Bits of a field of which every forbidden value is tried."""


@dataclass(frozen=True, kw_only=True)
class Launch:
    """An image to start: ``length`` and ``address`` are None where they are right."""

    image: bytes
    length: int | None = None
    address: int | None = None

    @property
    def options(self) -> dict[str, int]:
        """Arguments for the bench."""
        given = {"length": self.length, "address": self.address}
        return {name: value for name, value in given.items() if value is not None}


def copies(arch: DeformArch) -> tuple[bytes, bytes]:
    """A LOAD from the inputs and a STORE to the outputs."""
    words = min(100, arch.feature_words)
    return arch.instructions.encode("LOAD", region=1, n0=words), arch.instructions.encode("STORE", region=2, n0=words)


def transfers(arch: DeformArch) -> list[bytes]:
    """Good transfers that random ones seldom are: longer than a burst, across 4 KB, word by word, ordered by tokens."""
    encode, long = arch.instructions.encode, min(arch.burst_beats + 37, arch.feature_words, 500)
    return [
        encode("LOAD", region=1, n0=long, offset=5, push=0x8001),
        encode("STORE", region=2, n0=long, offset=3, wait=0x0001, push=0x0002),
        encode("LOAD", region=0, n0=long, offset=0x200 - 7, wait=0x8000),
        encode("LOAD", region=1, n1=9, stride1=3, chip_stride1=2, wait=0x0002, push=0x0004),
        encode("STORE", region=2, n1=9, stride1=5, chip_stride1=2, wait=0x0004),
    ]


def damaged(arch: DeformArch, seed: int, flips: int) -> Iterator[Launch]:
    """A good program, damaged: single bits, wrong lengths and addresses, and headers that are wrong with a right CRC."""
    load, store = copies(arch)
    good, rng = build_image(arch, [load, store, load]), np.random.default_rng(seed)
    for _ in range(flips):
        image = bytearray(good)
        image[rng.integers(len(image))] ^= 1 << rng.integers(8)
        yield Launch(image=bytes(image))
    for at in HEADER_PARTS.values():
        header = bytearray(good[: HEADER_BYTES - 4])
        header[at] ^= 1 << rng.integers(8)
        yield Launch(image=seal(bytes(header)) + good[HEADER_BYTES:])
    for length in (0, 16, 63, 64, 128, 192, len(good) + 64, len(good)):
        yield Launch(image=good, length=length)
    yield Launch(image=good, address=PROGRAM + INSTRUCTION_BYTES // 2)


def refused(arch: DeformArch, generator: Generator) -> Iterator[list[bytes]]:
    """Programs of which one instruction breaks one rule of the table: every field, every kind of error."""
    for operation in arch.instructions.operations:
        raw = getattr(generator, operation.name.lower())
        for at in range(operation.used_bits, 8 * CRC_OFFSET):
            yield [raw(), _patched(raw(), at, 1, 1)]
        for offset, width, value in _illegal(operation):
            yield [_patched(raw(), offset, width, value)]
        for changes, offset, width, value in _unruly(operation):
            yield [_patched(raw(**changes), offset, width, value)]
    load, store = copies(arch)
    yield [load, _patched(load, 0, 8, 0xFF)]
    yield [load, _patched(load, 8, 8, arch.instructions.version + 1)]
    encode = arch.instructions.encode
    yield [load, encode("LOAD", wait=1)]
    yield [encode("LOAD", push=1)] * (TOKEN_MAX + 1)
    for region in (3, arch.regions, 15):
        yield [store, encode("LOAD", region=region)]
        yield [load, encode("STORE", region=region)]
    yield [load, encode("STORE", region=2, offset=(1 << 32) - 1)]
    yield [load, encode("LOAD", region=1, n0=4, check_crc=1, crc=0x1234)]
    for number, space in enumerate(SPACES):
        size = arch.row_words if space == "row" else arch.space_units()[space]
        yield from ([load, encode("LOAD", space=number, chip_addr=at)] for at in (size, WRAP) if size <= at <= WRAP)
    for table in range(arch.tables + 1, TABLES_MAX + 1):
        yield [load, generator.pw(table=table)]
        yield [load, generator.dw(table=table)]
    yield [load, encode("STORE", region=2, chip_addr=arch.feature_words)]
    for field in ("out_addr", "param_addr", "weight_addr"):
        yield [load, generator.pw(**{field: WRAP - 8})]
        yield [load, generator.dw(mode=DW_CONV, **{field: WRAP - 8})]
    for field in ("out_addr", "param_addr", "offset_addr"):
        yield [load, generator.dw(mode=DW_SAMPLE, **{field: WRAP - 24})]
    for merge in (MERGE_ZIP, MERGE_ADD):
        yield [load, generator.pw(merge=merge, merge_addr=WRAP - 8)]


def _illegal(operation: Operation) -> Iterator[tuple[int, int, int]]:
    """(offset, width, value) of values that a field's width holds and the table forbids: all of a narrow field; of a wide one those
    next to the range, the farthest, and each power of two."""
    for field in operation.fields:
        values = {field.low - 1, field.high + 1, field.type_min, field.type_max, *(1 << bit for bit in range(field.width))}
        if field.width <= NARROW:
            values = set(range(field.type_min, field.type_max + 1))
        for value in sorted(values):
            if field.type_min <= value <= field.type_max and not field.low <= value <= field.high:
                yield operation.offsets[field.name], field.width, value


def _unruly(operation: Operation) -> Iterator[tuple[dict[str, int], int, int, int]]:
    """(fields, offset, width, value) of values that a rule across fields forbids beside these fields, and the field alone does not."""
    fields = {field.name: field for field in operation.fields}
    for rule in operation.rules:
        field = fields[rule.field]
        for when, value in itertools.product(rule.values, (rule.minimum - 1, rule.maximum + 1, field.high)):
            if field.low <= value <= field.high:
                yield {rule.when: when}, operation.offsets[field.name], field.width, value


def _patched(raw: bytes, offset: int, width: int, value: int) -> bytes:
    """An instruction with other bits and a right CRC."""
    word, mask = int.from_bytes(raw[:CRC_OFFSET], "little"), (1 << width) - 1
    return seal((word & ~(mask << offset) | (value & mask) << offset).to_bytes(CRC_OFFSET, "little"))


@dataclass(frozen=True, kw_only=True)
class Disturbed:
    """A program that meets a bus error at ``address``, and how it must end."""

    address: int
    instructions: tuple[bytes, ...]
    outcome: Outcome


def bus_errors(arch: DeformArch) -> tuple[Disturbed, ...]:
    """An error at every kind of access: header, instruction, load, store, and a run before others."""
    load, store = copies(arch)
    dirt, data, result = (region.base for region in bench_regions(arch))
    runs = arch.instructions.encode("LOAD", n0=3, n1=20, stride1=5, chip_stride1=3)
    last = 16 * (arch.instructions.decode(load)["n0"] - 1)

    def case(address: int, code: ErrorCode, index: int, retired: int, *instructions: bytes) -> Disturbed:
        outcome = Outcome(error=code, index=index, retired=retired)
        return Disturbed(address=address, instructions=instructions, outcome=outcome)

    return (
        case(BASE, ErrorCode.AXI_READ, NO_INSTRUCTION, 0, load),
        case(BASE + HEADER_BYTES + 16, ErrorCode.AXI_READ, 0, 0, load),
        case(data + last, ErrorCode.AXI_READ, 1, 1, store, load, store),
        case(result, ErrorCode.AXI_WRITE, 1, 1, load, store, load),
        case(dirt + 16, ErrorCode.AXI_READ, 0, 0, runs),
    )


def endless(arch: DeformArch) -> dict[str, list[bytes]]:
    """Programs that run far longer than any test waits, by what runs when they are ended."""
    encode, (load, _) = arch.instructions.encode, copies(arch)
    return {
        "LOAD": [load, encode("LOAD", n0=200, n1=60_000)],
        "STORE": [load, encode("STORE", region=2, n0=200, n1=60_000)],
        "PW": [load, encode("PW", kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, in_rows=9, in_cols=9)],
        "DW": [load, encode("DW", mode=2, kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, out_pitch=0)],
        "fetch": [load] * 100,
    }
