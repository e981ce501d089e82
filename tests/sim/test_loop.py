"""The loop on a copy engine: bytes, registers, traces, stalls, errors, silence, violations, random state."""

import re

import numpy as np
import pytest

from hw.sim import records
from hw.sim.loop import Fault, RegisterError, Response, SimulationError, Stalls
from tests.sim import copy_engine as ce
from tests.sim.copy_engine import BASE, MEMORY_BYTES, TARGET_OFFSET

BURSTS = 5


def copied_bytes(loop, length):
    """How many of the first `length` bytes are equal at the target."""
    return int((loop.memory[:length] == loop.memory[TARGET_OFFSET : TARGET_OFFSET + length]).sum())


def test_copies_every_byte(engine_build, open_loop, start_copy):
    loop = open_loop(engine_build)
    before = loop.memory.copy()
    length = start_copy(loop, BURSTS)
    assert copied_bytes(loop, length) < length // 50
    loop.run(10_000)
    assert loop.interrupt
    assert loop.read_register(ce.STATUS) == ce.DONE
    assert copied_bytes(loop, length) == length == 5120
    end = TARGET_OFFSET + length
    untouched = np.r_[0:TARGET_OFFSET, end:MEMORY_BYTES]
    assert np.array_equal(loop.memory[untouched], before[untouched])
    assert loop.violations().count == 0
    assert len(loop.bus_errors()) == 0


def test_registers(engine_build, open_loop):
    loop = open_loop(engine_build, build_id=0x0123456789ABCDEF)
    assert loop.read_register(ce.BUILD_LOW) == 0x89ABCDEF
    assert loop.read_register(ce.BUILD_HIGH) == 0x01234567
    assert loop.read_register(ce.LIMIT) == ce.LIMIT_RESET
    for value in (0, 1, 0xFFFFFFFF, 0x80000000):
        loop.write_register(ce.SOURCE, value)
        assert loop.read_register(ce.SOURCE) == value
    with pytest.raises(RegisterError, match="Read of register 0x080 was answered SLVERR") as caught:
        loop.read_register(0x80)
    assert caught.value.response is Response.SLVERR


def test_register_access_that_is_not_answered(engine_build, open_loop):
    loop = open_loop(engine_build)
    with pytest.raises(SimulationError, match="Read of register 0x004 got no answer within 1 cycles"):
        loop.read_register(ce.STATUS, max_cycles=1)
    with pytest.raises(SimulationError, match="earlier access, which never came: reset"):
        loop.read_register(ce.STATUS)
    loop.reset()
    assert loop.read_register(ce.STATUS) == 0


def test_run_stops_where_told(engine_build, open_loop, start_copy):
    loop = open_loop(engine_build)
    start_copy(loop, BURSTS)
    start = loop.cycle
    assert loop.run(100) == 100 and not loop.interrupt
    assert loop.cycle == start + 100
    cycles = loop.run(10_000)
    assert loop.interrupt and cycles < 10_000
    assert loop.run(50) == 1
    assert loop.run(50, until_interrupt=False) == 50


def test_trace_tells_what_was_written_where(engine_build, open_loop, start_copy):
    loop = open_loop(engine_build, trace_writes=True)
    source = loop.memory[: start_copy(loop, BURSTS)].reshape(-1, 16).copy()
    loop.run(10_000)
    trace = loop.trace()
    words = BURSTS * ce.BEATS
    assert trace.spaces == ("fm",)
    assert np.array_equal(trace.chip_writes["address"], np.tile(np.arange(ce.BEATS), BURSTS))
    for log in (trace.chip_writes, trace.memory_writes):
        assert len(log) == words == 320
        assert np.array_equal(log["data"], source)
        assert np.array_equal(log["index"], np.repeat(np.arange(BURSTS), ce.BEATS))
        issued = trace.instructions["issue"][log["index"]]
        assert np.all(log["cycle"] > issued) and np.all(log["cycle"] < trace.instructions["retire"][log["index"]])
    assert np.array_equal(trace.memory_writes["address"], BASE + TARGET_OFFSET + 16 * np.arange(words))
    assert np.all(trace.memory_writes["strobe"] == 0xFFFF)


