"""The register table and the error codes that every core shares.

RTL, runtime, C header and docs read these tables; no offset or code is written anywhere else. Registers are 32 bits wide on an
AXI4-Lite subordinate; 64-bit quantities are a LO/HI pair, and reading LO of a counter latches its HI.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

IDENTITY = int.from_bytes(b"BTLM", "little")
"""What the IDENTITY register reads."""

SHELL_VERSION = 1
NO_INSTRUCTION = 0xFFFF_FFFF
"""Error index of what is found before the first instruction: header and length."""


class ErrorCode(enum.IntEnum):
    """Why a program ended. The first error in program order wins; checks of one step are in the order of their codes."""

    NONE = 0
    BAD_LENGTH = 1
    HEADER_CRC = 2
    BAD_MAGIC = 3
    CONTAINER_VERSION = 4
    WRONG_ARCH = 5
    INSTRUCTION_CRC = 8
    INSTRUCTION_VERSION = 9
    OPCODE = 10
    RESERVED = 11
    FIELD_RANGE = 12
    TOKEN = 13
    REGION = 16
    BUFFER_RANGE = 17
    BLOB_CRC = 18
    AXI_READ = 20
    AXI_WRITE = 21
    WATCHDOG = 24
    ABORTED = 25
    BUS_STUCK = 26


ERROR_ADVICE: dict[ErrorCode, str] = {
    ErrorCode.NONE: "the program ran to its end",
    ErrorCode.BAD_LENGTH: "the program's length does not fit its instruction count: it is truncated or padded; load it again",
    ErrorCode.HEADER_CRC: "the program's header is damaged; load it again",
    ErrorCode.BAD_MAGIC: "this is not a Bitloom program",
    ErrorCode.CONTAINER_VERSION: "the program was made by another version of the compiler; compile it again",
    ErrorCode.WRONG_ARCH: "the program was compiled for another architecture; compile it for this core's arch.toml",
    ErrorCode.INSTRUCTION_CRC: "the instruction is damaged; load the program again",
    ErrorCode.INSTRUCTION_VERSION: "the instruction is of another table version; compile the program again",
    ErrorCode.OPCODE: "the core has no such instruction; compile the program for this core",
    ErrorCode.RESERVED: "reserved bits are set; compile the program with this core's version",
    ErrorCode.FIELD_RANGE: "a field has a value that this core does not support; compile the program with this core's version",
    ErrorCode.TOKEN: "the instruction waits for a token that nothing pushed, or pushes one too many",
    ErrorCode.REGION: "an address lies outside its memory region: open the region with the size that the program states",
    ErrorCode.BUFFER_RANGE: "an address lies outside an on-chip memory; compile the program for this architecture",
    ErrorCode.BLOB_CRC: "weights or parameters in memory are damaged; load the program's parameter region again",
    ErrorCode.AXI_READ: "the memory answered a read with an error: is the address mapped?",
    ErrorCode.AXI_WRITE: "the memory answered a write with an error: is the address mapped?",
    ErrorCode.WATCHDOG: "an instruction took longer than the watchdog allows",
    ErrorCode.ABORTED: "the host aborted the program",
    ErrorCode.BUS_STUCK: "the memory stopped answering; the core refuses to start until it is reset",
}


class Access(enum.Enum):
    """RO: read only. RW: holds what was written. WO: writing acts, reads 0."""

    RO = "ro"
    RW = "rw"
    WO = "wo"


@dataclass(frozen=True, kw_only=True)
class Bit:
    """A named bit of a register."""

    name: str
    index: int
    doc: str


@dataclass(frozen=True, kw_only=True)
class Register:
    """One 32-bit register at a byte offset."""

    name: str
    offset: int
    access: Access
    doc: str
    bits: tuple[Bit, ...] = ()

    def mask(self, bit: str) -> int:
        """The named bit's value in the register."""
        for entry in self.bits:
            if entry.name == bit:
                return 1 << entry.index
        raise ValueError(f"register {self.name} has no bit {bit!r}; it has {[b.name for b in self.bits]}")


def _pair(name: str, offset: int, access: Access, doc: str) -> tuple[Register, Register]:
    return (
        Register(name=f"{name}_LO", offset=offset, access=access, doc=f"{doc}, bits 31:0"),
        Register(name=f"{name}_HI", offset=offset + 4, access=access, doc=f"{doc}, bits 63:32"),
    )


RO, RW, WO = Access.RO, Access.RW, Access.WO
COUNTERS = {
    "CYCLES": "cycles from start to end",
    "READ_BEATS": "read beats received",
    "WRITE_BEATS": "write beats sent",
    "READ_STALLS": "cycles in which the core was ready for read data and none was valid",
    "WRITE_STALLS": "cycles in which a write beat was valid and the memory was not ready",
    "COMPUTE": "cycles in which an instruction other than LOAD and STORE ran",
}
"""64-bit counters, cleared at start, in register order from COUNTER_BASE."""

