"""How the whole core starts and ends programs: time, counters, bus errors, watchdog, abort, a silent memory, damaged programs."""

from __future__ import annotations

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.sim.loop import Fault, Response, Stalls
from hw.sim.loop import MemoryTiming as LoopTiming
from hw.sim.random_programs import Generator
from hw.spec import regs
from hw.spec.deform.instructions import DW_CONV, MERGE_ADD, MERGE_NONE, MERGE_ZIP, SPACES
from hw.spec.deform.timing import MemoryTiming, instruction_cycles
from hw.spec.deform.timing.program import fetch_cycles, program_cycles
from hw.spec.machine import Outcome
from hw.spec.program import build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode
from tests.sim.core_bench import ARCH, DATA, DIRT, PROGRAM, REGIONS, RESULT, CoreBench

ENCODE = ARCH.instructions.encode
LOAD = ENCODE("LOAD", region=1, n0=100)
STORE = ENCODE("STORE", region=2, n0=100)
SHORT_RUNS = ENCODE("LOAD", region=0, n0=3, n1=20, stride1=5, chip_stride1=3)
LONG_LOAD = ENCODE("LOAD", region=0, space=0, n0=250, n1=60_000)
LONG_STORE = ENCODE("STORE", region=2, n0=250, n1=60_000)
LONG_DW = ENCODE("DW", mode=2, kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, out_pitch=0)
LONG_PW = ENCODE("PW", kernel_h=255, kernel_w=255, out_rows=200, out_cols=200, in_rows=9, in_cols=9)


@pytest.fixture(scope="session")
def core_build() -> SimulationBuild:
    return build_core(ARCH)


def _generator(bench: CoreBench, seed: int) -> Generator:
    return Generator(ARCH, seed, bench.region_bytes)


@pytest.mark.parametrize(
    "latency, slot", [((1, 1), (1, 1)), ((20, 10), (1, 1)), ((57, 33), (3, 1)), ((40, 20), (5, 4)), ((9, 4), (7, 3))]
)
def test_cycles_of_instructions_and_programs_equal_the_timing_model(
    core_build: SimulationBuild, latency: tuple[int, int], slot: tuple[int, int]
) -> None:
    (read, write), (interval, beats) = latency, slot
    timing = LoopTiming(
        read_latency=read, write_latency=write, read_interval=interval, write_interval=interval, read_beats=beats, write_beats=beats
    )
    memory = MemoryTiming(read_latency=read, write_latency=write, beat_interval=interval, beats=beats)
    bases, compared = [region.base for region in REGIONS], 0
    with CoreBench(core_build, seed=4, timing=timing) as bench:
        bench.fill()
        generator = _generator(bench, 4)
        chosen = [generator.pw(merge=merge, table=table) for merge in (MERGE_NONE, MERGE_ZIP, MERGE_ADD) for table in (0, 1, 2)]
        chosen += [generator.load(space=SPACES.index("tbl")) for _ in range(4)] + [generator.dw(mode=DW_CONV) for _ in range(4)]
        for count in (0, 1, 2, 3, 4, 5, 6, 7, len(chosen)):
            encoded = [generator.instruction() for _ in range(count)] if count != len(chosen) else chosen
            assert bench.run(encoded).error == ErrorCode.NONE
            program = [ARCH.instructions.decode(data) for data in encoded]
            trace = bench.loop.trace().instructions
            for instruction, issue, retire in zip(program, trace["issue"], trace["retire"], strict=True):
                assert retire - issue == instruction_cycles(instruction, ARCH, memory, bases), instruction
                compared += 1
            assert (trace["issue"][1:] - trace["retire"][:-1] == fetch_cycles(ARCH, memory)).all()
            assert bench.read_pair("CYCLES") == program_cycles(program, ARCH, memory, bases)
            computing = [i for i in program if i.name in ("PW", "DW")]
            assert bench.read_pair("COMPUTE") == sum(instruction_cycles(i, ARCH, memory, bases) for i in computing)
    assert compared == 28 + 17


