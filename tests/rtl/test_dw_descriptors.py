"""The depthwise engine on descriptors of every kind: every access, every written word and the cycles are compared.

Directed edges first, then seeded random descriptors, then the latencies that the engine refuses.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from amaranth.back import rtlil

from hw.rtl.deform.dw import DwEngine
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import TABLES_MAX
from hw.spec.deform.machine import DeformMachine
from hw.spec.deform.timing import dw as timing
from hw.spec.fixed import Rounding
from hw.spec.isa import Instruction
from hw.spec.machine import CoreError
from hw.spec.ops import Requant
from tests.rtl.dw_bench import Job, Observed, check
from tests.rtl.dw_reference import CONV, DEFORM, MAX, SAMPLE, SUM, Memories, descriptor, reference, wrap

MODES = (CONV, DEFORM, MAX, SUM, SAMPLE)
SMALL = {
    "mode": CONV, "words": 1, "pitch": 1, "row_pitch": 8, "in_rows": 4, "in_cols": 4, "row0": 0, "col0": -1, "bank0": 0,
    "row0_addr": 64, "kernel_h": 3, "kernel_w": 3, "stride": 1, "out_rows": 2, "out_cols": 2, "out_addr": 32, "out_pitch": 1,
    "weight_addr": 16, "param_addr": 128, "offset_addr": 512, "offset_pitch": 1, "clip_lo": -256, "clip_hi": 255,
    "offset_pair": 3, "offset_frac": 5,
}  # fmt: skip


def job(seed: int, wild_records: bool = False, **fields: int) -> Job:
    """A small job with changes. Its records make outputs of every size, unless they are left as dirt."""
    window = {"kernel_h": 2, "kernel_w": 2} if fields.get("mode") == SAMPLE else {}
    instruction = descriptor(**{**SMALL, **fields, **window})
    memories, rng = Memories.dirty(seed), np.random.default_rng(seed)
    words = 0 if wild_records else instruction["words"]
    for word in range(words):
        requant = Requant(
            bias=rng.integers(-2000, 2000, 16),
            multiplier=rng.integers(1, 9, 16),
            shift=rng.integers(0, 12, 16) + 2 * instruction["offset_frac"] * (instruction["mode"] == SAMPLE),
            rounding=Rounding.TRN,
            lo=-256,
            hi=255,
        )
        memories.put_requant(wrap(instruction["param_addr"] + 8 * word), requant)
    return Job(instruction=instruction, memories=memories)


def total(results: list[Observed], expected: int) -> None:
    compared = sum(len(observed.writes) for observed in results)
    assert compared == expected > 0


def words_of(jobs: list[Job]) -> int:
    return sum(j.instruction["words"] * j.instruction["out_rows"] * j.instruction["out_cols"] for j in jobs)


def check_all(jobs: list[Job]) -> list[Observed]:
    results = check(jobs)
    total(results, words_of(jobs))
    return results


def test_windows_partly_and_wholly_outside() -> None:
    outside = ((-2, -3), (3, 2), (-5, 0), (0, -9), (4, 4), (200, 0), (-32768, -32768), (32767, 32767))
    jobs = [job(n, mode=mode, row0=r, col0=c) for n, (r, c) in enumerate(outside) for mode in MODES]
    results = check_all(jobs)
    assert any(observed.reads for observed in results)
    assert not any(observed.reads for observed in results[-2 * len(MODES) :])


def test_a_maximum_over_nothing_is_minus_256() -> None:
    fields = {"mode": MAX, "row0": -40, "clip_lo": -256, "clip_hi": -1, "out_rows": 1, "out_cols": 1}
    single = job(5, **fields)
    one = np.ones(16, np.int64)
    half = Requant(bias=one * 2, multiplier=one, shift=one, rounding=Rounding.TRN, lo=-256, hi=-1)
    single.memories.put_requant(128, half)
    assert check([single])[0].writes == [(32, bytes([-127 & 0xFF] * 16))]


def test_banks_of_a_stripe_that_begins_anywhere() -> None:
    jobs = [
        job(n, bank0=bank, mode=mode, in_rows=30, out_rows=5, out_cols=1, stride=stride, row0=row0, in_unsigned=n % 2)
        for n, (bank, mode, stride, row0) in enumerate(
            (bank % 9, MODES[bank % 5], (1, 2, 4, 7, 8)[bank % 7 % 5], (0, 9, -4)[bank % 3]) for bank in range(18)
        )
    ]
    check_all(jobs)


def test_every_offset_at_every_bank() -> None:
    jobs = []
    for bank in range(9):
        made = job(bank, mode=DEFORM, bank0=bank, row0=10, col0=10, in_rows=20, in_cols=20, out_rows=1, out_cols=18, pitch=3)
        for pixel, s in enumerate([*range(-8, 10)]):
            made.memories.feature[512 + pixel] = bytes([s & 0xFF]) + bytes(15)
        jobs.append(made)
    results = check_all(jobs)
    assert all(len(observed.reads) > 100 for observed in results)


def test_every_row_shift_at_every_bank() -> None:
    """Whole offsets of every size: the table that takes them apart, and banks and turns of both rows."""
    jobs = []
    for bank in range(9):
        made = job(bank, mode=SAMPLE, bank0=bank, row0=130, in_rows=260, out_rows=1, out_cols=256, col0=0, in_cols=256,
                   offset_pair=bank % 8, offset_frac=0)  # fmt: skip
        for pixel, (down, right) in enumerate(zip(range(-128, 128), np.random.default_rng(bank).integers(-9, 9, 256), strict=True)):
            _put_pair(made, pixel, down, int(right))
        jobs.append(made)
    results = check_all(jobs)
    assert all(len(observed.reads) > 800 for observed in results)


@pytest.mark.parametrize("frac", range(8))
def test_samples_at_the_borders(frac: int) -> None:
    """On, across and beyond each border and corner, with whole offsets and all fractions, the extreme ones included."""
    one, reads = 1 << frac, 0
    shape = {"mode": SAMPLE, "offset_frac": frac, "offset_pair": 7 - frac, "row0": 1, "col0": 0, "pitch": 1, "row_pitch": 400}
    for unsigned, size in ((0, 5), (1, 1)):
        offsets, seed = _border(one, size), 2 * frac + unsigned
        rng, count = np.random.default_rng(seed), len(offsets)
        rows = job(seed, in_rows=size, in_cols=2 * count, out_rows=1, out_cols=count, in_unsigned=unsigned, **shape)
        cols = job(seed, in_rows=2 * count, in_cols=size, out_rows=count, out_cols=1, in_unsigned=unsigned, **shape)
        for pixel, offset in enumerate(offsets):
            other = int(rng.integers(-one, one))
            _put_pair(rows, pixel, offset, other)
            _put_pair(cols, pixel, other, offset)
        corners = [job(seed + n, in_rows=size, in_cols=size, out_rows=1, out_cols=1, in_unsigned=unsigned, **shape) for n in range(4)]
        last = min((size - 1) * one + one // 2, 127)
        for corner, pair in zip(corners, ((-1, -1), (-1, last), (last, -1), (last, last)), strict=True):
            _put_pair(corner, 0, *pair)
        reads += sum(len(observed.reads) for observed in check_all([rows, cols, *corners]))
    assert reads > 40


def _border(one: int, size: int) -> list[int]:
    """Offsets from pixel 0 to all that is near a border, in fractions."""
    near = {edge * one + by for edge in (-2, -1, 0, size - 1, size) for by in (-1, 0, 1, one // 2)}
    return sorted(at for at in near | {-128, 127} if -128 <= at <= 127)


def _put_pair(made: Job, pixel: int, down: int, right: int) -> None:
    """A sample's offsets, between others that must not count."""
    i = made.instruction
    addr, lane = wrap(i["offset_addr"] + pixel * i["offset_pitch"]), 2 * i["offset_pair"]
    word = bytearray(made.memories.feature[addr])
    word[lane : lane + 2] = bytes([down & 0xFF, right & 0xFF])
    made.memories.feature[addr] = bytes(word)


