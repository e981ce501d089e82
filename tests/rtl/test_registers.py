"""The register file against the table: every register, every order of the AXI4-Lite channels, byte strobes, counter pairs."""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest
from amaranth.sim import Simulator

from hw.rtl.common.registers import RegisterFile
from hw.spec import regs
from hw.spec.deform import DeformArch
from hw.spec.regs import BY_NAME, Access, Register

ARCH = DeformArch(regions=3, region_manager=(0, 0, 0))
REGISTERS = regs.all_registers(ARCH.regions)
OKAY = 0


class Host:
    """An AXI4-Lite manager that waits at random: 0 to ``slack`` cycles before each VALID and each READY."""

    def __init__(self, dut: RegisterFile, seed: int, slack: int = 3) -> None:
        self.bus, self.rng, self.slack = dut.s_axi, random.Random(seed), slack
        self.orders: Counter[str] = Counter()

    async def write(self, ctx, offset: int, value: int, strobe: int = 15) -> None:
        """Address and data each after a time of its own; then the response."""
        bus, waits = self.bus, {"aw": self._wait(), "w": self._wait()}
        self.orders["together" if waits["aw"] == waits["w"] else "address" if waits["aw"] < waits["w"] else "data"] += 1
        ctx.set(bus.awaddr, offset)
        ctx.set(bus.wdata, value)
        ctx.set(bus.wstrb, strobe)
        while waits:
            for channel in list(waits):
                if waits[channel] == 0:
                    ctx.set(getattr(bus, f"{channel}valid"), 1)
            taken = [c for c in waits if ctx.get(getattr(bus, f"{c}valid")) and ctx.get(getattr(bus, f"{c}ready"))]
            await ctx.tick()
            for channel in list(waits):
                waits[channel] = max(waits[channel] - 1, 0)
                if channel in taken:
                    ctx.set(getattr(bus, f"{channel}valid"), 0)
                    del waits[channel]
        assert await self._take(ctx, "b", bus.bresp) == OKAY

    async def read(self, ctx, offset: int) -> int:
        bus = self.bus
        await self._pause(ctx)
        ctx.set(bus.araddr, offset)
        ctx.set(bus.arvalid, 1)
        await ctx.tick().until(bus.arready)
        ctx.set(bus.arvalid, 0)
        ctx.set(bus.araddr, self.rng.getrandbits(12))
        return await self._take(ctx, "r", bus.rdata)

    async def _take(self, ctx, channel: str, payload) -> int:
        """Wait for VALID, hold READY back for a while, and see that VALID and payload stay."""
        valid, ready = getattr(self.bus, f"{channel}valid"), getattr(self.bus, f"{channel}ready")
        waits = self._wait()
        if waits == 0:
            ctx.set(ready, 1)
        for _ in range(50):
            if ctx.get(valid):
                break
            await ctx.tick()
        value = ctx.get(payload)
        for _ in range(waits):
            assert ctx.get(valid) and ctx.get(payload) == value
            await ctx.tick()
        ctx.set(ready, 1)
        assert ctx.get(valid) and ctx.get(payload) == value
        await ctx.tick()
        ctx.set(ready, 0)
        return value

    def _wait(self) -> int:
        return self.rng.randint(0, self.slack)

    async def _pause(self, ctx) -> None:
        for _ in range(self._wait()):
            await ctx.tick()


def _run(bench: Callable, *, background: Sequence[Callable] = ()) -> None:
    dut = RegisterFile(arch=ARCH)

    async def testbench(ctx) -> None:
        await bench(ctx, dut)

    sim = Simulator(dut)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    for process in background:

        async def other(ctx, process=process) -> None:
            await process(ctx, dut)

        sim.add_testbench(other, background=True)
    sim.run()


def _outputs(ctx, dut: RegisterFile) -> dict[str, int]:
    """The read-write registers as the core sees them."""
    values = {"IRQ_ENABLE": ctx.get(dut.irq_enable), "WATCHDOG": ctx.get(dut.watchdog)}
    values |= {"PROGRAM_ADDR": ctx.get(dut.program.base), "PROGRAM_LENGTH": ctx.get(dut.program.size)}
    assert values["PROGRAM_LENGTH"] == ctx.get(dut.program_length)
    for i in range(ARCH.regions):
        values |= {f"REGION{i}_BASE": ctx.get(dut.regions[i].base), f"REGION{i}_SIZE": ctx.get(dut.regions[i].size)}
    return values


def _expected_outputs(stored: dict[str, int]) -> dict[str, int]:
    pairs = {name[:-3]: stored[name] | stored[f"{name[:-3]}_HI"] << 32 for name in stored if name.endswith("_LO")}
    single = {name: value for name, value in stored.items() if name[-3:] not in ("_LO", "_HI")}
    return {**pairs, **single, "IRQ_ENABLE": stored["IRQ_ENABLE"] & 1}


