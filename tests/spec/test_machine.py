"""The machine's shell: which programs it refuses, with which code and index, and that a good one runs afterwards."""

from __future__ import annotations

import zlib

import numpy as np
import pytest

from hw.spec.arch import Arch
from hw.spec.deform import INSTRUCTIONS, DeformArch
from hw.spec.deform.instructions import MERGE_ADD
from hw.spec.deform.machine import DeformMachine
from hw.spec.isa import Instruction, seal
from hw.spec.machine import CoreError, Memory, OpenRegion, Outcome, Writes
from hw.spec.program import build_header, build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode

ARCH = DeformArch(rows=2, feature_words=64, row_words=16, weight_words=32, parameter_words=32)
BASE = 0x8000_0000
REGIONS = (OpenRegion(base=BASE + 0x1000, size=0x400), OpenRegion(base=BASE + 0x2000, size=0x400))


def copy(words: int = 8, **changes: int) -> list[bytes]:
    """Load words of region 0, store them to region 1."""
    load = INSTRUCTIONS.encode("LOAD", **{"region": 0, "n0": words, "push": 1, **changes})
    return [load, INSTRUCTIONS.encode("STORE", region=1, n0=words, wait=1)]


def run(image: bytes, length: int | None = None, memory_size: int = 0x4000) -> tuple[Outcome, Memory, list[Writes]]:
    memory = Memory(memory_size, BASE)
    memory.bytes[:] = np.random.default_rng(5).integers(0, 256, memory.bytes.size)
    memory.bytes[: len(image)] = np.frombuffer(image, np.uint8)
    log: list[Writes] = []
    outcome = DeformMachine(ARCH, seed=1).run(memory, REGIONS, BASE, len(image) if length is None else length, log.append)
    return outcome, memory, log


def test_a_copy_copies_and_records_its_writes() -> None:
    outcome, memory, log = run(build_image(ARCH, copy()))
    assert outcome == Outcome(error=ErrorCode.NONE, index=0, retired=2)
    np.testing.assert_array_equal(memory.bytes[0x2000:0x2080], memory.bytes[0x1000:0x1080])
    addresses, data = log[1].sorted("memory")
    assert addresses.tolist() == [BASE + 0x2000 + 16 * i for i in range(8)]
    np.testing.assert_array_equal(data.reshape(-1), memory.bytes[0x1000:0x1080])
    assert log[0].sorted("fm")[0].tolist() == list(range(8))
    assert log[0].sorted("memory")[0].size == 0


def test_an_empty_program_ends_well() -> None:
    assert run(build_image(ARCH, []))[0] == Outcome(error=ErrorCode.NONE, index=0, retired=0)


