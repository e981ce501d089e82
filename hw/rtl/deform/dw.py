"""The depthwise engine: per-channel convolution of up to 3 x 3, square deformable convolution, pooling and bilinear sampling, 16
channels at a time.

It executes DW instructions as ``hw/spec/deform/machine.py`` defines them. One tap column (three words of row memory) is read per
cycle, back to back over output pixels and channel words; the next channel word's parameters are loaded meanwhile. ``done`` comes in
the cycle after the last write to feature memory; the cycles from ``start`` to ``done`` are
:func:`hw.spec.deform.timing.dw.dw_cycles`. The engine may be reset at any time.

The offset map is read once per channel word while earlier pixels are written, so it must not overlap the output.
"""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import INSTRUCTION_BITS, EngineCommand
from hw.rtl.deform.dw_address import AddressGenerator, TapRow
from hw.rtl.deform.dw_control import Loop, ParameterLoader, Step, TapSequencer
from hw.rtl.deform.dw_lanes import Interpolation, Lane, LaneArray, WeightStore
from hw.rtl.deform.dw_offset import OffsetFetch, RowShift
from hw.rtl.deform.ports import TABLE_FIELD_BITS, ReadPort, RequantisePort, RowReadPort, WritePort
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import ADDR_BITS, DW, DW_MAX, DW_SAMPLE, DW_SUM
from hw.spec.deform.latency import result_cycles
from hw.spec.deform.timing import dw as timing


class DwEngine(wiring.Component):
    """Depthwise engine.

    Parameters
    ----------
    arch : the core; of it only the latency of the results matters

    Members
    -------
    command : a DW instruction with legal fields; ``error`` is always 0
    par : requantise records and weights
    fm_read : offset map
    fm_write : output words
    row : activations, latency ROW_READ; a tap outside the input is never enabled
    requantise : record sets 0 and 1 in turn; its bytes come through the tables
    table : the instruction's table

    While the engine is idle every ``en``, ``table`` and all it sends to the requantise unit are zero.
    """

    command: In(EngineCommand)
    par: Out(ReadPort)
    fm_read: Out(ReadPort)
    fm_write: Out(WritePort)
    row: Out(RowReadPort)
    requantise: Out(RequantisePort)
    table: Out(TABLE_FIELD_BITS)

    def __init__(self, arch: DeformArch) -> None:
        self._arch = arch
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        _check_latencies(self._arch)
        m = Module()
        m.submodules.sequencer = sequencer = TapSequencer()
        m.submodules.loader = loader = ParameterLoader()
        m.submodules.addresses = addresses = AddressGenerator()
        m.submodules.writer = writer = Writer()
        for part in (sequencer, loader, addresses, writer):
            m.d.comb += [part.start.eq(self.command.start), part.instruction.eq(self.command.instruction)]
        for port, part in ((self.par, loader.par), (self.fm_read, addresses.fm), (self.fm_write, writer.fm)):
            wiring.connect(m, wiring.flipped(port), part)
        m.d.comb += [
            sequencer.loaded.eq(loader.loaded),
            addresses.step.eq(sequencer.step),
            self.row.en.eq(addresses.row.en),
            self.row.bank.eq(addresses.row.bank),
            self.row.addr.eq(addresses.row.addr),
            writer.i_data.eq(self.requantise.o_data),
        ]
        busy = Signal()
        m.d.sync += self.command.done.eq(writer.finished)
        with m.If(self.command.start):
            m.d.sync += busy.eq(1)
        with m.Elif(writer.finished):
            m.d.sync += busy.eq(0)
        results = self._lanes(m, loader, addresses)
        m.d.comb += writer.i_step.eq(later(m, results, result_cycles(self._arch)))
        self._requantise(m, loader, busy)
        return m

    def _lanes(self, m: Module, loader: ParameterLoader, addresses: AddressGenerator) -> data.View:
        """Row data and weights through the lanes to the requantise unit. Returns the step whose accumulators are ready."""
        fields = view(DW, self.command.instruction)
        m.submodules.weights = weights = WeightStore()
        m.submodules.interpolation = interpolation = Interpolation()
        m.submodules.lanes = lanes = LaneArray()
        reading = later(m, addresses.o_step, timing.ROW_READ - weights.delay)
        arrived = later(m, reading, weights.delay)
        summed = later(m, arrived, lanes.delay - 1)
        ready = later(m, summed, 1)
        m.d.comb += [
            loader.released.eq(arrived.word_last),
            weights.write.eq(loader.write),
            weights.i_data.eq(self.par.data),
            weights.slot.eq(reading.slot),
            weights.column.eq(reading.column),
            interpolation.instruction.eq(self.command.instruction),
            interpolation.fraction.eq(addresses.o_fraction),
            lanes.mode.in_unsigned.eq(fields.in_unsigned),
            lanes.mode.maximum.eq(fields.mode == DW_MAX),
            lanes.mode.unit_weights.eq(fields.mode == DW_SUM),
            lanes.mode.shared_weights.eq(fields.mode == DW_SAMPLE),
            lanes.words.eq(self.row.data),
            lanes.enabled.eq(later(m, self.row.en, timing.ROW_READ, reset_less=True)),
            lanes.weights.eq(weights.weights),
            lanes.shared.eq(interpolation.weights),
            lanes.first.eq(summed.pixel_first),
            lanes.valid.eq(summed.valid),
            self.requantise.set.eq(ready.slot & ready.pixel_last),
        ]
        for port, acc in zip(self.requantise.acc, lanes.acc, strict=True):
            m.d.comb += port.eq(Mux(ready.pixel_last, acc, 0))
        return ready

    def _requantise(self, m: Module, loader: ParameterLoader, busy: Signal) -> None:
        """Records, rounding and clips; zero while idle."""
        fields = view(DW, self.command.instruction)
        port, record = self.requantise, loader.write.record
        m.d.comb += [
            port.load_en.eq(record),
            port.load_set.eq(Mux(record, loader.write.slot, 0)),
            port.load_index.eq(loader.write.record_index),
            port.load_data.eq(Mux(record, self.par.data, 0)),
            port.rounding.eq(Mux(busy, fields.rounding, 0)),
            port.clip_lo.eq(Mux(busy, fields.clip_lo, 0)),
            port.clip_hi.eq(Mux(busy, fields.clip_hi, 0)),
            self.table.eq(Mux(busy, fields.table, 0)),
        ]


