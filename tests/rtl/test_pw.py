"""The PW engine against the machine: directed descriptors first, then random ones. Cycles equal the timing model's in every run."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import MERGE_ADD, MERGE_NONE, MERGE_ZIP
from hw.spec.deform.timing.pw import gap_cycles, pw_cycles, setup_cycles, word_cycles
from hw.spec.machine import CoreError
from tests.rtl.pw_bench import Job, PwBench, Recorder, dirt, pw, small_arch

MASK = (1 << 20) - 1


def pointwise(rows: int, cols: int, words: int, out_words: int, **more: int) -> dict[str, int]:
    """A 1 x 1 convolution of packed pixels at word 0; output at word 256."""
    geometry = {"kernel_h": 1, "kernel_w": 1, "stride": 1, "pixel_step": words, "row_step": cols * words}
    size = {"in_rows": rows, "in_cols": cols, "out_rows": rows, "out_cols": cols, "in_words": words, "out_words": out_words}
    return {**geometry, **size, "out_addr": 256, "out_pitch": out_words, **more}


def square(size: int, kernel: int, stride: int, words: int, out_words: int, **more: int) -> dict[str, int]:
    """A padded K x K convolution of a size x size image at word 8, in rows one word longer than the image."""
    pad, pitch = kernel // 2, size * words + 1
    out = (size + 2 * pad - kernel) // stride + 1
    return {
        "in_addr": (8 - pad * (pitch + words)) & MASK, "in_words": words, "kernel_h": kernel, "kernel_w": kernel,
        "in_rows": size, "in_cols": size, "pad_top": pad, "pad_left": pad, "stride": stride,
        "kx_step": words, "ky_step": pitch, "pixel_step": stride * words, "row_step": stride * pitch,
        "out_rows": out, "out_cols": out, "out_words": out_words, "out_addr": 300, "out_pitch": out_words, **more,
    }  # fmt: skip


ZIP = {"merge": MERGE_ZIP, "merge_addr": 128}
ADD = {"merge": MERGE_ADD, "merge_addr": 128, "merge_lo": -128, "merge_hi": 127}
DIRECTED = {
    "one of everything": pointwise(1, 1, 1, 1),
    "both words of a tile": pointwise(1, 1, 1, 2),
    "a partial channel tile": pointwise(1, 1, 1, 3),
    "partial pixel tiles across output rows": pointwise(3, 3, 1, 2),
    "several channel and pixel tiles": pointwise(2, 5, 2, 5),
    "wide weights": pointwise(2, 3, 2, 3, wide_weights=1),
    "unsigned activations, unsigned output": pointwise(2, 3, 1, 2, in_unsigned=1, clip_lo=0, clip_hi=255),
    "rounding half up": pointwise(2, 2, 1, 2, rounding=1),
    "rounding half to even": pointwise(2, 2, 1, 2, rounding=2),
    "zip": pointwise(2, 3, 1, 1, merge_pitch=1, **ZIP) | {"out_pitch": 2},
    "zip of several tiles": pointwise(3, 3, 1, 5, merge_pitch=5, **ZIP) | {"out_pitch": 10},
    "zip with wide weights and gaps": pointwise(2, 3, 1, 3, merge_pitch=4, wide_weights=1, **ZIP) | {"out_pitch": 9},
    "one left half for all pixels": pointwise(2, 2, 1, 1, merge_pitch=0, **ZIP) | {"out_pitch": 2},
    "add": pointwise(2, 3, 1, 1, merge_pitch=1, **ADD),
    "add of several tiles": pointwise(3, 3, 1, 5, merge_pitch=5, **ADD),
    "add with wide weights and gaps": pointwise(2, 3, 1, 3, merge_pitch=4, wide_weights=1, **ADD) | {"out_pitch": 4},
    "add of unsigned bytes": pointwise(2, 3, 1, 2, merge_pitch=2, merge_unsigned=1, **ADD) | {"merge_lo": 90, "merge_hi": 255},
    "add whose clips cross": pointwise(1, 3, 1, 1, merge_pitch=1, **ADD) | {"merge_lo": 3, "merge_hi": -4},
    "one residual for all pixels": pointwise(2, 2, 1, 1, merge_pitch=0, **ADD),
    "first table": pointwise(2, 3, 1, 2, table=1),
    "last table": pointwise(2, 3, 1, 2, table=2, in_unsigned=1, clip_lo=0, clip_hi=255),
    "zip through a table": pointwise(2, 3, 1, 1, merge_pitch=1, table=2, **ZIP) | {"out_pitch": 2},
    "add through a table": pointwise(2, 3, 1, 2, merge_pitch=2, table=1, **ADD),
    "outputs downwards": pointwise(2, 2, 1, 1, out_pitch=-3 & MASK),
    "out and weight and record addresses": pointwise(1, 3, 1, 2, weight_addr=2000, param_addr=17, out_addr=500),
    "3 x 3": square(4, 3, 1, 1, 2),
    "3 x 3, stride 2": square(5, 3, 2, 1, 1),
    "3 x 3, stride 3, two words": square(4, 3, 3, 2, 1),
    "5 x 5, larger than the image": square(2, 5, 1, 1, 1),
    "1 x 3, padded left only": square(3, 3, 1, 1, 1, kernel_h=1, pad_top=0, in_addr=(8 - 1) & MASK, out_rows=3),
    "3 x 1, padded above more than the image": square(3, 3, 1, 1, 1, kernel_w=1, pad_left=0, pad_top=5, in_addr=(8 - 5 * 4) & MASK),
    "padding everywhere": square(2, 3, 1, 1, 1, pad_top=200, pad_left=255),
}  # fmt: skip


def judged(arch: DeformArch, fields: dict[str, int], chip: dict[str, np.ndarray]) -> tuple[bool, bool]:
    """Whether the machine runs it without an error, and whether its outputs overlap no input and each other."""
    machine = Recorder(arch, chip)
    try:
        machine.execute(pw(arch, **fields))
    except CoreError:
        return False, True
    written = machine.written()
    return True, len(set(written)) == len(written) and not machine.read["fm"] & set(written)


def directed_jobs(arch: DeformArch, seed: int) -> list[Job]:
    rng, jobs = np.random.default_rng(seed), []
    for name, fields in DIRECTED.items():
        chip = dirt(arch, rng)
        assert judged(arch, fields, chip) == (True, True), name
        jobs.append(Job(instruction=pw(arch, **fields), chip=chip))
    return jobs


def test_directed() -> None:
    arch = small_arch(2)
    jobs = directed_jobs(arch, seed=2)
    bench = PwBench(arch)
    words = sum(j.instruction["out_rows"] * j.instruction["out_cols"] * j.instruction["out_words"]
                * word_cycles(j.instruction["merge"]) for j in jobs)
    assert bench.run(jobs) == words > 200


def random_fields(rng: np.random.Generator) -> dict[str, int]:
    """Small fields of every kind, most of them unlike what a compiler writes."""
    def below(limit: int, low: int = 0) -> int:
        return int(rng.integers(low, limit))

    merge = (MERGE_NONE, MERGE_NONE, MERGE_ZIP, MERGE_ADD)[below(4)]
    kernel_h, kernel_w = ((1, 1), (1, 1), (3, 3), (1, 2), (2, 1), (5, 1))[below(6)]
    clip_lo = below(0, -256)
    return {
        "in_addr": below(120), "in_words": below(3, 1) if kernel_h * kernel_w < 4 else 1, "kernel_h": kernel_h, "kernel_w": kernel_w,
        "in_rows": below(6, 1), "in_cols": below(6, 1), "pad_top": below(3), "pad_left": below(3), "stride": below(4, 1),
        "pixel_step": below(6, -3) & MASK, "row_step": below(20, -4) & MASK, "kx_step": below(5, -2) & MASK,
        "ky_step": below(20, -4) & MASK, "out_rows": below(4, 1), "out_cols": below(4, 1), "out_words": below(5, 1),
        "out_addr": below(300, 200), "out_pitch": below(16, 1), "weight_addr": below(500), "param_addr": below(100),
        "merge": merge, "merge_addr": below(160, 130), "merge_pitch": below(6), "merge_unsigned": below(2),
        "merge_lo": below(1, -256), "merge_hi": below(256, 100), "table": below(2) * below(3),
        "wide_weights": below(2), "in_unsigned": below(2), "rounding": below(3), "clip_lo": clip_lo, "clip_hi": below(256, clip_lo),
    }  # fmt: skip


def random_jobs(arch: DeformArch, seed: int, count: int, legal: bool = True) -> list[Job]:
    """Descriptors whose outputs overlap nothing; with ``legal`` false, such that leave a memory."""
    rng, jobs = np.random.default_rng(seed), []
    while len(jobs) < count:
        fields, chip = random_fields(rng), dirt(arch, rng)
        if not legal:
            ends = (("out_addr", 512), ("in_addr", 512), ("weight_addr", 2048), ("param_addr", 256), ("table", 5))
            name, size = ends[len(jobs) % len(ends)]
            fields[name] = size - int(rng.integers(1, 3))
            fields["out_pitch"] = 2 * fields["out_words"]  # the machine stops before it could tell that words overlap
        # A missing table ends the machine's run before it writes: whether words overlap is told by the run without a table.
        harmless = fields["table"] <= arch.tables or judged(arch, fields | {"table": 0}, chip) == (True, True)
        if judged(arch, fields, chip) == (legal, True) and harmless:
            jobs.append(Job(instruction=pw(arch, **fields), chip=chip, legal=legal))
    return jobs


@pytest.mark.parametrize(("rows", "columns", "field_bits", "count"), [(3, 32, 23, 10), (2, 64, 23, 8), (1, 32, 20, 5)])
def test_random(rows: int, columns: int, field_bits: int, count: int) -> None:
    arch = small_arch(rows, columns, field_bits)
    bench = PwBench(arch, rows)
    assert bench.run(random_jobs(arch, rows, count)) > 4 * count


def test_sixteen_rows() -> None:
    """The walker reads in every cycle, so its last pixel coincides with the end of the slot."""
    arch = small_arch(16)
    layers = [pointwise(5, 5, 1, 2), square(4, 3, 1, 1, 1), pointwise(5, 5, 1, 1, merge_pitch=1, **ZIP) | {"out_pitch": 2}]
    layers.append(pointwise(5, 5, 1, 2, merge_pitch=2, **ADD))
    jobs = [Job(instruction=pw(arch, **fields), chip=dirt(arch, np.random.default_rng(7))) for fields in layers]
    assert PwBench(arch).run(jobs) == 50 + 16 + 50 + 50


def test_a_core_without_tables() -> None:
    """Results come two cycles earlier; an instruction with a table ends with an error."""
    arch = small_arch(2, tables=0)
    rng = np.random.default_rng(8)
    layers = [pointwise(2, 3, 1, 2), pointwise(2, 3, 1, 1, merge_pitch=1, **ZIP) | {"out_pitch": 2}, square(3, 3, 1, 1, 1)]
    layers.append(pointwise(2, 3, 1, 2, merge_pitch=2, **ADD))
    jobs = [Job(instruction=pw(arch, **fields), chip=dirt(arch, rng)) for fields in layers]
    jobs.append(Job(instruction=pw(arch, **pointwise(2, 3, 1, 2, table=1)), chip=dirt(arch, rng), legal=False))
    bench = PwBench(arch)
    assert bench.run(jobs) == 12 + 12 + 9 + 12 + 1
    other = small_arch(2)
    assert [pw_cycles(job.instruction, other) - pw_cycles(job.instruction, arch) for job in jobs[:2]] == [2, 2 + 2 * 2]


def test_last_records_are_in_time() -> None:
    """With 64 columns the shortest loop would end before four sets of records are there, were it not for the set-up."""
    arch = small_arch(2, columns=64)
    rng = np.random.default_rng(3)
    jobs = [Job(instruction=pw(arch, **pointwise(1, 1, 1, 4)), chip=dirt(arch, rng)) for _ in range(2)]
    assert PwBench(arch).run(jobs) == 8


def test_accesses_outside_a_memory() -> None:
    """They reach the port (and end in an error), and the engine finishes in its usual time."""
    arch = small_arch(2)
    assert PwBench(arch).run(random_jobs(arch, 5, 10, legal=False)) == 10


def test_setup_and_gap_of_the_timing_model() -> None:
    """No set-up beyond one cycle for 32 columns; loops without a gap where a tile has one output word."""
    narrow, wide = small_arch(8), small_arch(8, columns=64)
    assert (setup_cycles(narrow), setup_cycles(wide)) == (1, 8)
    assert [gap_cycles(narrow, words, MERGE_NONE) for words in (1, 2)] == [0, 8]
    # A zip asks for a word every other cycle, so its gap grows twice as fast as that of an addition.
    for merge, step in ((MERGE_ZIP, 16), (MERGE_ADD, 8)):
        assert gap_cycles(narrow, 2, merge) - gap_cycles(narrow, 1, merge) == step
