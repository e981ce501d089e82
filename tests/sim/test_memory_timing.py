"""The memory's timing is exactly its definition, for serial and for overlapping bursts."""

import dataclasses
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from hw.sim.loop import MemoryTiming
from tests.sim import copy_engine as ce
from tests.sim import streamer

TIMINGS = [
    MemoryTiming(read_latency=read, write_latency=write, read_interval=r, read_beats=rb, write_interval=w, write_beats=wb)
    for read, write, (r, rb), (w, wb) in (
        (1, 1, (1, 1), (1, 1)),
        (20, 10, (1, 1), (1, 1)),
        (37, 5, (2, 1), (1, 1)),
        (5, 90, (1, 1), (3, 1)),
        (8, 8, (4, 1), (2, 1)),
        (40, 20, (5, 4), (5, 4)),
        (7, 6, (7, 3), (9, 8)),
    )
]


def slots(first: int, beats: int, interval: int, per: int, free: Fraction = Fraction(0)) -> tuple[int, Fraction]:
    """The last of so many beats, of which the first may come in cycle ``first`` and not before ``free``; and the end of its slot."""
    begin = free if first < free + 1 else Fraction(first)
    length = Fraction(interval, per)
    return math.ceil(begin + (beats - 1) * length), begin + beats * length


@pytest.mark.parametrize("timing", TIMINGS)
def test_serial_bursts(engine_build, open_loop, start_copy, timing):
    """Issue with AR, then latency and beats, one cycle, AW, beats, latency: the retire cycle of each burst follows."""
    loop = open_loop(engine_build, timing=timing)
    start_copy(loop, 4)
    loop.run(10_000)
    instructions = loop.trace().instructions
    read_end = instructions["issue"] + timing.read_latency + slots(0, ce.BEATS, timing.read_interval, timing.read_beats)[0]
    write_end = read_end + 2 + slots(0, ce.BEATS, timing.write_interval, timing.write_beats)[0]
    assert np.array_equal(instructions["retire"], write_end + timing.write_latency)
    assert np.array_equal(instructions["issue"][1:], instructions["retire"][:-1] + 1)
    assert len(instructions) == 4
    assert loop.read_register(ce.STATUS) == ce.DONE


@pytest.mark.parametrize("timing", TIMINGS[1:])
def test_overlapping_reads(streamer_build, open_loop, timing):
    loop = run_streamer(streamer_build, open_loop, timing)
    instructions = loop.trace().instructions
    free = Fraction(0)
    for (_, beats), issue, retire in zip(streamer.READS, instructions["issue"], instructions["retire"], strict=True):
        last, free = slots(int(issue) + timing.read_latency, beats, timing.read_interval, timing.read_beats, free)
        assert retire == last
    assert np.array_equal(instructions["issue"], instructions["issue"][0] + np.arange(4))
    assert loop.read_register(streamer.READ_BEATS) == sum(beats for _, beats in streamer.READS)


@pytest.mark.parametrize("timing", TIMINGS)
def test_write_data_ahead_of_its_address(streamer_build, open_loop, timing):
    """B waits for the later of data and address; two answers may follow each other in adjacent cycles."""
    loop = run_streamer(streamer_build, open_loop, timing)
    writes = loop.trace().memory_writes
    start = writes["cycle"][0]
    beats = np.array([slots(0, count + 1, timing.write_interval, timing.write_beats)[0] for count in range(len(writes))])
    assert np.array_equal(writes["cycle"] - start, beats)
    assert writes["address"].tolist() == [0x3000, 0x3010, 0x3020, 0x3030, 0x5010]
    assert writes["strobe"].tolist() == [0xFFFF] * 4 + [1]
    assert set(writes["manager"].tolist()) == {1}
    complete = [max(streamer.ADDRESS_DELAY, beats[3]), max(streamer.ADDRESS_DELAY + 1, beats[4])]
    answers = [loop.read_register(streamer.ANSWER_0), loop.read_register(streamer.ANSWER_1)]
    assert answers == [cycle + timing.write_latency for cycle in complete]
    assert bytes(loop.memory[0x5010:0x5012]) == bytes([0x54, 0xFF])  # one byte by its strobe


def test_reads_see_only_what_was_acknowledged_before(streamer_build, open_loop):
    """The fourth read is accepted before the write of the same address is answered, and answered long after."""
    loop = run_streamer(streamer_build, open_loop, MemoryTiming(read_latency=60, write_latency=1))
    assert loop.read_register(streamer.FIRST_WORD) == 0xFFFFFFFF
    assert loop.read_register(streamer.ANSWER_0) < 60
    assert bytes(loop.memory[0x3000:0x3002]) == bytes([0x50, 0])


def run_streamer(build, open_loop, timing):
    """With at least 5 cycles of read latency the streamer's strobes for issue and retire do not meet."""
    timing = dataclasses.replace(timing, read_latency=max(5, timing.read_latency))
    loop = open_loop(build, memory_base=0, timing=timing, trace_writes=True)
    loop.memory[:] = 0xFF
    loop.write_register(0, 1)
    loop.run(5_000)
    assert loop.interrupt
    assert loop.violations().count == 0, loop.violations().first
    return loop


def test_timing_must_be_positive():
    names = ("read_latency", "write_latency", "read_interval", "write_interval", "read_beats", "write_beats")
    for name, value in itertools.product(names, (0, -1)):
        with pytest.raises(ValueError, match=rf"MemoryTiming\.{name} must be 1 to 1000000, not {value}"):
            MemoryTiming(**{name: value})


def test_a_beat_takes_a_cycle_at_least():
    with pytest.raises(ValueError, match=r"MemoryTiming\.read_interval must be read_beats or more cycles, not 3 for 4 beats"):
        MemoryTiming(read_interval=3, read_beats=4)
