"""The XDMA transport over simulated nodes with a core in software: transfers, short counts, registers, and every error in words."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hw.spec.regs import BY_NAME
from sw.runtime.errors import DeviceError
from sw.runtime.lock import BoardLock
from sw.runtime.xdma import DeviceLost, XdmaCard, XdmaTransport, open_xdma
from sw.runtime.xdma_card import ADVICE, MAX_CHUNK, SystemCalls
from sw.runtime.xdma_nodes import MAX_SHORT
from tests.runtime.copy_program import ARCH, copy_program, image
from tests.runtime.xdma_cores import ForeignCard, SlowCore
from tests.runtime.xdma_nodes import BASE, CHUNK, SIZE, Call, SimulatedNodes, open_soft, soft_nodes

WATCHDOG = BY_NAME["WATCHDOG"].offset
ERRORS = [errno.EINVAL, errno.EFAULT, errno.ENOMEM, errno.EBUSY, errno.EIO, errno.EPROTO, errno.ETIMEDOUT, 512]
"""What the driver is known to return on a card that is there."""


def link(nodes: SimulatedNodes) -> XdmaTransport:
    return XdmaTransport(XdmaCard(memory_base=BASE, memory_bytes=SIZE, chunk=CHUNK), nodes)


def pattern(count: int) -> bytes:
    return np.random.default_rng(count).integers(0, 256, count, np.uint8).tobytes()


def raising(number: int, node: str, kind: str = "p") -> Callable[[Call], None]:
    """Every call of a node fails."""

    def meddle(call: Call) -> None:
        if call.node == f"xdma0_{node}" and call.kind.startswith(kind):
            raise OSError(number, "as the kernel says")

    return meddle


# transfers ----------------------------------------------------------------------------------------------------------------


def test_a_program_runs_and_everything_is_closed() -> None:
    nodes = soft_nodes()
    with open_soft(nodes, watchdog=77) as device:
        codes = image(1, 3)
        outputs, counters = device.run(copy_program(), {"x": codes})
        assert np.array_equal(outputs["y"], codes) and codes.size == 360 and counters["RETIRED"] == 9
        assert device.link.missed == 0 and nodes.core.read_register(WATCHDOG) == 77
    assert nodes.files == {} and sum(call.kind == "close" for call in nodes.calls) == 4
    device.close()
    with pytest.raises(DeviceError, match="/dev/xdma0_user is closed: open the device again"):
        device.link.read_register(0)


@pytest.mark.parametrize("count", [1, 4095, 4096, 4097, 3 * 4096 + 5])
def test_chunks(count: int) -> None:
    """Each call is at its own address, at most a chunk; whatever alignment."""
    nodes = soft_nodes()
    transport, data = link(nodes), pattern(count)
    transport.write_memory(BASE + 3, data)
    assert nodes.core.read_memory(BASE + 3, count) == data == transport.read_memory(BASE + 3, count)
    for node in ("xdma0_h2c_0", "xdma0_c2h_0"):
        moved = [(call.at - BASE - 3, call.count) for call in nodes.calls if call.node == node and call.kind != "open"]
        assert moved == [(at, min(CHUNK, count - at)) for at in range(0, count, CHUNK)]
    assert transport.nodes.short_counts == 0


def test_no_transfer_of_no_bytes() -> None:
    """The driver refuses one."""
    transport = link(soft_nodes())
    transport.write_memory(BASE, b"")
    assert transport.read_memory(BASE, 0) == b""


def test_short_counts_go_on_where_they_stopped() -> None:
    nodes = soft_nodes()
    nodes.meddle = lambda call: 1000 if call.count == CHUNK else None
    transport, data = link(nodes), pattern(2 * CHUNK)
    transport.write_memory(BASE + 16, data)
    assert transport.read_memory(BASE + 16, len(data)) == data == nodes.core.read_memory(BASE + 16, len(data))
    assert transport.nodes.short_counts == 10


@pytest.mark.parametrize("moved", [0, 1])
def test_short_counts_without_progress_are_an_error(moved: int) -> None:
    """None at all, or crumbs for ever."""
    nodes = soft_nodes()
    nodes.meddle = lambda call: moved if "h2c" in call.node else None
    transport = link(nodes)
    with pytest.raises(DeviceError, match=r"xdma0_h2c_0: write of 4096 bytes at 0x900000000 stopped at byte .* hide an error"):
        transport.write_memory(BASE, pattern(4096))
    assert transport.nodes.short_counts == (MAX_SHORT + 1 if moved else 1)


def test_a_short_count_and_then_the_error_that_it_hid() -> None:
    nodes = soft_nodes()

    def meddle(call: Call) -> int | None:
        if "c2h" in call.node and call.kind == "pread":
            if call.number:
                raise OSError(errno.EIO, "I/O error")
            return 100
        return None

    nodes.meddle = meddle
    with pytest.raises(
        DeviceError, match=r"read of 200 bytes at 0x900000000, from byte 100 on, failed: EIO, the card's engine"
    ):
        link(nodes).read_memory(BASE, 200)


def test_addresses_outside_of_the_window_reach_no_node() -> None:
    nodes = soft_nodes()
    transport = link(nodes)
    before = len(nodes.calls)
    for address, count in ((BASE - 16, 16), (BASE + SIZE - 8, 16), (0, 1)):
        with pytest.raises(DeviceError, match=r"must lie in the card's memory at 0x900000000\.\.0x900010000"):
            transport.write_memory(address, bytes(count))
        with pytest.raises(DeviceError, match="must lie in the card's memory"):
            transport.read_memory(address, count)
    assert len(nodes.calls) == before


def test_registers_at_an_offset_of_the_bar() -> None:
    nodes = soft_nodes(register_base=0x4000)
    device = open_soft(nodes, register_base=0x4000)
    device.link.write_register(WATCHDOG, 0xFEDC_BA98)
    assert device.link.read_register(WATCHDOG) == 0xFEDC_BA98 and nodes.calls[-1].at == 0x4000 + WATCHDOG
    assert {call.count for call in nodes.calls if call.node == "xdma0_user" and call.kind != "open"} == {4}
    for offset in (2, -4, 4096):
        with pytest.raises(ValueError, match="multiple of 4 below 4096"):
            device.link.read_register(offset)
        with pytest.raises(ValueError, match="multiple of 4 below 4096"):
            device.link.write_register(offset, 0)


def test_a_register_may_read_all_ones() -> None:
    nodes = soft_nodes()
    transport = link(nodes)
    transport.write_register(WATCHDOG, 0xFFFF_FFFF)
    assert transport.read_register(WATCHDOG) == 0xFFFF_FFFF
    assert [call.at for call in nodes.calls[-2:]] == [WATCHDOG, 0]


@pytest.mark.parametrize("kind", ["pread", "pwrite"])
def test_a_register_access_of_fewer_bytes(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = soft_nodes()
    transport = link(nodes)
    monkeypatch.setattr(nodes, kind, lambda *call: b"abc" if kind == "pread" else 3)
    with pytest.raises(DeviceError, match="of register 0x038 moved 3 of 4 bytes"):
        transport.read_register(WATCHDOG) if kind == "pread" else transport.write_register(WATCHDOG, 1)


# errors -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("node", ["h2c_0", "c2h_0"])
def test_every_error_of_a_transfer(number: int, node: str) -> None:
    """Named, with what to do; the card is not lost, and the device works on."""
    nodes = soft_nodes()
    transport, reads = link(nodes), node.startswith("c2h")
    nodes.meddle = raising(number, node)
    with pytest.raises(DeviceError) as caught:
        transport.read_memory(BASE, 64) if reads else transport.write_memory(BASE, bytes(64))
    name = "time-out, errno 512" if number == 512 else errno.errorcode[number]
    what = "read" if reads else "write"
    assert str(caught.value) == (
        f"/dev/xdma0_{node}: {what} of 64 bytes at 0x900000000, from byte 0 on, failed: {name}, {ADVICE[number]}"
    )
    assert not isinstance(caught.value, DeviceLost)
    nodes.meddle = lambda call: None
    transport.write_memory(BASE, b"x" * 64)
    assert transport.read_memory(BASE, 64) == b"x" * 64


def test_an_error_that_is_not_known_is_named() -> None:
    nodes = soft_nodes()
    transport = link(nodes)
    nodes.meddle = raising(errno.ENOTTY, "h2c_0")
    with pytest.raises(DeviceError, match="ENOTTY, the xdma driver is not known to report this"):
        transport.write_memory(BASE, b"abc")


def test_memory_that_does_not_answer_is_an_engine_error() -> None:
    """The window that the host believes in is larger than the card's memory."""
    nodes = soft_nodes()
    with (
        open_soft(nodes, memory_bytes=2 * SIZE) as device,
        pytest.raises(DeviceError, match=r"EIO, .*check memory_base= and memory_bytes="),
    ):
        device.write_memory(BASE + SIZE - 16, bytes(32))


