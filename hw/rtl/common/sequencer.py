"""Runs a program: checks its header, then fetches, checks, issues and retires one instruction after the other.

The first error in program order ends the program. An error, the watchdog and an abort all end in the same way: ``halt`` rises
(engines are held in reset, masters drain), and the program ends when both masters are idle. Masters that do not become idle
within the watchdog's time (65536 cycles if it is off) leave the core stuck until reset, with ``halt`` still high.

Cycles from the cycle in which one instruction retires to the one in which the next issues: the fetch (``Fetcher``: 2 and
the read of four words) and then ISSUE_LATENCY.
"""

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.checks import CHECK_LATENCY, HeaderChecker, HeaderLayout, InstructionChecker
from hw.rtl.common.decode import INSTRUCTION_BITS, view
from hw.rtl.common.fetch import UNIT_BITS, Fetcher
from hw.rtl.common.interfaces import ERROR_BITS, ReadRuns
from hw.rtl.common.tokens import TokenBoard
from hw.rtl.common.watchdog import Watchdog
from hw.spec.arch import Arch
from hw.spec.isa import INSTRUCTION_BYTES
from hw.spec.regs import NO_INSTRUCTION, ErrorCode

DRAIN_LIMIT = 1 << 16
"""Cycles that the masters have to become idle if the watchdog is off."""

ISSUE_LATENCY = CHECK_LATENCY + 1
"""From the cycle in which the fetch is done to the one in which the instruction issues."""

Trace = wiring.Signature({"issue": Out(1), "retire": Out(1), "index": Out(32)})
"""``issue`` in an instruction's first cycle, ``retire`` in its last (only if it ends well), with its ``index``."""


