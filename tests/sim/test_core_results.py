"""Edges behind the requantise unit, and of small windows: residual sums, tables and their loads, depthwise windows below 3 x 3."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.directed import copies
from hw.sim.loop import MemoryTiming
from hw.spec.deform import LANES
from hw.spec.deform.instructions import DW_CONV, MERGE_ADD, MERGE_ZIP, SPACES, TABLE_BYTES, TABLES_MAX
from hw.spec.regs import ErrorCode
from tests.sim.core_bench import ARCH, BASE, CoreBench

ENCODE = ARCH.instructions.encode
FASTEST = MemoryTiming(read_latency=1, write_latency=1)
HALF = ARCH.feature_words // 2
RECORD_BYTES = 8
RECORDS = ARCH.parameter_words * LANES // RECORD_BYTES
WORDS = RECORDS // LANES
"""Output words of an instruction that uses all records."""

TURNS = 256 // WORDS
PIXELS = 4
TABLE_WORDS = TABLE_BYTES // LANES
TABLE_SPACE = SPACES.index("tbl")
LOAD_RECORDS = ENCODE("LOAD", region=1, space=SPACES.index("par"), n0=ARCH.parameter_words)
BYTES = {"clip_lo": 0, "clip_hi": 255}


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _bytes(turn: int) -> np.ndarray:
    """Result bytes (WORDS, 16): over all turns each lane has every value once, and another one than its neighbours."""
    return (np.arange(WORDS)[:, None] + WORDS * turn + 37 * np.arange(LANES)) % 256


def _give_records(bench: CoreBench, values: np.ndarray) -> None:
    """Records whose bias alone is the result, at the start of region 1."""
    records = np.zeros((RECORDS, RECORD_BYTES), np.uint8)
    records[:, 0], records[:, 4] = values.reshape(-1), 1
    at = bench.regions[1].base - BASE
    for memory in (bench.loop.memory, bench.memory.bytes):
        memory[at : at + records.size] = records.reshape(-1)


def _of_records(**fields: int) -> bytes:
    """A PW of four pixels whose taps all lie outside its input: each result is a record's bias."""
    pixels = {"out_cols": PIXELS, "out_pitch": WORDS, "out_addr": HALF, "out_words": WORDS, "pad_left": 255}
    return ENCODE("PW", **pixels, **BYTES, **fields)


def _written(bench: CoreBench) -> np.ndarray:
    """What the instruction above wrote (pixels, WORDS, 16); the core's writes have been compared with it."""
    return bench.machine.chip["fm"][HALF : HALF + PIXELS * WORDS].reshape(PIXELS, WORDS, LANES)


def _as_numbers(codes: np.ndarray, unsigned: int) -> np.ndarray:
    wide = codes.astype(np.int64)
    return wide if unsigned else (wide + 128) % 256 - 128


LIMITS = ((-128, 127), (0, 255), (-256, 255), (-1, 0), (77, 77), (-256, -200), (200, 255))
CROSSED = ((3, -4), (255, -256), (0, -1))


@pytest.mark.parametrize("unsigned", [0, 1])
def test_sums_around_both_clips(core_build: SimulationBuild, unsigned: int) -> None:
    """In every lane; sums that are at a clip, one below and one above occur as often as the bytes allow."""
    met, compared = Counter[tuple[int, int, int]](), 0
    with CoreBench(core_build, seed=41, timing=FASTEST) as bench:
        bench.fill()
        for turn in range(TURNS):
            _give_records(bench, _bytes(turn))
            bench.run([LOAD_RECORDS])
            residual = bench.machine.chip["fm"][: PIXELS * WORDS].reshape(PIXELS, WORDS, LANES).copy()
            total = _as_numbers(_bytes(turn), unsigned) + _as_numbers(residual, unsigned)
            for low, high in LIMITS + CROSSED:
                clips = {"merge_lo": low, "merge_hi": high, "merge_unsigned": unsigned}
                bench.run([_of_records(merge=MERGE_ADD, merge_addr=0, merge_pitch=WORDS, **clips)])
                wanted = np.maximum(np.minimum(total, high), low) & 0xFF
                np.testing.assert_array_equal(_written(bench), wanted)
                met.update((low, high, near) for near in (low - 1, low, low + 1, high - 1, high, high + 1) if (total == near).any())
                compared += wanted.size
    assert compared == TURNS * len(LIMITS + CROSSED) * PIXELS * RECORDS
    low, high = LIMITS[unsigned]
    edges = {high - 1, high, high + 1} | (set() if unsigned else {low - 1, low, low + 1})
    assert {near for *limits, near in met if tuple(limits) == (low, high)} >= edges


@pytest.mark.parametrize("table", range(1, ARCH.tables + 1))
def test_every_entry_of_a_table_in_every_lane(core_build: SimulationBuild, table: int) -> None:
    looked_up = set[tuple[int, int]]()
    with CoreBench(core_build, seed=42, timing=FASTEST) as bench:
        bench.fill()
        entries = bench.machine.chip["tbl"].reshape(-1, TABLE_BYTES)[table - 1].copy()
        for turn in range(TURNS):
            values = _bytes(turn)
            _give_records(bench, values)
            bench.run([LOAD_RECORDS, _of_records(table=table)])
            np.testing.assert_array_equal(_written(bench), np.broadcast_to(entries[values], (PIXELS, WORDS, LANES)))
            looked_up |= {(lane, int(value)) for lane in range(LANES) for value in values[:, lane]}
    assert len(looked_up) == LANES * 256


