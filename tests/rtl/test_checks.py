"""The checkers refuse what hw.spec refuses, with the same reason, and accept the rest."""

import random
from collections import Counter
from collections.abc import Callable, Iterable

import pytest
from amaranth.sim import Simulator

from hw.rtl.common.checks import CHECK_LATENCY, HeaderChecker, InstructionChecker, first_error
from hw.rtl.common.tokens import TokenBoard
from hw.spec.arch import CONTAINER_VERSION
from hw.spec.deform import INSTRUCTIONS
from hw.spec.isa import CRC_OFFSET, HEADER, INSTRUCTION_BYTES, TOKEN_COUNT, TOKEN_MAX, InstructionError, Operation, seal
from hw.spec.machine import CoreError, Machine, Memory
from hw.spec.program import build_header
from hw.spec.regs import ErrorCode

SEED = 2
ARCH_ID = 0x0123_4567_89AB_CDEF


def _simulate(dut, bench: Callable) -> None:
    async def testbench(ctx) -> None:
        await bench(ctx)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()


def _check_all(dut, port, cases: Iterable[tuple[bytes, dict[str, int]]]) -> list[int]:
    """The checker's error for each case, one new case per cycle."""
    errors: list[int] = []
    cases = list(cases)

    async def bench(ctx) -> None:
        for cycle in range(len(cases) + CHECK_LATENCY):
            if cycle < len(cases):
                data, inputs = cases[cycle]
                ctx.set(port, int.from_bytes(data, "little"))
                ctx.set(dut.sealed, seal(data[:CRC_OFFSET]) == data)
                for name, value in inputs.items():
                    ctx.set(getattr(dut, name), value)
            if cycle >= CHECK_LATENCY:
                errors.append(ctx.get(dut.error))
            await ctx.tick()

    _simulate(dut, bench)
    return errors


# --- instructions ---


def _expected(data: bytes, blocked: int) -> ErrorCode:
    try:
        INSTRUCTIONS.decode(data)
    except InstructionError as error:
        return ErrorCode[error.reason]
    return ErrorCode.TOKEN if blocked else ErrorCode.NONE


def _legal_values(operation: Operation, rng: random.Random) -> dict[str, int]:
    values = {field.name: rng.choice([field.low, field.high, rng.randint(field.low, field.high)])
              for field in HEADER[2:] + operation.fields}  # fmt: skip
    for rule in operation.rules:
        if values[rule.when] in rule.values:
            values[rule.field] = rng.randint(rule.minimum, rule.maximum)
    return values


def _legal(operation: Operation, rng: random.Random) -> bytes:
    return INSTRUCTIONS.encode(operation.name, **_legal_values(operation, rng))


def _flip(data: bytes, bit: int) -> bytes:
    word = int.from_bytes(data, "little") ^ (1 << bit)
    return word.to_bytes(len(data), "little")


def _instruction_cases() -> list[bytes]:
    rng = random.Random(SEED)
    cases = [bytes(INSTRUCTION_BYTES), seal(bytes(CRC_OFFSET)), b"\xff" * INSTRUCTION_BYTES, seal(b"\xff" * CRC_OFFSET)]
    for operation in INSTRUCTIONS.operations:
        cases += [_legal(operation, rng) for _ in range(20)]
        base = _legal(operation, rng)
        cases += [seal(_flip(base[:CRC_OFFSET], bit)) for bit in range(CRC_OFFSET * 8)]
        cases += [_flip(base, rng.randrange(INSTRUCTION_BYTES * 8)) for _ in range(30)]
        for _ in range(50):  # several faults at once: the order decides
            cases.append(seal(_flip(_flip(_flip(base[:CRC_OFFSET], rng.randrange(24)), rng.randrange(480)), rng.randrange(480))))
    return cases


def test_instruction_checker_equals_decode():
    rng = random.Random(SEED)
    cases = [(data, {"blocked": rng.randrange(2)}) for data in _instruction_cases()]
    dut = InstructionChecker(instructions=INSTRUCTIONS)
    errors = _check_all(dut, dut.instruction, cases)
    expected = [_expected(data, inputs["blocked"]) for data, inputs in cases]
    assert errors == expected
    seen = Counter(expected)
    for name in ("NONE", "INSTRUCTION_CRC", "INSTRUCTION_VERSION", "OPCODE", "RESERVED", "FIELD_RANGE", "TOKEN"):
        assert seen[ErrorCode[name]] >= 10, f"{name} was tested {seen[ErrorCode[name]]} times"


def test_every_field_is_checked_at_its_limits():
    """Each limited field one below, at and one above its range, alone and with the operation's rules kept."""
    rng = random.Random(SEED)
    cases = []
    for operation in INSTRUCTIONS.operations:
        for field in HEADER[2:] + operation.fields:
            for value in {field.low - 1, field.low, field.high, field.high + 1}:
                if not field.type_min <= value <= field.type_max:
                    continue
                values = {**_legal_values(operation, rng), field.name: value}
                cases.append((_encode_raw(operation, values), {"blocked": 0}))
        for rule in operation.rules:
            for value in (rule.minimum - 1, rule.minimum, rule.maximum, rule.maximum + 1, rule.maximum | 128):
                legal = _legal_values(operation, rng) | {other.field: other.maximum for other in operation.rules}
                values = legal | {rule.when: rule.values[0], rule.field: value}
                cases.append((_encode_raw(operation, values), {"blocked": 0}))
    dut = InstructionChecker(instructions=INSTRUCTIONS)
    expected = [_expected(data, 0) for data, _ in cases]
    assert _check_all(dut, dut.instruction, cases) == expected
    assert Counter(expected)[ErrorCode.FIELD_RANGE] > 30


