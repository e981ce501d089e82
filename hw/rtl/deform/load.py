"""LOAD: memory to an on-chip memory, three loops, with an optional CRC-32 of what was loaded."""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.delay import data_register
from hw.rtl.common.crc import Crc32
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import EngineCommand, ReadRuns
from hw.rtl.common.runs import RunLoop, RunLoopParameters, TransferFields, outcome
from hw.rtl.deform.memories import RowWritePort
from hw.rtl.deform.ports import TableWritePort, WritePort
from hw.spec.deform import ROW_BANKS, DeformArch
from hw.spec.deform.instructions import LOAD, SPACES
from hw.spec.deform.latency import TABLE_PARTS
from hw.spec.regs import ErrorCode

QUEUE_MARGIN = 4
"""Runs accepted but not yet being read, beyond the bursts in flight: looked up, split, in the data register, and one spare."""

FEATURE, ROW, WEIGHT, PARAMETER, TABLE = range(len(SPACES))


class LoadEngine(wiring.Component):
    """Runs LOAD instructions; ``hw.spec.deform.timing.transfer.load_cycles`` tells how long.

    After an error it stops asking, takes what the memory still sends, and ends; an AXI error wins over what was found in a
    later run, so the outcome does not depend on timing.

    Members
    -------
    command : from the sequencer
    runs : to the read master
    feature, weight, parameter, row : write ports of the memories; weight by 16-byte unit
    table : the table memories', where the architecture has tables; a word is held back until its TABLE_PARTS parts are written
    """

    def __init__(self, arch: DeformArch) -> None:
        self._arch = arch
        super().__init__({
            "command": In(EngineCommand),
            "runs": Out(ReadRuns),
            "feature": Out(WritePort),
            "weight": Out(WritePort),
            "parameter": Out(WritePort),
            "row": Out(RowWritePort),
            **({"table": Out(TableWritePort)} if arch.tables else {}),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(LOAD, self.command.instruction)
        parameters = RunLoopParameters(banks=ROW_BANKS, queue=self._arch.outstanding + QUEUE_MARGIN)
        m.submodules.loop = loop = RunLoop(parameters)
        m.submodules.crc = crc = Crc32()
        m.d.comb += [
            loop.start.eq(self.command.start),
            *(loop.fields[name].eq(fields[name]) for name in TransferFields.members),
            loop.banked.eq(fields.space == ROW),
            loop.stop.eq(self.runs.refused | self.runs.failed),
            self.runs.request.valid.eq(loop.request.valid),
            self.runs.request.payload.eq(loop.request.payload),
            loop.request.ready.eq(self.runs.request.ready),
            crc.clear.eq(self.command.start),
        ]
        self._size(m, loop, fields)
        self._write(m, loop, crc, fields)
        code = Signal.like(self.command.error, reset_less=True)
        damaged = fields.check_crc & (crc.crc32 != fields.crc)
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
        return m

    def _size(self, m: Module, loop: RunLoop, fields: data.View) -> None:
        """The chosen space's 16-byte units; of one bank for the row memory."""
        sizes = {**self._arch.space_units(), "row": self._arch.row_words}
        with m.Switch(fields.space):
            for number, space in enumerate(SPACES):
                with m.Case(number):
                    m.d.comb += loop.size.eq(sizes[space])

    def _write(self, m: Module, loop: RunLoop, crc: Crc32, fields: data.View) -> None:
        """Words to their places, one cycle after they came."""
        words = self.runs.data
        active = Signal(reset_less=True)
        left = Signal(16, reset_less=True)
        addr = Signal(20, reset_less=True)
        bank = Signal(4, reset_less=True)
        taken = Signal()
        complete = self._table_parts(m, words.valid & active, fields, addr) if self._arch.tables else Const(1)
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
        ports = {FEATURE: self.feature, ROW: self.row, WEIGHT: self.weight, PARAMETER: self.parameter}
        landing = Signal(RowWritePort.members["data"].shape, reset_less=True)
        place = Signal.like(addr)
        landing_bank = Signal.like(bank)
        m.d.sync += [landing.eq(words.payload), place.eq(addr), landing_bank.eq(bank)]
        for number, port in ports.items():
            m.d.sync += port.en.eq(taken & (fields.space == number))
            m.d.comb += [port.addr.eq(place), port.data.eq(landing)]
        m.d.comb += self.row.bank.eq(landing_bank)
        if self._arch.tables:
            part = self.table.addr[: exact_log2(TABLE_PARTS)]
            m.d.comb += self.table.data.eq(landing.word_select(part, len(self.table.data)))

    def _table_parts(self, m: Module, present: Value, fields: data.View, addr: Signal) -> Signal:
        """Write the word that is ``present`` part by part, if it is for the tables. Returns whether it may be taken."""
        paced = Signal(reset_less=True)
        part = Signal(range(TABLE_PARTS), reset_less=True)
        complete = Signal()
        m.d.comb += complete.eq(~paced | part.all())
        m.d.sync += [paced.eq(fields.space == TABLE), self.table.en.eq(present & paced)]
        m.d.sync += data_register(m, self.table.addr).eq(Cat(part, addr))
        with m.If(self.command.start):
            m.d.sync += part.eq(0)
        with m.Elif(present & paced):
            m.d.sync += part.eq(part + 1)
        return complete
