"""Programs that a core must refuse: what is wrong, and the code and instruction that it must report."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hw.spec.deform.instructions import INSTRUCTIONS
from hw.spec.isa import HEADER, INSTRUCTION_BYTES, seal
from hw.spec.program import Program, build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode
from sw.runtime.placement import Placement

BIG = (1 << 20) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Broken:
    """A program and its placement as they must be launched; ``damage`` is an (address, byte) to overwrite in memory."""

    name: str
    program: Program
    placement: Placement
    code: ErrorCode
    index: int
    damage: tuple[int, int] | None = None


class Breaker:
    """Breaks a good program in one place."""

    def __init__(self, program: Program, placement: Placement, memory_end: int) -> None:
        self.program, self.placement, self.memory_end = program, placement, memory_end
        self.table = program.arch.instructions
        self.decoded = program.instructions()

    def first(self, operation: str, accept: Callable[[int], bool] = lambda index: True) -> int:
        """Index of the first instruction of a kind."""
        return next(i for i, each in enumerate(self.decoded) if each.name == operation and accept(i))

    def image(self, name: str, image: bytes, code: ErrorCode, index: int) -> Broken:
        program = dataclasses.replace(self.program, image=image)
        placement = dataclasses.replace(self.placement, program_length=len(image))
        return Broken(name=name, program=program, placement=placement, code=code, index=index)

    def flipped(self, bit: int) -> Broken:
        """One bit of the image flipped, CRCs left as they were."""
        data = bytearray(self.program.image)
        data[bit // 8] ^= 1 << bit % 8
        line = bit // 8 // INSTRUCTION_BYTES
        code = ErrorCode.INSTRUCTION_CRC if line else ErrorCode.HEADER_CRC
        return self.image(f"bit {bit % 512} of line {line}", bytes(data), code, line - 1 if line else NO_INSTRUCTION)

    def resealed(self, name: str, line: int, at: int, data: bytes, code: ErrorCode, index: int) -> Broken:
        """Bytes of a 64-byte line replaced, and its CRC made right again. Line 0 is the header."""
        image, start = bytearray(self.program.image), line * INSTRUCTION_BYTES
        image[start + at : start + at + len(data)] = data
        image[start : start + INSTRUCTION_BYTES] = seal(bytes(image[start : start + INSTRUCTION_BYTES - 4]))
        return self.image(name, bytes(image), code, index)

    def altered(self, index: int, code: ErrorCode, **fields: int) -> Broken:
        """Fields of an instruction replaced by other legal values."""
        old = self.decoded[index]
        kept = {k: v for k, v in old.values.items() if k not in ("opcode", "version")}
        lines = [self.program.image[i : i + 64] for i in range(64, len(self.program.image), 64)]
        lines[index] = self.table.encode(old.name, **{**kept, **fields})
        return self.image(f"{old.name} {fields}", build_image(self.program.arch, lines), code, index)

    def illegal(self, index: int, field: str, value: int) -> Broken:
        """A field with a value that its width holds and the table forbids."""
        old = self.decoded[index]
        entry = next(f for f in HEADER + old.operation.fields if f.name == field)
        word = int.from_bytes(self.program.image[(index + 1) * 64 : (index + 2) * 64], "little")
        offset, mask = old.operation.offsets[field], (1 << entry.width) - 1
        word = word & ~(mask << offset) | (value & mask) << offset
        data = word.to_bytes(64, "little")
        return self.resealed(f"{old.name}.{field} = {value}", index + 1, 0, data, ErrorCode.FIELD_RANGE, index)

    def moved(self, name: str, region: int, code: ErrorCode, index: int, **change: int) -> Broken:
        """A region opened elsewhere or smaller than the program states."""
        regions = list(self.placement.regions)
        regions[region] = dataclasses.replace(regions[region], **change)
        placement = dataclasses.replace(self.placement, regions=tuple(regions))
        return Broken(name=name, program=self.program, placement=placement, code=code, index=index)


def broken_programs(breaker: Breaker) -> Iterator[Broken]:
    """All cases."""
    yield from _images(breaker)
    yield from _instructions(breaker)
    yield from _memories(breaker)


def _images(b: Breaker) -> Iterator[Broken]:
    image, last = b.program.image, b.program.instruction_count
    yield b.image("truncated by an instruction", image[:-64], ErrorCode.BAD_LENGTH, NO_INSTRUCTION)
    yield b.image("truncated to its header", image[:64], ErrorCode.BAD_LENGTH, NO_INSTRUCTION)
    yield b.image("one instruction too long", image + image[-64:], ErrorCode.BAD_LENGTH, NO_INSTRUCTION)
    yield b.image("truncated within an instruction", image[:-16], ErrorCode.BAD_LENGTH, NO_INSTRUCTION)
    yield b.image("nothing", b"", ErrorCode.BAD_LENGTH, NO_INSTRUCTION)
    for line, bits in ((0, (3, 64, 97, 130, 300, 511)), (1, (0, 9, 200, 479, 480)), (last // 2, (70, 100)), (last, (511,))):
        yield from (b.flipped(512 * line + bit) for bit in bits)
    foreign = dataclasses.replace(b.program.arch, rows=b.program.arch.rows + 1).arch_id
    header = (
        ("magic", 0, b"C", ErrorCode.BAD_MAGIC),
        ("container version", 8, b"\7", ErrorCode.CONTAINER_VERSION),
        ("arch_id", 16, foreign.to_bytes(8, "little"), ErrorCode.WRONG_ARCH),
        ("count", 12, b"\1", ErrorCode.BAD_LENGTH),
    )
    for name, at, data, code in header:
        yield b.resealed(f"another {name}", 0, at, data, code, NO_INSTRUCTION)


def _instructions(b: Breaker) -> Iterator[Broken]:
    dw, pw, load = b.first("DW"), b.first("PW"), b.first("LOAD")
    yield b.resealed("unknown opcode", pw + 1, 0, b"\x7f", ErrorCode.OPCODE, pw)
    yield b.resealed("another table version", pw + 1, 1, bytes([INSTRUCTIONS.version + 1]), ErrorCode.INSTRUCTION_VERSION, pw)
    yield b.resealed("a reserved bit", load + 1, 59, b"\x80", ErrorCode.RESERVED, load)
    yield b.illegal(pw, "stride", 9)
    yield b.illegal(pw, "in_words", 0)
    yield b.illegal(pw, "flags", 1)
    yield b.illegal(dw, "kernel_w", 4)
    yield b.illegal(dw, "rounding", 3)
    yield b.altered(load, ErrorCode.TOKEN, wait=1 << 15)
    yield b.altered(dw, ErrorCode.BUFFER_RANGE, row0_addr=BIG)
    yield b.altered(dw, ErrorCode.BUFFER_RANGE, param_addr=BIG)
    yield b.altered(dw, ErrorCode.BUFFER_RANGE, out_addr=BIG)
    yield b.altered(pw, ErrorCode.BUFFER_RANGE, in_addr=BIG // 2)
    yield b.altered(pw, ErrorCode.BUFFER_RANGE, weight_addr=BIG)
    yield b.altered(pw, ErrorCode.BUFFER_RANGE, out_pitch=b.program.arch.feature_words)
    yield b.altered(b.first("STORE"), ErrorCode.BUFFER_RANGE, chip_addr=b.program.arch.feature_words - 1)
    for space in range(4):
        each = b.first("LOAD", lambda i, space=space: b.decoded[i]["space"] == space)
        yield b.altered(each, ErrorCode.BUFFER_RANGE, chip_addr=BIG)


def _memories(b: Breaker) -> Iterator[Broken]:
    def load_of(region: int) -> int:
        return b.first("LOAD", lambda i: b.decoded[i]["region"] == region)

    store = b.first("STORE", lambda i: b.decoded[i]["region"] == 3)
    last = b.first("STORE", lambda i: b.decoded[i]["region"] == 2)
    yield b.altered(b.first("STORE"), ErrorCode.REGION, offset=(1 << 32) - 1)
    yield b.altered(load_of(1), ErrorCode.REGION, region=15)
    yield b.moved("no parameters", 0, ErrorCode.REGION, load_of(0), base=0, size=0)
    yield b.moved("small input", 1, ErrorCode.REGION, load_of(1), size=b.placement.regions[1].size - 16)
    yield b.moved("small output", 2, ErrorCode.REGION, last, size=0)
    yield b.moved("input where no memory is", 1, ErrorCode.AXI_READ, load_of(1), base=b.memory_end + 4096)
    yield b.moved("scratch where no memory is", 3, ErrorCode.AXI_WRITE, store, base=b.memory_end)
    blob = b.first("LOAD", lambda i: i > load_of(1) and b.decoded[i]["check_crc"] == 1)
    address = b.placement.regions[0].base + 16 * b.decoded[blob]["offset"] + 5
    byte = b.program.regions[0].data[16 * b.decoded[blob]["offset"] + 5] ^ 0x10
    yield Broken(name="a damaged blob", program=b.program, placement=b.placement, code=ErrorCode.BLOB_CRC, index=blob,
                 damage=(address, byte))  # fmt: skip