def test_a_sample_of_the_largest_codes() -> None:
    """2 ** 14 times 255 and -128: every bit of the products and sums."""
    jobs = []
    for unsigned, code in ((1, 255), (0, 0x80), (0, 0x7F)):
        place = {"row0": 4, "col0": 3, "in_rows": 9, "in_cols": 9, "pitch": 0, "row_pitch": 0, "out_cols": 4}
        made = job(3, mode=SAMPLE, offset_frac=7, in_unsigned=unsigned, **place)
        for bank in made.memories.rows:
            bank[64] = bytes([code] * 16)
        one = np.ones(16, np.int64)
        made.memories.put_requant(128, Requant(bias=0 * one, multiplier=one, shift=14 * one, rounding=Rounding.TRN, lo=-256, hi=255))
        jobs.append(made)
    for observed, code in zip(check_all(jobs), (255, 0x80, 0x7F), strict=True):
        assert {word for _, word in observed.writes} == {bytes([code] * 16)}


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_convolution_windows(rows: int) -> None:
    """Every window up to 3 x 3, at strides 1 and 2, over the edges of the input, with one and several channel words."""
    shape = {"in_rows": 5, "in_cols": 6, "out_rows": 4, "out_cols": 3, "row0": 0, "row_pitch": 16, "pitch": 2}
    jobs = [
        job(9 * stride + cols, kernel_h=rows, kernel_w=cols, stride=stride, words=words, in_unsigned=cols % 2, **shape)
        for cols in (1, 2, 3)
        for stride, words in ((1, 1), (2, 2))
    ]
    jobs.append(job(5, kernel_h=rows, kernel_w=1, words=4, out_rows=1, out_cols=1, pitch=4))
    results = check_all(jobs)
    taps = [rows * cols for cols in (1, 2, 3) for _ in range(2)]
    assert all(len(observed.reads) <= 12 * 2 * count for observed, count in zip(results, taps, strict=False))
    # Tap (i, j) meets weight word 3 * i + j whatever the window: a single one of the nine is not zero.
    for tap in range(9):
        single = job(tap, kernel_h=rows, kernel_w=2, row0=1, bank0=1, col0=0, out_rows=1, out_cols=1)
        one = np.ones(16, np.int64)
        single.memories.put_requant(128, Requant(bias=0 * one, multiplier=one, shift=0 * one, rounding=Rounding.TRN, lo=-256, hi=255))
        weight = np.zeros((16, 9), np.int64)
        weight[:, tap] = 1
        single.memories.put_weights(16, weight.reshape(16, 3, 3))
        i, j = divmod(tap, 3)
        wanted = single.memories.rows[i][64 + j] if i < rows and j < 2 else bytes(16)
        assert check([single])[0].writes == [(32, wanted)], (rows, tap)