@pytest.mark.parametrize(("seed", "slack"), [(1, 0), (2, 1), (3, 4)])
def test_read_write_registers_hold_what_was_written(seed: int, slack: int) -> None:
    compared, hosts = [], []
    writable = [register for register in REGISTERS if register.access is Access.RW]

    async def bench(ctx, dut) -> None:
        host, stored = Host(dut, seed, slack), {register.name: 0 for register in writable}
        hosts.append(host)
        for _ in range(120):
            register, value, strobe = host.rng.choice(writable), host.rng.getrandbits(32), host.rng.choice([15, 15, *range(16)])
            await host.write(ctx, register.offset, value, strobe)
            mask = sum(0xFF << 8 * i for i in range(4) if strobe >> i & 1)
            stored[register.name] = stored[register.name] & ~mask | value & mask
            assert _outputs(ctx, dut) == _expected_outputs(stored)
            other = host.rng.choice(writable)
            assert await host.read(ctx, other.offset) == stored[other.name]
            compared.append(register.name)

    _run(bench)
    assert set(compared) == {register.name for register in writable}
    assert slack == 0 or min(hosts[0].orders[order] for order in ("together", "address", "data")) >= 10


STATUS_VALUES = {
    "STATUS": 0b1101, "ERROR_CODE": 26, "ERROR_INDEX": 0xFFFF_FFFF, "RETIRED": 0x1234_5678, "IDENTITY": 0x4D4C_5442,
    "VERSION": 1, "BUILD_ID_LO": 0x89AB_CDEF, "BUILD_ID_HI": 0x0123_4567, "ARCH_ID_LO": ARCH.arch_id & 0xFFFF_FFFF,
    "ARCH_ID_HI": ARCH.arch_id >> 32,
}  # fmt: skip


def _drive_status(ctx, dut: RegisterFile) -> None:
    inputs = {"busy": 1, "done": 0, "stuck": 1, "error_code": 26, "error_index": 0xFFFF_FFFF, "retired": 0x1234_5678,
              "build_id": 0x0123_4567_89AB_CDEF}  # fmt: skip
    for name, value in inputs.items():
        ctx.set(getattr(dut, name), value)


def test_read_only_registers_and_holes() -> None:
    compared = []

    async def bench(ctx, dut) -> None:
        host, mapped = Host(dut, 4, 1), {register.offset: register for register in REGISTERS}
        _drive_status(ctx, dut)
        for offset in range(0, 0x180, 4):
            register: Register | None = mapped.get(offset)
            if register is None or register.access is Access.RO:
                await host.write(ctx, offset, 0xFFFF_FFFF)  # must change nothing
            expected = STATUS_VALUES.get(register.name, 0) if register else 0
            assert await host.read(ctx, offset) == expected, hex(offset)
            compared.append(offset)
        for offset in (0x180, 0x400, 0x7FC, 0x800, 0xFFC):
            await host.write(ctx, offset, 0xFFFF_FFFF)
            assert await host.read(ctx, offset) == 0
        assert not any(_outputs(ctx, dut).values())

    _run(bench)
    assert len(compared) == 96


def test_commands_are_pulses_of_their_bits() -> None:
    """Each combination of the CONTROL bits with and without the strobe of their byte: one cycle, those bits."""
    pulses: list[int] = []
    expected: list[int] = []

    async def watch(ctx, dut) -> None:
        while True:
            _, _, start, abort, acknowledge = await ctx.tick().sample(dut.start, dut.abort, dut.acknowledge)
            if start or abort or acknowledge:
                pulses.append(start | abort << 1 | acknowledge << 2)

    async def bench(ctx, dut) -> None:
        host, control = Host(dut, 5, 2), BY_NAME["CONTROL"].offset
        for value in range(16):
            for strobe in (15, 1, 14, 0):
                await host.write(ctx, control, value | 0xABCD_EF00, strobe)
                if strobe & 1 and value & 7:
                    expected.append(value & 7)
        for register in REGISTERS:
            if register.offset != control:
                await host.write(ctx, register.offset, 7)
        assert await host.read(ctx, control) == 0
        await ctx.tick().repeat(2)

    _run(bench, background=[watch])
    assert pulses == expected and len(expected) == 28


def test_reading_the_low_half_of_a_counter_latches_its_own_high_half() -> None:
    """Counters that run, also over the carry between the halves; pairs may be read interleaved."""
    compared = []

    async def bench(ctx, dut) -> None:
        host = Host(dut, 6)
        for _ in range(30):
            values = {name: (host.rng.getrandbits(32) << 32) | host.rng.choice([0xFFFF_FFFF, 0, 5]) for name in regs.COUNTERS}
            for name, value in values.items():
                ctx.set(dut.counters[name], value)
            names = host.rng.sample(list(values), 3)
            for name in names:
                assert await host.read(ctx, BY_NAME[f"{name}_LO"].offset) == values[name] & 0xFFFF_FFFF
            for name in values:
                ctx.set(dut.counters[name], values[name] + (1 << 32) & (1 << 64) - 1)
            for name in host.rng.sample(names, 3):
                assert await host.read(ctx, BY_NAME[f"{name}_HI"].offset) == values[name] >> 32
                compared.append(name)

    _run(bench)
    assert len(compared) == 90 and set(compared) == set(regs.COUNTERS)
