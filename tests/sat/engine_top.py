"""The engines of vectors, channels and pruning with their memories and nothing else: what the bench drives."""

from __future__ import annotations

from amaranth.hdl import Cat, Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.sat.chn import ChnEngine
from hw.rtl.sat.chn_memory import ChnMemory
from hw.rtl.sat.prune import PruneEngine
from hw.rtl.sat.vec import VecEngine
from hw.rtl.sat.vec_flag import SaturationFlag
from hw.rtl.sat.vec_memory import VecMemory
from hw.spec.sat import SatArch

ENGINES = ("VEC", "CHN", "PRUNE")


class EngineTop(wiring.Component):
    """Members: ``start`` of each of ENGINES, ``instruction``, ``done`` and ``error``; ``missed`` (an access of the cycle before lay
    outside); ``busy`` (an engine reaches for a memory); ``gemm_saturated``; ``saturated``, the flag; and the ports of LOAD and STORE."""

    def __init__(self, arch: SatArch) -> None:
        self._arch = arch
        host = {f"{space}_{name}": In(width) for space in ("vec", "chn") for name, width in
                (("write_en", 1), ("write_addr", 20), ("write_data", 128), ("read_en", 1), ("read_addr", 20))}  # fmt: skip
        super().__init__({
            "start": In(len(ENGINES)), "instruction": In(512), "gemm_saturated": In(1), **host,
            "done": Out(1), "error": Out(8), "missed": Out(1), "busy": Out(1), "saturated": Out(1),
            "vec_read_data": Out(128), "chn_read_data": Out(128),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.vec_memory = vec_memory = VecMemory(self._arch)
        m.submodules.chn_memory = chn_memory = ChnMemory(self._arch)
        m.submodules.flag = flag = SaturationFlag()
        m.submodules.vec, m.submodules.chn, m.submodules.prune = engines = VecEngine(), ChnEngine(), PruneEngine()
        vec, chn, prune = engines
        for number, engine in enumerate(engines):
            m.d.comb += [engine.command.start.eq(self.start[number]), engine.command.instruction.eq(self.instruction)]
        for memory_port, port in (
            (vec_memory.vec_read, vec.read), (vec_memory.vec_write, vec.write),
            (vec_memory.prune_read, prune.read), (vec_memory.prune_write, prune.write),
            (chn_memory.vec_read, vec.chn_read), (chn_memory.vec_write, vec.chn_write),
            (chn_memory.chn_read, chn.read), (chn_memory.chn_write, chn.write), (flag.port, vec.flag),
        ):  # fmt: skip
            wiring.connect(m, memory_port, port)
        m.d.comb += [
            flag.events.eq(Cat(vec.saturated, chn.saturated, prune.saturated, self.gemm_saturated)),
            self.done.eq(Cat(engine.command.done for engine in engines).any()),
            self.error.eq(vec.command.error | chn.command.error | prune.command.error),
            self.missed.eq(vec_memory.out_of_range | chn_memory.out_of_range),
            self.saturated.eq(flag.port.saturated),
            self.busy.eq(Cat(vec.read.en, vec.write.en, vec.chn_read.en, vec.chn_write.en, chn.read.en, chn.write.en,
                             prune.read.en, prune.write.en, vec.saturated, chn.saturated, prune.saturated).any()),
        ]  # fmt: skip
        self._host(m, "vec", vec_memory)
        self._host(m, "chn", chn_memory)
        return m

    def _host(self, m: Module, space: str, memory: wiring.Component) -> None:
        for name in ("en", "addr", "data"):
            m.d.comb += getattr(memory.load_write, name).eq(getattr(self, f"{space}_write_{name}"))
        for name in ("en", "addr"):
            m.d.comb += getattr(memory.store_read, name).eq(getattr(self, f"{space}_read_{name}"))
        m.d.comb += getattr(self, f"{space}_read_data").eq(memory.store_read.data)
