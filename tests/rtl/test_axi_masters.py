"""Read and write masters against memories that check the protocol: bursts, refusals, order, errors, draining."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from amaranth.hdl import Value

from hw.rtl.common.axi import axi4_manager, axi_lite_subordinate
from hw.rtl.common.interfaces import PROGRAM_REGION, Run
from hw.rtl.common.read import ReadMaster
from hw.rtl.common.write import WriteMaster
from hw.spec.arch import Arch
from tests.rtl.axi_model import Agent, Bus, Channel, ReadMemory, WriteMemory, simulate

RunTuple = tuple[int, int, int]
"""Region, offset, words."""

ONE = Arch(regions=2, region_manager=(0, 0), burst_beats=8, outstanding=2)
TWO = Arch(regions=3, managers=2, region_manager=(0, 1, 0), burst_beats=4, outstanding=4)


def word_of(address: int) -> int:
    """Content of memory word ``address``: differs everywhere."""
    return random.Random(address).getrandbits(128)


def split(word: int, words: int, burst_beats: int) -> Iterator[tuple[int, int]]:
    """(first word, beats) of a run's bursts."""
    while words:
        beats = min(words, burst_beats, 256 - word % 256)
        yield word, beats
        word, words = word + beats, words - beats


class Windows(Agent):
    """Opens regions: (base, size) in bytes by number; 16 is the program."""

    def __init__(self, dut: ReadMaster | WriteMaster, windows: dict[int, tuple[int, int]]) -> None:
        self._dut, self.windows = dut, windows

    def drive(self, ctx: Any, cycle: int) -> None:
        for number, (base, size) in self.windows.items() if cycle == 0 else ():
            port = self._dut.program if number == PROGRAM_REGION else self._dut.regions[number]
            ctx.set(port.base, base)
            ctx.set(port.size, size)

    def first_word(self, run: RunTuple) -> int:
        return self.windows[run[0]][0] // 16 + run[1]


class User(Agent):
    """Asks for runs and takes or gives their words, with random pauses; ``clear`` in the first cycle."""

    def __init__(self, dut: ReadMaster | WriteMaster, runs: Sequence[RunTuple], *, words: Sequence[int] | None = None,
                 pause: float = 0.0, seed: int = 0, drain_at: int | None = None) -> None:
        self._dut, self._port, self._runs = dut, dut.runs, list(runs)
        self._words = None if words is None else list(words)
        self._pause, self._random, self._drain_at = pause, random.Random(seed), drain_at
        self._request = self._data = False
        self.received: list[int] = []
        self.accepted: list[int] = []
        self.first_data = self.beats = self.stalls = 0
        self.refused = self.failed = self.idle = self.drained = False
        port = dut.runs
        self.inputs = [port.request.ready, port.refused, port.failed, port.idle, port.data.ready, port.data.valid,
                       Value.cast(port.data.payload), dut.beat, dut.stall]  # fmt: skip

    def _go(self, going: bool) -> bool:
        return going or self._random.random() >= self._pause

    def drive(self, ctx: Any, cycle: int) -> None:
        ctx.set(self._port.clear, cycle == 0)
        self.drained = self._drain_at is not None and len(self.received) >= self._drain_at
        ctx.set(self._dut.drain, self.drained)
        self._request = cycle > 0 and bool(self._runs) and self._go(self._request)
        ctx.set(self._port.request.valid, self._request)
        if self._request:
            region, offset, words = self._runs[0]
            ctx.set(self._port.request.payload, Run.const({"region": region, "offset": offset, "words": words}))
        if self._words is None:
            ctx.set(self._port.data.ready, self._go(False))
        else:
            self._data = bool(self._words) and self._go(self._data)
            ctx.set(self._port.data.valid, self._data)
            ctx.set(self._port.data.payload, self._words[0] if self._words else 0)

    def observe(self, values: Sequence[int], cycle: int) -> None:
        ready, self.refused, self.failed, self.idle, data_ready, data_valid, payload, beat, stall = values
        self.beats, self.stalls = self.beats + beat, self.stalls + stall
        if self._request and ready:
            self._runs.pop(0)
            self.accepted.append(cycle)
            self._request = self.idle = False
        if data_valid and data_ready and not self.drained:
            self.first_data = self.first_data or cycle
            self.received.append(payload)
            if self._words is not None:
                self._words.pop(0)
                self._data = False

    def finished(self) -> bool:
        return bool(self.idle and (not self._runs or self.refused or self.drained))


