"""The serial transport: frames, retries on a bad line, refusals, and a terminal device."""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from boards.board import board_names, load_board
from hw.spec.deform import DeformArch
from hw.spec.records import GateRefusal
from hw.spec.regs import BY_NAME, COUNTERS
from hw.spec.uart import BridgeIdentity, FrameError, Operation, ReplyHeader, Request, Status, sealed, unsealed
from sw.runtime import KINDS, DeviceError, open_device
from sw.runtime.proof import UnprovenWarning
from sw.runtime.uart import BAUD, SerialLine, UartDevice, UartTransport, only_port
from tests.e2e.tiny import ARCH, make_tiny
from tests.runtime.fake_bridge import BLOCK, FakeBridge
from tests.runtime.fake_core import FakeCore
from tests.runtime.tiny_runs import proof_of, run_and_compare

BASE = 0x8000_0000


def fake(arch: DeformArch = ARCH, **options: int) -> FakeBridge:
    return FakeBridge(FakeCore(arch, memory_base=BASE, memory_bytes=1 << 17), **options)


def test_frames() -> None:
    """The layout in bytes, against zlib; a damaged bit anywhere is found."""
    frame = Request(operation=Operation.WRITE_REGISTER, tag=7, address=0x24, length=4, payload=b"abcd").encode()
    header = bytes([3, 7, 0x24, 0, 0, 0, 4, 0])
    assert frame == b"\xa5" + header + zlib.crc32(header).to_bytes(4, "little") + b"abcd" + zlib.crc32(b"abcd").to_bytes(4, "little")
    reply = ReplyHeader(operation=4, tag=9, status=Status.OK, length=300)
    assert ReplyHeader.decode(reply.encode()[1:]) == reply and len(reply.encode()) == 10
    identity = BridgeIdentity(version=1, block_bytes=1024, memory_base=BASE, memory_bytes=65536, dropped=3)
    assert BridgeIdentity.decode(identity.encode()) == identity
    found, good = 0, sealed(b"payload")
    assert unsealed(good) == b"payload"
    for bit in range(8 * len(good)):
        with pytest.raises(FrameError, match="CRC-32"):
            unsealed((int.from_bytes(good, "little") ^ 1 << bit).to_bytes(len(good), "little"))
        found += 1
    assert found == 88


def test_memory_and_registers() -> None:
    bridge = fake()
    transport = UartTransport(bridge)
    data = random.Random(1).randbytes(3 * BLOCK + 17)
    transport.write_memory(BASE + 3, data)
    assert transport.read_memory(BASE + 3, len(data)) == data
    assert bridge.core.read_memory(BASE + 3, len(data)) == data
    transport.write_register(BY_NAME["WATCHDOG"].offset, 0xDEADBEEF)
    assert transport.read_register(BY_NAME["WATCHDOG"].offset) == 0xDEADBEEF
    assert transport.retries == 0 and bridge.executed.count(Operation.WRITE_MEMORY) == 4


