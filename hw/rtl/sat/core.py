"""The training core: its engines and on-chip memories, in the frame of every core."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Cat, Module, Mux, Value
from amaranth.lib import wiring

from hw.rtl.common.core import Core
from hw.rtl.sat.chn import ChnEngine
from hw.rtl.sat.chn_memory import ChnMemory
from hw.rtl.sat.gemm import GemmEngine
from hw.rtl.sat.memories import AccumulatorMemory, ActivationMemory, IndexMemory, TableMemory, WeightMemory
from hw.rtl.sat.prune import PruneEngine
from hw.rtl.sat.transfers import load_engine, store_engine
from hw.rtl.sat.vec import VecEngine
from hw.rtl.sat.vec_flag import SaturationFlag
from hw.rtl.sat.vec_memory import VecMemory
from hw.rtl.sat.watches import watch_acc, watch_idx, watch_vec, watch_word
from hw.spec.sat import SatArch


class SatCore(Core):
    """The training core of an architecture.

    Nets ``watch_<space>__en``, ``__addr`` and ``__data`` of the top module, or of lanes ``watch_<space>_<lane>``, show the writes to
    on-chip memory in 16-byte words (:mod:`hw.rtl.sat.watches`); they drive nothing and only a simulator reads them.
    """

    compute = ("GEMM", "VEC", "CHN", "PRUNE")
    _arch: SatArch

    def __init__(self, arch: SatArch) -> None:
        super().__init__(arch)

    def engines(self) -> Mapping[str, wiring.Component]:
        self._load, self._store = load_engine(self._arch), store_engine(self._arch)
        self._gemm, self._vec = GemmEngine(self._arch), VecEngine()
        self._chn, self._prune = ChnEngine(), PruneEngine()
        return {
            "LOAD": self._load, "STORE": self._store, "GEMM": self._gemm, "VEC": self._vec, "CHN": self._chn, "PRUNE": self._prune,
        }  # fmt: skip

    def join(self, m: Module) -> Value:
        missed = self._operand_memories(m) | self._vector_memories(m)
        self._flag(m)
        return missed

    def _operand_memories(self, m: Module) -> Value:
        """What GEMM works on. Returns whether an access of the cycle before lay outside its memory."""
        arch, load, gemm = self._arch, self._load, self._gemm
        m.submodules.act_memory = act = ActivationMemory(arch)
        m.submodules.tbl_memory = tbl = TableMemory(arch)
        m.submodules.wgt_memory = wgt = WeightMemory(arch)
        m.submodules.idx_memory = idx = IndexMemory(arch)
        m.submodules.acc_memory = acc = AccumulatorMemory(arch)
        for memory, port in ((act, load.act), (tbl, load.tbl), (wgt, load.wgt), (idx, load.idx)):
            wiring.connect(m, memory.write, port)
        for copy in range(arch.copies):
            wiring.connect(m, act.read[copy], gemm.act[copy])
            wiring.connect(m, tbl.read[copy], gemm.tbl[copy])
        wiring.connect(m, wgt.read, gemm.wgt)
        wiring.connect(m, idx.read, gemm.idx)
        wiring.connect(m, acc.read, gemm.acc_read)
        wiring.connect(m, acc.write, gemm.acc_write)
        wiring.connect(m, acc.unit_write, load.acc)
        wiring.connect(m, acc.unit_read, self._store.acc)
        for name, memory in (("act", act), ("tbl", tbl), ("wgt", wgt)):
            watch_word(m, name, memory.write)
        watch_idx(m, idx.write)
        watch_acc(m, arch, acc)
        return Cat(memory.out_of_range for memory in (act, tbl, wgt, idx, acc)).any()

    def _vector_memories(self, m: Module) -> Value:
        """What VEC, CHN and PRUNE work on. Returns whether an access of the cycle before lay outside its memory."""
        m.submodules.vec_memory = vec = VecMemory(self._arch)
        m.submodules.chn_memory = chn = ChnMemory(self._arch)
        wiring.connect(m, vec.load_write, self._load.vec)
        wiring.connect(m, vec.store_read, self._store.vec)
        wiring.connect(m, vec.vec_read, self._vec.read)
        wiring.connect(m, vec.vec_write, self._vec.write)
        wiring.connect(m, vec.prune_read, self._prune.read)
        wiring.connect(m, vec.prune_write, self._prune.write)
        for name in ("en", "bank", "addr", "data"):
            m.d.comb += getattr(vec.gemm_write, name).eq(getattr(self._gemm.out, name))
        wiring.connect(m, chn.load_write, self._load.chn)
        wiring.connect(m, chn.store_read, self._store.chn)
        wiring.connect(m, chn.vec_read, self._vec.chn_read)
        wiring.connect(m, chn.vec_write, self._vec.chn_write)
        wiring.connect(m, chn.chn_read, self._chn.read)
        wiring.connect(m, chn.chn_write, self._chn.write)
        watch_vec(m, self._arch, vec)
        watch_word(m, "chn", chn.written)
        return Cat(vec.out_of_range, chn.out_of_range).any()

    def _flag(self, m: Module) -> None:
        m.submodules.flag = flag = SaturationFlag()
        drain = self._gemm.out
        events = (self._vec.saturated, self._chn.saturated, self._prune.saturated, Mux(drain.en, drain.saturated, 0))
        m.d.comb += flag.events.eq(Cat(*events))
        wiring.connect(m, flag.port, self._vec.flag)
