"""The frame of every core: its ports, the shell, and the engines joined to it. Top module of every build and simulation."""

from __future__ import annotations

from collections.abc import Mapping

from amaranth.hdl import Module, ResetInserter, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import axi4_manager, axi_lite_subordinate
from hw.rtl.common.joins import join_commands
from hw.rtl.common.sequencer import Trace
from hw.rtl.common.shell import Shell
from hw.spec.arch import Arch


class Core(wiring.Component):
    """The core of an architecture; a subclass has the engines and what lies between them.

    Members
    -------
    s_axi : registers (``hw.spec.regs``)
    m_axi_0 .. : memory, one per ``arch.managers``
    irq : level interrupt
    build_id : hash of the design record, tied off by the board's wrapper
    trace : issue and retirement of instructions
    """

    compute: tuple[str, ...]
    """Operations whose cycles the COMPUTE counter adds up."""

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        super().__init__({
            "s_axi": Out(axi_lite_subordinate()),
            **{f"m_axi_{i}": Out(axi4_manager()) for i in range(arch.managers)},
            "irq": Out(1),
            "build_id": In(64),
            "trace": Out(Trace),
        })  # fmt: skip

    def engines(self) -> Mapping[str, wiring.Component]:
        """An engine for each operation of the instruction table, LOAD and STORE among them."""
        raise NotImplementedError

    def join(self, m: Module) -> Value:
        """Add memories and what engines share. Returns whether an access of the cycle before lay outside its memory."""
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.shell = shell = Shell(arch=self._arch, compute=self.compute)
        engines = self.engines()
        for name, engine in engines.items():
            m.submodules[name.lower()] = ResetInserter(shell.flush)(engine)
        wiring.connect(m, wiring.flipped(self.s_axi), shell.s_axi)
        wiring.connect(m, wiring.flipped(self.trace), shell.trace)
        for i in range(self._arch.managers):
            wiring.connect(m, wiring.flipped(getattr(self, f"m_axi_{i}")), getattr(shell, f"m_axi_{i}"))
        wiring.connect(m, shell.reads, engines["LOAD"].runs)
        wiring.connect(m, shell.writes, engines["STORE"].runs)
        m.d.comb += [self.irq.eq(shell.irq), shell.build_id.eq(self.build_id)]
        join_commands(m, shell, engines, self.join(m))
        return m