@pytest.mark.parametrize(("node", "kind"), [("user", "pread"), ("user", "pwrite"), ("h2c_0", "pwrite"), ("events_0", "poll")])
@pytest.mark.parametrize("number", [errno.ENODEV, errno.ENXIO])
def test_a_device_that_was_removed_is_lost(node: str, kind: str, number: int) -> None:
    nodes = soft_nodes()
    device = open_soft(nodes)
    nodes.meddle = raising(number, node, kind)
    with pytest.raises(DeviceLost, match=r"xdma0_\* is lost: .* found no device"):
        device.run(copy_program(), {"x": image(1)})


def test_a_driver_that_forgot_the_card_is_a_lost_card() -> None:
    """It then answers EINVAL, also of the node that has no other reason for it."""
    nodes = soft_nodes()
    device = open_soft(nodes)
    nodes.meddle = raising(errno.EINVAL, "user")
    with pytest.raises(DeviceLost, match=r"read of register 0x000 found no device"):
        device.link.read_register(0)
    nodes.meddle = lambda call: None
    device = open_soft(nodes)
    nodes.meddle = lambda call: raising(errno.EINVAL, call.node.removeprefix("xdma0_"))(call)
    with pytest.raises(
        DeviceLost,
        match=r"write of \d+ bytes at .* failed .*, and the identity register cannot be read; what its memory held is gone",
    ):
        device.run(copy_program(), {"x": image(1)})


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOENT, "there is no such node; is the xdma driver loaded, and was the bus scanned"),
        (errno.EACCES, "not permitted; give this user the nodes"),
        (errno.EPERM, "not permitted; give this user the nodes"),
        (errno.EBUSY, "EBUSY, the driver holds the card offline"),
    ],
)
def test_nodes_that_do_not_open(number: int, words: str) -> None:
    for node in ("user", "h2c_0", "c2h_0"):
        nodes = soft_nodes()
        nodes.meddle = raising(number, node, "open")
        with pytest.raises(DeviceError, match=rf"/dev/xdma0_{node} cannot be opened: {words}"):
            open_soft(nodes)
        assert nodes.files == {}
    nodes = soft_nodes()
    nodes.meddle = raising(errno.EACCES, "events_0", "open")
    with pytest.raises(DeviceError, match="events_0 cannot be opened: not permitted"):
        open_soft(nodes)
    assert nodes.files == {}