class Writer(wiring.Component):
    """Writes requantised words to feature memory, one cycle later, pixel by pixel for one channel word after the other.

    Members
    -------
    start : an instruction begins
    i_step, i_data : a tap column, and the requantised word if it was the last of its pixel
    fm : output words
    finished : in the cycle in which the instruction's last word is on ``fm``
    """

    start: In(1)
    instruction: In(INSTRUCTION_BITS)
    i_data: In(128)
    i_step: In(Step)
    fm: Out(WritePort)
    finished: Out(1)

    delay = 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = view(DW, self.instruction)
        m.submodules.words = words = Loop(width=16)
        taken, word_last = Signal(), Signal()
        addr, next_word = Signal(ADDR_BITS, reset_less=True), Signal(ADDR_BITS, reset_less=True)
        place, written = data_register(m, self.fm.addr), data_register(m, self.fm.data)
        m.d.comb += [
            taken.eq(self.i_step.pixel_last),
            word_last.eq(self.i_step.word_last),
            words.load.eq(self.start),
            words.count.eq(fields.words),
            words.step.eq(word_last),
        ]
        m.d.sync += [
            self.fm.en.eq(taken),
            place.eq(addr),
            written.eq(self.i_data),
            self.finished.eq(word_last & words.last),
        ]
        with m.If(self.start):
            m.d.sync += [addr.eq(fields.out_addr), next_word.eq(fields.out_addr + 1)]
        with m.Elif(word_last):
            m.d.sync += [addr.eq(next_word), next_word.eq(next_word + 1)]
        with m.Elif(taken):
            m.d.sync += addr.eq(addr + fields.out_pitch)
        return m


def _check_latencies(arch: DeformArch) -> None:
    """The parts' latencies are those of the timing model, and parameters arrive before they are used."""
    structure = {
        "OFFSET_FETCH": OffsetFetch.delay,
        "TAP_ADDRESS": RowShift.delay + TapRow.delay,
        "LANE": Lane.delay,
        "WRITE": Writer.delay,
        "RELEASE": AddressGenerator.delay + timing.ROW_READ,
    }
    for name, cycles in structure.items():
        if cycles != getattr(timing, name):
            raise ValueError(f"hw.spec.deform.timing.dw.{name} must be the engine's {cycles}, not {getattr(timing, name)}")
    pipeline = AddressGenerator.delay + timing.ROW_READ + Lane.delay + result_cycles(arch) + Writer.delay
    if pipeline != timing.pipeline_cycles(arch):
        raise ValueError(f"pipeline_cycles must be the engine's {pipeline}, not {timing.pipeline_cycles(arch)}")
    if timing.ROW_READ != Interpolation.delay:
        raise ValueError(f"ROW_READ must be the interpolation's {Interpolation.delay}, not {timing.ROW_READ}")
    if timing.ROW_READ < WeightStore.delay:
        raise ValueError(f"ROW_READ must be at least {WeightStore.delay}, not {timing.ROW_READ}")
    # A channel word is issued from the cycle after its last record was asked for; that record is the last to arrive.
    to_weights = AddressGenerator.delay + timing.ROW_READ - WeightStore.delay
    if to_weights + 1 <= ParameterLoader.delay:
        raise ValueError(f"the first weights are read {to_weights} cycles after issue, before they are loaded")
    # A released slot is overwritten when the lanes have read its weights and the requantise unit has taken its records.
    if 1 + ParameterLoader.delay < Lane.delay:
        raise ValueError(f"a slot released with the row data is overwritten before the lanes' {Lane.delay} cycles are over")
