"""What every core's machine (interpreter) shares: memory, checks, tokens, and the order in which errors win.

The machine is the definition of a core: the RTL must end every program with the same memory, the same error and the same index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from hw.spec.arch import CONTAINER_VERSION, WORD_BYTES, Arch
from hw.spec.isa import INSTRUCTION_BYTES, TOKEN_COUNT, TOKEN_MAX, Instruction, InstructionError, seal
from hw.spec.program import MAGIC
from hw.spec.regs import NO_INSTRUCTION, ErrorCode

MAX_WORDS = 1 << 32
"""Words of a region that a core can name."""


class CoreError(Exception):
    """An error that ends a program; ``code`` is what the core reports."""

    def __init__(self, code: ErrorCode) -> None:
        super().__init__(code.name)
        self.code = code


class Memory:
    """Bytes that the bus maps at [base, base + size); anything else answers an error, as SLVERR does."""

    def __init__(self, size: int, base: int = 0) -> None:
        if size < 0 or size % WORD_BYTES or base % WORD_BYTES:
            raise ValueError(f"memory size and base must be multiples of {WORD_BYTES}, not {size} and {base}")
        self.base = base
        self.bytes = np.zeros(size, np.uint8)

    def read(self, address: int, count: int) -> np.ndarray:
        """A copy of ``count`` bytes; CoreError AXI_READ where nothing is mapped."""
        start = address - self.base
        if start < 0 or start + count > self.bytes.size:
            raise CoreError(ErrorCode.AXI_READ)
        return self.bytes[start : start + count].copy()

    def write(self, address: int, data: np.ndarray) -> None:
        """Write bytes; CoreError AXI_WRITE where nothing is mapped."""
        start = address - self.base
        if start < 0 or start + data.size > self.bytes.size:
            raise CoreError(ErrorCode.AXI_WRITE)
        self.bytes[start : start + data.size] = data


@dataclass(frozen=True, kw_only=True)
class OpenRegion:
    """A region as the host opened it: base address and size in bytes; the low four bits of both are ignored."""

    base: int
    size: int


@dataclass(kw_only=True)
class Writes:
    """What one instruction wrote: address (bytes in memory, words on chip; uint64) to 16 bytes, per space; ``memory`` is the bus.

    ``met``: kinds of data that it met and that the instruction alone does not tell, for whoever counts what was exercised.
    """

    index: int
    addresses: dict[str, list[np.ndarray]] = field(default_factory=dict)
    data: dict[str, list[np.ndarray]] = field(default_factory=dict)
    met: set[str] = field(default_factory=set)

    def add(self, space: str, addresses: np.ndarray, data: np.ndarray) -> None:
        """Record words: addresses (n,), data (n, 16)."""
        self.addresses.setdefault(space, []).append(np.asarray(addresses).astype(np.uint64))
        self.data.setdefault(space, []).append(np.asarray(data, np.uint8).reshape(-1, WORD_BYTES))

    def sorted(self, space: str) -> tuple[np.ndarray, np.ndarray]:
        """All words of a space by address, in order of writing where an address was written again."""
        if space not in self.addresses:
            return np.zeros(0, np.uint64), np.zeros((0, WORD_BYTES), np.uint8)
        addresses, data = np.concatenate(self.addresses[space]), np.concatenate(self.data[space])
        order = np.argsort(addresses, kind="stable")
        return addresses[order], data[order]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a program ended: error code (NONE if well), the offending instruction, instructions retired."""

    error: ErrorCode
    index: int
    retired: int


class Machine:
    """Base of a core's interpreter; a core adds its memories and ``execute``."""

    def __init__(self, arch: Arch) -> None:
        self.arch = arch
        self.memory = Memory(0)
        self.regions: Sequence[OpenRegion] = ()
        self.writes = Writes(index=NO_INSTRUCTION)

    def execute(self, instruction: Instruction) -> None:
        """Carry out one checked instruction; CoreError ends the program."""
        raise NotImplementedError

    def run(
        self,
        memory: Memory,
        regions: Sequence[OpenRegion],
        program_address: int,
        program_length: int,
        record: Callable[[Writes], None] | None = None,
    ) -> Outcome:
        """Run the program at an address of memory, as a core does after START.

        ``record`` is called with each retired instruction's writes. Memory keeps what an erroneous program wrote before it ended.
        """
        self.memory, self.regions = memory, [*regions, *[OpenRegion(base=0, size=0)] * (self.arch.regions - len(regions))]
        tokens = [0] * TOKEN_COUNT
        index = NO_INSTRUCTION
        try:
            count = self._header(program_address, program_length)
            for index in range(count):
                raw = memory.read(program_address + INSTRUCTION_BYTES * (index + 1), INSTRUCTION_BYTES)
                instruction = self._decode(raw.tobytes())
                push = _take_tokens(tokens, instruction)
                self.writes = Writes(index=index)
                self.execute(instruction)
                tokens[:] = push
                if record:
                    record(self.writes)
        except CoreError as error:
            return Outcome(error=error.code, index=index, retired=0 if index == NO_INSTRUCTION else index)
        return Outcome(error=ErrorCode.NONE, index=0, retired=count)

    def _header(self, address: int, length: int) -> int:
        """The instruction count of a legal header."""
        if length < INSTRUCTION_BYTES or length % INSTRUCTION_BYTES or address % INSTRUCTION_BYTES:
            raise CoreError(ErrorCode.BAD_LENGTH)
        raw = self.memory.read(address, INSTRUCTION_BYTES).tobytes()
        count = int.from_bytes(raw[12:16], "little")
        checks = (
            (seal(raw[:-4]) == raw, ErrorCode.HEADER_CRC),
            (raw[:8] == MAGIC, ErrorCode.BAD_MAGIC),
            (int.from_bytes(raw[8:12], "little") == CONTAINER_VERSION, ErrorCode.CONTAINER_VERSION),
            (int.from_bytes(raw[16:24], "little") == self.arch.arch_id, ErrorCode.WRONG_ARCH),
            ((count + 1) * INSTRUCTION_BYTES == length, ErrorCode.BAD_LENGTH),
        )
        for ok, code in checks:
            if not ok:
                raise CoreError(code)
        return count

    def _decode(self, raw: bytes) -> Instruction:
        try:
            return self.arch.instructions.decode(raw)
        except InstructionError as error:
            raise CoreError(ErrorCode[error.reason]) from error

    def region_address(self, region: int, word: int, words: int) -> int:
        """Byte address of words of a region; CoreError REGION where it does not hold them."""
        window = self.regions[region] if region < len(self.regions) else OpenRegion(base=0, size=0)
        base, end = window.base & -WORD_BYTES, (word + words) * WORD_BYTES
        if word >= MAX_WORDS or end > window.size & -WORD_BYTES or base + end > 1 << 64:
            raise CoreError(ErrorCode.REGION)
        return base + word * WORD_BYTES


def _take_tokens(tokens: Sequence[int], instruction: Instruction) -> list[int]:
    """The token counts after the instruction; CoreError TOKEN where it may not issue."""
    after = list(tokens)
    for i in range(TOKEN_COUNT):
        wait, push = instruction["wait"] >> i & 1, instruction["push"] >> i & 1
        after[i] += push - wait
        if tokens[i] < wait or after[i] > TOKEN_MAX:
            raise CoreError(ErrorCode.TOKEN)
    return after