def test_the_cards_that_are_there_are_named(tmp_path: Path) -> None:
    """With the real system calls, in a folder of plain files: there is nothing to find at another index."""
    for name in ("xdma1_user", "xdma3_user", "xdma3_control"):
        (tmp_path / name).touch()
    with pytest.raises(DeviceError, match=r"xdma0_user cannot be opened: .*the driver shows xdma1, xdma3: is the xdma driver"):
        open_xdma(root=tmp_path)


def test_plain_files_through_the_real_system_calls(tmp_path: Path) -> None:
    """The default of ``calls``: addresses are offsets, and what answers is no core."""
    for name in ("user", "h2c_0", "c2h_0", "events_0"):
        (tmp_path / f"xdma2_{name}").write_bytes(bytes(range(64)))
    transport = XdmaTransport(XdmaCard(index=2, root=tmp_path, memory_bytes=CHUNK, chunk=CHUNK))
    assert transport.read_register(4) == 0x07060504 and transport.read_memory(10, 5) == bytes(range(10, 15))
    transport.write_memory(20, b"abc")
    assert (tmp_path / "xdma2_h2c_0").read_bytes()[18:25] == b"\x12\x13abc\x17\x18"
    with pytest.raises(DeviceError, match="stopped at byte 60, after 2 short counts, and IDENTITY reads 0x03020100"):
        transport.read_memory(4, 100)
    transport.close()
    with pytest.raises(DeviceError, match="no Bitloom core answers"):
        open_xdma(2, root=tmp_path)