def mapped(windows: dict[int, tuple[int, int]]) -> dict[int, int]:
    return {word: word_of(word) for base, size in windows.values() for word in range(base // 16, (base + size) // 16)}


def read(arch: Arch, windows: dict[int, tuple[int, int]], runs: Sequence[RunTuple], *, words: dict[int, int] | None = None,
         faults: set[int] = frozenset(), pause: float = 0.0, drain_at: int | None = None, **bus: Any) -> tuple[User, Bus]:
    """Serve runs; the user afterwards, and the bus."""
    dut = ReadMaster(arch)
    memory = Bus(words=mapped(windows) if words is None else words, burst_beats=arch.burst_beats, outstanding=arch.outstanding,
                 faults=set(faults), **bus)
    user = User(dut, runs, pause=pause, seed=memory.seed, drain_at=drain_at)
    ports = [ReadMemory(port, memory, number) for number, port in enumerate(dut.axi)]
    simulate(dut, [Windows(dut, windows), user, *ports], user.finished)
    assert not any(port.in_flight for port in ports)
    return user, memory


def write(arch: Arch, windows: dict[int, tuple[int, int]], runs: Sequence[RunTuple], *, words: Sequence[int],
          faults: set[int] = frozenset(), pause: float = 0.0, drain_at: int | None = None, **bus: Any,
          ) -> tuple[User, Bus, list[WriteMemory]]:
    """Serve runs that carry ``words``; the user afterwards, the bus and its memories."""
    dut = WriteMaster(arch)
    memory = Bus(words=mapped(windows), burst_beats=arch.burst_beats, outstanding=arch.outstanding, faults=set(faults), **bus)
    user = User(dut, runs, words=words, pause=pause, seed=memory.seed, drain_at=drain_at)
    ports = [WriteMemory(port, memory, number) for number, port in enumerate(dut.axi)]
    simulate(dut, [Windows(dut, windows), user, *ports], user.finished)
    assert not any(port.in_flight for port in ports)
    return user, memory, ports


def expected_words(windows: dict[int, tuple[int, int]], runs: Sequence[RunTuple]) -> list[int]:
    """Addresses of all words of runs, in order."""
    return [windows[region][0] // 16 + offset + i for region, offset, words in runs for i in range(words)]


def expected_bursts(arch: Arch, channel: str, windows: dict[int, tuple[int, int]], runs: Sequence[RunTuple]) -> list[Any]:
    result = []
    for region, offset, words in runs:
        manager = 0 if region == PROGRAM_REGION else arch.region_manager[region]
        bursts = split(windows[region][0] // 16 + offset, words, arch.burst_beats)
        result += [(channel, manager, word, beats) for word, beats in bursts]
    return result


def random_runs(rng: random.Random, windows: dict[int, tuple[int, int]], count: int) -> list[RunTuple]:
    runs = []
    for _ in range(count):
        region = rng.choice(sorted(windows))
        size = windows[region][1] // 16
        words = rng.choice([1, 1, 2, 3, 5, 9, 17])
        runs.append((region, rng.randrange(size - words + 1), words))
    return runs


def test_signatures_have_the_protocols_members() -> None:
    manager = axi4_manager().members
    assert len(manager) == 35
    address, w, b, r = 1 + 64 + 8 + 3 + 2 + 1 + 4 + 3 + 2, 128 + 16 + 1 + 2, 1 + 2 + 2, 1 + 128 + 2 + 1 + 2
    assert sum(member.shape for member in manager.values()) == 2 * address + w + b + r
    assert {"awprot", "wstrb", "arprot"} <= set(axi_lite_subordinate().members)


def test_read_latency() -> None:
    user, _ = read(ONE, {0: (0x1000, 0x1000)}, [(0, 3, 1)], read_latency=5)
    assert user.received == [word_of(0x103)]
    # Address 4 cycles after acceptance, beat 5 later, data register 1 more.
    assert user.first_data - user.accepted[0] == 10
    assert (user.beats, user.stalls) == (1, 5)


@pytest.mark.parametrize("burst_beats", [1, 8, 256])
def test_read_splits_at_4_kb_at_every_alignment(burst_beats: int) -> None:
    arch = Arch(regions=1, region_manager=(0,), burst_beats=burst_beats, outstanding=4)
    windows = {0: (0x10_0000_0FF0, 0x3000)}
    step = 1 if burst_beats == 8 else 17
    runs = [(0, start, 3) for start in range(0, 256, step)] + [(0, 0, 257), (0, 250, 12), (0, 1, 256)]
    user, bus = read(arch, windows, runs)
    assert bus.bursts == expected_bursts(arch, "ar", windows, runs)
    assert user.received == [word_of(word) for word in expected_words(windows, runs)]
    assert len(user.received) >= 16 * 3 + 525 and user.beats == len(user.received)


def test_write_splits_at_4_kb_at_every_alignment() -> None:
    windows = {1: (0x10_0000_0FF0, 0x2000)}
    runs = [(1, start, 2) for start in range(0, 256, 1)] + [(1, 0, 257), (1, 250, 12)]
    words = [word_of(-1 - i) for i in range(2 * 256 + 269)]
    user, bus, _ = write(ONE, windows, runs, words=words)
    assert bus.bursts == expected_bursts(ONE, "aw", windows, runs)
    content = mapped(windows)
    content.update(zip(expected_words(windows, runs), words, strict=True))
    assert bus.words == content and user.beats == len(words) > 0


EDGE_WINDOWS = {0: (0x2000, 0x100), 1: (0x5000, 0), PROGRAM_REGION: (0x8000, 0x80)}
EDGE_RUNS = [
    ((0, 15, 1), True),
    ((0, 16, 1), False),
    ((0, 0, 16), True),
    ((0, 0, 17), False),
    ((0, 1, 16), False),
    ((1, 0, 1), False),
    ((2, 0, 1), False),
    ((15, 0, 1), False),
    ((31, 0, 1), False),
    ((PROGRAM_REGION, 4, 4), True),
    ((PROGRAM_REGION, 5, 4), False),
    ((0, 0xFFFF_FFFF, 1), False),
    ((0, 0xFFFF_FFFF, 0xFFFF), False),
    ((0, 0xFFFF_FFF0, 0x11), False),
    ((0, 0, 0xFFFF), False),
]


@pytest.mark.parametrize(("run", "legal"), EDGE_RUNS)
def test_runs_are_checked_before_any_burst(run: RunTuple, legal: bool) -> None:
    before, after = (0, 2, 3), (0, 4, 2)
    user, bus = read(ONE, EDGE_WINDOWS, [before, run, after])
    served = [before, run, after] if legal else [before]
    assert user.refused == (not legal) and not user.failed
    assert bus.bursts == expected_bursts(ONE, "ar", EDGE_WINDOWS, served)
    assert user.received == [word_of(word) for word in expected_words(EDGE_WINDOWS, served)]


@pytest.mark.parametrize(("run", "legal"), EDGE_RUNS[:7])
def test_refused_writes_write_nothing(run: RunTuple, legal: bool) -> None:
    before = (0, 2, 3)
    words = [word_of(-1 - i) for i in range(before[2] + run[2])]
    user, bus, _ = write(ONE, EDGE_WINDOWS, [before, run], words=words)
    served = [before, run] if legal else [before]
    content = mapped(EDGE_WINDOWS)
    content.update(zip(expected_words(EDGE_WINDOWS, served), words, strict=False))
    assert user.refused == (not legal) and bus.words == content
    assert bus.bursts == expected_bursts(ONE, "aw", EDGE_WINDOWS, served)


@pytest.mark.parametrize(("base", "legal"), [((1 << 64) - 0x100, True), ((1 << 64) - 0xF0, False)])
def test_the_end_of_the_address_space(base: int, legal: bool) -> None:
    windows = {0: (base, 0x100)}
    user, bus = read(ONE, windows, [(0, 0, 16)])
    assert user.refused == (not legal)
    assert len(user.received) == (16 if legal else 0) and bool(bus.bursts) == legal


def test_a_region_above_64_gb_is_compared_in_full() -> None:
    windows = {0: (1 << 40, (1 << 36) + 0x20)}
    last = (1 << 36) + (1 << 32)
    user, bus = read(ONE, windows, [(0, 0xFFFF_FFFF, 3)], words={last - 1 + i: i for i in range(3)})
    assert not user.refused and [burst[3] for burst in bus.bursts] == [1, 2]
    user, _ = read(ONE, windows, [(0, 0xFFFF_FFFF, 4)], words={})
    assert user.refused


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("arch", [ONE, TWO], ids=["one", "two managers"])
def test_random_reads_under_random_stalls(arch: Arch, seed: int) -> None:
    rng = random.Random(seed)
    windows = {i: (0x1_0000 * (i + 1) + 16 * rng.randrange(256), 0x1800) for i in range(arch.regions)}
    windows[PROGRAM_REGION] = (0x9_0F00, 0x400)
    runs = random_runs(rng, windows, 40)
    user, bus = read(arch, windows, runs, pause=0.3, stall=0.3, seed=seed, read_latency=1 + 6 * seed, shy=seed == 1)
    assert user.received == [word_of(word) for word in expected_words(windows, runs)] and len(user.received) > 100
    assert bus.bursts == expected_bursts(arch, "ar", windows, runs)
    assert len({burst[1] for burst in bus.bursts}) == arch.managers
    assert bus.stalls["ar"] > 5 and bus.stalls["r"] > 5
    assert user.beats == len(user.received) and user.stalls > 0 and not user.failed and not user.refused


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("arch", [ONE, TWO], ids=["one", "two managers"])
def test_random_writes_under_random_stalls(arch: Arch, seed: int) -> None:
    rng = random.Random(seed)
    windows = {i: (0x1_0000 * (i + 1) + 16 * rng.randrange(256), 0x1800) for i in range(arch.regions)}
    runs = random_runs(rng, windows, 40)
    words = [rng.getrandbits(128) for run in runs for _ in range(run[2])]
    user, bus, _ = write(arch, windows, runs, words=words, pause=0.3, stall=0.3, seed=seed, write_latency=1 + 5 * seed,
                         shy=seed == 1, address_last=seed == 2)  # fmt: skip
    content = mapped(windows)
    content.update(zip(expected_words(windows, runs), words, strict=True))
    assert bus.words == content and len(words) > 100
    assert bus.bursts == expected_bursts(arch, "aw", windows, runs)
    assert all(bus.stalls[channel] > 10 for channel in ("aw", "w", "b"))
    assert user.beats == len(words) and user.stalls > 0 and not user.failed and not user.refused


@pytest.mark.parametrize("beat", [0, 7, 8, 19])
def test_read_errors_are_kept_and_all_words_still_come(beat: int) -> None:
    windows = {0: (0x2000, 0x1000)}
    user, _ = read(ONE, windows, [(0, 0, 20), (0, 30, 4)], faults={0x200 + beat})
    assert user.failed and not user.refused and len(user.received) == 24 and user.idle
    user, _ = read(ONE, windows, [(0, 0, 20), (0, 30, 4)], faults={0x200 + 21})
    assert not user.failed and len(user.received) == 24


@pytest.mark.parametrize("beat", [0, 7, 8, 19])
def test_write_errors_are_kept(beat: int) -> None:
    windows = {0: (0x2000, 0x1000)}
    words = list(range(24))
    user, _, _ = write(ONE, windows, [(0, 0, 20), (0, 30, 4)], words=words, faults={0x200 + beat})
    assert user.failed and user.beats == 24
    user, _, _ = write(ONE, windows, [(0, 0, 20), (0, 30, 4)], words=words, faults={0x200 + 21})
    assert not user.failed and user.beats == 24


@pytest.mark.parametrize("after", [0, 1, 3, 10])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_draining_reads(after: int, stall: float) -> None:
    user, bus = read(ONE, {0: (0x2000, 0x1000)}, [(0, 0, 30), (0, 30, 4)], drain_at=after, stall=stall, read_latency=4)
    assert user.idle and after <= len(user.received) <= after + 1
    assert sum(burst[3] for burst in bus.bursts) == user.beats < 34


@pytest.mark.parametrize("after", [1, 3, 10])
@pytest.mark.parametrize("stall", [0.0, 0.4])
def test_draining_writes(after: int, stall: float) -> None:
    windows, words = {0: (0x2000, 0x1000)}, list(range(34))
    user, bus, ports = write(ONE, windows, [(0, 0, 30), (0, 30, 4)], words=words, drain_at=after, stall=stall)
    assert user.idle and len(user.received) == after
    content = mapped(windows)
    content.update({0x200 + i: words[i] for i in range(after)})
    assert bus.words == content
    assert sum(burst[3] for burst in bus.bursts) == user.beats == after + ports[0].unstrobed and ports[0].unstrobed > 0


class Restart(User):
    """Drains in the middle, then asks again."""

    def __init__(self, dut: ReadMaster, runs: Sequence[RunTuple], again: Sequence[RunTuple], drain_at: int) -> None:
        super().__init__(dut, runs, drain_at=drain_at)
        self._again: list[RunTuple] | None = list(again)

    def observe(self, values: Sequence[int], cycle: int) -> None:
        super().observe(values, cycle)
        if self.drained and self.idle and self._again is not None:
            self._runs, self._again, self._drain_at, self.received = self._again, None, None, []
            self.idle = self._request = False

    def finished(self) -> bool:
        return self._again is None and bool(self.idle) and not self._runs


def test_a_drained_master_serves_again() -> None:
    dut, windows = ReadMaster(ONE), {0: (0x2000, 0x1000)}
    bus = Bus(words=mapped(windows), read_latency=3, burst_beats=8, outstanding=2)
    user = Restart(dut, [(0, 0, 40)], [(0, 100, 9)], drain_at=5)
    simulate(dut, [Windows(dut, windows), user, ReadMemory(dut.axi[0], bus)], user.finished)
    assert user.received == [word_of(0x200 + 100 + i) for i in range(9)]


@pytest.mark.parametrize(("second", "message"), [((0, 5), "dropped"), ((1, 6), "changed"), ((1, 5), None)])
def test_the_bench_notices_a_manager_that_does_not_hold(second: tuple[int, int], message: str | None) -> None:
    channel = Channel("w", Bus(words={}))
    channel.decide(False)
    assert not channel.accept(1, (5,))
    channel.decide()
    if message is None:
        assert channel.accept(second[0], second[1:])
        return
    with pytest.raises(AssertionError, match=message):
        channel.accept(second[0], second[1:])
