"""Edges that random programs do not come to: ties, last words, counts of 16 bits, long times (docs/faults.md)."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterator
from functools import reduce
from operator import and_, or_

import numpy as np
import pytest

from hw.sim import bench as sim_bench
from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.directed import copies
from hw.sim.loop import MemoryTiming
from hw.spec import regs
from hw.spec.deform import LANES
from hw.spec.deform.instructions import ROUNDING_CODES
from hw.spec.deform.timing import MemoryTiming as ModelTiming
from hw.spec.deform.timing.program import program_cycles
from hw.spec.machine import Outcome
from hw.spec.program import build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode
from tests.sim.core_bench import ARCH, BASE, PROGRAM, CoreBench

ENCODE = ARCH.instructions.encode
FASTEST = MemoryTiming(read_latency=1, write_latency=1)
HALF = ARCH.feature_words // 2
TOP = 1 << 20
RECORD_BYTES = 8
RECORDS = ARCH.parameter_words * 16 // RECORD_BYTES


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _ties() -> Iterator[tuple[int, int]]:
    """(bias, shift) with a sum of zero: halves, with one more bit at every place below, beside even and odd codes of both signs."""
    for shift in range(1, 32):
        for whole in (0, 1, -1, -2, 126):
            half = (whole << shift) + (1 << shift - 1)
            yield from ((half + bit, shift) for bit in (0, *(1 << place for place in range(shift - 1))) if abs(half + bit) < 1 << 31)


def _powers() -> Iterator[tuple[int, int]]:
    """(bias, shift) with every power of two, one less, and their negatives, under every shift."""
    values = {sign * ((1 << place) - less) for place in range(31) for less in (0, 1) for sign in (1, -1)}
    yield from ((value, shift) for shift in range(-32, 32) for value in sorted(values))


def _records(cases: list[tuple[int, int]], lane: int) -> np.ndarray:
    """Parameter memory that gives case i to channel i + ``lane``, with a multiplier of 1."""
    records = np.zeros((RECORDS, RECORD_BYTES), np.uint8)
    order = (np.arange(RECORDS) - lane) % RECORDS % len(cases)
    bias, shift = (np.array(column)[order] for column in zip(*cases, strict=True))
    records[:, :4] = bias.astype("<i4").view(np.uint8).reshape(-1, 4)
    records[:, 4] = 1
    records[:, 6] = shift & 0x3F
    return records.reshape(-1)


def _nothing_but_records(rounding: int) -> bytes:
    """A PW whose only tap lies outside its input, for all records of parameter memory."""
    return ENCODE("PW", pad_left=1, out_words=RECORDS // LANES, out_addr=HALF, rounding=rounding, clip_lo=-128, clip_hi=127)


CASES = (_ties, _powers)


@pytest.mark.parametrize("cases", CASES)
def test_rounding_looks_at_every_bit(core_build: SimulationBuild, cases) -> None:
    """In every lane: the sum is the bias alone, so what is rounded is known exactly."""
    load = ENCODE("LOAD", region=1, space=3, n0=ARCH.parameter_words)
    compared = 0
    with CoreBench(core_build, seed=21, timing=FASTEST) as bench:
        bench.fill()
        at, all_cases, most = bench.regions[1].base - BASE, list(cases()), RECORDS - LANES
        lanes = range(LANES) if cases is _ties else range(0, LANES, 5)
        for part in (all_cases[start : start + most] for start in range(0, len(all_cases), most)):
            for lane in lanes:
                records = _records(part, lane)
                for memory in (bench.loop.memory, bench.memory.bytes):
                    memory[at : at + records.size] = records
                compared += bench.run([load, *map(_nothing_but_records, sorted(ROUNDING_CODES.values()))]).retired
    assert compared >= 4 * len(lanes)


LAST = ARCH.feature_words - 1
SMALL = {"clip_lo": -128, "clip_hi": 127}
POOL = {"mode": 2, "words": 2, "pitch": 1, "row_pitch": 4, "in_rows": 3, "in_cols": 1, "row0": 1, "bank0": 1, "col0": 0, **SMALL}
BEYOND = {
    "PW reads": ENCODE("PW", in_addr=LAST, in_words=2, out_addr=HALF, **SMALL),
    "PW writes its second word": ENCODE("PW", out_words=2, out_addr=LAST, **SMALL),
    "PW writes its second pixel": ENCODE("PW", out_cols=2, in_cols=2, out_pitch=1, out_addr=LAST, **SMALL),
    "PW writes its second tile": ENCODE("PW", out_words=3, out_addr=LAST - 1, **SMALL),
    "PW merges": ENCODE("PW", merge=1, merge_addr=LAST, out_words=2, out_addr=HALF, **SMALL),
    "PW reads weights": ENCODE("PW", weight_addr=ARCH.weight_words - 15, out_addr=HALF, **SMALL),
    "PW reads weights of its second tile": ENCODE("PW", weight_addr=ARCH.weight_words - 16, out_words=3, out_addr=HALF, **SMALL),
    "PW reads records": ENCODE("PW", param_addr=ARCH.parameter_words - 7, out_addr=HALF, **SMALL),
    "PW reads records of its second tile": ENCODE("PW", param_addr=ARCH.parameter_words - 16, out_words=3, out_addr=HALF, **SMALL),
    "DW writes its second word": ENCODE("DW", **POOL, out_addr=LAST),
    "DW writes its second pixel": ENCODE("DW", **POOL | {"words": 1}, out_cols=2, out_pitch=1, out_addr=LAST),
    "DW reads records": ENCODE("DW", **POOL, param_addr=ARCH.parameter_words - 15, out_addr=HALF),
    "DW reads weights": ENCODE("DW", **POOL | {"mode": 0}, kernel_h=3, kernel_w=3, weight_addr=ARCH.parameter_words - 17,
                               out_addr=HALF),
    "DW reads offsets": ENCODE("DW", **POOL | {"mode": 1, "words": 1}, kernel_h=3, kernel_w=3, out_cols=2, offset_addr=LAST,
                               offset_pitch=1, out_pitch=1, out_addr=HALF),
    "DW reads a sample's offsets": ENCODE("DW", **POOL | {"mode": 4, "words": 1}, kernel_h=2, kernel_w=2, out_cols=2, out_pitch=1,
                                          offset_addr=LAST, offset_pitch=1, offset_frac=7, out_addr=HALF),
    "DW samples rows": ENCODE("DW", **POOL | {"mode": 4}, kernel_h=2, kernel_w=2, offset_frac=7, row0_addr=ARCH.row_words - 1,
                              out_addr=HALF),
    "DW reads rows": ENCODE("DW", **POOL, row0_addr=ARCH.row_words - 1, out_addr=HALF),
    "DW reads a column": ENCODE("DW", **POOL | {"in_cols": 2, "words": 1}, kernel_w=2, row0_addr=ARCH.row_words - 1, out_addr=HALF),
}  # fmt: skip


@pytest.mark.parametrize("name", BEYOND)
def test_one_past_the_end_is_an_error(core_build: SimulationBuild, name: str) -> None:
    """A walker that loses the bit of a memory's size would come back to its first words."""
    with CoreBench(core_build, seed=22, timing=FASTEST) as bench:
        bench.fill()
        assert bench.run([BEYOND[name]]).error is ErrorCode.BUFFER_RANGE
        assert bench.run([*copies(ARCH)]).retired == 2


