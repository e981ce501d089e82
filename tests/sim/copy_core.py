"""The shell with LOAD and STORE only and two AXI managers: all bus traffic of a core in a design that builds in seconds."""

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import axi4_manager, axi_lite_subordinate
from hw.rtl.common.sequencer import Trace
from hw.rtl.common.shell import Shell
from hw.rtl.deform.load import LoadEngine
from hw.rtl.deform.memories import FeatureMemory
from hw.rtl.deform.store import StoreEngine
from hw.spec.deform import DeformArch

ARCH = DeformArch(managers=2, region_manager=(0, 1, 1, 0), burst_beats=16, outstanding=2, feature_words=512)


class CopyCore(wiring.Component):
    """Ports as of every core. PW and DW must not be issued; of the on-chip memories only the feature memory is there."""

    s_axi: Out(axi_lite_subordinate())
    m_axi_0: Out(axi4_manager())
    m_axi_1: Out(axi4_manager())
    irq: Out(1)
    build_id: In(64)
    trace: Out(Trace)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.shell = shell = Shell(arch=ARCH, compute=("PW", "DW"))
        m.submodules.feature = feature = FeatureMemory(ARCH)
        load, store = LoadEngine(ARCH), StoreEngine(ARCH)
        for name, engine in (("load", load), ("store", store)):
            m.submodules[name] = ResetInserter(shell.flush)(engine)
            wiring.connect(m, shell.command(name), engine.command)
        for name in ("s_axi", "m_axi_0", "m_axi_1", "trace"):
            wiring.connect(m, wiring.flipped(getattr(self, name)), getattr(shell, name))
        wiring.connect(m, shell.reads, load.runs)
        wiring.connect(m, shell.writes, store.runs)
        wiring.connect(m, feature.write, load.feature)
        wiring.connect(m, feature.read, store.feature)
        m.d.comb += [self.irq.eq(shell.irq), shell.build_id.eq(self.build_id)]
        return m
