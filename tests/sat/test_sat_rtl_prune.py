"""The pruning engine in Verilator against the machine, and against a plain sort."""

from __future__ import annotations

import functools
import struct

import numpy as np
import pytest

from hw.spec.sat import SatArch
from tests.sat.engine_bench import EngineBench, filled

ARCH = SatArch(vec_words=128, chn_words=64)
BANK = ARCH.vec_words
SETTINGS = [(chunk, group, keep) for chunk in range(2) for group in range(4 + chunk) for keep in range(1, (1 << group) + 1)]


@functools.cache
def simulated() -> EngineBench:
    return EngineBench(ARCH, ("PRUNE",))


@pytest.fixture
def bench() -> EngineBench:
    """The one bench, with all memories full of random bytes."""
    bench = simulated()
    bench.load(vec=filled(1, 3 * BANK), chn=filled(2, ARCH.chn_words))
    return bench


def shaped(chunk: int, group: int, keep: int, transpose: int, chunks: int, words: int) -> dict[str, int]:
    """Fields of an instruction on a dense matrix."""
    pitch = chunks * (2 << chunk) if transpose else words * 2
    return dict(chunk_log2=chunk, group_log2=group, keep=keep, transpose=transpose, chunks=chunks, words=words,
                in_pitch=pitch, out_pitch=words)  # fmt: skip


def places(rng: np.random.Generator, fields: dict[str, int]) -> dict[str, int] | None:
    """Random addresses; None where it does not fit the memory."""
    values = 8 << fields["chunk_log2"]
    rows = fields["words"] * 8 if fields["transpose"] else fields["chunks"] * values
    read = rows * fields["in_pitch"]
    written = fields["chunks"] * (fields["keep"] * values >> fields["group_log2"]) * fields["words"]
    if max(read, written) > BANK:
        return None
    return {"in_addr": int(rng.integers(BANK - read + 1)), "out_addr": int(rng.integers(BANK - written + 1))}


def masters(rng: np.random.Generator) -> np.ndarray:
    """A bank of FP32: of any scale, with ties, zeros of both signs, subnormals, and numbers beyond FP16."""
    values = rng.standard_normal((BANK, 4)) * 10.0 ** float(rng.integers(-9, 7))
    kind = rng.integers(4)
    if kind == 1:
        values = np.round(rng.standard_normal((BANK, 4)))
    if kind == 2:
        values = values * rng.integers(0, 2, values.shape)
    bits = values.astype(np.float32)
    return bits.view(np.uint32) >> 8 if kind == 3 else bits.view(np.uint32)


@pytest.mark.parametrize("transpose", [0, 1])
def test_every_setting(bench, transpose):
    """All groups, numbers kept and chunks, on random bytes: Inf and NaN patterns too."""
    for number, (chunk, group, keep) in enumerate(SETTINGS):
        fields = shaped(chunk, group, keep, transpose, chunks=1 + number % 2, words=1)
        bench.check("PRUNE", **fields, in_addr=number, idle=number % 3)
    assert bench.strays() == 0


def test_ties_zeros_and_the_ends_of_the_formats(bench):
    """Equal magnitudes of both signs, -0 beside +0, halves between FP16 numbers, subnormals of both formats, saturation; patterns of
    Inf and NaN, all of which are as large as the largest number."""
    special = np.array([0.0, -0.0, 1.0, -1.0, 65504, 65519.99, 65520, -65520, 3e38, 2**-24, 2**-25, 3 * 2**-25, -(2**-26), 1e-45,
                        1 + 2**-11, 1 + 3 * 2**-11], np.float32).view(np.uint32)  # fmt: skip
    endless = np.array([0x7F7FFFFF, 0x7F800000, 0x7F800001, 0xFFFFFFFF, 0xFF800000], np.uint32)
    rng = np.random.default_rng(3)
    for count in range(30):
        few = endless if count % 5 == 0 else rng.choice(special, 1 + count % len(special))
        bench.load(vec=rng.choice(few, (BANK, 4)))
        chunk, group, keep = SETTINGS[int(rng.integers(len(SETTINGS)))]
        bench.check("PRUNE", **shaped(chunk, group, keep, count % 2, chunks=1, words=2))
    assert bench.machine.saturated


