"""A small core with the port contract of every Bitloom core, for the tests of the simulator.

It copies `bursts` bursts of 64 beats from `source` to `target`, one at a time: one burst is one instruction, from its
issue (the cycle the read address is first offered) to its retire (the cycle the write response is taken).

Registers (byte offset): 0x00 start (write 1), 0x04 status {busy, done, error}, 0x08 source, 0x0C target, 0x10 bursts,
0x14 scratch (never reset), 0x18 fault, 0x1C limit (reset value 0x1234, read only), 0x20/0x24 build_id, 0x40..0x4C a ROM.
Faults are planted at run time by bits of 0x18: 1 drops WVALID after a refused cycle, 2 moves WLAST to the first beat,
4 changes AWADDR while it waits, 8 lets the writes cross a 4 KB boundary, 16 makes all bursts FIXED, 32 retires before any issue.
"""

from amaranth.hdl import Cat, Const, Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

BEATS = 64
BURST_BYTES = BEATS * 16
ROM = (0xB1700001, 0x00000002, 0xDEADBEEF, 0x12345678)
START, STATUS, SOURCE, TARGET, BURSTS, SCRATCH, FAULT, LIMIT, BUILD_LOW, BUILD_HIGH = range(0, 40, 4)
LIMIT_RESET = 0x1234
BUSY, DONE, ERROR = 1, 2, 4
DROP_WVALID, EARLY_WLAST, MOVING_AWADDR, CROSS_4K, FIXED_BURST, LONE_RETIRE = 1, 2, 4, 8, 16, 32

# Where the tests put the memory, and the copy within it.
BASE, MEMORY_BYTES, TARGET_OFFSET = 0x4000_0000, 1 << 16, 0x8000

LITE = wiring.Signature({
    "awaddr": Out(12), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
    "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
    "bresp": In(2), "bvalid": In(1), "bready": Out(1),
    "araddr": Out(12), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
    "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
})  # fmt: skip


def _address(channel: str) -> dict[str, wiring.Member]:
    widths = {"id": 1, "addr": 64, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "valid": 1}
    return {channel + name: Out(width) for name, width in widths.items()} | {channel + "ready": In(1)}


MANAGER = wiring.Signature({
    **_address("aw"), **_address("ar"),
    "wdata": Out(128), "wstrb": Out(16), "wlast": Out(1), "wvalid": Out(1), "wready": In(1),
    "bid": In(1), "bresp": In(2), "bvalid": In(1), "bready": Out(1),
    "rid": In(1), "rdata": In(128), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
})  # fmt: skip

TRACE = wiring.Signature({"issue": Out(1), "retire": Out(1), "index": Out(32)})


class _Registers(wiring.Component):
    """The AXI4-Lite register file of the copy engine: one write and one read at a time."""

    s_axi: In(LITE)
    busy: In(1)
    done: In(1)
    error: In(1)
    build_id: In(64)
    start: Out(1)
    source: Out(32)
    target: Out(32)
    bursts: Out(32)
    fault: Out(6)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.rom = rom = memory.Memory(shape=32, depth=4, init=ROM)
        rom_port = rom.read_port(domain="comb")
        self._write(m)
        self._read(m, rom_port)
        return m

    def _write(self, m: Module) -> None:
        bus = self.s_axi
        self.scratch = Signal(32, init=0xCAFE, reset_less=True)
        self.limit = Signal(32, init=LIMIT_RESET)
        take = Signal()
        m.d.comb += [take.eq(bus.awvalid & bus.wvalid & ~bus.bvalid), bus.awready.eq(take), bus.wready.eq(take)]
        m.d.sync += self.start.eq(0)
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(take):
            m.d.sync += bus.bvalid.eq(1)
            with m.Switch(bus.awaddr):
                for offset, register in self._writable():
                    with m.Case(offset):
                        m.d.sync += register.eq(bus.wdata)

    def _writable(self) -> tuple[tuple[int, Signal], ...]:
        return ((START, self.start), (SOURCE, self.source), (TARGET, self.target), (BURSTS, self.bursts),
                (SCRATCH, self.scratch), (FAULT, self.fault))  # fmt: skip

    def _read(self, m: Module, rom_port: memory.ReadPort) -> None:
        bus = self.s_axi
        status = Cat(self.busy, self.done, self.error)
        m.d.comb += [bus.arready.eq(~bus.rvalid), rom_port.addr.eq(bus.araddr[2:4])]
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rdata.eq(rom_port.data), bus.rresp.eq(0)]
            with m.Switch(bus.araddr):
                extra = ((STATUS, status), (LIMIT, self.limit), (BUILD_LOW, self.build_id[:32]),
                         (BUILD_HIGH, self.build_id[32:]))  # fmt: skip
                for offset, value in (*self._writable(), *extra):
                    with m.Case(offset):
                        m.d.sync += bus.rdata.eq(value)
                with m.Case("00001-------", "0001--------", "001---------", "01----------", "1-----------"):
                    m.d.sync += bus.rresp.eq(2)


