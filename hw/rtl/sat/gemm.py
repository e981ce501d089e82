"""GEMM engine: one tile of a product on the array, from the on-chip memories to accumulator or vector memory.

What it computes is defined by GEMM of :class:`hw.spec.sat.machine.SatMachine`, how long it takes by
:func:`hw.spec.sat.timing.gemm.gemm_cycles`. A chunk is fed while the one before it is computed.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import delayed, later
from hw.rtl.arith.float_half import Fp32ToFp16
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.sat.array import Array
from hw.rtl.sat.edges import ColumnEdge
from hw.rtl.sat.feed import FeedControl
from hw.rtl.sat.feed_rows import FeedRows
from hw.rtl.sat.gemm_control import ChunkCount, GemmControl
from hw.rtl.sat.ports import FP16_BITS, FP32_BITS, INDEX_BITS, ReadPort, column_write_port, read_port, write_port
from hw.rtl.sat.steps import StepSequence, WeightWalker
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import DRAIN_FP16, DRAIN_FP32, GEMM
from hw.spec.sat.latency import FP32_TO_FP16, MEMORY_READ
from hw.spec.sat.timing.gemm import ISSUE, TOP


class GemmEngine(wiring.Component):
    """The engine. While it is idle every ``en`` is low.

    Members
    ----------
    command : see :obj:`hw.rtl.common.interfaces.EngineCommand`; ``done`` comes in the cycle after the last write, ``error`` is 0
    tbl, act : pixel table and activations, a port per copy
    wgt, idx : weights and positions
    acc_read, acc_write : accumulators
    out : FP16 results
    """

    def __init__(self, arch: SatArch) -> None:
        self.arch = arch
        sums = FP32_BITS * arch.columns
        super().__init__({
            "command": In(EngineCommand),
            "tbl": Out(ReadPort).array(arch.copies),
            "act": Out(ReadPort).array(arch.copies),
            "wgt": Out(read_port(FP16_BITS * arch.columns)),
            "idx": Out(read_port(INDEX_BITS * arch.columns)),
            "acc_read": Out(read_port(sums)),
            "acc_write": Out(write_port(sums)),
            "out": Out(column_write_port(arch.columns)),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        i = view(GEMM, self.command.instruction)
        m.submodules.control = control = GemmControl(self.arch)
        m.submodules.chunks = chunks = ChunkCount()
        m.submodules.feed = feed = FeedControl(self.arch)
        m.submodules.steps = steps = StepSequence(self.arch)
        m.submodules.weights = weights = WeightWalker(self.arch)
        m.submodules.array = array = Array(self.arch)
        for part in (control, feed, steps, weights):
            m.d.comb += [part.start.eq(self.command.start), part.instruction.eq(self.command.instruction)]
        m.d.comb += [
            chunks.clear.eq(self.command.start),
            chunks.fed.eq(feed.chunk_end),
            chunks.computed.eq(steps.chunk_end),
            feed.room.eq(chunks.room),
            steps.ready.eq(chunks.ready & control.compute),
            control.finished.eq(steps.chunk_end & chunks.one & ~feed.feeding),
            self.command.done.eq(control.done),
            array.all.eq(control.all),
        ]
        self._connect_feed(m, i, feed, array)
        self._connect_weights(m, i, steps, weights, array)
        self._connect_sums(m, control, array)
        self._connect_results(m, i, control, array)
        return m

    def _connect_feed(self, m: Module, i: data.View, feed: FeedControl, array: Array) -> None:
        m.submodules.rows = rows = FeedRows(self.arch)
        m.d.comb += [
            rows.request.eq(feed.request),
            rows.control.eq(feed.control),
            rows.channels.eq(i.channels),
            array.operands.eq(rows.operands),
        ]
        for copy in range(self.arch.copies):
            wiring.connect(m, rows.table[copy], wiring.flipped(self.tbl[copy]))
            wiring.connect(m, rows.act[copy], wiring.flipped(self.act[copy]))

    def _connect_weights(self, m: Module, i: data.View, steps: StepSequence, weights: WeightWalker, array: Array) -> None:
        m.submodules.columns = columns = ColumnEdge(self.arch)
        wiring.connect(m, weights.wgt, wiring.flipped(self.wgt))
        wiring.connect(m, weights.idx, wiring.flipped(self.idx))
        late = ISSUE + MEMORY_READ
        m.d.comb += [
            weights.en.eq(steps.step.en),
            weights.column.eq(steps.column),
            weights.step_end.eq(steps.step_end),
            columns.step.address.eq(later(m, steps.step.address, late, reset_less=True)),
            columns.step.slot.eq(later(m, steps.step.slot, late, reset_less=True)),
            columns.step.en.eq(later(m, steps.step.en, late)),
            columns.words.eq(self.wgt.data),
            columns.positions.eq(self.idx.data),
            columns.sparse.eq(i.sparse),
            columns.wide.eq(i.chunk_log2),
            array.steps.eq(columns.steps),
        ]

    def _connect_sums(self, m: Module, control: GemmControl, array: Array) -> None:
        m.d.comb += [
            self.acc_read.en.eq(control.preload),
            self.acc_read.addr.eq(control.addr),
            array.bottom.eq(self.acc_read.data),
        ]

    def _connect_results(self, m: Module, i: data.View, control: GemmControl, array: Array) -> None:
        """FP32 as it leaves the array, FP16 after the rounding."""
        wide, half = control.drain & (i.drain == DRAIN_FP32), control.drain & (i.drain == DRAIN_FP16)
        wanted = half & (control.row < i.out_rows) & (control.column < i.out_words)
        addr = delayed(m, control.addr, TOP + FP32_TO_FP16, "addr", reset_less=True)
        rounded = self._rounded(m, array.top)
        m.d.comb += [
            self.acc_write.en.eq(delayed(m, wide, TOP, "wide")[-1]),
            self.acc_write.addr.eq(addr[TOP]),
            self.acc_write.data.eq(array.top),
            self.out.en.eq(delayed(m, wanted, TOP + FP32_TO_FP16, "wanted")[-1]),
            self.out.bank.eq(i.out_bank),
            self.out.addr.eq(addr[-1]),
            self.out.data.eq(Cat(unit.o for unit in rounded)),
            self.out.saturated.eq(self.out.en & Cat(unit.saturated for unit in rounded).any()),
        ]

    def _rounded(self, m: Module, sums: Value) -> list[Fp32ToFp16]:
        units = []
        for column in range(self.arch.columns):
            m.submodules[f"round_{column}"] = unit = Fp32ToFp16()
            m.d.comb += unit.i.eq(sums.word_select(column, FP32_BITS))
            units.append(unit)
        return units


