"""The inference core: its engines and on-chip memories, in the frame of every core.

Each memory has one read and one write port. As one engine runs at a time, a port is driven by the disjunction of the engines'
ports, each of which counts only while its ``en`` is high.
"""

from collections.abc import Mapping
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from amaranth.utils import exact_log2

from hw.rtl.arith.requantise import RequantiseUnit
from hw.rtl.cells.mac2 import Mac2Cell
from hw.rtl.common.core import Core
from hw.rtl.common.joins import WATCH_ADDR_BITS, join_reads, join_writes, watch, watch_net
from hw.rtl.deform.dw import DwEngine
from hw.rtl.deform.load import LoadEngine
from hw.rtl.deform.memories import FeatureMemory, ParameterMemory, RowMemory, WeightMemory
from hw.rtl.deform.pw import PwEngine
from hw.rtl.deform.store import StoreEngine
from hw.rtl.deform.tables import TableLookup
from hw.spec.deform import LANES, ROW_BANKS, DeformArch
from hw.spec.deform.latency import TABLE_PARTS


class DeformCore(Core):
    """The inference core of an architecture.

    Parameters
    ----------
    arch : sizes of array, memories and buses
    cell, row_memory : multiplier cell and row memory that suit the part; all of them compute the same in the same cycles, so they are
        not part of the architecture's identity

    Nets ``watch_<space>__en``, ``__addr`` and ``__data`` of the top module show the writes to on-chip memory ``fm``, ``row``
    (bank * row_words + address), ``wgt`` (16-byte units), ``par`` and, where there are tables, ``tbl`` (the word of which the last
    part is written); they drive nothing and only a simulator reads them.
    """

    compute = ("PW", "DW")
    _arch: DeformArch

    def __init__(self, arch: DeformArch, cell: type[Mac2Cell] = Mac2Cell, row_memory: type[RowMemory] = RowMemory) -> None:
        super().__init__(arch)
        self._cell, self._row_memory = cell, row_memory

    def engines(self) -> Mapping[str, wiring.Component]:
        self._load, self._store = LoadEngine(self._arch), StoreEngine(self._arch)
        self._pw, self._dw = PwEngine(self._arch, self._cell), DwEngine(self._arch)
        return {"LOAD": self._load, "STORE": self._store, "PW": self._pw, "DW": self._dw}

    def join(self, m: Module) -> Value:
        return self._memories(m) | self._requantise(m)

    def _memories(self, m: Module) -> Value:
        """The memories, joined to the engines. Returns whether an access of the cycle before lay outside its memory."""
        m.submodules.feature = feature = FeatureMemory(self._arch)
        m.submodules.row = row = self._row_memory(self._arch)
        m.submodules.weight = weight = WeightMemory(self._arch)
        m.submodules.parameter = parameter = ParameterMemory(self._arch)
        load, store, pw, dw = self._load, self._store, self._pw, self._dw
        join_reads(m, feature.read, (store.feature, pw.fm_read, dw.fm_read))
        join_writes(m, feature.write, (load.feature, pw.fm_write, dw.fm_write))
        join_reads(m, parameter.read, (pw.par, dw.par))
        join_writes(m, parameter.write, (load.parameter,))
        join_reads(m, weight.read, (pw.wgt,))
        join_writes(m, weight.write, (load.weight,))
        wiring.connect(m, row.read, dw.row)
        wiring.connect(m, row.write, load.row)
        watch(m, "fm", feature.write, feature.write.addr)
        watch(m, "row", row.write, self._row_address(m, row.write))
        watch(m, "wgt", weight.write, weight.write.addr)
        watch(m, "par", parameter.write, parameter.write.addr)
        return Cat(memory.out_of_range for memory in (feature, row, weight, parameter)).any()

    def _row_address(self, m: Module, write: wiring.PureInterface) -> Signal:
        """The row memory's address as if its banks lay one after the other."""
        linear = Signal(WATCH_ADDR_BITS)
        for bank in range(ROW_BANKS):
            with m.If(write.bank == bank):
                m.d.comb += linear.eq(bank * self._arch.row_words + write.addr)
        return linear

    def _requantise(self, m: Module) -> Value:
        """The requantise unit and the tables behind it. Returns whether an instruction names a table that there is not."""
        sets = max(self._arch.columns // LANES, 2)
        m.submodules.requantise = unit = RequantiseUnit(sets)
        m.submodules.tables = tables = TableLookup(self._arch)
        ports = (self._pw.requantise, self._dw.requantise)
        m.d.comb += [tables.table.eq(self._pw.table | self._dw.table), tables.i.eq(unit.port.o_data)]
        for name, member in unit.port.signature.members.items():
            inner = Value.cast(getattr(unit.port, name))
            outer = [Value.cast(getattr(port, name)) for port in ports]
            if member.flow is In:
                m.d.comb += inner.eq(reduce(or_, outer))
            else:
                m.d.comb += [port.eq(tables.o) for port in outer]
        if self._arch.tables:
            wiring.connect(m, tables.write, self._load.table)
            self._watch_tables(m)
        return tables.out_of_range

    def _watch_tables(self, m: Module) -> None:
        """A word of a table memory is shown with its last part; LOAD holds it in the register that all its ports share."""
        part, word = self._load.table, self._load.parameter.data
        last, place = TABLE_PARTS - 1, exact_log2(TABLE_PARTS)
        watch_net(m, "tbl", part.en & (part.addr[:place] == last), part.addr[place:], word)
