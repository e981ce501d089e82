"""Directed tests of the whole core, each of which finds planted faults that no other test of the core finds (docs/faults.md)."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest

from hw.sim import bench as sim_bench
from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.directed import copies, endless
from hw.sim.loop import Loop, MemoryTiming
from hw.sim.mutants import select_pins
from hw.sim.random_programs import Generator
from hw.spec import regs
from hw.spec.deform import addresses
from hw.spec.deform.instructions import SPACES
from hw.spec.isa import Field, Instruction, Operation
from hw.spec.machine import OpenRegion
from hw.spec.program import build_image
from hw.spec.regs import BY_NAME, ErrorCode
from tests.sim.core_bench import ARCH, CoreBench

ENCODE = ARCH.instructions.encode
FASTEST = MemoryTiming(read_latency=1, write_latency=1)
PATTERNS = (0x5A3C_96F0, 0xA5C3_690F)
PAGE = 4096


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def test_a_reset_in_the_middle_of_a_program_leaves_nothing_behind(core_build: SimulationBuild) -> None:
    rng, programs = np.random.default_rng(3), list(endless(ARCH).values())
    with CoreBench(core_build, seed=3, timing=FASTEST) as bench:
        bench.fill()
        generator = Generator(ARCH, 3, bench.region_bytes)
        for number in range(4 * len(programs)):
            bench.start(build_image(ARCH, programs[number % len(programs)]), watchdog=int(rng.integers(2000, 1 << 32)))
            bench.loop.run(int(rng.integers(1, 400)), until_interrupt=False)
            bench.loop.reset(1)
            bench.loop.clear_logs()
            bench.loop.run(int(rng.integers(1, 40)), until_interrupt=False)
            assert not bench.loop.violations().count, bench.loop.violations().first
            assert not bench.loop.interrupt and bench.status()
            for name in ("ERROR_CODE", "RETIRED", "CYCLES_LO", "READ_BEATS_LO", "WRITE_BEATS_LO", "COMPUTE_LO"):
                assert bench.read(name) == 0, f"{name} after a reset"
            bench.resynchronise()
            assert bench.run([generator.instruction() for _ in range(2)]).retired == 2
        assert bench.compared["programs"] > 40


HALF = ARCH.feature_words // 2
ABORTED = {
    "PW of large windows": ENCODE("PW", kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, in_rows=9, in_cols=9, out_addr=HALF),
    "PW of small windows": ENCODE("PW", out_rows=200, out_cols=200, in_rows=200, in_cols=200, out_addr=HALF),
    "DW of large windows": ENCODE("DW", mode=2, kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, out_pitch=0, out_addr=HALF),
    "DW of small windows": ENCODE("DW", mode=3, out_rows=200, out_cols=200, in_rows=9, in_cols=9, out_pitch=0, out_addr=HALF),
    "LOAD": ENCODE("LOAD", n0=8, n1=60_000, chip_addr=HALF),
    "STORE": ENCODE("STORE", region=2, n0=8, n1=60_000),
}


@pytest.mark.parametrize("name", ABORTED)
def test_a_computation_right_after_an_abort_is_not_disturbed(core_build: SimulationBuild, name: str) -> None:
    """The fastest memory, and a program that computes from its first instruction on.

    An aborted instruction leaves the lower half of feature memory and the other on-chip memories as they were, and the next
    ones read nothing else."""
    rng, compared = np.random.default_rng(5), 0
    with CoreBench(core_build, seed=5, timing=FASTEST) as bench:
        bench.fill()
        generator = Generator(ARCH, 5, bench.region_bytes)
        for number in range(20):
            bench.start(build_image(ARCH, [ABORTED[name]]))
            bench.loop.run(int(rng.integers(20, 120)), until_interrupt=False)
            bench.command("ABORT")
            assert bench.wait(20_000).error in (ErrorCode.ABORTED, ErrorCode.BUFFER_RANGE)
            bench.memory.bytes[:] = bench.loop.memory
            compared += bench.run([(generator.pw, generator.dw)[number % 2]() for _ in range(2)]).retired
    assert compared == 40


def test_every_register_keeps_every_bit(core_build: SimulationBuild) -> None:
    compared = 0
    with CoreBench(core_build) as bench:
        kept = [r for r in regs.all_registers(ARCH.regions) if r.access is regs.RW and not r.bits]
        before = {register.name: bench.loop.read_register(register.offset) for register in kept}
        assert set(before.values()) == {0}, before
        for pattern in PATTERNS:
            for number, register in enumerate(kept):
                bench.loop.write_register(register.offset, pattern ^ number)
            found = {r.name: bench.loop.read_register(r.offset) for r in kept}
            wide = {r.name: (pattern ^ number) for number, r in enumerate(kept)}
            assert found == wide
            compared += len(found)
    assert compared >= 2 * (2 + 4 * ARCH.regions)


BASES = (0xA5A5_5A5A_A5A4_3000, 0x5A5A_A5A5_5A5B_C000, (1 << 64) - 0x8000)


@pytest.mark.parametrize("base", BASES)
def test_every_address_bit_reaches_the_bus(core_build: SimulationBuild, base: int) -> None:
    """What a copy leaves is computed here, because the machine's logs hold addresses below 2**63."""
    load, store = copies(ARCH)
    image = np.frombuffer(build_image(ARCH, [load, store, ENCODE("STORE", region=2, offset=0xF0, n0=16)]), np.uint8)
    expected = np.random.default_rng(7).integers(0, 256, 0x8000).astype(np.uint8)
    expected[: image.size] = image
    regions = [OpenRegion(base=base + at, size=0x2000) for at in (0x2000, 0x4000, 0x6000)]
    with sim_bench.Loop(core_build, memory_bytes=0x8000, memory_base=base, state_seed=9) as loop:
        loop.reset()
        loop.memory[:] = expected
        _start(loop, base, image.size, regions)
        loop.run(20_000)
        assert loop.interrupt and loop.violations().count == 0
        assert loop.read_register(BY_NAME["RETIRED"].offset) == 3
        expected[0x6000 : 0x6000 + 1600] = expected[0x4000 : 0x4000 + 1600]
        expected[0x6F00:0x7000] = expected[0x4000:0x4100]
        assert np.array_equal(loop.memory, expected)


