"""PW engine: K x K convolutions of feature memory on the array (pointwise, standard and linear layers).

What it computes is defined by ``PW`` of :class:`hw.spec.deform.machine.DeformMachine`, how long it takes by
:func:`hw.spec.deform.timing.pw.pw_cycles`. For each tile of output words it loads their requantise records and runs over the output
pixels, ``rows`` at a time: one K-step per cycle without a bubble; the drain of a pixel tile runs beside the next one's K loop.
Hence what an instruction writes must not overlap what it reads (in the machine all of its activations are read first).
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import delayed
from hw.rtl.cells.mac2 import Mac2Cell
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.deform.array import Array
from hw.rtl.deform.ports import TABLE_FIELD_BITS, ReadPort, RequantisePort, WritePort, weight_read_port
from hw.rtl.deform.pw_control import PwControl, RecordLoader
from hw.rtl.deform.pw_drain import PwDrain
from hw.rtl.deform.pw_walker import TapWalker, WeightWalker
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import PW
from hw.spec.deform.latency import MEMORY_READ
from hw.spec.deform.timing.pw import ISSUE


class PwEngine(wiring.Component):
    """The engine. While it is idle every ``en`` and all it sends to the requantise unit and ``table`` are zero.

    Parameters: ``arch``; ``cell``: the array's multiplier cell.

    Members
    ----------
    command : see :obj:`hw.rtl.common.interfaces.EngineCommand`; ``done`` comes in the cycle after the last write, ``error`` is 0
    fm_read : activations, and the left halves or residuals of a merge; only words that the instruction uses
    fm_write : the output words
    wgt, par : weight and parameter memory
    requantise : the unit, with ``arch.columns / 16`` sets; its bytes come through the tables
    table : the instruction's table
    """

    def __init__(self, arch: DeformArch, cell: type[Mac2Cell] = Mac2Cell) -> None:
        self.arch, self.cell = arch, cell
        super().__init__({
            "command": In(EngineCommand),
            "fm_read": Out(ReadPort),
            "fm_write": Out(WritePort),
            "wgt": Out(weight_read_port(arch.weight_word_units)),
            "par": Out(ReadPort),
            "requantise": Out(RequantisePort),
            "table": Out(TABLE_FIELD_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.control = control = PwControl(self.arch)
        m.submodules.taps = taps = TapWalker(self.arch)
        m.submodules.drain = drain = PwDrain(self.arch)
        m.submodules.array = array = Array(self.arch, self.cell)
        i = view(PW, self.command.instruction)
        m.d.comb += [
            control.start.eq(self.command.start),
            control.instruction.eq(self.command.instruction),
            control.tile_end.eq(taps.tile_end),
            control.final.eq(taps.final),
            control.finish.eq(drain.finish),
            self.command.done.eq(control.done),
            taps.instruction.eq(self.command.instruction),
            taps.init.eq(control.begin),
            taps.run.eq(control.run),
        ]
        self._connect_activations(m, taps, array, drain)
        self._connect_weights(m, i, taps, array)
        self._connect_records(m, i, control)
        self._connect_drain(m, control, taps, array, drain)
        self._connect_requantise(m, i, control, drain)
        m.d.comb += array.unsigned.eq(i.in_unsigned)
        return m

    def _connect_activations(self, m: Module, taps: TapWalker, array: Array, drain: PwDrain) -> None:
        arriving = delayed(m, Cat(taps.load, taps.fm_en), MEMORY_READ, "activations", reset_less=True)[-1]
        m.d.comb += [
            self.fm_read.en.eq(taps.fm_en | drain.merge.en),
            self.fm_read.addr.eq(Mux(drain.merge.en, drain.merge.addr, taps.fm_addr)),
            array.word.eq(self.fm_read.data),
            array.load.eq(arriving[0]),
            array.zero.eq(~arriving[1]),
            drain.merge.data.eq(self.fm_read.data),
        ]

    def _connect_weights(self, m: Module, i: data.View, taps: TapWalker, array: Array) -> None:
        """Weights are read a cycle behind the activations, whose words spend that cycle on their way into the shift registers."""
        m.submodules.weights = weights = WeightWalker()
        if (issue := taps.latency + weights.latency) != ISSUE:
            raise ValueError(f"PW walkers must have the latency ISSUE = {ISSUE}, not {issue}")
        first = delayed(m, taps.first, weights.latency + MEMORY_READ, "first", reset_less=True)[-1]
        m.d.comb += [
            weights.init.eq(self.command.start),
            weights.base.eq(i.weight_addr),
            weights.step.eq(taps.step),
            weights.last.eq(taps.last),
            weights.last_final.eq(taps.last_final),
            self.wgt.en.eq(weights.en),
            self.wgt.addr.eq(weights.addr),
            array.weights.eq(self.wgt.data),
            array.first.eq(first),
        ]

    def _connect_records(self, m: Module, i: data.View, control: PwControl) -> None:
        m.submodules.records = records = RecordLoader(control.words_max)
        wiring.connect(m, records.par, wiring.flipped(self.par))
        m.d.comb += [
            records.init.eq(self.command.start),
            records.base.eq(i.param_addr),
            records.begin.eq(control.begin),
            records.words.eq(control.words),
            self.requantise.load_en.eq(records.load_en),
            self.requantise.load_set.eq(records.load_set),
            self.requantise.load_index.eq(records.load_index),
            self.requantise.load_data.eq(Mux(records.load_en, self.par.data, 0)),
        ]

    def _connect_drain(self, m: Module, control: PwControl, taps: TapWalker, array: Array, drain: PwDrain) -> None:
        wiring.connect(m, drain.fm, wiring.flipped(self.fm_write))
        m.d.comb += [
            drain.instruction.eq(self.command.instruction),
            drain.init.eq(self.command.start),
            drain.begin.eq(control.begin),
            drain.words.eq(control.words),
            drain.tile_end.eq(taps.tile_end),
            drain.rows.eq(taps.rows),
            drain.final.eq(taps.final),
            array.row.eq(drain.row),
            array.group.eq(drain.group),
            drain.packed.eq(array.packed),
        ]

    def _connect_requantise(self, m: Module, i: data.View, control: PwControl, drain: PwDrain) -> None:
        def while_busy(value: Value) -> Value:
            return Mux(control.busy, value, 0)

        m.d.comb += [
            self.requantise.set.eq(drain.rq_set),
            self.requantise.acc.eq(drain.rq_acc),
            self.requantise.rounding.eq(while_busy(i.rounding)),
            self.requantise.clip_lo.eq(while_busy(i.clip_lo)),
            self.requantise.clip_hi.eq(while_busy(i.clip_hi)),
            self.table.eq(while_busy(i.table)),
            drain.rq_data.eq(self.requantise.o_data),
        ]
