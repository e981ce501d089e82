"""Bridge and memory in Amaranth's simulator: the protocol's replies bit by bit, damaged frames, and the memory's two ports."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.sim import Simulator

from hw.rtl.common.axi import axi4_manager
from hw.rtl.common.axi_ram import AxiRam, RamParameters
from hw.rtl.common.lite import LiteEndpoint
from hw.rtl.common.uart import UartReceiver, UartTiming, UartTransmitter
from hw.rtl.common.uart_bridge import BridgeParameters, UartBridge
from hw.spec.regs import BY_NAME
from hw.spec.uart import BridgeIdentity, Operation, ReplyHeader, Request, Status, unsealed

DIVISOR = 4
BASE, SIZE = 0x8000_0000, 4096
PARAMETERS = BridgeParameters(
    timing=UartTiming(clock_hz=40, baud=10), ram=RamParameters(base=BASE, size=SIZE), block_bytes=64, gap_cycles=200, poll_cycles=64
)


class Bench(wiring.Component):
    """A bridge with its memory and four registers; register 0x24, STATUS, reads 0b0101, and 0x30 counts its writes."""

    rx: In(1, init=1)
    tx: Out(1)
    status: Out(4)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = UartBridge(PARAMETERS)
        m.submodules.ram = ram = AxiRam(PARAMETERS.ram)
        m.submodules.registers = registers = LiteEndpoint()
        wiring.connect(m, bridge.host, ram.host)
        wiring.connect(m, bridge.lite, registers.s_axi)
        m.d.comb += [bridge.rx.eq(self.rx), self.tx.eq(bridge.tx), self.status.eq(bridge.status)]
        writes = wiring.Signature({"count": Out(32)}).create()
        with m.If(registers.write_en & (registers.write_index == 0x30 >> 2)):
            m.d.sync += writes.count.eq(writes.count + registers.write_data)
        with m.Switch(registers.read_index):
            with m.Case(BY_NAME["STATUS"].offset >> 2):
                m.d.comb += registers.read_data.eq(0b0101)
            with m.Case(0x30 >> 2):
                m.d.comb += registers.read_data.eq(writes.count)
        return m


def talk(sends: list[bytes], *, pause: int = 900) -> tuple[list[bytes], int]:
    """What comes back after each of ``sends``, within ``pause`` cycles and as long as bytes come; and the lamps at the end."""
    dut, heard = Bench(), []
    lamps = 0

    def bits(data: bytes) -> Iterator[int]:
        for byte in data:
            yield from (0, *(byte >> i & 1 for i in range(8)), 1)

    async def testbench(ctx) -> None:
        nonlocal lamps
        ctx.set(dut.rx, 1)
        await ctx.tick().repeat(8)
        for data in sends:
            for bit in bits(data):
                ctx.set(dut.rx, bit)
                await ctx.tick().repeat(DIVISOR)
            heard.append(await listen(ctx))
        lamps = ctx.get(dut.status)

    async def listen(ctx) -> bytes:
        data, quiet = bytearray(), 0
        while quiet < pause:
            await ctx.tick()
            quiet += 1
            if ctx.get(dut.tx) == 0:
                await ctx.tick().repeat(DIVISOR + DIVISOR // 2)
                byte = 0
                for i in range(8):
                    byte |= ctx.get(dut.tx) << i
                    await ctx.tick().repeat(DIVISOR)
                assert ctx.get(dut.tx) == 1
                data.append(byte)
                quiet = 0
        return bytes(data)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()
    return heard, lamps


def reply(data: bytes) -> tuple[int, int, bytes]:
    """Tag, status and payload of one whole reply."""
    assert data[:1] == b"\x5a"
    header = ReplyHeader.decode(data[1:10])
    assert len(data) == 10 + (header.length + 4 if header.length else 0)
    return header.tag, header.status, unsealed(data[10:]) if header.length else b""


def test_every_operation_and_refusal() -> None:
    data = bytes(range(100, 133))
    requests: list[tuple[Request, tuple[int, bytes]]] = [
        (Request(operation=Operation.WRITE_MEMORY, tag=1, address=BASE + 7, length=33, payload=data), (Status.OK, b"")),
        (Request(operation=Operation.READ_MEMORY, tag=2, address=BASE + 7, length=33), (Status.OK, data)),
        (Request(operation=Operation.WRITE_REGISTER, tag=3, address=0x30, length=4, payload=b"\x05\0\0\1"), (Status.OK, b"")),
        (Request(operation=Operation.WRITE_REGISTER, tag=3, address=0x30, length=4, payload=b"\x05\0\0\1"), (Status.OK, b"")),
        (Request(operation=Operation.READ_REGISTER, tag=4, address=0x30, length=4), (Status.OK, b"\x05\0\0\1")),
        (Request(operation=9, tag=5), (Status.BAD_OPERATION, b"")),
        (Request(operation=Operation.IDENTIFY, tag=6, length=1), (Status.BAD_LENGTH, b"")),
        (Request(operation=Operation.READ_MEMORY, tag=7, address=BASE, length=65), (Status.BAD_LENGTH, b"")),
        (Request(operation=Operation.READ_MEMORY, tag=8, address=BASE), (Status.BAD_LENGTH, b"")),
        (Request(operation=Operation.READ_REGISTER, tag=9, address=0x30, length=8), (Status.BAD_LENGTH, b"")),
        (Request(operation=Operation.READ_REGISTER, tag=10, address=0x32, length=4), (Status.BAD_ADDRESS, b"")),
        (Request(operation=Operation.READ_REGISTER, tag=11, address=0x1000, length=4), (Status.BAD_ADDRESS, b"")),
        (Request(operation=Operation.READ_MEMORY, tag=12, address=BASE + SIZE - 1, length=2), (Status.BAD_ADDRESS, b"")),
        (Request(operation=Operation.READ_MEMORY, tag=13, address=SIZE, length=2), (Status.BAD_ADDRESS, b"")),
        (Request(operation=Operation.WRITE_MEMORY, tag=14, address=BASE - 1, length=1, payload=b"!"), (Status.BAD_ADDRESS, b"")),
    ]
    heard, lamps = talk([request.encode() for request, _ in requests], pause=120)
    compared = 0
    for (request, wanted), data in zip(requests, heard, strict=True):
        assert reply(data) == (request.tag, *wanted), request
        compared += 1
    assert compared == 15 and lamps == 0b0101


def test_identity_counts_what_was_dropped_and_garbage_is_forgotten() -> None:
    """Damaged headers get no reply, a damaged payload an error; after a pause the next good request is answered."""
    rng = random.Random(3)
    identify = Request(operation=Operation.IDENTIFY, tag=77).encode()
    write = Request(operation=Operation.WRITE_MEMORY, tag=5, address=BASE, length=8, payload=b"12345678").encode()
    bad_payload = write[:-1] + bytes([write[-1] ^ 1])
    bad_header = identify[:3] + bytes([identify[3] ^ 0x10]) + identify[4:]
    read = Request(operation=Operation.READ_MEMORY, tag=6, address=BASE, length=8).encode()
    garbage = bytes(b for b in rng.randbytes(60) if b != 0xA5) + b"\xa5\xa5\x00"
    sends = [write, bad_payload, bad_header, write[:20], garbage, b"\xa5" * 14, read, identify]
    heard, _ = talk(sends, pause=260)
    assert reply(heard[0]) == (5, Status.OK, b"")
    assert reply(heard[1]) == (5, Status.BAD_PAYLOAD, b"")
    assert heard[2:6] == [b""] * 4
    assert reply(heard[6]) == (6, Status.OK, b"12345678")
    tag, status, payload = reply(heard[7])
    identity = BridgeIdentity.decode(payload)
    assert (tag, status) == (77, Status.OK) and identity.dropped == 5
    assert (identity.memory_base, identity.memory_bytes, identity.block_bytes) == (BASE, SIZE, 64)


def test_identify_forgets_the_last_tag() -> None:
    """A new session may begin with the tag that the last one ended with."""
    add = Request(operation=Operation.WRITE_REGISTER, tag=3, address=0x30, length=4, payload=b"\1\0\0\0").encode()
    identify, read = Request(operation=Operation.IDENTIFY, tag=3).encode(), Request(operation=2, tag=4, address=0x30, length=4).encode()
    other = Request(operation=Operation.READ_REGISTER, tag=9, address=0x30, length=4).encode()
    heard, _ = talk([add, add, identify, add, other, add, read], pause=120)
    assert [reply(data)[1] for data in heard] == [Status.OK] * 7
    assert reply(heard[-1])[2] == (3).to_bytes(4, "little")


# --- memory ------------------------------------------------------------------------------------------------------------------


class MemoryBench(wiring.Component):
    """The memory with its ports at the top."""

    def __init__(self) -> None:
        self.ram = AxiRam(PARAMETERS.ram)
        super().__init__({"axi": In(axi4_manager()), "host": In(self.ram.host.signature.flip())})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.ram = self.ram
        wiring.connect(m, wiring.flipped(self.axi), self.ram.axi)
        wiring.connect(m, wiring.flipped(self.host), self.ram.host)
        return m


def test_bursts_beside_a_busy_host() -> None:
    """Random bursts of both directions with random pauses, while the host writes and reads its own pages, against a model."""
    rng, dut = np.random.default_rng(4), MemoryBench()
    content = np.zeros(SIZE, np.uint8)
    counts = {"write": 0, "read": 0, "host": 0}
    half = SIZE // 2
    finished = []

    async def clear(ctx) -> None:
        for at in range(SIZE):
            await host_access(ctx, at, 0)

    async def host_access(ctx, at: int, value: int | None) -> int:
        ctx.set(dut.host.addr, at)
        ctx.set(dut.host.write_data, value or 0)
        ctx.set(dut.host.write, value is not None)
        ctx.set(dut.host.read, value is None)
        while True:
            _, _, ready = await ctx.tick().sample(dut.host.ready)
            if ready:
                break
        ctx.set(dut.host.write, 0)
        ctx.set(dut.host.read, 0)
        return ctx.get(dut.host.read_data)

    async def host(ctx) -> None:
        while not finished:
            at, value = int(rng.integers(half, SIZE)), int(rng.integers(256))
            await host_access(ctx, at, value)
            content[at] = value
            other = int(rng.integers(half, SIZE))
            assert await host_access(ctx, other, None) == content[other]
            counts["host"] += 1
            await ctx.tick().repeat(int(rng.integers(1, 8)))

    async def wait_for(ctx, *signals):
        while True:
            _, _, *values = await ctx.tick().sample(*signals)
            if values[0]:
                return values[1:]

    async def write(ctx, word: int, beats: int, *, size: int = 4, base: int = BASE) -> int:
        axi = dut.axi
        for name, value in (("awaddr", base + 16 * word), ("awlen", beats - 1), ("awsize", size), ("awburst", 1), ("awvalid", 1)):
            ctx.set(getattr(axi, name), value)
        await wait_for(ctx, axi.awready)
        ctx.set(axi.awvalid, 0)
        for beat in range(beats):
            data, strobe = rng.integers(0, 256, 16, np.uint8), int(rng.integers(1 << 16))
            await ctx.tick().repeat(int(rng.integers(0, 3)) or 1)
            for name, value in (("wdata", int.from_bytes(data.tobytes(), "little")), ("wstrb", strobe), ("wlast", beat == beats - 1)):
                ctx.set(getattr(axi, name), value)
            ctx.set(axi.wvalid, 1)
            await wait_for(ctx, axi.wready)
            ctx.set(axi.wvalid, 0)
            if size == 4 and base == BASE:
                kept = np.array([strobe >> i & 1 for i in range(16)], bool)
                content[16 * (word + beat) : 16 * (word + beat) + 16][kept] = data[kept]
        ctx.set(axi.bready, 1)
        (response,) = await wait_for(ctx, axi.bvalid, axi.bresp)
        ctx.set(axi.bready, 0)
        counts["write"] += 1
        return response

    async def read(ctx, word: int, beats: int, *, base: int = BASE) -> tuple[int, bytes]:
        axi, data = dut.axi, b""
        for name, value in (("araddr", base + 16 * word), ("arlen", beats - 1), ("arsize", 4), ("arburst", 1), ("arvalid", 1)):
            ctx.set(getattr(axi, name), value)
        await wait_for(ctx, axi.arready)
        ctx.set(axi.arvalid, 0)
        for beat in range(beats):
            await ctx.tick().repeat(int(rng.integers(0, 3)) or 1)
            ctx.set(axi.rready, 1)
            word_data, last, response = await wait_for(ctx, axi.rvalid, axi.rdata, axi.rlast, axi.rresp)
            ctx.set(axi.rready, 0)
            assert last == (beat == beats - 1)
            data += word_data.to_bytes(16, "little")
        counts["read"] += 1
        return response, data

    async def core(ctx) -> None:
        for word in range(0, half // 16, 16):
            await write(ctx, word, 16)
        for _ in range(40):
            beats = int(rng.integers(1, 17))
            word = int(rng.integers(0, half // 16 - beats + 1))
            assert await write(ctx, word, beats) == 0
        assert await write(ctx, 0, 2, size=3) == 2 and await write(ctx, 0, 2, base=BASE + SIZE) == 3
        assert (await read(ctx, 0, 3, base=0))[0] == 3
        finished.append(True)

    async def testbench(ctx) -> None:
        await clear(ctx)
        started.append(True)
        await core(ctx)
        for word in range(0, half // 16, 16):
            response, data = await read(ctx, word, 16)
            assert response == 0 and data == content[16 * word : 16 * word + 256].tobytes()

    async def beside(ctx) -> None:
        while not started:
            await ctx.tick()
        await host(ctx)

    started: list[bool] = []
    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.add_testbench(beside)
    sim.run()
    assert counts["write"] == half // 256 + 42 and counts["read"] == half // 256 + 1 and counts["host"] > 100


# --- line --------------------------------------------------------------------------------------------------------------------


class Loopback(wiring.Component):
    """A transmitter and a receiver of another bit time on one line."""

    def __init__(self, sender: int, receiver: int) -> None:
        self.transmitter, self.receiver = UartTransmitter(sender), UartReceiver(receiver)
        super().__init__({})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.transmitter, m.submodules.receiver = self.transmitter, self.receiver
        m.d.comb += self.receiver.rx.eq(self.transmitter.tx)
        return m


@pytest.mark.parametrize(("sender", "receiver"), [(4, 4), (50, 50), (49, 50), (51, 50), (48, 50), (52, 50)])
def test_line_tolerates_4_percent(sender: int, receiver: int) -> None:
    dut, data, heard = Loopback(sender, receiver), bytes([0x00, 0xFF, 0x55, 0xA5, 0x80, 0x01]), []

    async def send(ctx) -> None:
        for byte in data:
            ctx.set(dut.transmitter.i.payload, byte)
            ctx.set(dut.transmitter.i.valid, 1)
            await ctx.tick().until(dut.transmitter.i.ready)
            ctx.set(dut.transmitter.i.valid, 0)
        await ctx.tick().repeat(12 * sender)

    async def hear(ctx) -> None:
        async for _, _, valid, byte, broken in ctx.tick().sample(dut.receiver.valid, dut.receiver.data, dut.receiver.broken):
            assert not broken
            if valid:
                heard.append(byte)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(send)
    sim.add_testbench(hear, background=True)
    sim.run()
    assert bytes(heard) == data


def test_bad_parameters() -> None:
    with pytest.raises(ValueError, match="misses 3000000 by 4"):
        UartTiming(clock_hz=25_000_000, baud=3_000_000)
    with pytest.raises(ValueError, match="at most a quarter of the clock"):
        UartTiming(clock_hz=1_000_000, baud=1_000_000)
    with pytest.raises(ValueError, match="at least 4 clock cycles"):
        UartReceiver(3)
    with pytest.raises(ValueError, match="size must be a power of two"):
        RamParameters(base=0, size=5000)
    with pytest.raises(ValueError, match="base must be a multiple"):
        RamParameters(base=4096, size=8192)
    with pytest.raises(ValueError, match="gap_cycles must be at least"):
        BridgeParameters(timing=UartTiming(clock_hz=40, baud=10), ram=PARAMETERS.ram, gap_cycles=10)