def test_neighbours_with_different_tables(core_build: SimulationBuild) -> None:
    """The table of one instruction does not reach the next, and none comes between; merges take bytes that went through it."""
    zipped = {"merge": MERGE_ZIP, "merge_addr": 0, "merge_pitch": 1, "out_words": 2, "out_pitch": 4, "out_cols": 2}
    added = {"merge": MERGE_ADD, "merge_addr": 3, "merge_pitch": 2, "out_words": 2, "out_pitch": 2, "merge_lo": -128, "merge_hi": 127}
    plain = {"clip_lo": -128, "clip_hi": 127, "in_cols": 3, "pixel_step": 1, "out_addr": HALF}
    pool = {"mode": 2, "words": 2, "pitch": 1, "row_pitch": 4, "in_rows": 3, "in_cols": 1, "row0": 1, "bank0": 1, "out_addr": HALF}
    program = [ENCODE("PW", **plain, **merge, table=table) for merge in (zipped, added, {}) for table in (1, 0, ARCH.tables, 2)]
    program += [ENCODE("DW", **pool, clip_lo=-128, clip_hi=127, table=table) for table in (2, 0, 1, ARCH.tables)]
    with CoreBench(core_build, seed=43, timing=FASTEST) as bench:
        bench.fill()
        assert bench.run(program).retired == len(program) == 16
        assert bench.run(program[::-1]).retired == len(program)


MISSING = {
    **{f"PW, table {table}": ENCODE("PW", table=table, out_addr=HALF) for table in range(ARCH.tables + 1, TABLES_MAX + 1)},
    **{f"DW, table {table}": ENCODE("DW", mode=2, table=table, out_addr=HALF) for table in range(ARCH.tables + 1, TABLES_MAX + 1)},
    "LOAD one word too many": ENCODE("LOAD", space=TABLE_SPACE, n0=ARCH.tables * TABLE_WORDS + 1),
    "LOAD past the last word": ENCODE("LOAD", space=TABLE_SPACE, chip_addr=ARCH.tables * TABLE_WORDS),
    "LOAD whose second run is past it": ENCODE("LOAD", space=TABLE_SPACE, n1=2, chip_addr=ARCH.tables * TABLE_WORDS - 1,
                                               chip_stride1=1),
    "PW adds what is past the end": ENCODE("PW", merge=MERGE_ADD, merge_addr=ARCH.feature_words - 1, out_words=2, out_addr=HALF),
}  # fmt: skip


@pytest.mark.parametrize("name", MISSING)
def test_tables_that_there_are_not(core_build: SimulationBuild, name: str) -> None:
    with CoreBench(core_build, seed=44, timing=FASTEST) as bench:
        bench.fill()
        assert bench.run([MISSING[name]]).error is ErrorCode.BUFFER_RANGE
        assert bench.run([*copies(ARCH), ENCODE("PW", table=ARCH.tables, out_addr=HALF, **BYTES)]).retired == 3


def test_loads_of_single_words_of_the_tables(core_build: SimulationBuild) -> None:
    """Each word alone, the last one first; then every table is read as a whole."""
    words = ARCH.tables * TABLE_WORDS
    places = {word: 3 + 5 * word % 307 for word in reversed(range(words))}
    singles = [ENCODE("LOAD", region=1, space=TABLE_SPACE, offset=at, chip_addr=word) for word, at in places.items()]
    with CoreBench(core_build, seed=45, timing=FASTEST) as bench:
        bench.fill()
        values = bench.memory.bytes[bench.regions[1].base - BASE :]
        wanted = [values[LANES * places[word] :][:LANES].copy() for word in range(words)]
        assert bench.run(singles).retired == words
        np.testing.assert_array_equal(bench.machine.chip["tbl"], wanted)
        for turn, table in itertools.product(range(TURNS), range(1, ARCH.tables + 1)):
            _give_records(bench, _bytes(turn))
            assert bench.run([LOAD_RECORDS, _of_records(table=table)]).retired == 2
        assert bench.compared["tbl"] == 2 * words * LANES


WINDOW = {"words": 2, "pitch": 2, "row_pitch": 16, "in_rows": 6, "in_cols": 7, "row0": 0, "bank0": 0, "row0_addr": 16, "col0": -1,
          "out_rows": 3, "out_cols": 4, "out_pitch": 2, "out_addr": HALF, "clip_lo": -128, "clip_hi": 127}  # fmt: skip


@pytest.mark.parametrize("stride", [1, 2])
def test_every_window_of_a_convolution(core_build: SimulationBuild, stride: int) -> None:
    program = [
        ENCODE("DW", mode=DW_CONV, kernel_h=rows, kernel_w=cols, stride=stride, in_unsigned=unsigned, **WINDOW)
        for rows, cols, unsigned in itertools.product((1, 2, 3), (1, 2, 3), (0, 1))
    ]
    with CoreBench(core_build, seed=46, timing=FASTEST) as bench:
        bench.fill()
        assert bench.run(program).retired == 18
        assert bench.compared["fm"] >= 18 * 24 * LANES
