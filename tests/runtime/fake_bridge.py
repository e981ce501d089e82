"""The serial bridge in software, in front of a core in software, on a line that can lose and damage bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hw.spec.uart import (
    CRC_BYTES,
    PROTOCOL_VERSION,
    REQUEST_HEADER_BYTES,
    SYNC_REQUEST,
    BridgeIdentity,
    Operation,
    ReplyHeader,
    Request,
    Status,
    sealed,
)
from tests.runtime.fake_core import FakeCore

BLOCK = 256


class FakeBridge:
    """A byte stream with a bridge at its other end.

    ``damage_request`` and ``damage_reply`` are given each frame's number and bytes, and return what really travels.
    """

    def __init__(self, core: FakeCore, *, version: int = PROTOCOL_VERSION) -> None:
        self.core, self.version = core, version
        self.damage_request: Callable[[int, bytes], bytes] = lambda number, data: data
        self.damage_reply: Callable[[int, bytes], bytes] = lambda number, data: data
        self.sent, self.replied, self.executed, self.slept, self.dropped = 0, 0, [], 0.0, 0
        self._out = bytearray()
        self._last: tuple[int, int] | None = None

    # the stream -----------------------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        data = self.damage_request(self.sent, data)
        self.sent += 1
        for request, good in self._requests(data):
            reply = self._serve(request, good)
            self._out += self.damage_reply(self.replied, reply)
            self.replied += 1

    def read(self, count: int, timeout: float) -> bytes:
        data = bytes(self._out[:count])
        del self._out[:count]
        return data

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def close(self) -> None:
        return

    # the bridge -----------------------------------------------------------------------------------------------------------

    def _requests(self, data: bytes) -> Iterator[tuple[Request, bool]]:
        """Requests in what was written at once; what is left over is dropped, as after a gap."""
        at, head = 0, REQUEST_HEADER_BYTES + CRC_BYTES
        while (at := data.find(bytes([SYNC_REQUEST]), at)) >= 0:
            header = data[at + 1 : at + 1 + head]
            at += 1 + head
            if len(header) < head or sealed(header[:-CRC_BYTES]) != header:
                self.dropped += 1
                continue
            values = [int.from_bytes(header[a:b], "little") for a, b in ((0, 1), (1, 2), (2, 6), (6, 8))]
            operation, tag, address, length = values
            payload, good = b"", True
            if operation in (Operation.WRITE_REGISTER, Operation.WRITE_MEMORY):
                body = data[at : at + length + CRC_BYTES]
                at += length + CRC_BYTES
                if len(body) < length + CRC_BYTES:
                    self.dropped += 1
                    return
                payload, good = body[:-CRC_BYTES], sealed(body[:-CRC_BYTES]) == body
            yield Request(operation=operation, tag=tag, address=address, length=length, payload=payload), good

    def _serve(self, request: Request, good: bool) -> bytes:
        if not good:
            return self._reply(request, Status.BAD_PAYLOAD)
        if request.operation in (Operation.WRITE_REGISTER, Operation.WRITE_MEMORY):
            if self._last == (request.tag, request.operation):
                return self._reply(request, Status.OK)
            self._last = (request.tag, request.operation)
        else:
            self._last = None
        self.executed.append(request.operation)
        return self._execute(request)

    def _execute(self, request: Request) -> bytes:
        core = self.core
        if request.operation == Operation.IDENTIFY:
            identity = BridgeIdentity(
                version=self.version, block_bytes=BLOCK, memory_base=core.memory_base, memory_bytes=core.memory_bytes
            )
            return self._reply(request, Status.OK, identity.encode())
        if request.operation == Operation.READ_REGISTER:
            if request.address not in core.registers:
                return self._reply(request, Status.BUS_ERROR)
            return self._reply(request, Status.OK, core.read_register(request.address).to_bytes(4, "little"))
        if request.operation == Operation.WRITE_REGISTER:
            core.write_register(request.address, int.from_bytes(request.payload, "little"))
            return self._reply(request, Status.OK)
        assert 0 < request.length <= BLOCK
        if request.operation == Operation.READ_MEMORY:
            return self._reply(request, Status.OK, core.read_memory(request.address, request.length))
        core.write_memory(request.address, request.payload)
        return self._reply(request, Status.OK)

    @staticmethod
    def _reply(request: Request, status: Status, payload: bytes = b"") -> bytes:
        header = ReplyHeader(operation=request.operation, tag=request.tag, status=status, length=len(payload))
        return header.encode() + (sealed(payload) if payload else b"")
