"""LOAD: memory to an on-chip memory, three loops, with an optional CRC-32 of what was loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.delay import data_register
from hw.rtl.common.crc import Crc32
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import DATA_BITS, EngineCommand, ReadRuns
from hw.rtl.common.memory_ports import WritePort
from hw.rtl.common.runs import RunLoop, RunLoopParameters, join_loop, outcome
from hw.spec.arch import Arch
from hw.spec.regs import ErrorCode

QUEUE_MARGIN = 4
"""Runs accepted but not yet being read, beyond the bursts in flight: looked up, split, in the data register, and one spare."""


@dataclass(frozen=True, kw_only=True)
class LoadSpace:
    """An on-chip memory that LOAD fills.

    Parameters
    ----------
    port : name of its write port at the engine
    words : its size in 16-byte words, of one bank where there are several; without any there is no port, and no run fits
    signature : of the port
    banks : above 1: planes go to the banks in turn (:class:`RunLoopParameters`), and the port has a ``bank``
    parts : above 1, a power of two: the memory takes a word in so many cycles; the port's address is the word's times ``parts``, plus
        the part, and its data a part of the word
    """

    port: str
    words: int
    signature: wiring.Signature = field(default_factory=lambda: WritePort)
    banks: int = 1
    parts: int = 1


class LoadEngine(wiring.Component):
    """Runs LOAD instructions; ``hw.spec.transfer_timing.load_cycles`` tells how long.

    After an error it stops asking, takes what the memory still sends, and ends; an AXI error wins over what was found in a
    later run, so the outcome does not depend on timing.

    Parameters
    ----------
    arch : of the core; its instruction table has a LOAD
    spaces : the core's on-chip memories in the order of LOAD's ``space``; at most one with banks, and one with parts

    Members
    -------
    command : from the sequencer
    runs : to the read master
    the spaces' ports : of which the instruction's one writes; a word that is written in parts is held back until all are
    """

    def __init__(self, arch: Arch, spaces: Sequence[LoadSpace]) -> None:
        self._arch, self._spaces = arch, tuple(spaces)
        self._there = [number for number, space in enumerate(spaces) if space.words]
        self._banked, self._paced = (self._only(name) for name in ("banks", "parts"))
        ports = {self._spaces[number].port: Out(self._spaces[number].signature) for number in self._there}
        super().__init__({"command": In(EngineCommand), "runs": Out(ReadRuns), **ports})

    def _only(self, name: str) -> int | None:
        """Number of the one space that has several banks or parts."""
        found = [number for number in self._there if getattr(self._spaces[number], name) > 1]
        if len(found) > 1:
            raise ValueError(f"at most one space of LOAD may have several {name}, not {[self._spaces[n].port for n in found]}")
        return found[0] if found else None

    def _port(self, number: int) -> wiring.PureInterface:
        return getattr(self, self._spaces[number].port)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(self._arch.instructions.operation("LOAD"), self.command.instruction)
        banks = 1 if self._banked is None else self._spaces[self._banked].banks
        m.submodules.loop = loop = RunLoop(RunLoopParameters(banks=banks, queue=self._arch.outstanding + QUEUE_MARGIN))
        m.submodules.crc = crc = Crc32()
        join_loop(m, loop, self.command, fields, self.runs)
        m.d.comb += [loop.banked.eq(0 if self._banked is None else fields.space == self._banked), crc.clear.eq(self.command.start)]
        self._size(m, loop, fields)
        self._write(m, loop, crc, fields)
        self._control(m, loop, fields.check_crc & (crc.crc32 != fields.crc))
        return m

    def _control(self, m: Module, loop: RunLoop, damaged: Value) -> None:
        code = Signal.like(self.command.error, reset_less=True)
        with m.FSM():
            with m.State("IDLE"), m.If(self.command.start):
                m.next = "CLEAR"
            with m.State("CLEAR"):
                m.d.comb += self.runs.clear.eq(1)
                m.next = "RUN"
            with m.State("RUN"), m.If(~loop.busy & self.runs.idle):
                m.next = "JUDGE"
            with m.State("JUDGE"):
                m.d.sync += code.eq(outcome(loop, self.runs, ErrorCode.AXI_READ, Mux(damaged, ErrorCode.BLOB_CRC, 0)))
                m.next = "DONE"
            with m.State("DONE"):
                m.d.comb += [self.command.done.eq(1), self.command.error.eq(code)]
                m.next = "IDLE"

    def _size(self, m: Module, loop: RunLoop, fields: data.View) -> None:
        """The chosen space's 16-byte words; of one bank where it has several."""
        with m.Switch(fields.space):
            for number, space in enumerate(self._spaces):
                with m.Case(number):
                    m.d.comb += loop.size.eq(space.words)

    def _write(self, m: Module, loop: RunLoop, crc: Crc32, fields: data.View) -> None:
        """Words to their places, one cycle after they came."""
        words = self.runs.data
        active = Signal(reset_less=True)
        left = Signal(16, reset_less=True)
        addr = Signal(20, reset_less=True)
        bank = Signal(4, reset_less=True)
        taken = Signal()
        complete = Const(1) if self._paced is None else self._parts(m, words.valid & active, fields, addr)
        m.d.comb += [
            words.ready.eq(active & complete),
            taken.eq(words.valid & active & complete),
            loop.chip.ready.eq(~active | (taken & (left == 1))),
            crc.en.eq(taken),
            crc.data.eq(words.payload),
        ]
        with m.If(self.command.start):
            m.d.sync += active.eq(0)
        with m.Elif(loop.chip.ready):
            m.d.sync += [active.eq(loop.chip.valid), left.eq(fields.n0)]
            m.d.sync += [addr.eq(loop.chip.payload.addr), bank.eq(loop.chip.payload.bank)]
        with m.Elif(taken):
            m.d.sync += [left.eq(left - 1), addr.eq(addr + 1)]
        landing = Signal(DATA_BITS, reset_less=True)
        place = Signal.like(addr)
        landing_bank = Signal.like(bank)
        m.d.sync += [landing.eq(words.payload), place.eq(addr), landing_bank.eq(bank)]
        for number in self._there:
            if number != self._paced:
                m.d.sync += self._port(number).en.eq(taken & (fields.space == number))
                m.d.comb += [self._port(number).addr.eq(place), self._port(number).data.eq(landing)]
        if self._banked is not None:
            m.d.comb += self._port(self._banked).bank.eq(landing_bank)
        if self._paced is not None:
            port = self._port(self._paced)
            part = port.addr[: exact_log2(self._spaces[self._paced].parts)]
            m.d.comb += port.data.eq(landing.word_select(part, len(port.data)))

    def _parts(self, m: Module, present: Value, fields: data.View, addr: Signal) -> Signal:
        """Write the word that is ``present`` part by part, if its space wants that. Returns whether it may be taken."""
        port = self._port(self._paced)
        paced = Signal(reset_less=True)
        part = Signal(range(self._spaces[self._paced].parts), reset_less=True)
        complete = Signal()
        m.d.comb += complete.eq(~paced | part.all())
        m.d.sync += [paced.eq(fields.space == self._paced), port.en.eq(present & paced)]
        m.d.sync += data_register(m, port.addr).eq(Cat(part, addr))
        with m.If(self.command.start):
            m.d.sync += part.eq(0)
        with m.Elif(present & paced):
            m.d.sync += part.eq(part + 1)
        return complete
