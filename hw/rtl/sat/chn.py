"""Scalar programs on channel records: a step at a time on one adder, multiplier, divider, square root and integer conversion.

It executes CHN instructions as ``hw/spec/sat/machine.py`` defines them. ``done`` comes in the cycle after the last write; the cycles
from ``start`` to ``done`` are :func:`hw.spec.sat.timing.chn.chn_cycles`. The engine may be reset at any time.
"""

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, enum, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register, later
from hw.rtl.arith.float_add import Fp32Add
from hw.rtl.arith.float_multiply import Fp32Multiply
from hw.rtl.arith.float_serial import Fp32Divide, Fp32Sqrt, IntToFp32
from hw.rtl.common.decode import view
from hw.rtl.common.interfaces import EngineCommand
from hw.rtl.sat.chn_cross import CrossSums
from hw.rtl.sat.chn_program import OP_BITS, start_of, step_at, steps
from hw.rtl.sat.vec_ports import WORD_BITS, ReadPort, WritePort
from hw.rtl.sat.vec_words import fp32_word
from hw.spec.sat.arch import FP32_LANES
from hw.spec.sat.channel import CROSS_BITS, FIRST_BITS, RECORD_VALUES, REGISTERS, SECOND_BITS, Op
from hw.spec.sat.instructions import CHN, RECORD_WORDS
from hw.spec.sat.latency import VECTOR_READ
from hw.spec.sat.timing import chn as timing
from hw.spec.transfer import ADDR_BITS

VALUE_WORDS = RECORD_VALUES // FP32_LANES
ROWS = REGISTERS // FP32_LANES
FIRST_UNIT, SECOND_UNIT = -24, -48
"""Exponents of the units of SUM_1 and SUM_2."""


class State(enum.Enum, shape=3):
    """What the engine does."""

    IDLE = 0
    CONSTANTS = 1
    READ = 2
    FETCH_A = 3
    FETCH_B = 4
    RUN = 5
    STORE = 6