def test_the_flag_tells_of_what_was_read(bench):
    bench.resume_from_bench()
    values = np.ones((BANK, 4), np.float32)
    values[4, 1] = -1e6
    bench.load(vec=values)
    bench.check("PRUNE", **shaped(0, 3, 8, 0, chunks=1, words=2), in_addr=8)
    assert not bench.machine.saturated
    bench.check("PRUNE", **shaped(0, 3, 1, 0, chunks=1, words=1), in_addr=0)
    assert bench.machine.saturated


def run_random(bench: EngineBench, seed: int, jobs: int) -> None:
    rng = np.random.default_rng(seed)
    begun = bench.jobs
    while bench.jobs < begun + jobs:
        chunk, group, keep = SETTINGS[int(rng.integers(len(SETTINGS)))]
        fields = shaped(chunk, group, keep, int(rng.integers(2)), int(rng.integers(1, 5)), int(rng.integers(1, 5)))
        addresses = places(rng, fields)
        if addresses is None:
            continue
        if bench.jobs % 2 == 0:
            bench.load(vec=masters(rng))
        bench.check("PRUNE", **fields, **addresses, idle=int(rng.integers(3)), compare=bench.jobs % 2 == 1)
    assert bench.strays() == 0


def test_random_instructions(bench):
    run_random(bench, seed=4, jobs=150)


@pytest.mark.slow
def test_many_random_instructions(bench):
    run_random(bench, seed=5, jobs=10_000)


def test_what_reaches_outside_is_noticed(bench):
    fields = shaped(0, 3, 2, 0, chunks=1, words=1)
    bench.check("PRUNE", **fields, in_addr=BANK - 16)
    bench.check("PRUNE", **fields, in_addr=BANK - 15, outside=True)
    bench.check("PRUNE", **fields, out_addr=BANK - 2)
    bench.check("PRUNE", **fields, out_addr=BANK - 1, outside=True)
    bench.check("PRUNE", **{**fields, "out_pitch": (1 << 20) - 1}, out_addr=1)


def test_reset_at_any_time(bench):
    """What was cut off leaves nothing behind: the next instruction does all and only its own."""
    fields = shaped(1, 3, 2, 0, chunks=2, words=2)
    for cycles in range(1, 110, 7):
        bench.cut("PRUNE", cycles, **fields)
        bench.check("PRUNE", **shaped(0, 2, 2, 1, chunks=1, words=1), in_addr=64, out_addr=100)
    assert bench.strays() == 0


def test_cycles_of_common_settings(bench):
    """2:8 reads a value of each lane in 2.25 cycles, whatever is kept."""
    for chunks, wanted in ((1, 18 + 18 + 8), (2, 3 * 18 + 8)):
        before = bench.cycles
        bench.check("PRUNE", **shaped(0, 3, 2, 0, chunks=chunks, words=1))
        assert bench.cycles - before == wanted


@pytest.mark.parametrize("transpose", [0, 1])
def test_against_a_plain_sort(bench, transpose):
    """A matrix of three words of lanes and four chunks, the values read back from the bench itself."""
    rng = np.random.default_rng(6)
    k, lanes, size, keep, compared = 16, 24, 8, 3, 0
    matrix = (np.round(rng.standard_normal((k, lanes)) * 4) / 4 * 10.0 ** rng.integers(-6, 6, (k, lanes))).astype(np.float32)
    bench.load(vec=np.ascontiguousarray(matrix.T if transpose else matrix))
    bench.check("PRUNE", **shaped(0, 3, keep, transpose, chunks=2, words=3), out_addr=5)
    found = bench.stored()["vec"].view(np.uint16).reshape(3, BANK, 8)[:, 5:]
    for lane in range(lanes):
        step = 0
        for start in range(0, k, size):
            group = range(start, start + size)
            best = sorted(sorted(group, key=lambda at: (-abs(float(matrix[at, lane])), at))[:keep])
            for at in best:
                word, place = step * (lanes // 8) + lane // 8, lane % 8
                rounded = struct.unpack("<H", struct.pack("<e", max(-65504.0, min(65504.0, float(matrix[at, lane])))))[0]
                assert found[1, word, place] == rounded and found[2, word, place] == at - start
                step, compared = step + 1, compared + 1
    assert compared == lanes * keep * k // size