def test_poll_with_a_time_out() -> None:
    calls = SystemCalls()
    reader, writer = os.pipe()
    before = calls.clock()
    assert not calls.poll(reader, 0.05) and 0.04 < calls.clock() - before < 5
    os.write(writer, b"1234")
    assert calls.poll(reader, 0.01)
    calls.close(reader)
    calls.close(writer)
    before = calls.clock()
    calls.sleep(0.001)
    assert calls.clock() >= before + 0.001


# the wrong card -----------------------------------------------------------------------------------------------------------


def test_a_foreign_card_is_refused_and_nothing_is_written() -> None:
    nodes = SimulatedNodes(ForeignCard())
    with pytest.raises(DeviceError, match="no Bitloom core answers: IDENTITY must read 0x4d4c5442, not 0xdeadbeef"):
        open_soft(nodes)
    assert not any(call.kind == "pwrite" for call in nodes.calls) and nodes.files == {}


def test_a_card_of_another_architecture_is_refused_and_nothing_is_written() -> None:
    nodes = SimulatedNodes(SlowCore(type(ARCH)(rows=3), memory_base=BASE, memory_bytes=SIZE))
    with open_soft(nodes) as device, pytest.raises(DeviceError, match="compile it for this device's architecture"):
        device.run(copy_program(), {"x": image(1)})
    assert not any(call.kind == "pwrite" for call in nodes.calls)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"index": -1}, "index >= 0"),
        ({"channel": 4}, "channel 0 to 3"),
        ({"event": 16}, "event 0 to 15"),
        ({"register_base": 8}, "register_base must be a multiple of 4096"),
        ({"memory_base": -4096}, "memory_base must be a multiple of 4096, 0 or more"),
        ({"memory_bytes": 0}, "memory must hold something"),
        ({"memory_base": 1 << 63}, r"end at 2\*\*63"),
        ({"chunk": 0}, "chunk must be 4096"),
        ({"chunk": MAX_CHUNK + 4096}, "to 0x7ffff000"),
        ({"timeout": 0.0}, "timeout above 0"),
    ],
)
def test_bad_cards(options: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        XdmaCard(**options)  # type: ignore[arg-type]
    XdmaCard(chunk=MAX_CHUNK, channel=3, event=15, memory_base=(1 << 63) - (1 << 34))


def test_a_card_has_one_user(tmp_path: Path) -> None:
    """The lock is taken first, and given back by close and where opening fails."""

    class Locked(SimulatedNodes):
        def lock(self, board: str) -> BoardLock:
            return BoardLock(board, tmp_path)

    nodes = Locked(SlowCore(ARCH))
    options = {"calls": nodes, "memory_base": BASE, "memory_bytes": SIZE}
    with open_xdma(**options):
        calls = len(nodes.calls)
        with pytest.raises(DeviceError, match=r"/dev/xdma0_user is in use by process"):
            open_xdma(**options)
        assert len(nodes.calls) == calls
    with pytest.raises(DeviceError, match="there is no such node"):
        open_xdma(7, **options)
    open_xdma(**options).close()