@pytest.mark.parametrize("name", [operation.name for operation in ARCH.instructions.operations])
def test_every_legal_bit_of_a_field_is_accepted(core_build: SimulationBuild, name: str) -> None:
    """A token that is not there is refused after the fields were looked at, so nothing of the instruction runs."""
    operation = next(entry for entry in ARCH.instructions.operations if entry.name == name)
    endings = Counter[ErrorCode]()
    with CoreBench(core_build, seed=32, timing=FASTEST) as bench:
        for field in operation.fields:
            for value in (1 << bit for bit in range(field.width)):
                if field.low <= value <= field.high and not (name == "DW" and field.name == "mode"):
                    endings[bench.run([ENCODE(name, wait=1, **KERNEL.get(name, {}) | {field.name: value})]).error] += 1
    assert set(endings) == {ErrorCode.TOKEN} and endings.total() > 5 * len(operation.fields)


KERNEL = {"DW": {"mode": 2}}
"""Sum pooling, which takes any window."""

FAR = {
    "runs of a LOAD": ENCODE("LOAD", region=1, offset=16, n1=2, stride1=(1 << 32) - 8),
    "planes of a LOAD": ENCODE("LOAD", region=1, offset=16, n2=2, stride2=(1 << 32) - 8),
    "runs of a STORE": ENCODE("STORE", region=2, offset=16, n1=2, stride1=(1 << 32) - 8),
    "planes of a STORE": ENCODE("STORE", region=2, offset=16, n2=2, stride2=(1 << 32) - 8),
}