def _start(loop: Loop, program: int, length: int, regions: list[OpenRegion]) -> None:
    values = {"PROGRAM_ADDR_LO": program & 0xFFFF_FFFF, "PROGRAM_ADDR_HI": program >> 32, "PROGRAM_LENGTH": length, "IRQ_ENABLE": 1}
    for number, region in enumerate(regions):
        pair = (region.base & 0xFFFF_FFFF, region.base >> 32, region.size & 0xFFFF_FFFF, region.size >> 32)
        for register, value in zip(regs.region_registers(number), pair, strict=True):
            loop.write_register(register.offset, value)
    for name, value in values.items():
        loop.write_register(BY_NAME[name].offset, value)
    loop.write_register(BY_NAME["CONTROL"].offset, BY_NAME["CONTROL"].mask("START"))


CLIPS = {"clip_lo": -128, "clip_hi": 127}
LONG = {
    "many runs": ENCODE("LOAD", region=1, n0=1, n1=3000, stride1=0, chip_stride1=0),
    "many planes": ENCODE("LOAD", region=1, space=1, n0=1, n1=1, n2=2500, stride2=0, chip_stride2=0),
    "a run of a thousand": ENCODE("STORE", region=0, n0=300, n1=3, chip_stride1=1, stride1=512),
    "a wide PW": ENCODE("PW", in_rows=1, in_cols=250, row_step=1, pixel_step=1, out_cols=250, out_pitch=1, out_addr=HALF, **CLIPS),
    "a tall PW": ENCODE("PW", in_rows=250, in_cols=1, row_step=1, pixel_step=1, out_rows=250, out_pitch=250, out_addr=HALF, **CLIPS),
    "a PW of a wide window": ENCODE("PW", in_rows=1, in_cols=30, kernel_w=32, kx_step=1, pad_left=1, out_addr=HALF, **CLIPS),
    "a PW of a tall window": ENCODE("PW", in_rows=30, in_cols=1, kernel_h=32, ky_step=1, pad_top=1, out_addr=HALF, **CLIPS),
    "a DW of a wide window": ENCODE("DW", mode=3, words=1, in_rows=1, in_cols=60, kernel_w=200, col0=-70, out_addr=HALF, **CLIPS),
    "a DW of a tall window": ENCODE("DW", mode=2, words=1, in_rows=250, in_cols=1, kernel_h=200, row0=-3, out_addr=HALF, **CLIPS),
    "a wide DW": ENCODE("DW", mode=2, words=1, in_rows=1, in_cols=60, out_cols=250, out_pitch=1, col0=-100, out_addr=HALF, **CLIPS),
    "a tall DW": ENCODE("DW", mode=3, words=1, in_rows=9, in_cols=1, out_rows=250, out_pitch=1, row0=-100, out_addr=HALF, **CLIPS),
    "a DW that begins above its rows": ENCODE("DW", mode=2, words=1, in_rows=14, in_cols=4, pitch=1, row_pitch=4, row0=-3, bank0=6,
                                              row0_addr=(1 << 20) - 4, kernel_h=3, kernel_w=2, out_rows=12, out_cols=3, out_pitch=1,
                                              out_addr=HALF, **CLIPS),
    "far strides": ENCODE("LOAD", region=0, n0=2, n1=9, n2=3, stride1=0xFFFF_FFF0, offset=0x0FFF, chip_stride1=1 << 19),
}  # fmt: skip