COUNTER_BASE = 0x80
REGION_BASE = 0x100
REGION_STRIDE = 0x10

CONTROL_BITS = (
    Bit(name="START", index=0, doc="run the program; ignored while BUSY, and after BUS_STUCK until reset"),
    Bit(name="ABORT", index=1, doc="end the running program with ABORTED once outstanding bursts have ended"),
    Bit(name="ACKNOWLEDGE", index=2, doc="clear DONE and the interrupt; ignored while BUSY"),
)
STATUS_BITS = (
    Bit(name="BUSY", index=0, doc="a program runs"),
    Bit(name="DONE", index=1, doc="a program ended, well or not; the interrupt is DONE and IRQ_ENABLE"),
    Bit(name="ERROR", index=2, doc="it ended with an error"),
    Bit(name="STUCK", index=3, doc="the memory stopped answering: only a reset helps"),
)

REGISTERS: tuple[Register, ...] = (
    Register(name="IDENTITY", offset=0x00, access=RO, doc="the letters BTLM"),
    Register(name="VERSION", offset=0x04, access=RO, doc="version of this register table"),
    *_pair("ARCH_ID", 0x08, RO, "identity of architecture and instruction table"),
    *_pair("BUILD_ID", 0x10, RO, "hash of the design record, tied off by the board's wrapper"),
    Register(name="CONTROL", offset=0x20, access=WO, doc="commands", bits=CONTROL_BITS),
    Register(name="STATUS", offset=0x24, access=RO, doc="state", bits=STATUS_BITS),
    Register(name="ERROR_CODE", offset=0x28, access=RO, doc="why the last program ended"),
    Register(name="ERROR_INDEX", offset=0x2C, access=RO, doc="the offending instruction; 0xFFFFFFFF before the first"),
    Register(name="IRQ_ENABLE", offset=0x30, access=RW, doc="bit 0: raise the interrupt when DONE"),
    Register(name="RETIRED", offset=0x34, access=RO, doc="instructions retired since start"),
    Register(name="WATCHDOG", offset=0x38, access=RW, doc="most cycles between two retirements; 0 is off"),
    *_pair("PROGRAM_ADDR", 0x40, RW, "byte address of the program, a multiple of 64"),
    Register(name="PROGRAM_LENGTH", offset=0x48, access=RW, doc="bytes of header and instructions"),
    *(reg for i, (name, doc) in enumerate(COUNTERS.items()) for reg in _pair(name, COUNTER_BASE + 8 * i, RO, doc)),
)

BY_NAME: dict[str, Register] = {register.name: register for register in REGISTERS}


def region_registers(region: int) -> tuple[Register, ...]:
    """Base and size of a memory region: both in bytes, multiples of 16; size 0 closes it."""
    at = REGION_BASE + REGION_STRIDE * region
    return (
        *_pair(f"REGION{region}_BASE", at, RW, f"first byte address of region {region}"),
        *_pair(f"REGION{region}_SIZE", at + 8, RW, f"bytes of region {region}"),
    )


def all_registers(regions: int) -> tuple[Register, ...]:
    """Every register of a core with that many regions."""
    return REGISTERS + tuple(reg for region in range(regions) for reg in region_registers(region))


def to_c_header(regions: int) -> str:
    """The tables as a C header for firmware and drivers."""
    lines = [
        "/* Bitloom register table; generated from hw/spec/regs.py. */",
        "#ifndef BITLOOM_REGS_H",
        "#define BITLOOM_REGS_H",
        "",
    ]
    for reg in all_registers(regions):
        lines.append(f"#define BITLOOM_{reg.name} 0x{reg.offset:03X}u /* {reg.access.value}: {reg.doc} */")
        lines += [f"#define BITLOOM_{reg.name}_{b.name} 0x{1 << b.index:X}u /* {b.doc} */" for b in reg.bits]
    lines += ["", *(f"#define BITLOOM_ERROR_{code.name} {code.value}u" for code in ErrorCode), "", "#endif", ""]
    return "\n".join(lines)


def to_markdown(regions: int) -> str:
    """The tables as the docs show them."""
    lines = ["# Registers", "", "| offset | name | access | meaning |", "|---|---|---|---|"]
    lines += [f"| 0x{r.offset:03X} | {r.name} | {r.access.value} | {r.doc} |" for r in all_registers(regions)]
    lines += ["", "## Error codes", "", "| code | name | what to do |", "|---|---|---|"]
    lines += [f"| {code.value} | {code.name} | {ERROR_ADVICE[code]} |" for code in ErrorCode]
    return "\n".join(lines) + "\n"
