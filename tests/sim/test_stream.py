"""The harness that drives small units from arrays: what it must carry, and refuse."""

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.sim.stream import Stream


class Delayed(wiring.Component):
    """Ports of all sizes, each a cycle later."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        self._widths = widths
        super().__init__({f"{way}{w}": (In if way == "i" else Out)(w) for w in widths for way in "io"})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        for width in self._widths:
            register = Signal(width, reset_less=True)
            m.d.sync += register.eq(getattr(self, f"i{width}"))
            m.d.comb += getattr(self, f"o{width}").eq(register)
        return m


class Waiting(wiring.Component):
    """Negates its operand, ``cycles`` after ``start``."""

    start: In(1)
    cycles: In(5)
    i: In(signed(100))
    done: Out(1)
    o: Out(signed(100))

    def elaborate(self, platform: object) -> Module:
        m = Module()
        left, running = Signal(5), Signal()
        m.d.comb += self.done.eq(running & (left == 0))
        with m.If(self.start):
            m.d.sync += [left.eq(self.cycles - 1), running.eq(1), self.o.eq(-self.i)]
        with m.Elif(running):
            m.d.sync += [left.eq(left - 1), running.eq(left != 0)]
        return m


def words(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    raw = rng.integers(0, 1 << 64, (count, -(-width // 64)), dtype=np.uint64)
    raw[:, -1] &= np.uint64((1 << (width - 1) % 64 + 1) - 1)
    return raw if width > 64 else raw[:, 0]


def test_pipelined_ports_of_all_sizes() -> None:
    rng, widths = np.random.default_rng(1), (1, 8, 9, 31, 32, 33, 63, 64, 65, 96, 97, 127, 128)
    inputs = {f"i{w}": words(rng, 1000, w) for w in widths}
    outputs = Stream(Delayed(widths)).pipelined(inputs, latency=1)
    assert len(outputs) == 13 and all(np.array_equal(outputs[f"o{w}"], inputs[f"i{w}"]) for w in widths)


def test_iterative_counts_cycles_and_takes_operands_at_the_start() -> None:
    rng = np.random.default_rng(2)
    operand, wait = words(rng, 500, 100), rng.integers(1, 30, 500)
    answers = Stream(Waiting()).iterative_run({"i": operand, "cycles": wait}, limit=40)
    assert np.array_equal(answers.cycles, wait)
    negated = [-(int(low) | int(high) << 64) & (1 << 100) - 1 for low, high in operand]
    assert [int(low) | int(high) << 64 for low, high in answers.outputs["o"]] == negated
    with pytest.raises(RuntimeError, match="operation 0 must be done within 5 cycles"):
        Stream(Waiting()).iterative_run({"i": operand, "cycles": np.full(500, 9)}, limit=5)


def test_wrong_inputs_are_refused() -> None:
    stream = Stream(Delayed((8, 96)))
    good = {"i8": np.zeros(3, np.uint8), "i96": np.zeros((3, 2), np.uint64)}
    for change, message in (
        ({"i8": None}, r"inputs must be \['i8', 'i96'\], not \['i96'\]"),
        ({"i96": np.zeros(3, np.uint64)}, "i96 must have 2 words of 64 bits per vector, not 1"),
        ({"i8": np.zeros(4, np.uint8)}, r"inputs must have one length, not \[4, 3\]"),
    ):
        inputs = {name: value for name, value in {**good, **change}.items() if value is not None}
        with pytest.raises(ValueError, match=message):
            stream.pipelined(inputs, latency=1)
    with pytest.raises(ValueError, match="needs a unit with the ports start and done"):
        stream.iterative_run(good, limit=3)
    with pytest.raises(ValueError, match="at most 128 bits, not 129"):
        Stream(Delayed((129,)))