def _flip(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(8 * len(data))
    return (int.from_bytes(data, "little") ^ 1 << at).to_bytes(len(data), "little")


def test_bad_line() -> None:
    """Frames lost, cut, with flipped bits, after garbage: every access ends right, and no write happens twice."""
    rng, bridge = random.Random(5), fake()
    transport = UartTransport(bridge, attempts=60)

    def damaged(number: int, data: bytes) -> bytes:
        if not data:
            return data
        kinds = (data, data, b"", data[: rng.randrange(len(data))], _flip(data, rng), rng.randbytes(rng.randrange(40)) + data)
        return rng.choice(kinds)

    bridge.damage_request = bridge.damage_reply = damaged
    compared, content = 0, bytearray(bridge.core.read_memory(BASE, 4096))
    for number in range(150):
        at, data = rng.randrange(3000), rng.randbytes(rng.randrange(1, 600))
        transport.write_memory(BASE + at, data)
        content[at : at + len(data)] = data
        transport.write_register(BY_NAME["PROGRAM_LENGTH"].offset, number)
        assert transport.read_register(BY_NAME["PROGRAM_LENGTH"].offset) == number
        assert transport.read_memory(BASE, 1000) == content[:1000]
        compared += 1
    assert bridge.core.read_memory(BASE, 4096) == content
    assert [value for name, value in bridge.core.log if name == "PROGRAM_LENGTH"] == list(range(150))
    assert compared == 150 and transport.retries > 200


def test_lost_reply_to_start_does_not_start_again() -> None:
    """What the tag is for: the program runs once, though its START is sent three times."""
    bridge, tiny = fake(), make_tiny(2)
    device = UartDevice(bridge)
    start = [0]

    def lose_start(number: int, data: bytes) -> bytes:
        if bridge.core.log and bridge.core.log[-1] == ("CONTROL", BY_NAME["CONTROL"].mask("START")) and len(start) < 3:
            start.append(number)
            return b""
        return data

    bridge.damage_reply = lose_start
    outputs, counters = device.run(tiny.program, {"image": tiny.inputs["image"][:1]})
    wanted = tiny.graph({"image": tiny.inputs["image"][:1]})
    assert len(start) == 3 and bridge.core.log.count(("CONTROL", BY_NAME["CONTROL"].mask("START"))) == 1
    assert all(np.array_equal(outputs[name], codes) for name, codes in wanted.items()) and set(counters) == {*COUNTERS, "RETIRED"}


def test_refusals() -> None:
    bridge = fake()
    transport = UartTransport(bridge)
    with pytest.raises(DeviceError, match="must lie in the board's memory"):
        transport.read_memory(BASE + (1 << 17) - 4, 5)
    with pytest.raises(DeviceError, match="BUS_ERROR"):
        transport.read_register(0xFFC)
    bridge.damage_request = lambda number, data: b""
    with pytest.raises(DeviceError, match="no good answer to READ_REGISTER in 5 attempts"):
        transport.read_register(0)
    with pytest.raises(DeviceError, match="speaks version 2"):
        UartTransport(fake(version=2))
    bridge.damage_request, bridge.core.waits = lambda number, data: data, []
    transport.wait_seconds = 0.05
    assert transport.wait() is False and bridge.slept > 0.05


@contextmanager
def terminal(bridge: FakeBridge) -> Iterator[str]:
    """Path of a pseudo-terminal with the bridge behind it."""
    host, board = os.openpty()

    def serve() -> None:
        buffer = b""
        while True:
            try:
                buffer += os.read(host, 4096)
            except OSError:  # the other end is closed
                return
            replies = bridge.replied
            bridge.write(buffer)
            if bridge.replied > replies:
                buffer = b""
                os.write(host, bridge.read(1 << 16, 0))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield os.ttyname(board)
    os.close(board)
    thread.join(timeout=10)
    assert not thread.is_alive(), "the port was left open"
    os.close(host)


def test_terminal_device() -> None:
    """The bytes pass raw, in both directions, however the system cuts them."""
    with terminal(fake()) as path:
        line = SerialLine(path, 1_000_000)
        transport = UartTransport(line, timeout=5.0)
        data = bytes(range(256)) * 2
        transport.write_memory(BASE, data)
        assert transport.read_memory(BASE, 512) == data
        line.close()


def test_a_port_has_one_user() -> None:
    """Also by another name of the same device; closed, it is free, and so it is where opening it failed."""
    with terminal(fake()) as path:
        line = SerialLine(path, 115200)
        with pytest.raises(DeviceError, match=rf"{path} is in use by process {os.getpid()} of "):
            SerialLine(path.replace("/dev/pts", "/dev/../dev/pts"), 115200)
        line.close()
        with pytest.raises(DeviceError, match="cannot run at 12345 baud"):
            SerialLine(path, 12345)
        SerialLine(path, 115200).close()


def test_open_device_runs_the_proven_program_only() -> None:
    tiny, bridge = make_tiny(2), fake()
    proof = proof_of(tiny)
    bridge.core.set_pair("BUILD_ID", proof.design.build_id)
    other = dataclasses.replace(tiny.program, layers=("other",) * len(tiny.program.layers))
    with terminal(bridge) as path, open_device("uart", port=path, baud=115_200, proof=proof) as device:
        assert isinstance(device, UartDevice) and run_and_compare(device, tiny) == 20
        with pytest.raises(GateRefusal, match="the program is not the one"):
            device.run(other, tiny.inputs)


def test_open_device_refuses_another_core_and_closes_the_port() -> None:
    """The core's BUILD_ID is not that of the records; ``terminal`` sees that the port is closed."""
    with terminal(fake()) as path, pytest.raises(GateRefusal, match="build_id"):
        open_device("uart", port=path, proof=proof_of(make_tiny(2)))


def test_open_device_without_records() -> None:
    """Refused before the port is touched; with the way round it runs and warns."""
    assert "uart" in KINDS
    with pytest.raises(GateRefusal, match="'uart' is a board and runs only what is proven"):
        open_device("uart", port="/dev/no-such-port")
    with (
        terminal(fake()) as path,
        pytest.warns(UnprovenWarning, match="NOT PROVEN"),
        open_device("uart", port=path, without_proof=True) as device,
    ):
        assert run_and_compare(device, make_tiny(2)) == 20


def test_the_only_port(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"there is no USB serial port .*is the board connected"):
        only_port(tmp_path)
    (tmp_path / "ttyUSB3").touch()
    (tmp_path / "ttyS0").touch()
    assert only_port(tmp_path) == str(tmp_path / "ttyUSB3")
    (tmp_path / "ttyACM0").touch()
    with pytest.raises(DeviceError, match=r"there are 2 USB serial ports: name the board's as port=, one of .*ttyACM0, .*ttyUSB3"):
        only_port(tmp_path)


def test_every_board_runs_at_the_default_rate() -> None:
    rates = {load_board(name).baud for name in board_names()}
    assert rates == {BAUD}


def test_ports_that_do_not_open() -> None:
    with pytest.raises(DeviceError, match=r"cannot be opened .*is the board connected"):
        SerialLine("/dev/no-such-port", 115200)
    host, board = os.openpty()
    with pytest.raises(DeviceError, match="cannot run at 12345 baud: it must be one of"):
        SerialLine(os.ttyname(board), 12345)
    os.close(host)
    os.close(board)
