"""The hardware hand-off file: registers, addresses, interrupt and clocks; and, where PYNQ's reader is installed, what it reads."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as tree

import pytest

from boards.board import BoardError
from boards.vivado.board import load_vivado_arch, load_vivado_board
from boards.vivado.hwh import hwh_text
from hw.spec.regs import Access, all_registers

BOARD, ARCH = load_vivado_board("ultra96v2"), load_vivado_arch("ultra96v2")
ACCESS = {"read-only": Access.RO, "read-write": Access.RW, "write-only": Access.WO}


def _modules(text: str) -> dict[str, tree.Element]:
    return {module.get("INSTANCE", ""): module for module in tree.fromstring(text).iter("MODULE")}


def _properties(element: tree.Element) -> dict[str, str]:
    return {entry.get("NAME", ""): entry.get("VALUE", "") for entry in element.findall("PROPERTY")}


def test_registers_are_the_tables() -> None:
    core = _modules(hwh_text(BOARD, ARCH))["core_0"]
    found = {}
    for register in core.iter("REGISTER"):
        values = _properties(register)
        bits = {(field.get("NAME"), int(_properties(field)["BIT_OFFSET"])) for field in register.iter("FIELD")}
        found[register.get("NAME")] = (int(values["ADDRESS_OFFSET"], 0), values["DESCRIPTION"], ACCESS[values["ACCESS"]], bits)
    table = all_registers(ARCH.regions)
    assert found == {r.name: (r.offset, r.doc, r.access, {(bit.name, bit.index) for bit in r.bits}) for r in table}
    assert len(found) == len(table) > 30 and core.get("VLNV") == "bitloom:core:deform_core:1.0"


def test_every_range_names_buses_that_are_there() -> None:
    """PYNQ silently drops a block whose range names a bus that it does not find."""
    arch = dataclasses.replace(ARCH, managers=2, region_manager=(0, 0, 1, 1))
    modules = _modules(hwh_text(BOARD, arch))
    buses = {name: {bus.get("NAME"): bus.get("TYPE") for bus in module.iter("BUSINTERFACE")} for name, module in modules.items()}
    ranges = [(name, entry) for name, module in modules.items() for entry in module.iter("MEMRANGE")]
    for name, entry in ranges:
        assert buses[name][entry.get("MASTERBUSINTERFACE")] == "MASTER"
        assert buses[entry.get("INSTANCE", "")][entry.get("SLAVEBUSINTERFACE")] == "SLAVE"
    bounds = {(name, entry.get("INSTANCE"), entry.get("BASEVALUE"), entry.get("HIGHVALUE")) for name, entry in ranges}
    assert len(ranges) == 4 and bounds == {
        ("ps", "core_0", "0xA0000000", "0xA0000FFF"), ("ps", "interrupts", "0xA0010000", "0xA0010FFF"),
        ("core_0", "ps", "0x00000000", "0x7FFFFFFF"),
    }  # fmt: skip


def test_the_interrupt_passes_the_controller() -> None:
    wires = {
        (name, port.get("NAME")): {(to.get("INSTANCE"), to.get("PORT")) for to in port.iter("CONNECTION")}
        for name, module in _modules(hwh_text(BOARD, ARCH)).items()
        for port in module.iter("PORT")
    }
    assert wires["core_0", "irq"] == {("interrupts", "intr")} and wires["interrupts", "intr"] == {("core_0", "irq")}
    assert wires["interrupts", "irq"] == {("ps", "pl_ps_irq0")} and wires["ps", "pl_ps_irq0"] == {("interrupts", "irq")}
    for one, others in wires.items():
        assert all(one in wires[other] for other in others), "a wire must be told at both ends"


def test_clocks_and_ports() -> None:
    text = hwh_text(BOARD, ARCH)
    root, ps = tree.fromstring(text), _modules(text)["ps"]
    values = {entry.get("NAME"): entry.get("VALUE") for entry in ps.iter("PARAMETER")}
    enabled = [values[f"PSU__FPGA_PL{i}_ENABLE"] for i in range(4)]
    assert enabled == ["1", "0", "0", "0"] and values["PSU__OVERRIDE__BASIC_CLOCK"] == values["PSU__USE__M_AXI_GP1"] == "0"
    prefix = "PSU__CRL_APB__PL0_REF_CTRL__"
    assert [values[prefix + key] for key in ("SRCSEL", "DIVISOR0", "DIVISOR1", "ACT_FREQMHZ")] == ["IOPLL", "6", "1", "249.997500"]
    assert all(f"PSU__CRL_APB__PL{i}_REF_CTRL__{key}" in values for i in range(4) for key in ("SRCSEL", "DIVISOR0", "DIVISOR1"))
    assert values["C_SAXIGP2_DATA_WIDTH"] == values["C_MAXIGP0_DATA_WIDTH"] == "128"
    assert root.find("EXTERNALPORTS") is not None and ps.get("MODTYPE") == "zynq_ultra_ps_e"
    parameters = [entry.get("NAME") for entry in ps.iter("PARAMETER")]
    assert len(parameters) == len(set(parameters))


def test_other_boards_have_none() -> None:
    with pytest.raises(BoardError, match="Xilinx VCU1525 has no processing system: it is a pcie board"):
        hwh_text(load_vivado_board("vcu1525"), load_vivado_arch("vcu1525"))
