"""A board on a serial line: the transport that speaks ``hw.spec.uart`` with its bridge.

:class:`UartTransport` works over any :class:`ByteStream`; :class:`SerialLine` is one on a Linux terminal device, with no package
beyond the standard library.

    with open_device("uart", port="/dev/ttyUSB0", proof=proof) as device:
        outputs, counters = device.run(program, inputs)

:func:`open_uart` is what ``open_device`` calls behind the proof gate.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Protocol

from hw.spec.regs import BY_NAME
from hw.spec.uart import (
    CRC_BYTES,
    IDENTITY_BYTES,
    PROTOCOL_VERSION,
    REGISTER_BYTES,
    REPLY_HEADER_BYTES,
    STATUS_ADVICE,
    SYNC_REPLY,
    BridgeIdentity,
    FrameError,
    Operation,
    ReplyHeader,
    Request,
    Status,
    unsealed,
)
from sw.runtime.driver import CoreDevice
from sw.runtime.errors import DeviceError
from sw.runtime.lock import BoardLock

TIMEOUT = 0.5
"""Seconds for a reply; the longest takes 95 ms at 115,200 baud, and USB adapters add up to 16 ms."""

PAUSE = 0.1
"""Seconds of silence after which the bridge surely waits for a new request: several times its gap."""

BAUD = 1_000_000
"""Of every board with a serial bridge (``boards/*/board.toml``)."""

USB_PORTS = ("ttyUSB*", "ttyACM*")
ATTEMPTS = 5
POLL = 0.001
WAIT_SECONDS = 60.0


class ByteStream(Protocol):
    """Bytes to and from a line."""

    def write(self, data: bytes) -> None: ...

    def read(self, count: int, timeout: float) -> bytes:
        """``count`` bytes, or fewer: what came within ``timeout`` seconds."""
        ...

    def sleep(self, seconds: float) -> None: ...

    def close(self) -> None: ...


class UartTransport:
    """Registers and memory behind a bridge.

    A request without a good reply is sent again, at most ``attempts`` times in all: no request is done twice (``hw.spec.uart``).
    ``retries`` counts. A reply may take ``timeout`` seconds; ``pause`` is the silence before another attempt; ``wait_seconds`` is
    the longest time of a program.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        timeout: float = TIMEOUT,
        pause: float = PAUSE,
        attempts: int = ATTEMPTS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self.stream, self.timeout, self.pause = stream, timeout, pause
        self.attempts, self.wait_seconds = attempts, wait_seconds
        self.retries = 0
        self._tag = 0
        self.bridge = self.identify()
        self.memory_base, self.memory_bytes = self.bridge.memory_base, self.bridge.memory_bytes

    def identify(self) -> BridgeIdentity:
        """What the bridge says of itself, now. DeviceError where none answers, or one of another version."""
        data = self._request(Operation.IDENTIFY, expected=IDENTITY_BYTES)
        try:
            found = BridgeIdentity.decode(data)
        except FrameError as error:
            raise DeviceError(f"what answers on the serial line is no Bitloom bridge: {error}") from error
        if found.version != PROTOCOL_VERSION:
            raise DeviceError(
                f"the bridge speaks version {found.version} of the protocol and this runtime version {PROTOCOL_VERSION}: "
                "use the runtime of the release that built the bitstream"
            )
        return found

    def read_register(self, offset: int) -> int:
        data = self._request(Operation.READ_REGISTER, address=offset, length=REGISTER_BYTES, expected=REGISTER_BYTES)
        return int.from_bytes(data, "little")

    def write_register(self, offset: int, value: int) -> None:
        self._request(Operation.WRITE_REGISTER, address=offset, payload=value.to_bytes(REGISTER_BYTES, "little"))

    def read_memory(self, address: int, count: int) -> bytes:
        self._check_window(address, count)
        blocks = []
        for at in range(0, count, self.bridge.block_bytes):
            size = min(count - at, self.bridge.block_bytes)
            blocks.append(self._request(Operation.READ_MEMORY, address=address + at, length=size, expected=size))
        return b"".join(blocks)

    def write_memory(self, address: int, data: bytes) -> None:
        self._check_window(address, len(data))
        for at in range(0, len(data), self.bridge.block_bytes):
            self._request(Operation.WRITE_MEMORY, address=address + at, payload=data[at : at + self.bridge.block_bytes])

    def wait(self) -> bool:
        """Ask for DONE until it is there; the interrupt does not reach this end of the line."""
        done, waited, pause = BY_NAME["STATUS"].mask("DONE"), 0.0, POLL
        while not self.read_register(BY_NAME["STATUS"].offset) & done:
            if waited >= self.wait_seconds:
                return False
            self.stream.sleep(pause)
            waited, pause = waited + pause, min(2 * pause, 0.1)
        return True

    def _check_window(self, address: int, count: int) -> None:
        end = self.memory_base + self.memory_bytes
        if not self.memory_base <= address <= address + count <= end:
            raise DeviceError(
                f"addresses {address:#x}..{address + count:#x} must lie in the board's memory at "
                f"{self.memory_base:#x}..{end:#x}"
            )

    def _request(
        self, operation: Operation, *, address: int = 0, length: int = 0, payload: bytes = b"", expected: int = 0
    ) -> bytes:
        """The reply's payload of ``expected`` bytes, after as many attempts as it takes."""
        self._tag = (self._tag + 1) % 256
        length = len(payload) or length
        frame = Request(operation=operation, tag=self._tag, address=address, length=length, payload=payload).encode()
        for attempt in range(self.attempts):
            if attempt:
                self.retries += 1
                self._settle()
            self.stream.write(frame)
            reply = self._reply(operation)
            if reply is None or reply[0] == Status.BAD_PAYLOAD:
                continue
            status, data = reply
            if status != Status.OK:
                raise DeviceError(f"the bridge refuses {operation.name} of {length} bytes at {address:#x}: {_advice(status)}")
            if len(data) == expected:
                return data
        raise DeviceError(
            f"no good answer to {operation.name} in {self.attempts} attempts: is the bitstream loaded, the baud rate that of its "
            "manifest, and no other program on the line?"
        )

    def _reply(self, operation: Operation) -> tuple[int, bytes] | None:
        """Status and payload of the reply to the last request; None where none comes whole."""
        while True:
            sync = self.stream.read(1, self.timeout)
            if not sync:
                return None
            if sync[0] != SYNC_REPLY:
                continue
            try:
                header = ReplyHeader.decode(self.stream.read(REPLY_HEADER_BYTES + CRC_BYTES, self.timeout))
                size = header.length + CRC_BYTES if header.length else 0
                data = unsealed(self.stream.read(size, self.timeout)) if size else b""
            except FrameError:
                return None
            if (header.operation, header.tag) == (operation, self._tag):
                return header.status, data

    def _settle(self) -> None:
        """Let the line fall silent, and forget what came."""
        self.stream.sleep(self.pause)
        while self.stream.read(4096, self.pause):
            pass


def _advice(status: int) -> str:
    if status in set(Status):
        return f"{Status(status).name}, {STATUS_ADVICE[Status(status)]}"
    return f"status {status}, which this runtime does not know: use the release that built the bitstream"


class SerialLine:
    """A terminal device, raw, 8N1, without flow control; DeviceError where it cannot be opened or set, or is another program's."""

    def __init__(self, port: str, baud: int) -> None:
        self._file, self._lock = -1, BoardLock(os.path.realpath(port))
        try:
            self._file = os.open(port, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            _set_raw(self._file, baud)
        except OSError as error:
            self.close()
            raise DeviceError(f"serial port {port} cannot be opened ({error.strerror}): is the board connected?") from error
        except (ValueError, ImportError) as error:
            self.close()
            raise DeviceError(f"serial port {port} cannot run at {baud} baud: {error}") from error

    def write(self, data: bytes) -> None:
        while data:
            select.select([], [self._file], [], None)
            data = data[os.write(self._file, data) :]

    def read(self, count: int, timeout: float) -> bytes:
        data, end = b"", time.monotonic() + timeout
        while len(data) < count:
            if not select.select([self._file], [], [], max(end - time.monotonic(), 0.0))[0]:
                break
            came = os.read(self._file, count - len(data))
            if not came:
                raise DeviceError("the serial port was closed from the other side: was the board unplugged?")
            data += came
        return data

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._lock.release()


def _set_raw(file: int, baud: int) -> None:
    import termios  # only where there are terminals
    import tty

    speed = getattr(termios, f"B{baud}", None)
    if speed is None:
        known = sorted(int(name[1:]) for name in dir(termios) if name.startswith("B") and name[1:].isdigit() and len(name) > 4)
        raise ValueError(f"it must be one of {known}")
    tty.setraw(file, termios.TCSANOW)
    settings = termios.tcgetattr(file)
    settings[2] = (settings[2] | termios.CREAD | termios.CLOCAL | termios.CS8) & ~(termios.CSTOPB | termios.CRTSCTS | termios.PARENB)
    settings[4] = settings[5] = speed
    termios.tcsetattr(file, termios.TCSANOW, settings)
    termios.tcflush(file, termios.TCIOFLUSH)


class UartDevice(CoreDevice):
    """A core on a board behind a serial line; options as those of :class:`UartTransport`."""

    def __init__(self, stream: ByteStream, *, watchdog: int = 0, wait_seconds: float = WAIT_SECONDS) -> None:
        self.stream = stream
        super().__init__(UartTransport(stream, wait_seconds=wait_seconds), watchdog=watchdog)

    def close(self) -> None:
        self.stream.close()


def open_uart(
    port: str | None = None, *, baud: int = BAUD, watchdog: int = 0, wait_seconds: float = WAIT_SECONDS
) -> UartDevice:
    """The board on a serial port such as /dev/ttyUSB0; None takes the only USB port that there is (:func:`only_port`).

    ``baud`` is that of the bitstream's manifest. DeviceError where the port does not open or no bridge answers.
    """
    line = SerialLine(only_port() if port is None else port, baud)
    try:
        return UartDevice(line, watchdog=watchdog, wait_seconds=wait_seconds)
    except BaseException:
        line.close()
        raise


def only_port(folder: Path = Path("/dev")) -> str:
    """The one USB serial port of this machine; DeviceError, naming them, where there is none or more than one."""
    found = sorted(str(path) for pattern in USB_PORTS for path in folder.glob(pattern))
    if len(found) == 1:
        return found[0]
    if found:
        raise DeviceError(f"there are {len(found)} USB serial ports: name the board's as port=, one of {', '.join(found)}")
    raise DeviceError(f"there is no USB serial port ({', '.join(USB_PORTS)} in {folder}): is the board connected?")
