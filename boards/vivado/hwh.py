"""The hardware hand-off file of a Zynq board as PYNQ reads it, written from the register table instead of by Vivado.

For the simulated device only: a built board has Vivado's own. It holds what PYNQ looks at: the processing system with its clocks, ports
and address map, the core with its registers, the interrupt controller, and the wires between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from xml.sax.saxutils import quoteattr

from boards.vivado.board import VivadoBoard
from boards.vivado.packaging import ACCESS, REGISTER_BITS, core_registers
from boards.vivado.parts import Window
from boards.vivado.wrapper import (
    CONTROL_BUS,
    CORE_INSTANCE,
    REGISTER_BLOCK,
    core_buses,
    core_vlnv,
    manager_names,
    register_bytes,
)
from boards.vivado.zynq import (
    INTERRUPTS,
    MASTER_DATA_BITS,
    MASTER_PORT,
    PS,
    hp_port,
    hp_segment,
    processing_system,
    ps_properties,
)
from hw.rtl.common.interfaces import DATA_BITS
from hw.spec.arch import Arch
from hw.spec.regs import Register

DESIGN = "bitloom"
AXIMM = "xilinx.com:interface:aximm:1.0"
VERSION = "2022.1"
PS_VLNV, INTC_VLNV = "xilinx.com:ip:zynq_ultra_ps_e:3.4", "xilinx.com:ip:axi_intc:4.1"
INTC_REGISTERS = {
    "ISR": (0x00, "Interrupt status"), "IPR": (0x04, "Interrupt pending"), "IER": (0x08, "Interrupt enable"),
    "IAR": (0x0C, "Interrupt acknowledge"), "SIE": (0x10, "Set interrupt enables"), "CIE": (0x14, "Clear interrupt enables"),
    "IVR": (0x18, "Interrupt vector"), "MER": (0x1C, "Master enable"),
}  # fmt: skip
PL_CLOCKS = 4


def hwh_text(board: VivadoBoard, arch: Arch) -> str:
    """Text of the .hwh file. BoardError where the board has no processing system."""
    processing_system(board)
    part = board.part.split("-")
    info = {
        "ARCH": "zynquplus",
        "BOARD": "",
        "DEVICE": part[0],
        "NAME": DESIGN,
        "PACKAGE": part[1],
        "SPEEDGRADE": f"-{part[2]}",
    }
    lines = [
        '<?xml version="1.0" encoding="UTF-8" standalone="no" ?>',
        f'<EDKSYSTEM EDWVERSION="1.2" TIMESTAMP="" VIVADOVERSION="{VERSION}">',
        _tag("SYSTEMINFO", info),
        "<EXTERNALPORTS/>",
        "<EXTERNALINTERFACES/>",
        "<MODULES>",
        *_core(board, arch),
        *_interrupts(),
        *_system(board, arch),
        "</MODULES>",
        "</EDKSYSTEM>",
    ]
    return "\n".join(lines) + "\n"


def _tag(name: str, attributes: Mapping[str, object], end: str = "/>") -> str:
    return f"<{name} " + " ".join(f"{key}={quoteattr(str(value))}" for key, value in attributes.items()) + end


def _module(name: str, vlnv: str, **more: str) -> str:
    version, kind = vlnv.split(":")[3], vlnv.split(":")[2]
    attributes = {"FULLNAME": f"/{name}", "HWVERSION": version, "INSTANCE": name, "IPTYPE": "PERIPHERAL", "IS_ENABLE": "1"}
    return _tag("MODULE", {**attributes, **more, "MODTYPE": kind, "VLNV": vlnv}, ">")


def _parameters(values: Mapping[str, object]) -> Iterator[str]:
    yield "<PARAMETERS>"
    yield from (_tag("PARAMETER", {"NAME": name, "VALUE": value}) for name, value in values.items())
    yield "</PARAMETERS>"


def _bus(name: str, kind: str, data_bits: int) -> str:
    return _tag("BUSINTERFACE", {"BUSNAME": f"bus_{name}", "DATAWIDTH": data_bits, "NAME": name, "TYPE": kind, "VLNV": AXIMM})


def _port(name: str, direction: str, kind: str, to: Mapping[str, str], **more: str) -> Iterator[str]:
    """A port and what it is joined to: pins by instance."""
    yield _tag("PORT", {"DIR": direction, "NAME": name, "SIGIS": kind, **more}, ">")
    yield "<CONNECTIONS>"
    yield from (_tag("CONNECTION", {"INSTANCE": instance, "PORT": pin}) for instance, pin in to.items())
    yield "</CONNECTIONS>"
    yield "</PORT>"


def _registers(interface: str, block: str, size: int, registers: Iterator[str]) -> Iterator[str]:
    yield "<ADDRESSBLOCKS>"
    attributes = {"ACCESS": "read-write", "INTERFACE": interface, "NAME": block, "RANGE": size, "USAGE": "register"}
    yield _tag("ADDRESSBLOCK", attributes, ">")
    yield "<REGISTERS>"
    yield from registers
    yield "</REGISTERS>"
    yield "</ADDRESSBLOCK>"
    yield "</ADDRESSBLOCKS>"


def _properties(values: Mapping[str, object]) -> Iterator[str]:
    yield from (_tag("PROPERTY", {"NAME": name, "VALUE": value}) for name, value in values.items())


def _register(name: str, offset: int, doc: str, access: str, fields: Iterator[str]) -> Iterator[str]:
    yield _tag("REGISTER", {"NAME": name}, ">")
    yield from _properties({
        "DESCRIPTION": doc, "ADDRESS_OFFSET": f"{offset:#x}", "SIZE": REGISTER_BITS, "ACCESS": access, "IS_ENABLED": "true",
        "RESET_VALUE": "0x0",
    })  # fmt: skip
    yield "<FIELDS>"
    yield from fields
    yield "</FIELDS>"
    yield "</REGISTER>"


def _fields(register: Register) -> Iterator[str]:
    for bit in register.bits:
        yield _tag("FIELD", {"NAME": bit.name}, ">")
        yield from _properties(
            {"DESCRIPTION": bit.doc, "ACCESS": ACCESS[register.access], "BIT_OFFSET": bit.index, "BIT_WIDTH": 1}
        )
        yield "</FIELD>"


def _core(board: VivadoBoard, arch: Arch) -> Iterator[str]:
    """The core: registers, buses, clock and reset, and its interrupt into the controller."""
    table = (
        line
        for register in core_registers(arch)
        for line in _register(register.name, register.offset, register.doc, ACCESS[register.access], _fields(register))
    )
    yield _module(CORE_INSTANCE, core_vlnv(arch))
    yield from _registers(CONTROL_BUS, REGISTER_BLOCK, register_bytes(arch), table)
    yield from _parameters(_window("C_BASEADDR", "C_HIGHADDR", board.registers))
    yield "<PORTS>"
    yield from _port("aclk", "I", "clk", {PS: "pl_clk0"}, CLKFREQUENCY=str(round(_actual_mhz(board) * 1e6)))
    yield from _port("irq", "O", "INTERRUPT", {INTERRUPTS: "intr"}, SENSITIVITY="LEVEL_HIGH")
    yield "</PORTS>"
    yield "<BUSINTERFACES>"
    yield from (_bus(bus.name, bus.mode.upper(), bus.data_bits) for bus in core_buses(arch))
    yield "</BUSINTERFACES>"
    yield "<MEMORYMAP>"
    (memory,) = board.memories.values()
    for i, name in enumerate(manager_names(arch)):
        yield _range(name, PS, hp_port(i), hp_segment(i)[1], "MEMORY", memory)
    yield "</MEMORYMAP>"
    yield "</MODULE>"


def _window(low: str, high: str, window: Window) -> dict[str, str]:
    return {low: f"0x{window.base:08X}", high: f"0x{window.end - 1:08X}"}


def _range(bus: str, instance: str, interface: str, block: str, kind: str, window: Window) -> str:
    """A range of a bus's address map. ``interface`` must be a bus of the instance: PYNQ drops a range whose bus it does not find."""
    bounds = _window("BASEVALUE", "HIGHVALUE", window)
    return _tag("MEMRANGE", {
        "ADDRESSBLOCK": block, "BASENAME": "C_BASEADDR", "BASEVALUE": bounds["BASEVALUE"], "HIGHNAME": "C_HIGHADDR",
        "HIGHVALUE": bounds["HIGHVALUE"], "INSTANCE": instance, "IS_DATA": "TRUE", "IS_INSTRUCTION": "TRUE",
        "MASTERBUSINTERFACE": bus, "MEMTYPE": kind, "SLAVEBUSINTERFACE": interface,
    })  # fmt: skip