class Sequencer(wiring.Component):
    """The control of a core.

    Members
    -------
    start, abort, acknowledge : commands of the CONTROL register
    program_addr, program_length, watchdog : registers
    busy, done, stuck, error_code, error_index, retired : registers
    clear : a program starts
    runs : reads of the program; in use while ``fetching``
    issue : bit i: operation i of the table starts with ``instruction``, which holds until it ends
    ended, error : the running instruction ends, with an ``ErrorCode``
    halt : hold the engines in reset, let the masters drain
    masters_idle : nothing is outstanding on any bus
    """

    def __init__(self, *, arch: Arch) -> None:
        self._arch = arch
        super().__init__({
            "start": In(1), "abort": In(1), "acknowledge": In(1),
            "program_addr": In(64), "program_length": In(32), "watchdog": In(32),
            "busy": Out(1), "done": Out(1), "stuck": Out(1),
            "error_code": Out(ERROR_BITS), "error_index": Out(32), "retired": Out(32),
            "clear": Out(1),
            "runs": Out(ReadRuns), "fetching": Out(1),
            "issue": Out(len(arch.instructions.operations)), "instruction": Out(INSTRUCTION_BITS),
            "ended": In(1), "error": In(ERROR_BITS),
            "halt": Out(1), "masters_idle": In(1),
            "trace": Out(Trace),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._parts(m)
        self._in_header = Signal(reset_less=True)  # the unit in hand is the header, not an instruction
        self._remaining = Signal(32, reset_less=True)  # instructions that have not retired
        self._stopping = Signal()  # watchdog or abort: leave whatever is waited for
        self._abort_pending = Signal(reset_less=True)
        m.d.comb += [
            self.trace.index.eq(self.retired),
            self._stopping.eq(self._abort_pending | self._watchdog.expired),
            self._fetcher.index.eq(Mux(self._in_header, 0, self.retired[:UNIT_BITS] + 1)),
        ]
        with m.If(self.abort & self.busy):
            m.d.sync += self._abort_pending.eq(1)
        with m.FSM():
            self._idle(m)
            self._check_length(m)
            self._fetch(m)
            self._check(m)
            self._issue(m)
            self._run(m)
            self._drain(m)
        return m

    def _parts(self, m: Module) -> None:
        m.submodules.fetcher = self._fetcher = fetcher = Fetcher()
        m.submodules.header = self._header = header = HeaderChecker(arch_id=self._arch.arch_id)
        m.submodules.checker = self._checker = checker = InstructionChecker(instructions=self._arch.instructions)
        m.submodules.tokens = self._tokens = tokens = TokenBoard()
        m.submodules.watchdog = self._watchdog = Watchdog()
        wiring.connect(m, fetcher.runs, wiring.flipped(self.runs))
        common = view(self._arch.instructions.operations[0], fetcher.bits)
        m.d.comb += [
            self.fetching.eq(fetcher.active),
            fetcher.halt.eq(self.halt),
            self.instruction.eq(fetcher.bits),
            header.header.eq(fetcher.bits),
            header.sealed.eq(fetcher.sealed),
            header.length.eq(self.program_length),
            checker.instruction.eq(fetcher.bits),
            checker.sealed.eq(fetcher.sealed),
            checker.blocked.eq(tokens.blocked),
            tokens.clear.eq(self.clear),
            tokens.wait.eq(common.wait),
            tokens.push.eq(common.push),
            tokens.take.eq(self.trace.issue),
            tokens.give.eq(self.trace.retire),
        ]

    def _idle(self, m: Module) -> None:
        with m.State("IDLE"):
            with m.If(self.acknowledge):
                m.d.sync += self.done.eq(0)
            with m.If(self.start):
                m.d.comb += self.clear.eq(1)
                m.d.sync += [
                    self.busy.eq(1), self.done.eq(0), self.error_code.eq(ErrorCode.NONE), self.error_index.eq(0),
                    self.retired.eq(0), self._in_header.eq(1), self._abort_pending.eq(0),
                ]  # fmt: skip
                self._restart_watchdog(m)
                m.next = "LENGTH"

    def _check_length(self, m: Module) -> None:
        low = range(INSTRUCTION_BYTES.bit_length() - 1)
        misaligned = Cat(*(self.program_length[i] | self.program_addr[i] for i in low)).any()
        bad = Signal(name="bad_program_length", reset_less=True)  # registers of the host: they do not change at a start
        m.d.sync += bad.eq(misaligned | (self.program_length == 0))
        with m.State("LENGTH"):
            with m.If(bad):
                self._fail(m, ErrorCode.BAD_LENGTH)
            with m.Else():
                self._fetch_next(m)

    def _fetch(self, m: Module) -> None:
        fetcher = self._fetcher
        with m.State("FETCH"):
            with m.If(self._stopping):
                self._stop(m)
            with m.Elif(fetcher.done):
                with m.If(fetcher.failed):
                    self._fail(m, ErrorCode.AXI_READ)
                with m.Elif(fetcher.refused):
                    self._fail(m, ErrorCode.REGION)
                with m.Else():
                    m.next = "CHECK_1"

    def _check(self, m: Module) -> None:
        for i in range(1, CHECK_LATENCY):
            with m.State(f"CHECK_{i}"):
                m.next = f"CHECK_{i + 1}"
        with m.State(f"CHECK_{CHECK_LATENCY}"):
            with m.If(self._stopping):
                self._stop(m)
            with m.Elif(self._in_header):
                self._start_instructions(m)
            with m.Elif(self._checker.error != ErrorCode.NONE):
                self._fail(m, self._checker.error)
            with m.Else():
                m.next = "ISSUE"

    def _start_instructions(self, m: Module) -> None:
        count = data.View(HeaderLayout, self._fetcher.bits).count
        with m.If(self._header.error != ErrorCode.NONE):
            self._fail(m, self._header.error)
        with m.Elif(count == 0):
            self._finish(m)
        with m.Else():
            m.d.sync += [self._in_header.eq(0), self._remaining.eq(count)]
            m.next = "NEXT"

    def _issue(self, m: Module) -> None:
        chosen = Signal.like(self._checker.selected, name="chosen", reset_less=True)
        m.d.sync += chosen.eq(self._checker.selected)  # it holds still while the checks run
        with m.State("NEXT"):
            self._fetch_next(m)
        with m.State("ISSUE"):
            m.d.comb += [self.issue.eq(chosen), self.trace.issue.eq(1)]
            m.next = "RUN"

    def _run(self, m: Module) -> None:
        with m.State("RUN"):
            with m.If(self.ended & (self.error == ErrorCode.NONE)):
                m.d.comb += self.trace.retire.eq(1)
                m.d.sync += [self.retired.eq(self.retired + 1), self._remaining.eq(self._remaining - 1)]
                self._restart_watchdog(m)
                with m.If(self._remaining == 1):
                    self._finish(m)
                with m.Else():
                    m.next = "NEXT"
            with m.Elif(self.ended):
                self._fail(m, self.error)
            with m.Elif(self._stopping):
                self._stop(m)

    def _drain(self, m: Module) -> None:
        with m.State("HALT"):
            # What an engine requested in its last cycle has reached the masters' idle from the next cycle on.
            m.d.comb += self.halt.eq(1)
            m.next = "DRAIN"
        with m.State("DRAIN"):
            m.d.comb += self.halt.eq(1)
            with m.If(self.masters_idle):
                self._finish(m)
            with m.Elif(self._watchdog.expired):
                m.d.sync += [self.busy.eq(0), self.done.eq(1), self.stuck.eq(1), self.error_code.eq(ErrorCode.BUS_STUCK)]
                m.next = "STUCK"
        with m.State("STUCK"):
            m.d.comb += self.halt.eq(1)
            with m.If(self.acknowledge):
                m.d.sync += self.done.eq(0)

    # --- steps that several states take ---

    def _fetch_next(self, m: Module) -> None:
        m.d.comb += self._fetcher.start.eq(1)
        m.next = "FETCH"

    def _restart_watchdog(self, m: Module) -> None:
        m.d.comb += [self._watchdog.restart.eq(1), self._watchdog.limit.eq(self.watchdog)]

    def _stop(self, m: Module) -> None:
        self._fail(m, Mux(self._abort_pending, ErrorCode.ABORTED, ErrorCode.WATCHDOG))

    def _fail(self, m: Module, code: ErrorCode | Value) -> None:
        self._restart_watchdog(m)
        with m.If(self.watchdog == 0):
            m.d.comb += self._watchdog.limit.eq(DRAIN_LIMIT)
        m.d.sync += [self.error_code.eq(code), self.error_index.eq(Mux(self._in_header, NO_INSTRUCTION, self.retired))]
        m.next = "HALT"

    def _finish(self, m: Module) -> None:
        m.d.sync += [self.busy.eq(0), self.done.eq(1)]
        m.next = "IDLE"
