"""Serial line, 8 data bits, no parity, one stop bit (8N1)."""

from dataclasses import dataclass

from amaranth.hdl import C, Cat, Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

DATA_BITS = 8
FRAME_BITS = DATA_BITS + 2
"""Start bit, data, stop bit."""

_TOLERANCE = 0.02
"""Largest error of the bit time: both ends together may be off by half a bit in ten, 5 %."""


@dataclass(frozen=True, kw_only=True)
class UartTiming:
    """Bit time of a line: ``clock_hz`` of the logic and ``baud``, bits per second; at least 4 clock cycles per bit."""

    clock_hz: int
    baud: int

    def __post_init__(self) -> None:
        if self.clock_hz < 1 or self.baud < 1:
            raise ValueError(f"clock and baud rate must be at least 1 Hz, not {self.clock_hz} and {self.baud}")
        if self.clock_hz < 4 * self.baud:
            raise ValueError(f"baud rate must be at most a quarter of the clock of {self.clock_hz} Hz, not {self.baud}")
        if self.error > _TOLERANCE:
            raise ValueError(
                f"baud rate must be the clock divided by a whole number within {_TOLERANCE:.0%}: "
                f"{self.clock_hz} Hz / {self.divisor} misses {self.baud} by {self.error:.1%}"
            )

    @property
    def divisor(self) -> int:
        """Clock cycles per bit."""
        return round(self.clock_hz / self.baud)

    @property
    def error(self) -> float:
        """How far the real baud rate is off, as a fraction."""
        return abs(self.clock_hz / self.divisor / self.baud - 1)


class UartReceiver(wiring.Component):
    """Bytes from the line, sampled in the middle of each bit.

    Parameters: ``divisor``, clock cycles per bit, at least 4.

    Members
    -------
    rx : the line, asynchronous; high when idle
    valid, data : for one cycle: a byte came
    broken : for one cycle: a byte without a stop bit came, and is lost
    """

    rx: In(1)
    valid: Out(1)
    data: Out(DATA_BITS)
    broken: Out(1)

    def __init__(self, divisor: int) -> None:
        _check_divisor(divisor)
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        line = Signal(3, init=0b111)  # two registers against metastability, one to see an edge
        m.d.sync += line.eq(Cat(self.rx, line[:2]))
        level, before = line[1], line[2]
        timer, left = Signal(range(self._divisor)), Signal(range(FRAME_BITS + 1))
        bits = Signal(DATA_BITS, reset_less=True)
        m.d.comb += self.data.eq(bits)
        m.d.sync += [self.valid.eq(0), self.broken.eq(0), timer.eq(timer - 1)]
        with m.If(left == 0):
            m.d.sync += timer.eq(self._divisor // 2 - 1)
            with m.If(before & ~level):
                m.d.sync += left.eq(FRAME_BITS)
        with m.Elif(timer == 0):
            m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1)]
            with m.If(left == 1):
                m.d.sync += [self.valid.eq(level), self.broken.eq(~level)]
            with m.Elif(left < FRAME_BITS):
                m.d.sync += bits.eq(Cat(bits[1:], level))
            with m.Elif(level):  # too short for a start bit
                m.d.sync += left.eq(0)
        return m


class UartTransmitter(wiring.Component):
    """Bytes to the line. Takes a byte every 10 bit times.

    Parameters: ``divisor``, clock cycles per bit, at least 4.

    Members: ``i``, a stream of bytes; ``tx``, the line, straight from a register.
    """

    i: In(stream.Signature(DATA_BITS))
    tx: Out(1, init=1)

    def __init__(self, divisor: int) -> None:
        _check_divisor(divisor)
        self._divisor = divisor
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        timer, left = Signal(range(self._divisor)), Signal(range(FRAME_BITS + 1))
        bits = Signal(DATA_BITS + 1, reset_less=True)
        m.d.comb += self.i.ready.eq(left == 0)
        with m.If(left != 0):
            m.d.sync += timer.eq(timer - 1)
            with m.If(timer == 0):
                m.d.sync += [timer.eq(self._divisor - 1), left.eq(left - 1), self.tx.eq(bits[0]), bits.eq(Cat(bits[1:], C(1, 1)))]
        with m.Elif(self.i.valid):
            m.d.sync += [self.tx.eq(0), bits.eq(Cat(self.i.payload, C(1, 1))), timer.eq(self._divisor - 1), left.eq(FRAME_BITS)]
        return m


def _check_divisor(divisor: int) -> None:
    if divisor < 4:
        raise ValueError(f"a bit must last at least 4 clock cycles, not {divisor}")
