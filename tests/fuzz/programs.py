"""What every campaign starts from: fixed memory contents, random legal programs, and one good program with a known result.

The memory holds requantise records that keep outputs between their clips (``hw.sim.bench.bench_memory``): with random ones nearly
every output saturates, and a wrong sum or rounding does not show.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np

from hw.sim.bench import bench_memory
from hw.sim.random_programs import Generator
from hw.spec.deform.arch import ROW_BANKS
from hw.spec.deform.instructions import DW_CONV, DW_DEFORM, DW_SAMPLE, MERGE_ADD
from hw.spec.deform.machine import DeformMachine
from hw.spec.isa import CRC_OFFSET, HEADER, Instruction, Operation, seal
from hw.spec.machine import Memory, OpenRegion, Outcome
from hw.spec.program import build_image
from hw.spec.regs import ErrorCode
from tests.sim.core_bench import ARCH, BASE, PROGRAM, REGIONS, SIZE, dirt_program

END, TOP = BASE + SIZE, 1 << 64
RESULT_REGION = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One start of a core: the image in memory, what the registers say, bytes poked into memory, and what must come of it.

    ``expected`` is the outcome that the damage alone determines; None leaves it to the machine.
    """

    kind: str
    image: bytes
    length: int
    address: int = PROGRAM
    regions: tuple[OpenRegion, ...] = REGIONS
    pokes: tuple[tuple[int, int], ...] = field(default=())
    expected: Outcome | None = None


@functools.cache
def pristine() -> np.ndarray:
    """Bytes of the whole memory before every program; read only."""
    memory = bench_memory(ARCH, 2024)
    memory.setflags(write=False)
    return memory


def region_bytes(region: int, word: int, count: int) -> bytes:
    """What a LOAD of ``count`` words reads from pristine memory."""
    start = REGIONS[region].base - BASE + 16 * word
    return pristine()[start : start + 16 * count].tobytes()


def generator(*seed: int) -> Generator:
    """Random legal instructions for pristine memory."""
    return Generator(ARCH, list(seed), region_bytes)


def legal_program(*seed: int) -> list[bytes]:
    """1 to 6 legal instructions that end well on pristine memory."""
    draw, lines = generator(*seed), list[bytes]()
    count = draw.between(1, 6)
    while len(lines) < count:
        raw = draw.instruction()
        if _fits_the_rows(ARCH.instructions.decode(raw)):
            lines.append(raw)
    return lines


def _fits_the_rows(i: Instruction) -> bool:
    """Whether a DW instruction stays in the row memory whatever offsets the feature memory holds."""
    if i.name != "DW":
        return True
    turns = (i["bank0"] + i["in_rows"] - 1 - i["row0"]) // ROW_BANKS
    return i["row0_addr"] + turns * i["row_pitch"] + i["pitch"] * (i["in_cols"] - 1) + i["words"] <= ARCH.row_words


@functools.cache
def good_image() -> bytes:
    """A program that fills every on-chip memory, convolves both ways and stores all of feature memory: it depends on no dirt."""
    draw, encode = generator(77), ARCH.instructions.encode
    compute = [draw.pw(), draw.dw(mode=DW_CONV, kernel_h=3, kernel_w=3), draw.pw(merge=0, wide_weights=1)]
    compute += [draw.pw(merge=MERGE_ADD, table=1), draw.dw(mode=DW_CONV, kernel_h=2, kernel_w=1, table=ARCH.tables)]
    compute += [draw.dw(mode=DW_DEFORM, kernel_h=3, kernel_w=3), draw.dw(mode=DW_SAMPLE, kernel_h=2, kernel_w=2)]
    store = encode("STORE", region=RESULT_REGION, n0=ARCH.feature_words)
    return build_image(ARCH, [*dirt_program(ARCH), *compute, store])


def write_image(memory: np.ndarray, image: bytes, address: int) -> None:
    """Put as much of an image into the memory's bytes as lies inside."""
    start = address - BASE
    first, last = max(start, 0), min(start + len(image), memory.size)
    if first < last:
        memory[first:last] = np.frombuffer(image, np.uint8)[first - start : last - start]


@functools.cache
def good_result() -> bytes:
    """The result region after the good program, on a fresh machine."""
    memory = Memory(SIZE, BASE)
    memory.bytes[:] = pristine()
    write_image(memory.bytes, good_image(), PROGRAM)
    outcome = DeformMachine(ARCH).run(memory, REGIONS, PROGRAM, len(good_image()))
    assert outcome.error == ErrorCode.NONE, outcome
    return result_of(memory.bytes)


def result_of(memory: np.ndarray) -> bytes:
    """The result region's bytes."""
    region = REGIONS[RESULT_REGION]
    return memory[region.base - BASE : region.base - BASE + region.size].tobytes()


def inside(address: int, size: int, windows: tuple[tuple[int, int], ...]) -> bool:
    """Whether [address, address + size) lies in one of the [start, end) windows."""
    return any(start <= address and address + size <= end for start, end in windows)


def windows(case: Case) -> tuple[tuple[int, int], ...]:
    """[start, end) of everything that the host gave to the core: open regions and the program."""
    return ((case.address, case.address + case.length), *(extent(region) for region in case.regions if region.size >= 16))


def extent(region: OpenRegion) -> tuple[int, int]:
    """[start, end) of the words that a region opens: the low four bits of base and size count as 0, and addresses do not wrap."""
    base = region.base & -16
    return base, min(base + (region.size & -16), TOP)


def closed_bytes(case: Case) -> np.ndarray:
    """For each byte of memory whether it lies in no region: no program may change it."""
    closed = np.ones(SIZE, bool)
    for region in case.regions:
        start, end = extent(region)
        closed[max(start - BASE, 0) : max(end - BASE, 0)] = False
    return closed


def operation_of(raw: bytes) -> Operation:
    """The table entry of a legal instruction."""
    return next(op for op in ARCH.instructions.operations if op.opcode == raw[0])


def patched(raw: bytes, **fields: int) -> bytes:
    """A legal instruction with fields replaced by any bits, legal or not, and its CRC made right."""
    op, word = operation_of(raw), int.from_bytes(raw[:CRC_OFFSET], "little")
    widths = {entry.name: entry.width for entry in HEADER + op.fields}
    for name, value in fields.items():
        mask = (1 << widths[name]) - 1
        word = word & ~(mask << op.offsets[name]) | (value & mask) << op.offsets[name]
    return seal(word.to_bytes(CRC_OFFSET, "little"))
