"""The inference core's kit: contents of its memories that exercise its units, and programs that it must end."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from hw.sim.draws import WRAP
from hw.sim.kits import Kit
from hw.sim.random_programs import Generator
from hw.spec.arch import WORD_BYTES
from hw.spec.deform import ROW_BANKS, DeformArch
from hw.spec.deform.instructions import DW_CONV, DW_SAMPLE, MERGE_ADD, MERGE_ZIP, SPACES, TABLES_MAX

DIRT_OFFSETS = {"fm": 0, "row": 100, "wgt": 700, "par": 1000, "tbl": 300}
"""First word of region 0 that goes to each on-chip memory: different ones, so that no memory holds another's contents."""

RECORD_BYTES = 8
"""Of a requantise record: bias (4), multiplier (2), shift (1), unused (1)."""

LONGEST_RUN = 1 << 15


def dirt(arch: DeformArch) -> list[bytes]:
    """Fills every on-chip memory from region 0."""
    encode, units, program = arch.instructions.encode, arch.space_units(), []
    for space, name in enumerate(SPACES):
        offset = DIRT_OFFSETS[name]
        rows = {"n2": ROW_BANKS, "stride2": arch.row_words} if name == "row" else {}
        for start, count in chunks(arch.row_words if rows else units[name]):
            program.append(encode("LOAD", space=space, n0=count, chip_addr=start, offset=offset + start, **rows))
    return program


def chunks(words: int) -> Iterator[tuple[int, int]]:
    """(first, count) of runs that an instruction can hold."""
    for start in range(0, words, LONGEST_RUN):
        yield start, min(LONGEST_RUN, words - start)


def plant(arch: DeformArch, rng: np.random.Generator, memory: np.ndarray) -> None:
    """Requantise records in the place from which the parameter memory is filled.

    Records of random bytes would drive nearly every output to a clip, where a wrong sum or rounding does not show. Tables stay
    random: two entries rarely are alike, so that a wrong index or table shows.
    """
    start = WORD_BYTES * DIRT_OFFSETS["par"]
    records = _records(rng, arch.parameter_words * WORD_BYTES // RECORD_BYTES)
    memory[start : start + records.size] = records.reshape(-1)


def _records(rng: np.random.Generator, count: int) -> np.ndarray:
    """Records (count, 8) that bring typical accumulators into the range of a byte: half with multiplier 1, so that ties occur,
    others with a large multiplier, a few with left shifts, a few of random bytes."""
    kind = rng.random(count)
    multiplier = np.where(kind < 0.5, 1, rng.integers(1, 1 << 16, count))
    shift = np.where(kind < 0.5, 0, np.frexp(multiplier)[1]) + rng.integers(2, 10, count)
    left = kind > 0.9
    multiplier, shift = np.where(left, 1, multiplier), np.where(left, rng.integers(-4, 1, count), np.minimum(shift, 31))
    bias = rng.integers(-1, 2, count) * rng.integers(0, 1 << rng.integers(1, 15, count))
    records = rng.integers(0, 256, (count, RECORD_BYTES), np.uint8)
    alive = kind < 0.95
    records[alive, :4] = bias.astype("<i4").view(np.uint8).reshape(-1, 4)[alive]
    records[alive, 4:6] = multiplier.astype("<u2").view(np.uint8).reshape(-1, 2)[alive]
    records[alive, 6] = (shift[alive] & 0x3F).astype(np.uint8)
    return records


def outside(arch: DeformArch, generator: Generator) -> Iterator[list[bytes]]:
    """Convolutions with an access outside a memory, or a table that there is not, after a LOAD that ends well."""
    load = arch.instructions.encode("LOAD", region=1, n0=min(100, arch.feature_words))
    for table in range(arch.tables + 1, TABLES_MAX + 1):
        yield [load, generator.pw(table=table)]
        yield [load, generator.dw(table=table)]
    yield [load, arch.instructions.encode("STORE", region=2, chip_addr=arch.feature_words)]
    for field in ("out_addr", "param_addr", "weight_addr"):
        yield [load, generator.pw(**{field: WRAP - 8})]
        yield [load, generator.dw(mode=DW_CONV, **{field: WRAP - 8})]
    for field in ("out_addr", "param_addr", "offset_addr"):
        yield [load, generator.dw(mode=DW_SAMPLE, **{field: WRAP - 24})]
    for merge in (MERGE_ZIP, MERGE_ADD):
        yield [load, generator.pw(merge=merge, merge_addr=WRAP - 8)]


def endless(arch: DeformArch) -> dict[str, list[bytes]]:
    encode = arch.instructions.encode
    return {
        "PW": [encode("PW", kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, in_rows=9, in_cols=9)],
        "DW": [encode("DW", mode=2, kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, out_pitch=0)],
    }


KIT = Kit(
    generator=Generator,
    compute=("PW", "DW"),
    copied=lambda arch: ({}, arch.feature_words),
    run_words=lambda arch, space: arch.row_words if space == "row" else arch.space_units()[space],
    settle=lambda arch: [],
    dirt=dirt,
    dirt_words=lambda arch: max(arch.space_units().values()) + max(DIRT_OFFSETS.values()),
    plant=plant,
    outside=outside,
    endless=endless,
)