def test_tables() -> None:
    """Each table in each mode, and none; two jobs one after the other have different ones."""
    jobs = [job(table, mode=MODES[table % 5], table=table, words=2, pitch=2) for table in (1, 8, 0, 3, 2, 7, 4, 5, 6, 0)]
    for made, pixel in itertools.product(jobs, range(4)):
        if made.instruction["mode"] == SAMPLE:
            _put_pair(made, pixel, 33 + pixel, 44 - pixel)
    results = check_all(jobs)
    assert all(len({byte for _, word in observed.writes for byte in word}) > 20 for observed in results)


@pytest.mark.parametrize("kernel", [(1, 1), (2, 1), (4, 1), (5, 4), (6, 2), (7, 7), (1, 5), (255, 1), (1, 255)])
def test_pooling_windows(kernel: tuple[int, int]) -> None:
    shape = {"kernel_h": kernel[0], "kernel_w": kernel[1], "in_rows": 300, "in_cols": 300, "out_rows": 2, "out_cols": 2}
    jobs = [job(seed, mode=mode, **shape, in_unsigned=seed % 2, stride=3) for seed, mode in ((1, SUM), (2, MAX), (3, SUM))]
    # The third has the largest activations of all.
    for addr in (wrap(64 + x + (y // 9) * 8) for y in range(300) for x in range(300)):
        for bank in jobs[2].memories.rows:
            bank[addr] = bytes([255] * 16)
    check_all(jobs)


def test_one_pixel_of_many_channel_words() -> None:
    """Parameter loads are the limit, or the slots, or the pixels: each regime of the timing formula."""
    shapes = ((1, 1), (1, 3), (3, 3), (3, 5), (3, 7), (6, 9))
    jobs = [
        job(n, mode=mode, words=words, out_rows=rows, out_cols=cols, pitch=words, kernel_h=3, kernel_w=3)
        for n, (mode, words, (rows, cols)) in enumerate(
            (mode, words, shape) for mode in (DEFORM, MAX, SAMPLE) for words in (1, 2, 3, 6, 7) for shape in shapes[:4]
        )
    ]
    jobs += [job(7, mode=MAX, words=5, kernel_h=kernel, kernel_w=1, out_rows=1, out_cols=1) for kernel in (1, 3, 9, 30)]
    jobs += [job(8, mode=CONV, words=5, out_rows=rows, out_cols=cols, pitch=5) for rows, cols in shapes]
    check_all(jobs)


def test_addresses_wrap() -> None:
    top = (1 << 20) - 1
    wrapping = {"row0_addr": top, "out_addr": top, "weight_addr": top - 3, "param_addr": top - 20, "offset_addr": top}
    jobs = [
        job(n, mode=mode, words=3, pitch=top - 5, row_pitch=top - 9, out_pitch=top - 1, offset_pitch=top - 2, in_rows=20, **wrapping)
        for n, mode in enumerate(MODES)
    ]
    check_all(jobs)


def random_job(seed: int, tables: int = TABLES_MAX) -> Job:
    rng = np.random.default_rng(seed)
    mode = int(rng.choice(MODES))
    pooling = mode in (MAX, SUM)

    def below(*limits: int) -> int:
        return int(rng.integers(rng.choice(limits)))

    fields = {
        "mode": mode,
        "words": 1 + below(1, 4),
        "pitch": below(8, 1 << 20),
        "row_pitch": below(64, 1 << 20),
        "in_rows": 1 + below(4, 20, 65535),
        "in_cols": 1 + below(4, 20, 65535),
        "row0": below(4, 12, 20) - 5,
        "bank0": below(9),
        "row0_addr": below(512, 1 << 20),
        "col0": below(4, 12, 20) - 6,
        "kernel_h": 3 if mode == DEFORM else 1 + (below(2, 8) if pooling else below(3)),
        "kernel_w": 3 if mode == DEFORM else 1 + (below(2, 8) if pooling else below(3)),
        "offset_pair": below(8),
        "offset_frac": below(8),
        "table": below(1, tables + 1),
        "stride": 1 + below(2, 8),
        "out_rows": 1 + below(2, 5),
        "out_cols": 1 + below(2, 5),
        "out_addr": below(1 << 20),
        "out_pitch": below(8, 1 << 20) * 4 + 5,
        "weight_addr": below(64, 1 << 20),
        "param_addr": below(64, 1 << 20),
        "offset_addr": below(1 << 20),
        "offset_pitch": below(4, 1 << 20),
        "in_unsigned": below(2),
        "rounding": below(3),
        "clip_lo": below(256) - 256,
        "clip_hi": below(256),
    }
    fields["out_pitch"] &= (1 << 20) - 1
    made = job(seed, wild_records=rng.random() < 0.3, **fields)
    _small_offsets(made, rng)
    return made


def _small_offsets(made: Job, rng: np.random.Generator) -> None:
    """Most offsets within the range, so that not all of them saturate; most samples within ten pixels."""
    i = made.instruction
    most = min(10 << i["offset_frac"], 127)
    for pixel in range(i["out_rows"] * i["out_cols"]):
        if rng.random() < 0.8:
            word = bytes([int(rng.integers(-8, 10)) & 0xFF]) + bytes(15)
            if i["mode"] == SAMPLE:
                word = rng.integers(-most, most + 1, 16).astype(np.int8).tobytes()
            made.memories.feature[wrap(i["offset_addr"] + pixel * i["offset_pitch"])] = word


def test_random_descriptors() -> None:
    results = check_all([random_job(1000 + n) for n in range(60)])
    bytes_written = np.frombuffer(b"".join(word for observed in results for _, word in observed.writes), np.uint8)
    assert len(np.unique(bytes_written)) > 200
    assert sum(bool(observed.reads) for observed in results) > 24


def test_random_descriptors_with_the_requantise_unit() -> None:
    jobs = [random_job(2000 + n, tables=0) for n in range(12)]
    total(check(jobs, real_unit=True), words_of(jobs))


@pytest.mark.slow
def test_more_random_descriptors() -> None:
    check_all([random_job(10_000 + n) for n in range(800)])


@pytest.mark.slow
@pytest.mark.parametrize(("unsigned", "code"), [(1, 255), (0, -128)])
def test_the_largest_sum(unsigned: int, code: int) -> None:
    shape = {"kernel_h": 255, "kernel_w": 255, "in_rows": 255, "in_cols": 255, "out_rows": 1, "out_cols": 1, "row0": 1, "col0": 0}
    made = job(1, mode=SUM, in_unsigned=unsigned, pitch=0, row_pitch=0, **shape)
    for bank in made.memories.rows:
        bank[64] = bytes([code & 0xFF] * 16)
    one = np.ones(16, np.int64)
    requant = Requant(bias=0 * one, multiplier=one, shift=16 * one, rounding=Rounding.TRN, lo=-256, hi=255)
    made.memories.put_requant(128, requant)
    assert check_all([made])[0].writes == [(32, bytes([(code * 255 * 255 >> 16) & 0xFF] * 16))]


@pytest.mark.slow
@pytest.mark.parametrize("edge", ["rows", "cols"])
def test_farthest_positions(edge: str) -> None:
    """65535 outputs at stride 8: positions beyond 16 bits must not come back inside."""
    shape = {"out_rows": 65535, "out_cols": 1} if edge == "rows" else {"out_rows": 1, "out_cols": 65535}
    window = {"kernel_h": 1, "kernel_w": 1, "stride": 8, "in_rows": 65535, "in_cols": 65535}
    results = check_all([job(1, mode=MAX, row0=32767, col0=32766, **shape, **window)])  # window row 0 is row0 - 1
    assert len(results[0].reads) == (65534 - 32766) // 8 + 1


def machine_with(instruction: Instruction, memories: Memories) -> DeformMachine:
    """A machine whose on-chip memories hold the lowest addresses of ``memories``."""
    machine = DeformMachine(DeformArch(feature_words=4096, row_words=512, parameter_words=512, tables=TABLES_MAX))

    def load(space: str, first: int, words: object, count: int) -> None:
        for addr in range(count):
            machine.chip[space][first + addr] = np.frombuffer(words[addr], np.uint8)  # type: ignore[index]

    load("fm", 0, memories.feature, 4096)
    load("par", 0, memories.par, 512)
    machine.chip["tbl"][:] = np.frombuffer(b"".join(memories.tables), np.uint8).reshape(-1, 16)
    for number, bank in enumerate(memories.rows):
        load("row", 512 * number, bank, 512)
    return machine


def local_job(seed: int) -> Job:
    """A random job that stays in small memories, most of the time."""
    made = random_job(seed)
    fields = {name: made.instruction[name] for name in SMALL} | {
        **{name: made.instruction[name] for name in ("in_unsigned", "rounding", "table")},
        "pitch": seed % 5, "row_pitch": seed % 41, "row0_addr": 200, "weight_addr": 0, "param_addr": 100,
        "out_addr": 0, "out_pitch": 4, "offset_addr": 3000, "offset_pitch": seed % 4,
    }  # fmt: skip
    return Job(instruction=descriptor(**fields), memories=made.memories)


def test_the_reference_is_the_machine() -> None:
    """The machine is the definition; the reference of these tests agrees with it wherever memories are large enough."""
    compared = 0
    for n in range(60):
        made = local_job(3000 + n)
        machine = machine_with(made.instruction, made.memories)
        writes = reference(made.instruction, made.memories).writes
        try:
            machine.execute(made.instruction)
        except CoreError:
            continue
        for addr, word in writes:
            assert machine.chip["fm"][addr].tobytes() == word, dict(made.instruction.values)
            compared += 1
    assert compared > 400


@pytest.mark.parametrize("name", ["OFFSET_FETCH", "TAP_ADDRESS", "LANE", "WRITE", "RELEASE"])
def test_latencies_that_the_engine_does_not_have_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, name, getattr(timing, name) + 1)
    with pytest.raises(ValueError, match=f"timing.dw.{name} must be the engine's"):
        rtlil.convert(DwEngine(DeformArch()))


def test_a_pipeline_that_the_engine_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "result_cycles", lambda arch: 6)
    with pytest.raises(ValueError, match="pipeline_cycles must be the engine's"):
        rtlil.convert(DwEngine(DeformArch()))


def test_cycles_of_a_layer() -> None:
    """8 x 8 pixels of 32 channel words: three cycles per word, one parameter load, one pipeline."""
    instruction = descriptor(**{**SMALL, "words": 32, "out_rows": 8, "out_cols": 8})
    for arch, pipeline in ((DeformArch(), 22), (DeformArch(tables=0), 20)):
        assert timing.pipeline_cycles(arch) == pipeline
        assert timing.dw_cycles(instruction, arch) == 1 + 17 + 32 * 64 * 3 + pipeline
