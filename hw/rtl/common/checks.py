"""What the sequencer checks before anything runs: the program's header, and each instruction before it issues.

Both checkers are pipelines of ``CHECK_LATENCY`` cycles without control: ``error`` is right that many cycles after their
inputs have come to rest. The order of the checks is that of ``hw.spec.regs.ErrorCode`` and of ``InstructionSet.decode``.
"""

from collections.abc import Sequence

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.compare import at_least
from hw.rtl.arith.delay import data_register
from hw.rtl.common.decode import INSTRUCTION_BITS, field_in_range, view
from hw.rtl.common.interfaces import ERROR_BITS
from hw.spec.arch import CONTAINER_VERSION
from hw.spec.isa import HEADER, INSTRUCTION_BYTES, PAYLOAD_END, InstructionSet, Operation, Rule
from hw.spec.program import MAGIC
from hw.spec.regs import ErrorCode

CHECK_LATENCY = 2

HeaderLayout = data.FlexibleLayout(INSTRUCTION_BITS, {
    "magic": data.Field(64, 0),
    "container": data.Field(32, 64),
    "count": data.Field(32, 96),
    "arch_id": data.Field(64, 128),
})  # fmt: skip
"""The program header as :func:`hw.spec.program.build_header` writes it."""


def first_error(checks: Sequence[tuple[Value, ErrorCode]]) -> Value:
    """The code of the first check that is true; NONE if all are false."""
    result: Value = Const(ErrorCode.NONE, ERROR_BITS)
    for failed, code in reversed(checks):
        result = Mux(failed, Const(code, ERROR_BITS), result)
    return result


class _Pipeline:
    """Two stages: each check in a register (or made of registers), then the first error in another."""

    def __init__(self, m: Module, error: Signal) -> None:
        self._m, self._error = m, error
        self._flags: list[tuple[Value, ErrorCode]] = []

    def add(self, failed: Value, code: ErrorCode) -> None:
        flag = Signal(name=f"bad_{code.name.lower()}", reset_less=True)
        self._m.d.sync += flag.eq(failed)
        self.add_registered(flag, code)

    def add_registered(self, failed: Value, code: ErrorCode) -> None:
        self._flags.append((failed, code))

    def finish(self) -> None:
        self._m.d.sync += data_register(self._m, self._error).eq(first_error(self._flags))


class HeaderChecker(wiring.Component):
    """Checks a program's header.

    Members
    -------
    header : the 64 bytes
    sealed : their CRC-32 is right
    length : PROGRAM_LENGTH, a multiple of 64
    error : the first error, CHECK_LATENCY cycles later
    """

    header: In(INSTRUCTION_BITS)
    sealed: In(1)
    length: In(32)
    error: Out(ERROR_BITS)

    def __init__(self, *, arch_id: int) -> None:
        self._arch_id = arch_id
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        header = data.View(HeaderLayout, self.header)
        units = INSTRUCTION_BYTES.bit_length() - 1
        checks = _Pipeline(m, self.error)
        checks.add(~self.sealed, ErrorCode.HEADER_CRC)
        checks.add(header.magic != int.from_bytes(MAGIC, "little"), ErrorCode.BAD_MAGIC)
        checks.add(header.container != CONTAINER_VERSION, ErrorCode.CONTAINER_VERSION)
        checks.add(header.arch_id != self._arch_id, ErrorCode.WRONG_ARCH)
        checks.add(self.length[units:] != header.count + 1, ErrorCode.BAD_LENGTH)
        checks.finish()
        return m


class InstructionChecker(wiring.Component):
    """Checks an instruction against the table of a core.

    Members
    -------
    instruction : the 64 bytes
    sealed : their CRC-32 is right
    blocked : the tokens do not allow it
    selected : bit i: it is operation i of the table (same cycle)
    error : the first error, CHECK_LATENCY cycles later
    """

    def __init__(self, *, instructions: InstructionSet) -> None:
        self._set = instructions
        super().__init__({
            "instruction": In(INSTRUCTION_BITS),
            "sealed": In(1),
            "blocked": In(1),
            "selected": Out(len(instructions.operations)),
            "error": Out(ERROR_BITS),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        operations, bits = self._set.operations, self.instruction
        version = view(operations[0], bits).version
        reserved, out_of_range = Signal(len(operations)), Signal(len(operations))
        for i, operation in enumerate(operations):
            m.d.comb += [
                self.selected[i].eq(view(operation, bits).opcode == operation.opcode),
                reserved[i].eq(bits[operation.used_bits : PAYLOAD_END].any()),
                out_of_range[i].eq(_out_of_range(operation, bits)),
            ]
        names = ("chosen", "in_reserved", "in_field")
        chosen, in_reserved, in_field = (Signal(len(operations), name=name, reset_less=True) for name in names)
        m.d.sync += [chosen.eq(self.selected), in_reserved.eq(reserved), in_field.eq(out_of_range)]
        checks = _Pipeline(m, self.error)
        checks.add(~self.sealed, ErrorCode.INSTRUCTION_CRC)
        checks.add(version != self._set.version, ErrorCode.INSTRUCTION_VERSION)
        checks.add(~self.selected.any(), ErrorCode.OPCODE)
        checks.add_registered((chosen & in_reserved).any(), ErrorCode.RESERVED)
        checks.add_registered((chosen & in_field).any(), ErrorCode.FIELD_RANGE)
        checks.add(self.blocked, ErrorCode.TOKEN)
        checks.finish()
        return m


def _out_of_range(operation: Operation, bits: Value) -> Value:
    """A field is not in its range, or a rule between fields is broken."""
    fields = view(operation, bits)
    legal = [field_in_range(entry, fields[entry.name]) for entry in HEADER + operation.fields]
    broken = [_broken(rule, fields) for rule in operation.rules]
    return Cat(*(~ok for ok in legal if ok is not None), *broken).any()


def _broken(rule: Rule, fields: data.View) -> Value:
    applies = Cat(fields[rule.when] == value for value in rule.values).any()
    value = fields[rule.field]
    return applies & (~at_least(value, rule.minimum) | at_least(value, rule.maximum + 1))
