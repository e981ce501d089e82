"""The register file of every core: ``hw.spec.regs`` on an AXI4-Lite subordinate."""

from amaranth.hdl import Cat, Const, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import CONTROL_DATA_BITS, axi_lite_subordinate
from hw.rtl.common.bursts import Window
from hw.rtl.common.counters import CounterValues
from hw.rtl.common.interfaces import ERROR_BITS
from hw.rtl.common.lite import STROBE_BITS, LiteEndpoint
from hw.spec import regs
from hw.spec.arch import Arch
from hw.spec.regs import Access


class RegisterFile(wiring.Component):
    """Registers of a core; reads of what is not there are 0, writes to it do nothing, both answer OKAY.

    Members
    -------
    s_axi : the bus
    build_id, busy, done, stuck, error_code, error_index, retired, counters : what the host reads
    start, abort, acknowledge : for one cycle: the host wrote the bit of CONTROL
    irq_enable, watchdog, program_length : what the host wrote
    regions, program : windows for the AXI masters; the program's is PROGRAM_ADDR and PROGRAM_LENGTH
    """

    def __init__(self, *, arch: Arch) -> None:
        self._arch = arch
        super().__init__({
            "s_axi": Out(axi_lite_subordinate()),
            "build_id": In(64), "busy": In(1), "done": In(1), "stuck": In(1),
            "error_code": In(ERROR_BITS), "error_index": In(32), "retired": In(32),
            "counters": In(CounterValues),
            "start": Out(1), "abort": Out(1), "acknowledge": Out(1),
            "irq_enable": Out(1), "watchdog": Out(32), "program_length": Out(32),
            "regions": Out(data.ArrayLayout(Window, arch.regions)), "program": Out(Window),
        })  # fmt: skip

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.endpoint = self._endpoint = LiteEndpoint()
        wiring.connect(m, wiring.flipped(self.s_axi), self._endpoint.s_axi)
        stored = self._stored(m)
        self._commands(m)
        self._outputs(m, stored)
        self._read(m, {**stored, **self._status(), **self._counters(m)})
        return m

    def _registers(self, access: Access) -> list[regs.Register]:
        return [register for register in regs.all_registers(self._arch.regions) if register.access is access]

    def _hit(self, register: regs.Register) -> Value:
        return self._endpoint.write_en & (self._endpoint.write_index == register.offset >> 2)

    def _stored(self, m: Module) -> dict[str, Signal]:
        """The read-write registers."""
        stored = {}
        for register in self._registers(Access.RW):
            value = stored[register.name] = Signal(CONTROL_DATA_BITS, name=register.name.lower())
            with m.If(self._hit(register)):
                for i in range(STROBE_BITS):
                    with m.If(self._endpoint.write_strobe[i]):
                        m.d.sync += value.word_select(i, 8).eq(self._endpoint.write_data.word_select(i, 8))
        return stored

    def _commands(self, m: Module) -> None:
        control = regs.BY_NAME["CONTROL"]
        for bit in control.bits:
            written = self._endpoint.write_data[bit.index] & self._endpoint.write_strobe[bit.index // 8]
            m.d.comb += getattr(self, bit.name.lower()).eq(self._hit(control) & written)

    def _outputs(self, m: Module, stored: dict[str, Signal]) -> None:
        def pair(name: str) -> Value:
            return Cat(stored[f"{name}_LO"], stored[f"{name}_HI"])

        m.d.comb += [
            self.irq_enable.eq(stored["IRQ_ENABLE"][0]),
            self.watchdog.eq(stored["WATCHDOG"]),
            self.program_length.eq(stored["PROGRAM_LENGTH"]),
            self.program.base.eq(pair("PROGRAM_ADDR")),
            self.program.size.eq(stored["PROGRAM_LENGTH"]),
        ]
        for i in range(self._arch.regions):
            m.d.comb += [
                self.regions[i].base.eq(pair(f"REGION{i}_BASE")),
                self.regions[i].size.eq(pair(f"REGION{i}_SIZE")),
            ]

    def _status(self) -> dict[str, Value]:
        """The read-only registers but for the counters."""
        bits = {"BUSY": self.busy, "DONE": self.done, "ERROR": self.error_code.any(), "STUCK": self.stuck}
        arch_id = Const(self._arch.arch_id, 64)
        return {
            "IDENTITY": Const(regs.IDENTITY, 32),
            "VERSION": Const(regs.SHELL_VERSION, 32),
            "ARCH_ID_LO": arch_id[:32],
            "ARCH_ID_HI": arch_id[32:],
            "BUILD_ID_LO": self.build_id[:32],
            "BUILD_ID_HI": self.build_id[32:],
            "STATUS": Cat(bits[bit.name] for bit in regs.STATUS_BITS),
            "ERROR_CODE": self.error_code,
            "ERROR_INDEX": self.error_index,
            "RETIRED": self.retired,
        }

    def _counters(self, m: Module) -> dict[str, Value]:
        """Counter pairs; each HI is what it was when its LO was read last."""
        values: dict[str, Value] = {}
        for name in regs.COUNTERS:
            low, high = self.counters[name][:32], Signal(32, name=f"{name.lower()}_hi")
            index = regs.BY_NAME[f"{name}_LO"].offset >> 2
            with m.If(self._endpoint.read_en & (self._endpoint.read_index == index)):
                m.d.sync += high.eq(self.counters[name][32:])
            values |= {f"{name}_LO": low, f"{name}_HI": high}
        return values

    def _read(self, m: Module, values: dict[str, Value]) -> None:
        readable = self._registers(Access.RO) + self._registers(Access.RW)
        with m.Switch(self._endpoint.read_index):
            for register in readable:
                with m.Case(register.offset >> 2):
                    m.d.comb += self._endpoint.read_data.eq(values[register.name])
