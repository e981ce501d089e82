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
    """Parameters: ``arch``; ``engines``, which of ENGINES there are.

    Members: ``start`` of each engine, ``instruction``, ``done`` and ``error``; ``missed`` (an access of the cycle before lay outside);
    ``busy`` (an engine reaches for a memory or the flag); ``gemm_saturated``; ``saturated``, the flag; the ports of LOAD and STORE.
    """

    def __init__(self, arch: SatArch, engines: tuple[str, ...]) -> None:
        self._arch, self._names = arch, engines
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
        kinds = {"VEC": VecEngine, "CHN": ChnEngine, "PRUNE": PruneEngine}
        engines = {name: kinds[name]() for name in self._names}
        for name, engine in engines.items():
            m.submodules[name.lower()] = engine
            m.d.comb += [engine.command.start.eq(self.start[ENGINES.index(name)]), engine.command.instruction.eq(self.instruction)]
        for owner, port, joined in (
            ("VEC", "read", vec_memory.vec_read), ("VEC", "write", vec_memory.vec_write), ("VEC", "flag", flag.port),
            ("VEC", "chn_read", chn_memory.vec_read), ("VEC", "chn_write", chn_memory.vec_write),
            ("CHN", "read", chn_memory.chn_read), ("CHN", "write", chn_memory.chn_write),
            ("PRUNE", "read", vec_memory.prune_read), ("PRUNE", "write", vec_memory.prune_write),
        ):  # fmt: skip
            if owner in engines:
                wiring.connect(m, joined, getattr(engines[owner], port))
        commands, events = [e.command for e in engines.values()], Cat(e.saturated for e in engines.values())
        ports = [getattr(e, name) for e in engines.values() for name in ("read", "write", "chn_read", "chn_write") if hasattr(e, name)]
        m.d.comb += [
            flag.events.eq(Cat(self.gemm_saturated, events)),
            self.done.eq(Cat(command.done for command in commands).any()),
            self.error.eq(Cat(command.error for command in commands).any()),
            self.missed.eq(vec_memory.out_of_range | chn_memory.out_of_range),
            self.saturated.eq(flag.port.saturated),
            self.busy.eq(Cat(*(port.en for port in ports), events).any()),
        ]
        self._host(m, "vec", vec_memory)
        self._host(m, "chn", chn_memory)
        return m

    def _host(self, m: Module, space: str, memory: wiring.Component) -> None:
        for name in ("en", "addr", "data"):
            m.d.comb += getattr(memory.load_write, name).eq(getattr(self, f"{space}_write_{name}"))
        for name in ("en", "addr"):
            m.d.comb += getattr(memory.store_read, name).eq(getattr(self, f"{space}_read_{name}"))
        m.d.comb += getattr(self, f"{space}_read_data").eq(memory.store_read.data)
