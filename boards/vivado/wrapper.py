"""The module that is packaged: the core with the build's identity tied off, and every port marked with the bus that it belongs to.

Plain Verilog-2001. Its bus ports have the vendor's names (``s_axi_awaddr``), the core's have Amaranth's (``s_axi__awaddr``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amaranth.hdl import Shape
from amaranth.lib.wiring import Out, Signature

from boards.vivado.board import VivadoBoard
from hw.rtl.common.axi import ADDRESS_BITS, CONTROL_ADDRESS_BITS, CONTROL_DATA_BITS, axi4_manager, axi_lite_subordinate
from hw.rtl.common.interfaces import DATA_BITS
from hw.sim.core import core_name
from hw.spec.arch import Arch
from hw.spec.regs import SHELL_VERSION, all_registers

CORE_INSTANCE = "core_0"
CONTROL_BUS = "s_axi"
REGISTER_BLOCK = "reg0"
MAX_ID_BITS = 1


@dataclass(frozen=True, kw_only=True)
class Bus:
    """An AXI bus of the core: name, ``mode`` as the vendor says ("Master" or "Slave"), protocol, widths in bits, signals."""

    name: str
    mode: str
    protocol: str
    address_bits: int
    data_bits: int
    signature: Signature

    @property
    def signals(self) -> Iterator[tuple[str, int, str]]:
        """(name, width, Verilog direction) of each signal, seen from the core."""
        for name, member in self.signature.members.items():
            yield name, Shape.cast(member.shape).width, "output" if member.flow is Out else "input"


def manager_names(arch: Arch) -> list[str]:
    """The memory buses."""
    return [f"m_axi_{i}" for i in range(arch.managers)]


def core_buses(arch: Arch) -> tuple[Bus, ...]:
    """Control first, then memory."""
    control = Bus(
        name=CONTROL_BUS, mode="Slave", protocol="AXI4LITE", address_bits=CONTROL_ADDRESS_BITS, data_bits=CONTROL_DATA_BITS,
        signature=axi_lite_subordinate(),
    )  # fmt: skip
    memory = (
        Bus(name=name, mode="Master", protocol="AXI4", address_bits=ADDRESS_BITS, data_bits=DATA_BITS, signature=axi4_manager())
        for name in manager_names(arch)
    )
    return (control, *memory)


def wrapper_name(arch: Arch) -> str:
    """The packaged module."""
    return f"bitloom_{core_name(arch)}"


def core_vlnv(arch: Arch) -> str:
    """Vendor, library, name and version that drivers bind to; the version is the register table's."""
    return f"bitloom:core:{core_name(arch)}:{SHELL_VERSION}.0"


def register_bytes(arch: Arch) -> int:
    """Size of the register window: a power of two from 4096."""
    last = max(register.offset for register in all_registers(arch.regions)) + 4
    return max(1 << int(last - 1).bit_length(), 1 << int(CONTROL_ADDRESS_BITS))


def wrapper_verilog(board: VivadoBoard, arch: Arch, *, build_id: int) -> str:
    """Text of the packaged module.

    The interrupt is synchronous to ``aclk`` on a "zynq" board; on a "pcie" board to ``host_clk``, through two registers.
    """
    ports = [*_plain_ports(board, arch), *(port for bus in core_buses(arch) for port in _bus_ports(bus))]
    pins = [
        ".clk(aclk)",
        ".rst(~aresetn)",
        f".build_id(64'h{build_id:016x})",
        ".irq(core_irq)",
        *(f".{bus.name}__{name}({bus.name}_{name})" for bus in core_buses(arch) for name, _, _ in bus.signals),
    ]
    return "\n".join([
        f"// {board.title}: the core as a block of a block design. Written from vivado.toml.",
        f"module {wrapper_name(arch)} (",
        ",\n".join(ports),
        ");",
        "  wire core_irq;",
        _interrupt(board),
        f"  {core_name(arch)} core (",
        ",\n".join(f"    {pin}" for pin in pins),
        "  );",
        "endmodule",
        "",
    ])  # fmt: skip


def _interrupt(board: VivadoBoard) -> str:
    if board.kind == "zynq":
        return "  assign irq = core_irq;"
    return """\
  (* ASYNC_REG = "TRUE" *) reg irq_first;
  (* ASYNC_REG = "TRUE" *) reg irq_second;
  always @(posedge host_clk) begin
    irq_first <= core_irq;
    irq_second <= irq_first;
  end
  assign irq = irq_second;"""


def _attributes(info: str, parameters: str = "") -> str:
    lines = [f'  (* X_INTERFACE_INFO = "{info}" *)']
    if parameters:
        lines.append(f'  (* X_INTERFACE_PARAMETER = "{parameters}" *)')
    return "\n".join(lines) + "\n"


def _plain_ports(board: VivadoBoard, arch: Arch) -> Iterator[str]:
    buses = ":".join(bus.name for bus in core_buses(arch))
    clock = f"XIL_INTERFACENAME aclk, ASSOCIATED_BUSIF {buses}, ASSOCIATED_RESET aresetn"
    yield _attributes("xilinx.com:signal:clock:1.0 aclk CLK", clock) + "  input wire aclk"
    reset = "XIL_INTERFACENAME aresetn, POLARITY ACTIVE_LOW"
    yield _attributes("xilinx.com:signal:reset:1.0 aresetn RST", reset) + "  input wire aresetn"
    if board.kind == "pcie":
        yield _attributes("xilinx.com:signal:clock:1.0 host_clk CLK", "XIL_INTERFACENAME host_clk") + "  input wire host_clk"
    level = "XIL_INTERFACENAME irq, SENSITIVITY LEVEL_HIGH"
    yield _attributes("xilinx.com:signal:interrupt:1.0 irq INTERRUPT", level) + "  output wire irq"


def _bus_ports(bus: Bus) -> Iterator[str]:
    parameters = (
        f"XIL_INTERFACENAME {bus.name}, PROTOCOL {bus.protocol}, ADDR_WIDTH {bus.address_bits}, DATA_WIDTH {bus.data_bits}"
    )
    if bus.mode == "Master":
        parameters += f", ID_WIDTH {MAX_ID_BITS}, SUPPORTS_NARROW_BURST 0, HAS_BURST 1"
    for i, (name, width, direction) in enumerate(bus.signals):
        vector = f"[{width - 1}:0] " if width > 1 else ""
        info = f"xilinx.com:interface:aximm:1.0 {bus.name} {name.upper()}"
        yield _attributes(info, "" if i else parameters) + f"  {direction} wire {vector}{bus.name}_{name}"