def _interrupts() -> Iterator[str]:
    """The interrupt controller; without one PYNQ finds no interrupt of the core."""
    table = (
        line for name, (offset, doc) in INTC_REGISTERS.items() for line in _register(name, offset, doc, "read-write", iter(()))
    )
    yield _module(INTERRUPTS, INTC_VLNV, MODCLASS="INTERRUPT_CNTLR")
    yield from _registers("s_axi", "Reg", 4096, table)
    levels = {"C_KIND_OF_INTR": "0xFFFFFFFE", "C_KIND_OF_LVL": "0xFFFFFFFF"}
    yield from _parameters({"C_NUM_INTR_INPUTS": 1, "C_IRQ_CONNECTION": 1, **levels})
    yield "<PORTS>"
    yield from _port("s_axi_aclk", "I", "clk", {PS: "pl_clk0"})
    yield from _port("intr", "I", "INTERRUPT", {CORE_INSTANCE: "irq"}, LEFT="0", RIGHT="0", SENSITIVITY="LEVEL_HIGH")
    yield from _port("irq", "O", "INTERRUPT", {PS: "pl_ps_irq0"}, SENSITIVITY="LEVEL_HIGH")
    yield "</PORTS>"
    yield "<BUSINTERFACES>"
    yield _bus("s_axi", "SLAVE", REGISTER_BITS)
    yield "</BUSINTERFACES>"
    yield "</MODULE>"