def test_trace_without_writes_and_cleared(engine_build, open_loop, start_copy):
    loop = open_loop(engine_build)
    start_copy(loop, BURSTS)
    loop.run(200)
    instructions = loop.trace().instructions
    assert instructions["index"].tolist() == [0, 1]
    assert instructions["retire"][0] < records.NEVER == instructions["retire"][1]
    assert len(loop.trace().memory_writes) == len(loop.trace().chip_writes) == 0
    loop.clear_logs()
    assert len(loop.trace().instructions) == 0


@pytest.mark.parametrize("seed", range(4))
def test_stalls_change_the_time_and_nothing_else(engine_build, open_loop, start_copy, seed):
    def run(stalls):
        loop = open_loop(engine_build, stalls=stalls)
        length = start_copy(loop, 20)
        loop.run(20_000)
        assert loop.interrupt and loop.read_register(ce.STATUS) == ce.DONE
        assert copied_bytes(loop, length) == length > 0
        assert loop.violations().count == 0, loop.violations().first
        instructions = loop.trace().instructions
        return int(instructions["retire"][-1] - instructions["issue"][0]), loop.stall_counts()

    stalls = Stalls.everywhere(100, seed)
    plain, no_stalls = run(None)
    slow, counts = run(stalls)
    assert set(no_stalls.values()) == {0}
    assert all(counts.values()), counts
    bus = sum(count for channel, count in counts.items() if channel != "control")
    assert slow - plain == bus  # the engine is serial: each cycle of stall is one cycle more
    assert run(stalls) == (slow, counts)
    assert run(Stalls.everywhere(100, seed + 100)) != (slow, counts)


@pytest.mark.parametrize("channel", ["aw", "w", "b", "ar", "r", "control"])
def test_stalls_of_one_channel(engine_build, open_loop, start_copy, channel):
    loop = open_loop(engine_build, stalls=Stalls(**{channel: 200}, seed=9))
    start_copy(loop, BURSTS)
    loop.run(20_000)
    assert loop.interrupt
    assert [name for name, count in loop.stall_counts().items() if count] == [channel]


@pytest.mark.parametrize("response", [Response.SLVERR, Response.DECERR])
def test_faulty_addresses(engine_build, open_loop, start_copy, response):
    burst_1 = ce.BURST_BYTES
    read_fault = Fault(start=BASE + burst_1 + 0x20, end=BASE + burst_1 + 0x30, response=response)
    bad_target = TARGET_OFFSET + 2 * burst_1 + 0x40
    write_fault = Fault(start=BASE + bad_target, end=BASE + bad_target + 1, response=response)
    loop = open_loop(engine_build, faults=(read_fault, write_fault))
    before = loop.memory.copy()
    length = start_copy(loop, BURSTS)
    loop.run(10_000)
    errors = loop.bus_errors()
    assert errors["address"].tolist() == [read_fault.start, write_fault.start]
    assert errors["is_write"].tolist() == [0, 1]
    assert errors["response"].tolist() == [response, response]
    assert loop.read_register(ce.STATUS) == ce.DONE | ce.ERROR
    expected = before[:length].copy()
    expected[burst_1 + 0x20 : burst_1 + 0x30] = 0xEE
    lost = slice(bad_target - TARGET_OFFSET, bad_target - TARGET_OFFSET + 16)
    expected[lost] = before[bad_target : bad_target + 16]
    assert np.array_equal(loop.memory[TARGET_OFFSET : TARGET_OFFSET + length], expected)
    loop.set_faults(())
    start_copy(loop, 1)
    loop.run(10_000)
    assert loop.read_register(ce.STATUS) == ce.DONE


def test_outside_memory_is_decerr(engine_build, open_loop, start_copy):
    loop = open_loop(engine_build)
    before = loop.memory.copy()
    start_copy(loop, 2, target=BASE + MEMORY_BYTES - ce.BURST_BYTES)
    loop.run(10_000)
    errors = loop.bus_errors()
    assert errors[["address", "response", "is_write"]].tolist() == [(BASE + MEMORY_BYTES, Response.DECERR, 1)]
    assert loop.read_register(ce.STATUS) == ce.DONE | ce.ERROR
    assert np.array_equal(loop.memory[-ce.BURST_BYTES :], before[: ce.BURST_BYTES])