@pytest.mark.parametrize("name", FAR)
def test_memory_offsets_do_not_wrap(core_build: SimulationBuild, name: str) -> None:
    with CoreBench(core_build, seed=31, timing=FASTEST) as bench:
        bench.fill()
        assert bench.run([FAR[name]]).error is ErrorCode.REGION


STOP_CYCLES = 2
"""Of a program that ends with an error while nothing is on any bus: HALT and DRAIN of the sequencer."""

MANY = (1 << 15) + 3
LONG = {
    "runs of a LOAD": ENCODE("LOAD", region=1, n1=MANY, stride1=0),
    "planes of a LOAD": ENCODE("LOAD", region=1, n2=MANY),
    "runs of a STORE": ENCODE("STORE", region=2, n1=MANY),
    "planes of a STORE": ENCODE("STORE", region=2, n2=MANY),
    "columns of a DW": ENCODE("DW", mode=2, out_cols=MANY, out_addr=HALF, **SMALL),
    "rows of a DW": ENCODE("DW", mode=2, out_rows=MANY, out_addr=HALF, **SMALL),
    "columns of a DW's window": ENCODE("DW", mode=2, kernel_w=255, out_addr=HALF, **SMALL),
    "rows of a DW's window": ENCODE("DW", mode=2, kernel_h=255, out_addr=HALF, **SMALL),
    "columns of a PW's window": ENCODE("PW", kernel_w=255, out_addr=HALF, **SMALL),
    "rows of a PW's window": ENCODE("PW", kernel_h=255, out_addr=HALF, **SMALL),
    "words of a PW's input": ENCODE("PW", in_words=MANY // 4, out_addr=HALF, **SMALL),
    "columns of a PW": ENCODE("PW", out_cols=MANY, out_addr=HALF, **SMALL),
    "rows of a PW": ENCODE("PW", out_rows=MANY, out_addr=HALF, **SMALL),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_counts_of_sixteen_bits_take_their_time(core_build: SimulationBuild, name: str) -> None:
    """What is written is the same word again and again, or ends in an error; the cycles tell that every pass took place."""
    program, model = [ARCH.instructions.decode(LONG[name])], ModelTiming(read_latency=1, write_latency=1, beat_interval=1)
    with CoreBench(core_build, seed=23, timing=FASTEST) as bench:
        bench.start(build_image(ARCH, [LONG[name]]))
        stops = STOP_CYCLES if bench.wait(400_000).error is ErrorCode.BUFFER_RANGE else 0
        wanted = program_cycles(program, ARCH, model, [region.base for region in bench.regions]) + stops
        assert bench.read_pair("CYCLES") == wanted


WATCHDOG_BITS, SHORT = range(12, 32), (1, 2, 3)


@pytest.mark.parametrize("bit", WATCHDOG_BITS)
def test_a_long_watchdog_does_not_expire(core_build: SimulationBuild, bit: int) -> None:
    with CoreBench(core_build, seed=24) as bench:
        assert bench.run([*copies(ARCH)], watchdog=(1 << bit) + 20).error is ErrorCode.NONE


@pytest.mark.parametrize("limit", SHORT)
def test_a_short_watchdog_expires_before_the_header(core_build: SimulationBuild, limit: int) -> None:
    with CoreBench(core_build, seed=26, timing=FASTEST) as bench:
        bench.start(build_image(ARCH, [*copies(ARCH)]), watchdog=limit)
        assert bench.wait(5000) == Outcome(error=ErrorCode.WATCHDOG, index=NO_INSTRUCTION, retired=0)
        bench.resynchronise()


@pytest.mark.parametrize("bit", range(6))
def test_a_program_lies_on_whole_units(core_build: SimulationBuild, bit: int) -> None:
    image = build_image(ARCH, [*copies(ARCH)])
    with CoreBench(core_build, seed=27, timing=FASTEST) as bench:
        for launch in ({"length": len(image) + (1 << bit)}, {"address": PROGRAM + (1 << bit)}):
            assert bench.run_image(image, **launch).error is ErrorCode.BAD_LENGTH


def _one_tap(tap: int, row0_addr: int) -> bytes:
    """A window of three rows of which only row ``tap`` is inside."""
    rows = {0: {"row0": 1, "bank0": 1}, 1: {"row0": 0, "bank0": 0}, 2: {"row0": -1, "bank0": 8}}[tap]
    return ENCODE("DW", **POOL | {"words": 1, "in_rows": 1, "row_pitch": 0} | rows, kernel_h=3, row0_addr=row0_addr, out_addr=HALF)


@pytest.mark.parametrize("tap", range(3))
def test_every_bit_of_a_single_row_address_is_looked_at(core_build: SimulationBuild, tap: int) -> None:
    endings = Counter[ErrorCode]()
    with CoreBench(core_build, seed=28, timing=FASTEST) as bench:
        bench.fill()
        for bit in range(20):
            endings[bench.run([_one_tap(tap, 1 << bit)]).error] += 1
    inside = ARCH.row_words.bit_length() - 1
    assert endings == {ErrorCode.NONE: inside, ErrorCode.BUFFER_RANGE: 20 - inside}


def _with_residue(unit: bytes, residue: int) -> bytes:
    """The 64 bytes with another CRC, so that the CRC of all of them is ``residue``: linear in the last four bytes."""
    body, wanted = unit[:60], residue ^ zlib.crc32(unit[:60] + bytes(4))
    basis = [zlib.crc32(body + (1 << bit).to_bytes(4, "little")) ^ zlib.crc32(body + bytes(4)) for bit in range(32)]
    rows = [(value, 1 << bit) for bit, value in enumerate(basis)]
    last = 0
    for place in reversed(range(32)):
        pivot = next(row for row in rows if row[0] >> place & 1)
        rows = [(v ^ pivot[0], w ^ pivot[1]) if v >> place & 1 else (v, w) for v, w in rows if (v, w) != pivot]
        if wanted >> place & 1:
            wanted, last = wanted ^ pivot[0], last ^ pivot[1]
    changed = body + last.to_bytes(4, "little")
    assert zlib.crc32(changed) == residue
    return changed


def test_every_bit_of_a_crc_is_looked_at(core_build: SimulationBuild) -> None:
    """Headers, instructions and blobs whose CRC is wrong in one bit of the unit's register."""
    load, endings = copies(ARCH)[0], Counter[ErrorCode]()
    with CoreBench(core_build, seed=29, timing=FASTEST) as bench:
        bench.fill()
        blobs = [zlib.crc32(bench.region_bytes(1, start, 8)) for start in range(16)]
        good = zlib.crc32(load)
        for bit in range(32):
            endings[bench.run([load, _with_residue(load, good ^ 1 << bit)]).error] += 1
            image = build_image(ARCH, [load])
            endings[bench.run_image(_with_residue(image[:64], good ^ 1 << bit) + image[64:]).error] += 1
            endings[bench.run([ENCODE("LOAD", region=1, n0=8, check_crc=1, crc=blobs[0] ^ 1 << bit)]).error] += 1
        for start, blob in enumerate(blobs):
            assert bench.run([ENCODE("LOAD", region=1, offset=start, n0=8, check_crc=1, crc=blob)]).error is ErrorCode.NONE
    assert reduce(or_, blobs) == (1 << 32) - 1 and reduce(and_, blobs) == 0, "every bit of a good CRC must have been 0 and 1"
    assert endings == {ErrorCode.INSTRUCTION_CRC: 32, ErrorCode.HEADER_CRC: 32, ErrorCode.BLOB_CRC: 32}


@pytest.mark.parametrize("bit", WATCHDOG_BITS)
def test_a_drain_has_the_time_of_the_watchdog(core_build: SimulationBuild, bit: int) -> None:
    """Aborts during the fetch, a check and a transfer on a slow memory: what is on its way may take that long."""
    slow, aborted = MemoryTiming(read_latency=200, write_latency=200), 0
    with CoreBench(core_build, seed=30, timing=slow) as bench:
        for cycles in (100, 215, 470, 700):
            bench.start(build_image(ARCH, [*copies(ARCH)] * 2), watchdog=(1 << bit) + 1)
            bench.loop.run(cycles, until_interrupt=False)
            bench.command("ABORT")
            assert bench.wait(20_000).error is ErrorCode.ABORTED
            aborted += 1
    assert aborted == 4


BEFORE = {
    "PW": ENCODE("PW", in_rows=6, in_cols=6, kernel_h=3, kernel_w=3, pad_top=1, pad_left=1, pixel_step=1, row_step=6, kx_step=1,
                 ky_step=6, out_rows=6, out_cols=6, out_pitch=1, in_addr=TOP - 7 + 2, out_addr=HALF, **SMALL),
    "PW upwards": ENCODE("PW", in_rows=6, in_cols=5, pixel_step=1, row_step=TOP - 5, out_rows=6, out_cols=5, out_pitch=1,
                         in_addr=40, out_addr=HALF, **SMALL),
    "PW, words upwards": ENCODE("PW", in_cols=5, out_cols=5, out_words=2, pixel_step=1, out_pitch=TOP - 2, out_addr=LAST - 20,
                                merge=1, merge_addr=60, merge_pitch=TOP - 2, **SMALL),
    "DW": ENCODE("DW", **POOL | {"words": 1, "in_rows": 6, "in_cols": 4, "row0": 0, "bank0": 0, "col0": -1}, row0_addr=2,
                 kernel_h=3, kernel_w=3, out_rows=6, out_cols=4, out_pitch=1, out_addr=HALF),
    "DW of six words": ENCODE("DW", **POOL | {"words": 6}, out_rows=2, out_cols=2, out_pitch=6, out_addr=HALF),
    "DW upwards": ENCODE("DW", **POOL | {"words": 1, "in_rows": 6, "in_cols": 4}, out_rows=3, out_cols=4, out_pitch=TOP - 1,
                         out_addr=HALF + 90),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE)
def test_addresses_wrap_around(core_build: SimulationBuild, name: str) -> None:
    """Bases before the first word, of which only what is inside is read, and steps backwards: sums of all twenty bits."""
    with CoreBench(core_build, seed=25, timing=FASTEST) as bench:
        bench.fill()
        assert bench.run([BEFORE[name]]).error is ErrorCode.NONE
        assert bench.compared["fm"] > 5 * 16


FIXED = ("IDENTITY", "VERSION", "ARCH_ID", "BUILD_ID")


def test_a_reset_of_one_cycle_is_enough(core_build: SimulationBuild) -> None:
    """From any state at power-up nothing is written or asked for afterwards, and registers read as after a long reset."""
    states = 0
    for seed in range(1, 65):
        with sim_bench.Loop(core_build, memory_bytes=1 << 16, memory_base=BASE, state_seed=seed, trace_writes=True) as loop:
            loop.run(1, until_interrupt=False)
            loop.reset(1)
            loop.clear_logs()
            loop.run(60, until_interrupt=False)
            trace, violations = loop.trace(), loop.violations()
            assert not violations.count, violations.first
            assert not len(trace.chip_writes) and not len(trace.memory_writes) and not loop.interrupt
            assert not len(loop.bus_errors())
            found = {r.name: loop.read_register(r.offset) for r in regs.all_registers(ARCH.regions) if not r.name.startswith(FIXED)}
            assert len(found) > 30 and not any(found.values()), found
            states += 1
    assert states == 64
