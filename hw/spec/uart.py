"""The serial protocol between a host and a board's bridge: frames, operations, answers.

One request, one reply, in turn. All numbers are little endian; a CRC is CRC-32 (IEEE 802.3, as ``zlib.crc32``).

| | sync | header | CRC of the header | payload | CRC of the payload |
|---|---|---|---|---|---|
| request | 0xA5 | operation u8, tag u8, address u32, length u16 | u32 | ``length`` bytes, of writes only | u32, of writes only |
| reply | 0x5A | operation u8, tag u8, status u8, length u16 | u32 | ``length`` bytes | u32, where length is not 0 |

``length`` counts the bytes to read or write. A write takes effect only after its payload's CRC was found right. A request whose
header is damaged gets no reply; the bridge looks for the next sync byte, and in a frame that stops for longer than its gap it
gives up and does the same. So after any garbage and a pause longer than the gap a good request is answered.

The bridge hears nothing while it works and replies. A write that comes again with the tag of the write before it, because its reply
was lost, is not done again: it gets the same reply. IDENTIFY forgets that tag, and starts a session.
"""

from __future__ import annotations

import enum
import struct
import zlib
from dataclasses import dataclass

PROTOCOL_VERSION = 1
SYNC_REQUEST, SYNC_REPLY = 0xA5, 0x5A
CRC_BYTES = 4
REGISTER_BYTES = 4
_REQUEST, _REPLY, _IDENTITY = struct.Struct("<BBIH"), struct.Struct("<BBBH"), struct.Struct("<4sHHIII")
REQUEST_HEADER_BYTES, REPLY_HEADER_BYTES, IDENTITY_BYTES = _REQUEST.size, _REPLY.size, _IDENTITY.size
BRIDGE_MAGIC = b"BTLU"


class Operation(enum.IntEnum):
    """What a request asks for. Addresses are bytes: of the register table, or of memory as the core sees it."""

    IDENTIFY = 1
    READ_REGISTER = 2
    WRITE_REGISTER = 3
    READ_MEMORY = 4
    WRITE_MEMORY = 5

    @property
    def writes(self) -> bool:
        return self in (Operation.WRITE_REGISTER, Operation.WRITE_MEMORY)


class Status(enum.IntEnum):
    """How a request ended; nothing was written unless OK."""

    OK = 0
    BAD_OPERATION = 1
    BAD_LENGTH = 2
    BAD_ADDRESS = 3
    BAD_PAYLOAD = 4
    BUS_ERROR = 5


STATUS_ADVICE: dict[Status, str] = {
    Status.OK: "done",
    Status.BAD_OPERATION: "the bridge knows no such operation: use the runtime of the release that built the bitstream",
    Status.BAD_LENGTH: "a register access must be 4 bytes, a memory access 1 byte to the bridge's block",
    Status.BAD_ADDRESS: "registers lie at multiples of 4 below 4096, memory in the window that IDENTIFY tells",
    Status.BAD_PAYLOAD: "the payload's CRC was wrong: send it again",
    Status.BUS_ERROR: "the core answered the register access with an error",
}


class FrameError(ValueError):
    """Bytes that are not a frame: wrong sync, CRC or size."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A request; ``payload`` is empty but for writes, whose ``length`` is its size."""

    operation: int
    tag: int
    address: int = 0
    length: int = 0
    payload: bytes = b""

    def encode(self) -> bytes:
        header = _REQUEST.pack(self.operation, self.tag, self.address, self.length)
        return bytes([SYNC_REQUEST]) + sealed(header) + (sealed(self.payload) if self.payload else b"")


@dataclass(frozen=True, kw_only=True)
class ReplyHeader:
    """What comes before a reply's payload."""

    operation: int
    tag: int
    status: int
    length: int

    def encode(self) -> bytes:
        return bytes([SYNC_REPLY]) + sealed(_REPLY.pack(self.operation, self.tag, self.status, self.length))

    @classmethod
    def decode(cls, data: bytes) -> ReplyHeader:
        """From header and CRC, without the sync byte."""
        operation, tag, status, length = _REPLY.unpack(unsealed(data))
        return cls(operation=operation, tag=tag, status=status, length=length)


@dataclass(frozen=True, kw_only=True)
class BridgeIdentity:
    """What IDENTIFY replies.

    Members: ``version`` of the protocol; ``block_bytes``, most bytes of one memory access; ``memory_base`` and
    ``memory_bytes`` of the memory behind the bridge; ``dropped``: damaged requests since reset.
    """

    version: int
    block_bytes: int
    memory_base: int
    memory_bytes: int
    dropped: int = 0

    def encode(self) -> bytes:
        return _IDENTITY.pack(
            BRIDGE_MAGIC, self.version, self.block_bytes, self.memory_base, self.memory_bytes, self.dropped
        )

    @classmethod
    def decode(cls, data: bytes) -> BridgeIdentity:
        if len(data) != IDENTITY_BYTES or data[:4] != BRIDGE_MAGIC:
            raise FrameError(f"an identity must be {IDENTITY_BYTES} bytes that start with {BRIDGE_MAGIC!r}, not {data!r}")
        version, block, base, size, dropped = _IDENTITY.unpack(data)[1:]
        return cls(version=version, block_bytes=block, memory_base=base, memory_bytes=size, dropped=dropped)


def sealed(data: bytes) -> bytes:
    """Bytes and their CRC."""
    return data + zlib.crc32(data).to_bytes(CRC_BYTES, "little")


def unsealed(data: bytes) -> bytes:
    """The bytes before a right CRC; FrameError where it is wrong."""
    if len(data) < CRC_BYTES or sealed(data[:-CRC_BYTES]) != data:
        raise FrameError(f"the CRC-32 of {len(data)} bytes is wrong")
    return data[:-CRC_BYTES]
