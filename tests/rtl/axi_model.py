"""A cycle-by-cycle bench for Amaranth components with AXI4 managers: agents, and memories that check the protocol.

In each cycle every agent first drives its signals, then all see the settled values of that cycle.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from amaranth.hdl import Elaboratable, Value
from amaranth.sim import Simulator

WORD_BYTES = 16
BOUNDARY = 4096
OKAY, SLVERR, DECERR = 0, 2, 3
ADDRESS_SIGNALS = ("id", "addr", "len", "size", "burst", "lock", "cache", "prot")


class Agent:
    """Something on the bench. ``inputs`` are sampled in every cycle and given to ``observe``."""

    inputs: Sequence[Value] = ()

    def drive(self, ctx: Any, cycle: int) -> None:
        """Set signals for this cycle."""

    def observe(self, values: Sequence[int], cycle: int) -> None:
        """See this cycle's settled values."""


def simulate(dut: Elaboratable, agents: Sequence[Agent], finished: Callable[[], bool], limit: int = 20000) -> int:
    """Run until ``finished()``; returns the number of cycles. A run of ``limit`` cycles fails."""
    inputs = [Value.cast(value) for agent in agents for value in agent.inputs]
    used: list[int] = []

    async def bench(ctx: Any) -> None:
        for cycle in range(limit):
            for agent in agents:
                agent.drive(ctx, cycle)
            _, _, *values = await ctx.tick().sample(*inputs)
            start = 0
            for agent in agents:
                end = start + len(agent.inputs)
                agent.observe(values[start:end], cycle)
                start = end
            if finished():
                used.append(cycle + 1)
                return

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert used, f"not finished after {limit} cycles"
    return used[0]


@dataclass(kw_only=True)
class Bus:
    """What the memories of all managers share, and how they behave.

    ``words``: 16-byte words by word address, as integers; a missing one answers DECERR. ``faults``: word addresses that answer
    SLVERR. ``stall``: probability that a cycle is withheld, on every channel. ``shy``: READY only in the cycle after VALID was
    seen. ``address_last``: AW is accepted only after all its data. ``silent``: nothing is answered.
    """

    words: dict[int, int]
    read_latency: int = 1
    write_latency: int = 1
    beat_interval: int = 1
    stall: float = 0.0
    seed: int = 0
    shy: bool = False
    address_last: bool = False
    burst_beats: int = 256
    outstanding: int = 16
    faults: set[int] = field(default_factory=set)
    stalls: dict[str, int] = field(default_factory=dict)
    bursts: list[tuple[str, int, int, int]] = field(default_factory=list)
    """(channel, manager, word address, beats) in the order of acceptance."""

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def withheld(self, channel: str) -> bool:
        """Whether to stall a channel in this cycle; counted."""
        stalled = self.random.random() < self.stall
        self.stalls[channel] = self.stalls.get(channel, 0) + stalled
        return stalled

    def response(self, word: int) -> int:
        return DECERR if word not in self.words else SLVERR if word in self.faults else OKAY


class Channel:
    """The receiving side of a channel: READY, and the check that VALID and payload hold until then."""

    def __init__(self, name: str, bus: Bus) -> None:
        self._name, self._bus = name, bus
        self._held: tuple[int, ...] | None = None
        self.ready = False

    def decide(self, allowed: bool = True) -> bool:
        self.ready = allowed and (self._held is not None or not self._bus.shy) and not self._bus.withheld(self._name)
        return self.ready

    def accept(self, valid: int, payload: tuple[int, ...]) -> bool:
        """Whether the payload is transferred in this cycle."""
        if self._held is not None:
            assert valid, f"{self._name}valid dropped before {self._name}ready"
            assert payload == self._held, f"{self._name} changed while it waited: {self._held} to {payload}"
        self._held = payload if valid and not self.ready else None
        return bool(valid and self.ready)