def test_row_memory_takes_planes_to_banks_in_turn() -> None:
    load = INSTRUCTIONS.encode("LOAD", space=1, n0=2, n2=11, stride2=2, chip_addr=3, chip_stride2=5)
    outcome, _memory, log = run(build_image(ARCH, [load]))
    assert outcome.error is ErrorCode.NONE
    want = sorted(bank * 16 + 3 + turn * 5 + i for bank, turn in ((y % 9, y // 9) for y in range(11)) for i in range(2))
    assert log[0].sorted("row")[0].tolist() == want


def damaged_header(position: int, value: int) -> bytes:
    header = bytearray(build_header(ARCH.arch_id, 2)[:60])
    header[position] ^= value
    return seal(bytes(header)) + b"".join(copy())


GOOD = build_image(ARCH, copy())
CRC = zlib.crc32(np.random.default_rng(5).integers(0, 256, 0x4000).astype(np.uint8)[0x1000:0x1080].tobytes())


@pytest.mark.parametrize(
    ("image", "length", "code", "index"),
    [
        (GOOD, 0, ErrorCode.BAD_LENGTH, NO_INSTRUCTION),
        (GOOD, 100, ErrorCode.BAD_LENGTH, NO_INSTRUCTION),
        (GOOD, 128, ErrorCode.BAD_LENGTH, NO_INSTRUCTION),
        (b"\1" + GOOD[1:], None, ErrorCode.HEADER_CRC, NO_INSTRUCTION),
        (damaged_header(0, 1), None, ErrorCode.BAD_MAGIC, NO_INSTRUCTION),
        (damaged_header(8, 1), None, ErrorCode.CONTAINER_VERSION, NO_INSTRUCTION),
        (damaged_header(16, 1), None, ErrorCode.WRONG_ARCH, NO_INSTRUCTION),
        (damaged_header(12, 1), None, ErrorCode.BAD_LENGTH, NO_INSTRUCTION),
        (GOOD[:140] + b"\7" + GOOD[141:], None, ErrorCode.INSTRUCTION_CRC, 1),
        (build_image(ARCH, copy(push=2)), None, ErrorCode.TOKEN, 1),
        (build_image(ARCH, copy(push=1)[:1] * 16), None, ErrorCode.TOKEN, 15),
        (build_image(ARCH, copy(65)), None, ErrorCode.BUFFER_RANGE, 0),
        (build_image(ARCH, copy(8, offset=57)), None, ErrorCode.REGION, 0),
        (build_image(ARCH, copy(8, offset=0xFFFFFFFF)), None, ErrorCode.REGION, 0),
        (build_image(ARCH, copy(8, region=2)), None, ErrorCode.REGION, 0),
        (build_image(ARCH, copy(8, region=15)), None, ErrorCode.REGION, 0),
        (build_image(ARCH, copy(8, chip_addr=0xFFFFF)), None, ErrorCode.BUFFER_RANGE, 0),
        (build_image(ARCH, copy(8, check_crc=1, crc=CRC ^ 1)), None, ErrorCode.BLOB_CRC, 0),
        (build_image(ARCH, copy(8, check_crc=1, crc=CRC)), None, ErrorCode.NONE, 0),
    ],
)
def test_refusals(image: bytes, length: int | None, code: ErrorCode, index: int) -> None:
    outcome, _, _ = run(image, length)
    assert (outcome.error, outcome.index) == (code, index)


def test_unmapped_memory_is_a_bus_error() -> None:
    assert run(GOOD, memory_size=0x1040)[0] == Outcome(error=ErrorCode.AXI_READ, index=0, retired=0)
    assert run(GOOD, memory_size=0x2040)[0] == Outcome(error=ErrorCode.AXI_WRITE, index=1, retired=1)


def test_an_earlier_bus_error_wins_over_a_later_bad_run() -> None:
    image = build_image(ARCH, copy(8, n1=3, stride1=30))  # the second run leaves mapped memory, the third its region
    assert run(image, memory_size=0x1100)[0].error is ErrorCode.AXI_READ
    assert run(image)[0].error is ErrorCode.REGION


TOP = 1 << 64
FAR_BYTES, FAR_WORDS = 0x4000, 8
FAR = {
    "below 2**63": (1 << 63) - FAR_BYTES,
    "across 2**63": (1 << 63) - 0x2000,
    "from 2**63 on": 1 << 63,
    "up to 2**64": TOP - FAR_BYTES,
}
"""Bases of a memory of FAR_BYTES: program, region 0 at 0x1000, region 1 at 0x2000 (which begins at 2**63 in the second)."""


def run_far(base: int, regions: tuple[OpenRegion, OpenRegion], lines: list[bytes]) -> tuple[Outcome, Memory, list[Writes]]:
    memory, image, log = Memory(FAR_BYTES, base), build_image(ARCH, lines), list[Writes]()
    memory.bytes[:] = np.random.default_rng(6).integers(0, 256, FAR_BYTES)
    memory.bytes[: len(image)] = np.frombuffer(image, np.uint8)
    return DeformMachine(ARCH, seed=1).run(memory, regions, base, len(image), log.append), memory, log


@pytest.mark.parametrize("place", FAR)
def test_addresses_have_64_bits(place: str) -> None:
    base = FAR[place]
    regions = (OpenRegion(base=base + 0x1000, size=16 * FAR_WORDS), OpenRegion(base=base + FAR_BYTES - 16 * FAR_WORDS, size=128))
    outcome, memory, log = run_far(base, regions, copy(FAR_WORDS))
    assert outcome == Outcome(error=ErrorCode.NONE, index=0, retired=2)
    np.testing.assert_array_equal(memory.bytes[-128:], memory.bytes[0x1000:0x1080])
    addresses, data = log[1].sorted("memory")
    assert addresses.tolist() == [regions[1].base + 16 * word for word in range(FAR_WORDS)]
    np.testing.assert_array_equal(data.reshape(-1), memory.bytes[-128:])


@pytest.mark.parametrize("name", ["LOAD", "STORE"])
@pytest.mark.parametrize(
    ("base", "size", "words", "code"),
    [
        (TOP - 16, 16, 1, ErrorCode.NONE),  # the last word that there is
        (TOP - 16, 32, 1, ErrorCode.NONE),  # a region may promise more than there is, as long as nothing goes there
        (TOP - 16, 32, 2, ErrorCode.REGION),  # addresses do not wrap
        (TOP - 1, 31, 1, ErrorCode.NONE),  # the low four bits are ignored
        (TOP - 1, 15, 1, ErrorCode.REGION),
        (TOP - 32, 1 << 40, 3, ErrorCode.REGION),
        ((1 << 63) - 16, 32, 2, ErrorCode.AXI_READ),  # not in memory
        (1 << 63, 32, 2, ErrorCode.AXI_READ),
    ],
)
def test_transfers_at_the_end_of_the_addresses(name: str, base: int, size: int, words: int, code: ErrorCode) -> None:
    regions = (OpenRegion(base=base, size=size),) * 2
    outcome, memory, _ = run_far(FAR["up to 2**64"], regions, [INSTRUCTIONS.encode(name, region=0, n0=words)])
    wanted = ErrorCode.AXI_WRITE if code is ErrorCode.AXI_READ and name == "STORE" else code
    assert outcome == Outcome(error=wanted, index=0, retired=int(code is ErrorCode.NONE))
    assert memory.bytes.size == FAR_BYTES


TABLES = DeformArch(rows=2, feature_words=64, row_words=16, weight_words=32, parameter_words=32, tables=2)


def ready(arch: DeformArch = TABLES) -> DeformMachine:
    """A machine whose records give channel c of word w the sum 16 * w + c - 20, and whose other memories are dirty."""
    machine = DeformMachine(arch, seed=3)
    records = np.zeros((2 * 16, 8), np.uint8)
    records[:, :4] = (np.arange(32) - 20).astype("<i4").view(np.uint8).reshape(-1, 4)
    records[:, 4] = 1
    machine.chip["par"][:16] = records.reshape(16, 16)
    return machine


def outside(**fields: int) -> Instruction:
    """A PW of two words of one pixel whose only tap lies outside of the input."""
    values = {"pad_left": 1, "out_words": 2, "out_addr": 8, "clip_lo": -128, "clip_hi": 127, **fields}
    return INSTRUCTIONS.decode(INSTRUCTIONS.encode("PW", **values))


def results(machine: DeformMachine, instruction: Instruction) -> np.ndarray:
    machine.execute(instruction)
    return machine.chip["fm"][8:10].reshape(-1)


BIASES = np.arange(32) - 20


@pytest.mark.parametrize("table", [1, 2])
def test_a_table_replaces_what_is_left_after_the_clips(table: int) -> None:
    machine = ready()
    entries = machine.chip["tbl"].reshape(2, 256)[table - 1]
    got = results(machine, outside(table=table, clip_lo=-5, clip_hi=7))
    np.testing.assert_array_equal(got, [entries[max(min(int(b), 7), -5) & 0xFF] for b in BIASES])


@pytest.mark.parametrize(
    ("unsigned", "low", "high"), [(0, -128, 127), (1, 0, 255), (0, -256, 255), (1, 200, 210), (0, 4, -4), (1, 255, -256)]
)
def test_a_sum_is_clipped_and_the_lower_clip_wins(unsigned: int, low: int, high: int) -> None:
    machine = ready()
    residual = machine.chip["fm"][40:42].reshape(-1).tolist()
    fields = {"merge": MERGE_ADD, "merge_addr": 40, "merge_unsigned": unsigned, "merge_lo": low, "merge_hi": high}
    got = results(machine, outside(**fields)).tolist()
    for bias, left, byte in zip(BIASES.tolist(), residual, got, strict=True):
        terms = (bias % 256, left) if unsigned else (bias, left - 256 * (left > 127))
        assert byte == max(min(sum(terms), high), low) % 256


def test_a_table_comes_before_the_sum() -> None:
    machine = ready()
    entries, residual = machine.chip["tbl"].reshape(2, 256)[1], machine.chip["fm"][40:42].reshape(-1).astype(int)
    fields = {"merge": MERGE_ADD, "merge_addr": 40, "merge_unsigned": 1, "merge_lo": 0, "merge_hi": 255, "table": 2}
    np.testing.assert_array_equal(results(machine, outside(**fields)), np.minimum(entries[BIASES & 0xFF].astype(int) + residual, 255))


@pytest.mark.parametrize(("tables", "table"), [(2, 3), (2, 8), (0, 1), (7, 8)])
@pytest.mark.parametrize("name", ["PW", "DW"])
def test_a_table_that_there_is_not_is_out_of_range(name: str, tables: int, table: int) -> None:
    machine = ready(DeformArch(rows=2, feature_words=64, row_words=16, weight_words=32, parameter_words=32, tables=tables))
    mode = {"mode": 2} if name == "DW" else {}
    with pytest.raises(CoreError, match="BUFFER_RANGE"):
        machine.execute(INSTRUCTIONS.decode(INSTRUCTIONS.encode(name, out_addr=8, table=table, **mode)))


def test_loads_fill_the_tables_and_no_more() -> None:
    load = INSTRUCTIONS.encode("LOAD", space=4, n0=3, chip_addr=61)
    assert run(build_image(ARCH, [load]))[2][0].sorted("tbl")[0].tolist() == [61, 62, 63]
    for fields in ({"n0": 65}, {"chip_addr": 64}, {"n0": 3, "chip_addr": 62}):
        outcome, _, _ = run(build_image(ARCH, [INSTRUCTIONS.encode("LOAD", space=4, **fields)]))
        assert outcome.error is ErrorCode.BUFFER_RANGE


@pytest.mark.parametrize("tables", [-1, 9])
def test_tables_must_be_at_most_eight(tables: int) -> None:
    with pytest.raises(ValueError, match=rf"tables must be in 0\.\.8, not {tables}"):
        DeformArch(tables=tables)
    assert Arch.from_dict({"core": "deform"}) == DeformArch(tables=4), "architectures of before name no tables"