def _encode_raw(operation: Operation, values: dict[str, int]) -> bytes:
    """An instruction whose fields fit their widths but may be out of range."""
    word = 0
    for field in HEADER + operation.fields:
        value = {"opcode": operation.opcode, "version": INSTRUCTIONS.version, **values}[field.name]
        word |= (value & ((1 << field.width) - 1)) << operation.offsets[field.name]
    return seal(word.to_bytes(CRC_OFFSET, "little"))


def test_selected_names_the_operation():
    dut = InstructionChecker(instructions=INSTRUCTIONS)
    compared = []

    async def bench(ctx) -> None:
        for opcode in range(256):
            ctx.set(dut.instruction, opcode)
            wanted = sum(1 << i for i, op in enumerate(INSTRUCTIONS.operations) if op.opcode == opcode)
            assert ctx.get(dut.selected) == wanted
            compared.append(wanted)

    _simulate(dut, bench)
    assert len(compared) == 256 and len(set(compared)) == len(INSTRUCTIONS.operations) + 1


# --- header ---


def _header_error(data: bytes, length: int) -> ErrorCode:
    """What the spec's machine says of a header."""

    class Arch:
        arch_id = ARCH_ID

    machine = Machine(Arch())
    machine.memory = Memory(INSTRUCTION_BYTES)
    machine.memory.bytes[:] = list(data)
    try:
        machine._header(0, length)
    except CoreError as error:
        return error.code
    return ErrorCode.NONE


def _header_cases() -> list[tuple[bytes, dict[str, int]]]:
    rng = random.Random(SEED)
    good = build_header(ARCH_ID, 3)
    cases = [(good, {"length": 256}), (build_header(ARCH_ID, 0), {"length": 64})]
    for count in (0, 1, 2, 4, (1 << 26) - 2, (1 << 26) - 1, 1 << 26, (1 << 26) + 3, (1 << 32) - 1):
        cases += [(build_header(ARCH_ID, count), {"length": length}) for length in (64, 128, 256, (1 << 32) - 64)]
    cases += [(_flip(good, bit), {"length": 256}) for bit in range(0, 512, 3)]
    cases += [(seal(_flip(good[:CRC_OFFSET], bit)), {"length": 256}) for bit in range(480)]
    for _ in range(60):
        data = good[:CRC_OFFSET]
        for start in rng.sample(range(0, 192, 32), 3):
            data = _flip(data, start + rng.randrange(32))
        cases.append((seal(data), {"length": rng.choice([64, 256])}))
    return cases


def test_header_checker_equals_the_machine():
    cases = _header_cases()
    dut = HeaderChecker(arch_id=ARCH_ID)
    errors = _check_all(dut, dut.header, cases)
    expected = [_header_error(data, inputs["length"]) for data, inputs in cases]
    assert errors == expected
    seen = Counter(expected)
    for name in ("NONE", "HEADER_CRC", "BAD_MAGIC", "CONTAINER_VERSION", "WRONG_ARCH", "BAD_LENGTH"):
        assert seen[ErrorCode[name]] >= 5, f"{name} was tested {seen[ErrorCode[name]]} times"
    assert CONTAINER_VERSION < 1 << 32


def test_first_error_of_no_checks_is_none():
    assert first_error([]).value == ErrorCode.NONE


# --- tokens ---


@pytest.mark.parametrize("seed", [1, 2])
def test_token_board_equals_counting(seed: int):
    dut, rng = TokenBoard(), random.Random(seed)
    outcomes: Counter[str] = Counter()

    async def bench(ctx) -> None:
        counts = [0] * TOKEN_COUNT
        for step in range(400):
            # Few tokens, and long phases of pushing, so that both ends are reached.
            mask = 0x8005 if step % 100 < 70 else 0xFFFF
            wait = rng.getrandbits(16) & rng.getrandbits(16) & rng.getrandbits(16) & mask
            push = rng.getrandbits(16) & mask
            ctx.set(dut.wait, wait)
            ctx.set(dut.push, push)
            after = [c - (wait >> i & 1) + (push >> i & 1) for i, c in enumerate(counts)]
            missing = any(wait >> i & 1 and not counts[i] for i in range(TOKEN_COUNT))
            surplus = any(c > TOKEN_MAX for c in after)
            assert ctx.get(dut.blocked) == (missing or surplus)
            outcomes.update(["missing"] * missing + ["surplus"] * (surplus and not missing) + ["free"] * (not missing | surplus))
            if not (missing or surplus):
                for port in (dut.take, dut.give):
                    ctx.set(port, 1)
                    await ctx.tick()
                    ctx.set(port, 0)
                counts = after
            elif rng.random() < 0.02:
                ctx.set(dut.clear, 1)
                await ctx.tick()
                ctx.set(dut.clear, 0)
                counts = [0] * TOKEN_COUNT

    _simulate(dut, bench)
    assert min(outcomes[k] for k in ("missing", "surplus", "free")) >= 10, outcomes