class Scalar(wiring.Component):
    """The shared units. Operands hold still from ``start`` on; the result comes ``hw.spec.sat.timing.chn.RUN`` cycles later.

    Members: ``start``; ``op``; ``a``, ``b``: FP32, for SUB ``b`` with the other sign; ``count``; ``first``, ``second``, ``kept``: the
    channel's sums; ``o``, ``saturated``.
    """

    start: In(1)
    op: In(OP_BITS)
    a: In(32)
    b: In(32)
    count: In(timing.COUNT_BITS)
    first: In(FIRST_BITS)
    second: In(SECOND_BITS)
    kept: In(FIRST_BITS)
    o: Out(32)
    saturated: Out(1)

    run = {
        Op.ADD: Fp32Add.latency, Op.SUB: Fp32Add.latency, Op.MUL: Fp32Multiply.latency, Op.DIV: Fp32Divide.latency,
        Op.SQRT: Fp32Sqrt.latency, Op.SUM_1: IntToFp32.latency, Op.SUM_2: IntToFp32.latency,
        Op.CROSS: CrossSums.delay + IntToFp32.latency, Op.KEEP: 0,
    }  # fmt: skip
    """Cycles from ``start`` to the result."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.add, m.submodules.multiply, m.submodules.divide = add, multiply, divide = Fp32Add(), Fp32Multiply(), Fp32Divide()
        m.submodules.sqrt, m.submodules.convert, m.submodules.cross = sqrt, convert, cross = Fp32Sqrt(), IntToFp32(), CrossSums()
        op = self.op
        sums = (op == Op.SUM_1) | (op == Op.SUM_2)
        value = Signal(signed(CROSS_BITS))
        with m.Switch(op):
            with m.Case(Op.SUM_1):
                m.d.comb += value.eq(self.first.as_signed())
            with m.Case(Op.SUM_2):
                m.d.comb += value.eq(self.second.as_signed())
            with m.Default():
                m.d.comb += value.eq(cross.o.as_signed())
        for unit in (add, multiply, divide):
            m.d.comb += [unit.a.eq(self.a), unit.b.eq(self.b)]
        m.d.comb += [
            sqrt.a.eq(self.a),
            divide.start.eq(self.start & (op == Op.DIV)),
            sqrt.start.eq(self.start & (op == Op.SQRT)),
            cross.start.eq(self.start & (op == Op.CROSS)),
            *(getattr(cross, name).eq(getattr(self, name)) for name in ("count", "first", "second", "kept")),
            convert.start.eq((self.start & sums) | cross.done),
            convert.value.eq(value),
            convert.exponent.eq(Mux(op == Op.SUM_1, FIRST_UNIT, SECOND_UNIT)),
        ]
        with m.Switch(op):
            for unit, ops in ((add, (Op.ADD, Op.SUB)), (multiply, (Op.MUL,)), (divide, (Op.DIV,)), (sqrt, (Op.SQRT,))):
                with m.Case(*ops):
                    m.d.comb += [self.o.eq(unit.o), self.saturated.eq(getattr(unit, "saturated", 0))]
            with m.Case(Op.SUM_1, Op.SUM_2, Op.CROSS):
                m.d.comb += [self.o.eq(convert.o), self.saturated.eq(convert.saturated)]
        return m


class Registers(wiring.Component):
    """The values of a channel and the constants: a memory of rows of four values, which is written by row or by value.

    Members: ``write``, a bit for each value of ``write_row``, and ``write_data``; ``row``, and ``data``, what it has there, at once.
    """

    write: In(FP32_LANES)
    write_row: In(range(ROWS))
    write_data: In(WORD_BITS)
    row: In(range(ROWS))
    data: Out(WORD_BITS)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.array = array = memory.Memory(shape=WORD_BITS, depth=ROWS, init=[])
        writer, reader = array.write_port(granularity=WORD_BITS // FP32_LANES), array.read_port(domain="comb")
        m.d.comb += [
            writer.en.eq(self.write),
            writer.addr.eq(self.write_row),
            writer.data.eq(self.write_data),
            reader.addr.eq(self.row),
            self.data.eq(reader.data),
        ]
        return m


class ChnEngine(wiring.Component):
    """Channel programs.

    Members
    -------
    command : a CHN instruction with legal fields; ``error`` is always 0
    read, write : channel records
    saturated : something saturated; at the latest two cycles before ``done``

    While the engine is idle every ``en`` is zero, and so is ``saturated``.
    """

    command: In(EngineCommand)
    read: Out(ReadPort)
    write: Out(WritePort)
    saturated: Out(1)

    def elaborate(self, platform: object) -> Module:
        _check_latencies()
        m = Module()
        i = view(CHN, self.command.instruction)
        m.submodules.registers = self._registers = Registers()
        m.submodules.scalar = self._scalar = scalar = Scalar()
        self._state, self._number = Signal(State), Signal(range(max(timing.RUN.values()) + 1), reset_less=True)
        self._counter = Signal(range(len(steps())), reset_less=True)
        self._step = step_at(self._counter)
        self._base, self._left = Signal(ADDR_BITS, reset_less=True), Signal(len(i.channels), reset_less=True)
        self._finished = Signal()
        m.d.comb += [scalar.count.eq(i.count), scalar.op.eq(self._step.op)]
        self._control(m, i)
        self._reads(m, i)
        self._steps(m)
        self._store(m)
        m.d.sync += self.command.done.eq(self._finished)
        return m

    def _control(self, m: Module, i: data.View) -> None:
        """States in turn; ``number`` counts down what there is still to do in a state."""
        state, number, counter = self._state, self._number, self._counter
        over, last_channel = Signal(), self._left == 1
        m.d.comb += over.eq(number == 0)
        m.d.sync += [number.eq(number - 1), self._finished.eq((state == State.STORE) & over & last_channel)]

        def go(target: State, count: object) -> None:
            m.d.sync += [state.eq(target), number.eq(count)]

        with m.Switch(state):
            with m.Case(State.CONSTANTS), m.If(over):
                go(State.READ, timing.READ_WORDS + VECTOR_READ - 1)
            with m.Case(State.READ), m.If(over):
                go(State.FETCH_A, 0)
            with m.Case(State.FETCH_A):
                go(State.FETCH_B, 0)
            with m.Case(State.FETCH_B):
                go(State.RUN, Array(C(timing.RUN[op]) for op in Op)[self._step.op])
            with m.Case(State.RUN), m.If(over):
                m.d.sync += counter.eq(counter + 1)
                with m.If(self._step.last):
                    go(State.STORE, timing.WRITTEN_WORDS - 1)
                with m.Else():
                    go(State.FETCH_A, 0)
            with m.Case(State.STORE), m.If(over):
                m.d.sync += [self._base.eq(self._base + RECORD_WORDS), self._left.eq(self._left - 1), counter.eq(start_of(i.program))]
                go(State.READ, timing.READ_WORDS + VECTOR_READ - 1)
                with m.If(last_channel):
                    m.d.sync += state.eq(State.IDLE)
        with m.If(self.command.start):
            m.d.sync += [self._base.eq(i.chn_addr), self._left.eq(i.channels), counter.eq(start_of(i.program))]
            go(State.CONSTANTS, timing.CONSTANT_WORDS + VECTOR_READ - 1)

    def _reads(self, m: Module, i: data.View) -> None:
        """Constants and records into the registers: words are asked for one after the other."""
        state, number, registers, scalar = self._state, self._number, self._registers, self._scalar
        constants, record = state == State.CONSTANTS, state == State.READ
        most = Mux(constants, timing.CONSTANT_WORDS, timing.READ_WORDS) + (VECTOR_READ - 1)
        word = Signal(range(RECORD_WORDS + VECTOR_READ))
        arrived = Signal(range(RECORD_WORDS), reset_less=True)
        arrives = Signal()
        m.d.comb += [
            word.eq(most - number),
            self.read.en.eq((constants | record) & (number >= VECTOR_READ)),
            self.read.addr.eq(Mux(constants, i.const_addr, self._base) + word),
            arrives.eq(later(m, self.read.en, VECTOR_READ)),
            arrived.eq(later(m, word[: len(arrived)], VECTOR_READ, reset_less=True)),
        ]
        with m.If(arrives & (constants | (arrived < VALUE_WORDS))):
            m.d.comb += [
                registers.write.eq(-1),
                registers.write_row.eq(Mux(constants, arrived + VALUE_WORDS, arrived)),
                registers.write_data.eq(fp32_word(self.read.data)),
            ]
        for number_, port in enumerate((scalar.first, scalar.second, scalar.kept), VALUE_WORDS):
            kept = Signal(len(port), name=f"integer_{number_}", reset_less=True)
            m.d.comb += port.eq(kept)
            with m.If(arrives & record & (arrived == number_)):
                m.d.sync += kept.eq(self.read.data)
            if port is scalar.kept:
                with m.If((state == State.RUN) & (self._step.op == Op.KEEP)):
                    m.d.sync += kept.eq(scalar.first)

    def _steps(self, m: Module) -> None:
        """A step's operands, its start, and its result into the registers."""
        state, step, registers, scalar = self._state, self._step, self._registers, self._scalar
        ending = (state == State.RUN) & (self._number == 0)
        chosen = Mux(state == State.FETCH_B, step.b, step.a)
        operand = registers.data.word_select(chosen[:2], 32)
        negated = Cat(operand[:31], operand[31] ^ (step.op == Op.SUB))
        m.d.comb += registers.row.eq(Mux(state == State.STORE, timing.WRITTEN_WORDS - 1 - self._number, chosen[2:]))
        for target, port, value in ((State.FETCH_A, scalar.a, operand), (State.FETCH_B, scalar.b, negated)):
            register = data_register(m, port)
            with m.If(state == target):
                m.d.sync += register.eq(value)
        m.d.sync += scalar.start.eq(state == State.FETCH_B)
        with m.If(ending & (step.op != Op.KEEP)):
            m.d.comb += [
                registers.write.eq(1 << step.target[:2]),
                registers.write_row.eq(step.target[2:]),
                registers.write_data.eq(scalar.o.replicate(FP32_LANES)),
            ]
        m.d.sync += self.saturated.eq(ending & scalar.saturated)

    def _store(self, m: Module) -> None:
        """The values and the kept sum back to the record, through the write port's registers."""
        storing, number = self._state == State.STORE, self._number
        place, written = data_register(m, self.write.addr), data_register(m, self.write.data)
        last: Value = number == 0
        m.d.sync += [
            self.write.en.eq(storing),
            place.eq(self._base + Mux(last, RECORD_WORDS - 2, timing.WRITTEN_WORDS - 1 - number)),
            written.eq(Mux(last, self._scalar.kept.as_signed(), self._registers.data)),
        ]


def _check_latencies() -> None:
    """The units' latencies are those of the timing model."""
    for op, cycles in Scalar.run.items():
        if cycles != timing.RUN[op]:
            raise ValueError(f"hw.spec.sat.timing.chn.RUN[{op.name}] must be the unit's {cycles}, not {timing.RUN[op]}")