@pytest.mark.parametrize("after", [0, 1, 50, 100, 150])
def test_silent_memory(engine_build, open_loop, start_copy, after):
    """Wherever silence falls, the engine waits for ever, its registers answer, and a reset brings it back."""
    loop = open_loop(engine_build)
    start_copy(loop, BURSTS)
    loop.set_silence(loop.cycle + after)
    assert loop.run(3_000) == 3_000 and not loop.interrupt
    assert loop.read_register(ce.STATUS) == ce.BUSY
    loop.set_silence(None)
    loop.reset()
    length = start_copy(loop, BURSTS)
    loop.run(10_000)
    assert copied_bytes(loop, length) == length > 0
    assert loop.violations().count == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (ce.DROP_WVALID, r"cycle \d+: W of bus 0 dropped VALID before READY"),
        (ce.MOVING_AWADDR, r"cycle \d+: AW of bus 0 changed its payload before READY"),
        (ce.EARLY_WLAST, r"cycle \d+: W of bus 0 has WLAST 1 in beat 1 of a burst of 64"),
        (ce.CROSS_4K, r"cycle \d+: AW of bus 0 at address 0x40008fc0, length 64: burst must not cross 4 KB"),
        (ce.FIXED_BURST, r"cycle \d+: AR of bus 0 at address 0x40000000, length 64: burst type must be INCR"),
        (ce.LONE_RETIRE, r"cycle \d+: instruction 5 retires and was not issued"),
    ],
)
def test_planted_violations_are_reported(engine_build, open_loop, start_copy, fault, words):
    loop = open_loop(engine_build, stalls=Stalls.everywhere(128, 3))
    start_copy(loop, BURSTS)
    loop.run(20_000)
    assert loop.violations().count == 0
    start_copy(loop, BURSTS, fault=fault)
    loop.run(20_000)
    violations = loop.violations()
    assert violations.count > 0
    assert re.fullmatch(words, violations.first), violations.first


def test_unaligned_address_is_a_violation(engine_build, open_loop, start_copy):
    loop = open_loop(engine_build)
    start_copy(loop, 1, target=BASE + TARGET_OFFSET + 8)
    loop.run(10_000)
    assert loop.violations().count == 1
    assert "address must be a multiple of 16" in loop.violations().first


def test_random_state_shows_what_reset_leaves_alone(random_build, open_loop, start_copy):
    def scratch(seed):
        loop = open_loop(random_build, state_seed=seed)
        assert loop.read_register(ce.LIMIT) == ce.LIMIT_RESET
        assert [loop.read_register(0x40 + 4 * word) for word in range(4)] == list(ce.ROM)
        value = loop.read_register(ce.SCRATCH)
        length = start_copy(loop, BURSTS)
        loop.run(10_000)
        assert copied_bytes(loop, length) == length > 0
        assert loop.violations().count == 0
        return value

    values = [scratch(seed) for seed in (1, 2, 3, 1)]
    assert len(set(values[:3])) == 3 and values[0] == values[3]
    assert not {0, 0xCAFE} & set(values)


def test_bad_arguments(engine_build, open_loop):
    loop = open_loop(engine_build)
    with pytest.raises(ValueError, match=r"Register offset must be a multiple of 4 from 0 to 4092, not 2"):
        loop.read_register(2)
    with pytest.raises(ValueError, match=r"Stalls\.r must be 0 to 255, not 256"):
        Stalls(r=256)
    with pytest.raises(ValueError, match="response must be SLVERR or DECERR"):
        Fault(start=0, end=16, response=Response.OKAY)
    with pytest.raises(ValueError, match="state_seed needs a build with random state"):
        open_loop(engine_build, state_seed=1)
    loop.close()
    with pytest.raises(SimulationError, match="must be open"):
        loop.run(1)