def _actual_mhz(board: VivadoBoard) -> float:
    return processing_system(board).actual_mhz(board.clock_mhz)


def _clocks(board: VivadoBoard) -> Iterator[tuple[str, object]]:
    """What PYNQ sets the clocks to when it loads the design; clocks that are off have divisors all the same."""
    first, second = processing_system(board).divisors(board.clock_mhz)
    for i in range(PL_CLOCKS):
        prefix = f"PSU__CRL_APB__PL{i}_REF_CTRL"
        yield f"PSU__FPGA_PL{i}_ENABLE", int(i == 0)
        yield f"{prefix}__SRCSEL", "IOPLL"
        yield f"{prefix}__DIVISOR0", first
        yield f"{prefix}__DIVISOR1", second
        yield f"{prefix}__ACT_FREQMHZ", f"{_actual_mhz(board):.6f}"


def _system(board: VivadoBoard, arch: Arch) -> Iterator[str]:
    """The processing system; PYNQ takes port widths from the parameters named C_."""
    widths = {f"C_{hp_segment(i)[0]}_DATA_WIDTH": DATA_BITS for i in range(arch.managers)}
    joined = {CORE_INSTANCE: "aclk", INTERRUPTS: "s_axi_aclk"}
    yield _module(PS, PS_VLNV, CONFIGURABLE="TRUE", IS_PL="FALSE")
    yield from _parameters({
        **ps_properties(board, arch), **dict(_clocks(board)), "C_MAXIGP0_DATA_WIDTH": MASTER_DATA_BITS, **widths,
    })  # fmt: skip
    yield "<PORTS>"
    yield from _port("pl_clk0", "O", "clk", joined, CLKFREQUENCY=str(round(_actual_mhz(board) * 1e6)))
    yield from _port("pl_ps_irq0", "I", "INTERRUPT", {INTERRUPTS: "irq"}, LEFT="0", RIGHT="0", SENSITIVITY="LEVEL_HIGH")
    yield "</PORTS>"
    yield "<BUSINTERFACES>"
    yield _bus(MASTER_PORT, "MASTER", MASTER_DATA_BITS)
    yield from (_bus(hp_port(i), "SLAVE", DATA_BITS) for i in range(arch.managers))
    yield "</BUSINTERFACES>"
    yield "<MEMORYMAP>"
    yield _range(MASTER_PORT, CORE_INSTANCE, CONTROL_BUS, REGISTER_BLOCK, "REGISTER", board.registers)
    assert board.interrupts is not None
    yield _range(MASTER_PORT, INTERRUPTS, "s_axi", "Reg", "REGISTER", board.interrupts)
    yield "</MEMORYMAP>"
    yield "</MODULE>"