def test_counters_of_a_copy(core_build: SimulationBuild) -> None:
    with CoreBench(core_build) as bench:
        bench.fill()
        bench.run([LOAD, STORE])
        assert bench.read_pair("READ_BEATS") == 3 * 4 + 100
        assert bench.read_pair("WRITE_BEATS") == 100
        assert bench.read_pair("WRITE_STALLS") == 0
        assert bench.read_pair("COMPUTE") == 0
        assert 0 < bench.read_pair("READ_STALLS") < bench.read_pair("CYCLES")
        for name in regs.COUNTERS:
            assert bench.read(f"{name}_HI") == 0
        bench.run([])
        assert bench.read_pair("READ_BEATS") == 4
    with CoreBench(core_build, stalls=Stalls(w=128, seed=1)) as bench:
        bench.fill()
        bench.run([LOAD, STORE])
        assert bench.read_pair("WRITE_STALLS") == bench.loop.stall_counts()["w"] > 20


def test_identity_and_storage_of_registers(core_build: SimulationBuild) -> None:
    with CoreBench(core_build) as bench:
        assert bench.read("IDENTITY") == regs.IDENTITY
        assert bench.read("VERSION") == regs.SHELL_VERSION
        assert bench.read_pair("ARCH_ID") == ARCH.arch_id
        used = {register.offset for register in regs.all_registers(ARCH.regions)}
        unmapped = [offset for offset in range(0, 4096, 4) if offset not in used]
        for offset in unmapped[:: len(unmapped) // 50]:
            bench.loop.write_register(offset, 0xFFFF_FFFF)
            assert bench.loop.read_register(offset) == 0


FAULTS = {
    "program": (PROGRAM + 64 + 16, [LOAD], Outcome(error=ErrorCode.AXI_READ, index=0, retired=0)),
    "header": (PROGRAM, [LOAD], Outcome(error=ErrorCode.AXI_READ, index=NO_INSTRUCTION, retired=0)),
    "load": (DATA[0] + 99 * 16, [STORE, LOAD, STORE], Outcome(error=ErrorCode.AXI_READ, index=1, retired=1)),
    "store": (RESULT[0], [LOAD, STORE, LOAD], Outcome(error=ErrorCode.AXI_WRITE, index=1, retired=1)),
    "runs after it": (DIRT[0] + 16, [SHORT_RUNS], Outcome(error=ErrorCode.AXI_READ, index=0, retired=0)),
}


@pytest.mark.parametrize("response", [Response.SLVERR, Response.DECERR])
@pytest.mark.parametrize("name", FAULTS)
def test_bus_errors_end_the_program_and_the_next_one_runs(core_build: SimulationBuild, name: str, response: Response) -> None:
    address, instructions, expected = FAULTS[name]
    with CoreBench(core_build, stalls=Stalls.everywhere(60, 5)) as bench:
        bench.fill()
        bench.loop.set_faults([Fault(start=address, end=address + 16, response=response)])
        bench.start(build_image(ARCH, instructions))
        assert bench.wait() == expected
        assert len(bench.loop.bus_errors())
        bench.loop.set_faults([])
        bench.resynchronise()
        assert bench.run([LOAD, STORE]).retired == 2


RUNNING = {"load": [LOAD, LONG_LOAD], "store": [LOAD, LONG_STORE], "pw": [LOAD, LONG_PW], "dw": [LOAD, LONG_DW], "fetch": [LOAD] * 100}


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("name", RUNNING)
def test_abort_at_any_time_ends_the_program_and_the_next_one_runs(core_build: SimulationBuild, name: str, seed: int) -> None:
    rng, ended = np.random.default_rng(seed), []
    with CoreBench(core_build, stalls=Stalls.everywhere(90 * (seed - 1), seed)) as bench:
        bench.fill()
        for _ in range(12):
            bench.start(build_image(ARCH, RUNNING[name]))
            bench.loop.run(int(rng.integers(1, 1500)), until_interrupt=False)
            bench.write("CONTROL", regs.BY_NAME["CONTROL"].mask("ABORT"))
            outcome = bench.wait(5000)
            assert outcome.error == ErrorCode.ABORTED and outcome.index in (NO_INSTRUCTION, outcome.retired)
            ended.append(outcome.index)
            bench.resynchronise()
            bench.run([LOAD, STORE])
        assert bench.compared["memory"] == 12 * 1600
    assert len(ended) == 12 and any(index != NO_INSTRUCTION for index in ended)


@pytest.mark.parametrize("name", ["load", "store", "pw", "dw"])
def test_the_watchdog_ends_a_long_instruction_and_the_next_program_runs(core_build: SimulationBuild, name: str) -> None:
    with CoreBench(core_build) as bench:
        bench.fill()
        bench.start(build_image(ARCH, RUNNING[name]), watchdog=2000)
        assert bench.wait(5000) == Outcome(error=ErrorCode.WATCHDOG, index=1, retired=1)
        trace = bench.loop.trace().instructions
        drain = ARCH.outstanding * ARCH.burst_beats
        assert 2000 <= bench.loop.cycle - trace["retire"][0] <= 2000 + drain + 200
        bench.resynchronise()
        bench.run([LOAD, STORE])
        assert bench.compared["memory"] == 1600


@pytest.mark.parametrize("watchdog", [0, 500])
def test_a_memory_that_falls_silent_leaves_the_core_stuck_until_reset(core_build: SimulationBuild, watchdog: int) -> None:
    with CoreBench(core_build) as bench:
        bench.fill()
        bench.start(build_image(ARCH, RUNNING["load"]), watchdog=watchdog)
        bench.loop.set_silence(bench.loop.cycle + 300)
        bench.loop.run(600, until_interrupt=False)
        if not watchdog:
            bench.write("CONTROL", regs.BY_NAME["CONTROL"].mask("ABORT"))
        assert bench.wait(70_000) == Outcome(error=ErrorCode.BUS_STUCK, index=1, retired=1)
        bench.loop.set_silence(None)
        bench.write("CONTROL", regs.BY_NAME["CONTROL"].mask("ACKNOWLEDGE"))
        bench.start(build_image(ARCH, [LOAD]))
        bench.loop.run(2000, until_interrupt=False)
        assert bench.status("ERROR", "STUCK") and not bench.loop.interrupt
        bench.loop.reset()
        assert bench.status()
        bench.resynchronise()
        assert bench.run([LOAD, STORE]).retired == 2


def test_damaged_programs_end_as_in_the_machine(core_build: SimulationBuild) -> None:
    rng, seen = np.random.default_rng(8), set()
    good = build_image(ARCH, [LOAD, STORE, LOAD])
    with CoreBench(core_build, stalls=Stalls.everywhere(60, 8)) as bench:
        bench.fill()
        for _ in range(40):
            image = bytearray(good)
            image[rng.integers(len(image))] ^= 1 << rng.integers(8)
            seen.add(bench.run_image(bytes(image)).error)
        for length in (0, 16, 63, 64, 128, 192, 320, 256):
            seen.add(bench.run_image(good, length=length).error)
        seen.add(bench.run_image(good, address=PROGRAM + 32).error)
        assert bench.compared["programs"] > 49
    assert {ErrorCode.HEADER_CRC, ErrorCode.INSTRUCTION_CRC, ErrorCode.BAD_LENGTH, ErrorCode.NONE} <= seen


def test_the_interrupt_follows_done_and_its_enable(core_build: SimulationBuild) -> None:
    control = regs.BY_NAME["CONTROL"]
    with CoreBench(core_build) as bench:
        bench.fill()
        bench.run([LOAD])
        assert bench.loop.interrupt
        bench.write("IRQ_ENABLE", 0)
        bench.loop.run(3, until_interrupt=False)
        assert not bench.loop.interrupt and bench.status("DONE")
        bench.write("IRQ_ENABLE", 1)
        bench.loop.run(3, until_interrupt=False)
        assert bench.loop.interrupt
        bench.write("CONTROL", control.mask("ACKNOWLEDGE"))
        bench.loop.run(3, until_interrupt=False)
        assert not bench.loop.interrupt and bench.status()
