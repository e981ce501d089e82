"""The shell of every core: registers, program control, AXI masters, counters and interrupt around the core's engines."""

from collections.abc import Sequence

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import axi4_manager, axi_lite_subordinate, join_channels
from hw.rtl.common.counters import Counters
from hw.rtl.common.interfaces import ERROR_BITS, EngineCommand, ReadRuns, WriteRuns
from hw.rtl.common.read import ReadMaster
from hw.rtl.common.registers import RegisterFile
from hw.rtl.common.sequencer import Sequencer, Trace
from hw.rtl.common.write import WriteMaster
from hw.spec.arch import Arch


class Shell(wiring.Component):
    """Everything of a core but its engines and on-chip memories.

    The core is serial: one instruction runs at a time, and the program is fetched between instructions through the same read
    master that the engines use.

    Parameters
    ----------
    arch : the core's architecture; its instruction table gives the engines their names
    compute : operations whose cycles, from start to done, the COMPUTE counter adds up

    Members
    -------
    s_axi, m_axi_0 .. : the buses
    irq : a program ended (DONE) and IRQ_ENABLE is set
    build_id : what the registers of that name read
    trace : issue and retirement of instructions, for a simulator
    engine_<operation> : the command port of each operation of the table, in lower case
    reads, writes : the masters, for the running engine
    flush : an instruction was broken off: every engine must be in reset while this is high
    """

    def __init__(self, *, arch: Arch, compute: Sequence[str] = ()) -> None:
        self._arch = arch
        self._names = [operation.name for operation in arch.instructions.operations]
        if unknown := sorted(set(compute) - set(self._names)):
            raise ValueError(f"compute must name operations of core {arch.core}, {self._names}, not {unknown}")
        self._compute = tuple(compute)
        super().__init__({
            "s_axi": Out(axi_lite_subordinate()),
            **{f"m_axi_{i}": Out(axi4_manager()) for i in range(arch.managers)},
            "irq": Out(1),
            "build_id": In(64),
            "trace": Out(Trace),
            **{f"engine_{name.lower()}": Out(EngineCommand) for name in self._names},
            "reads": In(ReadRuns),
            "writes": In(WriteRuns),
            "flush": Out(1),
        })  # fmt: skip

    def command(self, operation: str) -> wiring.PureInterface:
        """The command port of an operation of the table."""
        return getattr(self, f"engine_{operation.lower()}")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.registers = registers = RegisterFile(arch=self._arch)
        m.submodules.sequencer = sequencer = Sequencer(arch=self._arch)
        m.submodules.counters = counters = Counters()
        m.submodules.read = read = ReadMaster(self._arch)
        m.submodules.write = write = WriteMaster(self._arch)
        wiring.connect(m, wiring.flipped(self.s_axi), registers.s_axi)
        wiring.connect(m, wiring.flipped(self.trace), sequencer.trace)
        m.d.comb += [
            registers.build_id.eq(self.build_id),
            registers.counters.eq(counters.values),
            counters.clear.eq(sequencer.clear),
            counters.busy.eq(sequencer.busy),
            self.flush.eq(sequencer.halt),
        ]
        m.d.sync += self.irq.eq(sequencer.done & registers.irq_enable)
        self._control(m, registers, sequencer)
        self._masters(m, registers, sequencer, read, write)
        self._engines(m, sequencer)
        self._count(m, sequencer, counters, read, write)
        return m

    def _control(self, m: Module, registers: RegisterFile, sequencer: Sequencer) -> None:
        for name in ("start", "abort", "acknowledge", "program_length", "watchdog"):
            m.d.comb += getattr(sequencer, name).eq(getattr(registers, name))
        for name in ("busy", "done", "stuck", "error_code", "error_index", "retired"):
            m.d.comb += getattr(registers, name).eq(getattr(sequencer, name))
        m.d.comb += sequencer.program_addr.eq(registers.program.base)

    def _masters(
        self, m: Module, registers: RegisterFile, sequencer: Sequencer, read: ReadMaster, write: WriteMaster
    ) -> None:
        for master in (read, write):
            m.d.comb += [
                master.regions.eq(registers.regions),
                master.program.eq(registers.program),
                master.drain.eq(sequencer.halt),
            ]
            for i, half in enumerate(master.axi):
                join_channels(m, getattr(self, f"m_axi_{i}"), half)
        wiring.connect(m, wiring.flipped(self.writes), write.runs)
        self._share_reads(m, sequencer, read)
        m.d.comb += sequencer.masters_idle.eq(read.runs.idle & write.runs.idle)

    def _share_reads(self, m: Module, sequencer: Sequencer, read: ReadMaster) -> None:
        """The read master serves the fetch while there is one, else the engines. Neither clears while the other is served."""
        m.d.comb += [
            read.runs.clear.eq(sequencer.runs.clear | self.reads.clear),
            read.runs.request.payload.eq(
                Mux(sequencer.fetching, sequencer.runs.request.payload.as_value(), self.reads.request.payload.as_value())
            ),
            read.runs.request.valid.eq(Mux(sequencer.fetching, sequencer.runs.request.valid, self.reads.request.valid)),
            read.runs.data.ready.eq(Mux(sequencer.fetching, sequencer.runs.data.ready, self.reads.data.ready)),
        ]
        for user, selected in ((sequencer.runs, sequencer.fetching), (self.reads, ~sequencer.fetching)):
            m.d.comb += [
                user.request.ready.eq(read.runs.request.ready & selected),
                user.data.valid.eq(read.runs.data.valid & selected),
                user.data.payload.eq(read.runs.data.payload),
                user.refused.eq(read.runs.refused),
                user.failed.eq(read.runs.failed),
                user.idle.eq(read.runs.idle),
            ]

    def _engines(self, m: Module, sequencer: Sequencer) -> None:
        """An idle engine's done is low, so those of all engines can be joined."""
        commands = [self.command(name) for name in self._names]
        errors = [Mux(command.done, command.error, 0) for command in commands]
        m.d.comb += sequencer.ended.eq(Cat(command.done for command in commands).any())
        m.d.comb += [sequencer.error[i].eq(Cat(error[i] for error in errors).any()) for i in range(ERROR_BITS)]
        for i, command in enumerate(commands):
            m.d.comb += [command.start.eq(sequencer.issue[i]), command.instruction.eq(sequencer.instruction)]

    def _count(self, m: Module, sequencer: Sequencer, counters: Counters, read: ReadMaster, write: WriteMaster) -> None:
        computing, starts = Signal(), Signal()
        m.d.comb += starts.eq(Cat(sequencer.issue[self._names.index(name)] for name in self._compute).any())
        with m.If(starts):
            m.d.sync += computing.eq(1)
        with m.Elif(sequencer.ended | sequencer.halt):
            m.d.sync += computing.eq(0)
        m.d.comb += [
            counters.events.CYCLES.eq(1),
            counters.events.READ_BEATS.eq(read.beat),
            counters.events.WRITE_BEATS.eq(write.beat),
            counters.events.READ_STALLS.eq(read.stall),
            counters.events.WRITE_STALLS.eq(write.stall),
            counters.events.COMPUTE.eq(starts | (computing & ~sequencer.ended & ~sequencer.halt)),
        ]