class CopyEngine(wiring.Component):
    """Register-started copy engine with `managers` AXI4 managers, of which the last one is used.

    Bursts are numbered in steps of `step`, so that two designs can differ by one constant.
    """

    def __init__(self, *, managers: int = 1, step: int = 1) -> None:
        self.managers, self.step = managers, step
        super().__init__({
            "s_axi": In(LITE),
            **{f"m_axi_{n}": Out(MANAGER) for n in range(managers)},
            "irq": Out(1),
            "build_id": In(64),
            "trace": Out(TRACE),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.registers = self._registers = registers = _Registers()
        wiring.connect(m, wiring.flipped(self.s_axi), registers.s_axi)
        m.submodules.buffer = buffer = memory.Memory(shape=128, depth=BEATS, init=[7] * BEATS, attrs={"ram_style": "block"})
        self._write_port, self._read_port = buffer.write_port(), buffer.read_port(domain="comb")
        self._bus = getattr(self, f"m_axi_{self.managers - 1}")
        self._beat, self._index = Signal(range(BEATS)), Signal(32)
        m.d.comb += [registers.build_id.eq(self.build_id), self.irq.eq(registers.done), self.trace.index.eq(self._index)]
        self._static(m)
        self._watch(m)
        with m.FSM():
            self._idle(m)
            self._read_burst(m)
            self._write_burst(m)
        return m

    def _static(self, m: Module) -> None:
        bus, registers = self._bus, self._registers
        offset = Signal(32)
        m.d.comb += offset.eq((self._index * BURST_BYTES)[:32])
        kind = Cat(~registers.fault[4], Const(0, 1))
        for channel, base in (("ar", registers.source), ("aw", registers.target)):
            m.d.comb += [
                getattr(bus, channel + "addr").eq(base + offset),
                getattr(bus, channel + "len").eq(BEATS - 1),
                getattr(bus, channel + "size").eq(4),
                getattr(bus, channel + "burst").eq(kind),
                getattr(bus, channel + "cache").eq(3),
            ]
        with m.If(registers.fault[3]):
            m.d.comb += bus.awaddr.eq(base + offset + 0xFC0)
        m.d.comb += [bus.wdata.eq(self._read_port.data), bus.wstrb.eq(0xFFFF), self._read_port.addr.eq(self._beat)]

    def _watch(self, m: Module) -> None:
        bus = self._bus
        watch = {name: Signal(width, name=f"watch_fm__{name}") for name, width in
                 (("en", 1), ("addr", 32), ("data", 128))}  # fmt: skip
        m.d.comb += [
            self._write_port.en.eq(bus.rvalid & bus.rready),
            self._write_port.addr.eq(self._beat),
            self._write_port.data.eq(bus.rdata),
            watch["en"].eq(self._write_port.en),
            watch["addr"].eq(self._beat),
            watch["data"].eq(bus.rdata),
        ]

    def _idle(self, m: Module) -> None:
        registers = self._registers
        with m.State("IDLE"), m.If(registers.start):
            m.d.comb += self.trace.retire.eq(registers.fault[5])
            m.d.sync += [self._index.eq(0), registers.busy.eq(1), registers.done.eq(0), registers.error.eq(0)]
            m.next = "READ_ADDRESS"

    def _read_burst(self, m: Module) -> None:
        bus, asked = self._bus, Signal()
        with m.State("READ_ADDRESS"):
            m.d.comb += [bus.arvalid.eq(1), self.trace.issue.eq(~asked)]
            m.d.sync += asked.eq(1)
            with m.If(bus.arready):
                m.d.sync += asked.eq(0)
                m.next = "READ_DATA"
        with m.State("READ_DATA"):
            m.d.comb += bus.rready.eq(1)
            with m.If(bus.rvalid):
                m.d.sync += [self._beat.eq(self._beat + 1), self._registers.error.eq(self._registers.error | bus.rresp[1])]
                with m.If(bus.rlast):
                    m.next = "WRITE_ADDRESS"

    def _write_burst(self, m: Module) -> None:
        bus, fault, refused = self._bus, self._registers.fault, Signal()
        with m.State("WRITE_ADDRESS"):
            m.d.comb += bus.awvalid.eq(1)
            m.d.sync += refused.eq(~bus.awready)
            with m.If(refused & fault[2]):
                m.d.comb += bus.awaddr.eq(0)
            with m.If(bus.awready):
                m.next = "WRITE_DATA"
        with m.State("WRITE_DATA"):
            m.d.comb += [
                bus.wvalid.eq(~(refused & fault[0])),
                bus.wlast.eq(fault[1] & (self._beat == 0) | ~fault[1] & (self._beat == BEATS - 1)),
            ]
            m.d.sync += refused.eq(bus.wvalid & ~bus.wready)
            with m.If(bus.wvalid & bus.wready):
                m.d.sync += self._beat.eq(self._beat + 1)
                with m.If(self._beat == BEATS - 1):
                    m.next = "RESPONSE"
        with m.State("RESPONSE"):
            m.d.comb += bus.bready.eq(1)
            with m.If(bus.bvalid):
                self._retire(m)

    def _retire(self, m: Module) -> None:
        bus, registers = self._bus, self._registers
        m.d.comb += self.trace.retire.eq(1)
        m.d.sync += [self._index.eq(self._index + self.step), registers.error.eq(registers.error | bus.bresp[1])]
        m.next = "READ_ADDRESS"
        with m.If(self._index + 1 == registers.bursts):
            m.d.sync += [registers.busy.eq(0), registers.done.eq(1)]
            m.next = "IDLE"