class AddressChannel(Channel):
    """AR or AW: checks every burst's attributes."""

    def __init__(self, name: str, manager: int, bus: Bus) -> None:
        super().__init__(name, bus)
        self._manager = manager

    def burst(self, valid: int, payload: tuple[int, ...]) -> tuple[int, int] | None:
        """(first word, beats) of a burst accepted in this cycle."""
        if not self.accept(valid, payload):
            return None
        address, length = payload[1], payload[2]
        assert payload[0] == 0 and payload[3:] == (4, 1, 0, 3, 0), f"attributes {payload}"
        assert address % WORD_BYTES == 0 and length < self._bus.burst_beats
        assert address // BOUNDARY == (address + length * WORD_BYTES) // BOUNDARY, f"0x{address:X} + {length} crosses 4 KB"
        burst = (address // WORD_BYTES, length + 1)
        self._bus.bursts.append((self._name, self._manager, *burst))
        return burst


class ReadMemory(Agent):
    """The memory behind a manager's AR and R channels."""

    def __init__(self, port: Any, bus: Bus, manager: int = 0) -> None:
        self._port, self._bus = port, bus
        self._ar = AddressChannel("ar", manager, bus)
        self._bursts: deque[tuple[int, int, int]] = deque()  # due, word, beats
        self._beat: tuple[int, bool] | None = None  # word, last
        self._next, self._free = 0, 0
        self.inputs = [port.arvalid, *(getattr(port, f"ar{name}") for name in ADDRESS_SIGNALS), port.rready]

    @property
    def in_flight(self) -> int:
        return len(self._bursts)

    def drive(self, ctx: Any, cycle: int) -> None:
        ctx.set(self._port.arready, self._ar.decide())
        if self._beat is None and self._bursts:
            due, word, beats = self._bursts[0]
            if cycle >= max(due, self._free) and not self._bus.withheld("r"):
                self._beat = (word + self._next, self._next + 1 == beats)
                self._free = cycle + self._bus.beat_interval
        if self._beat is not None:
            word, last = self._beat
            ctx.set(self._port.rdata, self._bus.words.get(word, 0))
            ctx.set(self._port.rresp, self._bus.response(word))
            ctx.set(self._port.rlast, last)
        ctx.set(self._port.rvalid, self._beat is not None)

    def observe(self, values: Sequence[int], cycle: int) -> None:
        valid, *payload, ready = values
        if self._beat is not None and ready:
            self._next += 1
            if self._beat[1]:
                self._bursts.popleft()
                self._next = 0
            self._beat = None
        if burst := self._ar.burst(valid, tuple(payload)):
            self._bursts.append((cycle + self._bus.read_latency, *burst))
            assert len(self._bursts) <= self._bus.outstanding


class WriteMemory(Agent):
    """The memory behind a manager's AW, W and B channels. Words land when the response is raised."""

    def __init__(self, port: Any, bus: Bus, manager: int = 0) -> None:
        self._port, self._bus = port, bus
        self._aw, self._w = AddressChannel("aw", manager, bus), Channel("w", bus)
        self._bursts: deque[tuple[int, int]] = deque()
        self._beats: deque[tuple[int, int, int]] = deque()
        self._answers: deque[tuple[int, int]] = deque()  # due, response
        self._valid, self._free, self._open = False, 0, 0
        self.unstrobed = 0
        address = [getattr(port, f"aw{name}") for name in ADDRESS_SIGNALS]
        self.inputs = [port.awvalid, *address, port.wvalid, port.wdata, port.wstrb, port.wlast, port.bready]

    @property
    def in_flight(self) -> int:
        return len(self._bursts) + len(self._answers)

    def drive(self, ctx: Any, cycle: int) -> None:
        complete = any(last for _, _, last in self._beats)
        ctx.set(self._port.awready, self._aw.decide(complete or not self._bus.address_last))
        ctx.set(self._port.wready, self._w.decide(cycle >= self._open))
        if not self._valid and self._answers and cycle >= max(self._answers[0][0], self._free):
            self._valid = not self._bus.withheld("b")
        if self._valid:
            ctx.set(self._port.bresp, self._answers[0][1])
        ctx.set(self._port.bvalid, self._valid)

    def observe(self, values: Sequence[int], cycle: int) -> None:
        awvalid, address, (wvalid, *beat, bready) = values[0], values[1:9], values[9:]
        if self._valid and bready:
            self._answers.popleft()
            self._valid, self._free = False, cycle + 1
        if burst := self._aw.burst(awvalid, tuple(address)):
            self._bursts.append(burst)
        if self._w.accept(wvalid, tuple(beat)):
            self._beats.append(tuple(beat))
            self._open = cycle + self._bus.beat_interval
        assert self.in_flight <= self._bus.outstanding
        if self._bursts and len(self._beats) >= self._bursts[0][1]:
            self._answers.append((cycle + self._bus.write_latency, self._land(*self._bursts.popleft())))

    def _land(self, word: int, beats: int) -> int:
        """Take a burst's beats; its response."""
        response = OKAY
        for i in range(beats):
            data, strobe, last = self._beats.popleft()
            assert last == (i + 1 == beats), f"wlast is {last} on beat {i} of {beats}"
            assert strobe in (0, 0xFFFF), f"strobe 0x{strobe:X}"
            response = max(response, self._bus.response(word + i))
            self.unstrobed += not strobe
            if strobe and word + i in self._bus.words:
                self._bus.words[word + i] = data
        return response