@pytest.mark.parametrize("name", LONG)
def test_long_loops_equal_the_machine(core_build: SimulationBuild, name: str) -> None:
    with CoreBench(core_build, seed=11, timing=FASTEST) as bench:
        bench.fill()
        bench.run([LONG[name], *copies(ARCH)])
        assert bench.compared["programs"] >= 2


@pytest.mark.parametrize("seed", [1, 2])
def test_every_token_counts_up_and_down(core_build: SimulationBuild, seed: int) -> None:
    """Random walks of all sixteen counts, more pushes than waits at first; some end with a token too many, or too few."""
    rng, endings, instructions = np.random.default_rng(seed), Counter[ErrorCode](), 0
    with CoreBench(core_build, seed=seed, timing=FASTEST) as bench:
        bench.fill()
        for _ in range(30):
            outcome = bench.run(_token_walk(rng, int(rng.integers(30, 100)), stray=float(rng.choice([0.0, 0.0, 0.02]))))
            endings[outcome.error] += 1
            instructions += outcome.retired
    assert endings[ErrorCode.NONE] > 10 and endings[ErrorCode.TOKEN] > 2 and instructions > 1000, endings


def _token_walk(rng: np.random.Generator, length: int, stray: float) -> list[bytes]:
    """Instructions whose waits and pushes are legal, but for a share `stray` of them."""
    counts, encoded = np.zeros(16, int), []
    for step in range(length):
        push_share, wait_share = (0.6, 0.2) if step < length // 2 else (0.2, 0.6)
        wait = (rng.random(16) < wait_share) & ((counts > 0) | (rng.random(16) < stray))
        push = (rng.random(16) < push_share) & ((counts - wait < 15) | (rng.random(16) < stray))
        counts += push.astype(int) - wait
        masks = [int(mask @ (1 << np.arange(16))) for mask in (wait, push)]
        encoded.append(ENCODE("LOAD", region=1, n0=1, wait=masks[0], push=masks[1]))
    return encoded


@pytest.mark.parametrize("name", ["LOAD", "STORE", "PW", "DW"])
def test_any_bit_of_an_address_counts(core_build: SimulationBuild, name: str) -> None:
    """A legal instruction with one bit of an address or a step changed: a sum that is too narrow would stay in its memory."""
    endings, compared = Counter[ErrorCode](), 0
    operation = next(entry for entry in ARCH.instructions.operations if entry.name == name)
    fields = [field for field in operation.fields if field.width >= 16 and field.name not in LENGTHS]
    with CoreBench(core_build, seed=13, timing=FASTEST) as bench:
        bench.fill()
        generator = Generator(ARCH, 13, bench.region_bytes)
        for encoded in _with_a_bit_changed(generator, operation, fields):
            if name in ("LOAD", "STORE") or not _overlaps(ARCH.instructions.decode(encoded)):
                endings[bench.run([encoded]).error] += 1
                compared += 1
    assert compared > 6 * len(fields) and len(endings) >= 2, endings


LENGTHS = ("n0", "n1", "n2", "out_rows", "out_cols", "crc", "in_words", "words", "out_words", "kernel_h", "kernel_w")


def _with_a_bit_changed(generator: Generator, operation: Operation, fields: list[Field]) -> Iterator[bytes]:
    for field in fields:
        spaces = [{"space": space} for space in range(len(SPACES))] if field.name == "chip_addr" and operation.name == "LOAD" else [{}]
        for bit, space in itertools.product(range(4, field.width), spaces):
            legal = ARCH.instructions.decode(getattr(generator, operation.name.lower())(**space))
            values = {entry.name: legal[entry.name] for entry in operation.fields}
            values |= {"check_crc": 0, "crc": 0} if "crc" in values else {}
            changed = values[field.name] ^ 1 << bit
            values[field.name] = changed if changed <= field.type_max else changed - (1 << field.width)
            if field.low <= values[field.name] <= field.high:
                yield ARCH.instructions.encode(operation.name, **values)


def _overlaps(i: Instruction) -> bool:
    """Whether an instruction writes a feature word twice, or one that it reads: what it computes is undefined."""
    writes = addresses.feature_writes(i)
    return len(np.unique(writes)) < len(writes) or bool(np.isin(writes, addresses.feature_reads(i)).any())


def check_build_id(build: SimulationBuild, number: int = 0) -> None:
    """The BUILD_ID registers read what the pins are, while the pins select mutant `number`."""
    for pattern in (0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210):
        pins = select_pins(number, pattern)
        with Loop(build, memory_bytes=PAGE, build_id=pins, state_seed=1) as loop:
            loop.reset()
            low, high = (loop.read_register(BY_NAME[f"BUILD_ID_{part}"].offset) for part in ("LO", "HI"))
            assert low | high << 32 == pins, f"BUILD_ID reads {high << 32 | low:#x}, the pins are {pins:#x}"


def test_build_id_reads_the_pins(core_build: SimulationBuild) -> None:
    check_build_id(core_build)
    check_build_id(core_build, 0x5A5A)
