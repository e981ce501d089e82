"""The block designs, run against recorders and checked with a model; every check is seen to fail on a design with a fault planted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from boards.board import BoardError
from boards.vivado.board import VivadoBoard, load_vivado_arch, load_vivado_board, vivado_board_names
from boards.vivado.project import project_files
from hw.spec.arch import Arch
from tests.boards.vivado_stub import BlockDesign, Session, run_tcl

NAMES = ["u200", "ultra96v2", "vcu1525"]
ACTUAL = "CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ 249.997498"


def _same(text: str) -> str:
    return text


def _session(
    folder: Path, board: VivadoBoard, arch: Arch, plant: Callable[[str], str] = _same, **variables: str
) -> tuple[Session, str]:
    files = project_files(board, arch, build_id=1)
    planted = plant(files["design.tcl"])
    (folder / "design.tcl").write_text(planted)
    wrapper = next(text for name, text in files.items() if name.endswith("_core.v"))
    return run_tcl(folder, "design.tcl", **{"answers": ACTUAL, **variables}), wrapper


def _design(folder: Path, name: str, plant: Callable[[str], str] = _same, **variables: str) -> BlockDesign:
    session, wrapper = _session(folder, load_vivado_board(name), load_vivado_arch(name), plant, **variables)
    assert session.error is None
    return BlockDesign(session, wrapper)


def test_names() -> None:
    assert vivado_board_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_wrong(name: str, tmp_path: Path) -> None:
    session, wrapper = _session(tmp_path, load_vivado_board(name), load_vivado_arch(name))
    assert session.error is None
    design = BlockDesign(session, wrapper)
    assert design.faults == []
    assert len(design.nets) > 20 and len(design.joined) > 4 and len(design.assigned) >= 3
    order = [call[0] for call in session.calls]
    assert order[0] == "create_bd_design" and order[-3:] == ["regenerate_bd_layout", "validate_bd_design", "save_bd_design"]
    assert max(i for i, c in enumerate(order) if c == "connect_bd_intf_net") < order.index("assign_bd_address")


def test_ultra96(tmp_path: Path) -> None:
    design = _design(tmp_path, "ultra96v2")
    assert design.vlnv["ps"] == "xilinx.com:ip:zynq_ultra_ps_e:3.4" and design.vlnv["core_0"] == "bitloom:core:deform_core:1.0"
    ps = design.config["ps"]
    wanted = {
        "PSU__OVERRIDE__BASIC_CLOCK": "0", "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": "250", "PSU__CRL_APB__PL0_REF_CTRL__SRCSEL": "IOPLL",
        "PSU__USE__M_AXI_GP0": "1", "PSU__USE__M_AXI_GP1": "0", "PSU__USE__M_AXI_GP2": "0", "PSU__USE__S_AXI_GP2": "1",
        "PSU__SAXIGP2__DATA_WIDTH": "128", "PSU__USE__IRQ0": "1", "PSU__DDRC__MEMORY_TYPE": "LPDDR 4",
        "PSU__DDRC__ROW_ADDR_COUNT": "16", "PSU__DDRC__BANK_ADDR_COUNT": "3", "PSU__DDRC__COL_ADDR_COUNT": "10",
        "PSU__DDRC__DEVICE_CAPACITY": "16384 MBits",
        "PSU__DDRC__T_RCD": "10", "PSU__DDRC__T_RP": "12", "PSU__DDRC__T_RC": "63", "PSU__DDRC__T_RAS_MIN": "42",
        "PSU__DDRC__BUS_WIDTH": "32 Bit", "PSU__UART1__PERIPHERAL__IO": "MIO 0 .. 1", "PSU__SD0__PERIPHERAL__IO": "MIO 13 .. 16 21 22",
    }  # fmt: skip
    assert {key: ps.get(key) for key in wanted} == wanted
    assert all(driver == "ps/pl_clk0" for end in design.nets if end.endswith("aclk") for driver in [design.driver(end)])
    assert design.driver("interrupts/intr") == "core_0/irq" and design.driver("ps/pl_ps_irq0") == "interrupts/irq"
    assert design.ranges() == {
        "ps/Data": {"core_0/s_axi/reg0": (0xA000_0000, 0x1000), "interrupts/S_AXI/Reg": (0xA001_0000, 0x1000)},
        "core_0/m_axi_0": {"ps/SAXIGP2/HP0_DDR_LOW": (0, 0x8000_0000)},
    }
    assert design.driver("fan") == "one/dout" and design.config["one"]["CONST_VAL"] == "1"


@pytest.mark.parametrize("actual", ["187.498123", "300", "", "none"])
def test_another_clock_than_asked_stops_the_design(actual: str, tmp_path: Path) -> None:
    arch, board = load_vivado_arch("ultra96v2"), load_vivado_board("ultra96v2")
    session, _ = _session(tmp_path, board, arch, answers=f"CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ {{{actual}}}")
    assert session.error is not None and f"must run at 250 MHz, and the processing system gives '{actual}'" in session.error


@pytest.mark.parametrize("key", ["PSU__OVERRIDE__BASIC_CLOCK", "PSU__USE__M_AXI_GP1"])
def test_a_property_that_does_not_hold_stops_the_design(key: str, tmp_path: Path) -> None:
    """The vendor's block sets properties back that it dislikes."""
    arch, board = load_vivado_arch("ultra96v2"), load_vivado_board("ultra96v2")
    session, _ = _session(tmp_path, board, arch, answers=f"{ACTUAL} CONFIG.{key} 1")
    assert session.error is not None and f"CONFIG.{key} must be 0" in session.error


def test_two_managers_have_a_port_each(tmp_path: Path) -> None:
    arch = dataclasses.replace(load_vivado_arch("ultra96v2"), managers=2, region_manager=(0, 0, 1, 1))
    session, wrapper = _session(tmp_path, load_vivado_board("ultra96v2"), arch)
    design = BlockDesign(session, wrapper)
    assert design.faults == [] and design.config["ps"]["PSU__USE__S_AXI_GP3"] == "1"
    assert ["memory_1/M00_AXI", "ps/S_AXI_HP1_FPD"] in design.joined and "core_0/m_axi_1" in design.ranges()


@pytest.mark.parametrize("name", ["vcu1525", "u200"])
def test_card(name: str, tmp_path: Path) -> None:
    design = _design(tmp_path, name)
    xdma = design.config["xdma"]
    wanted = {
        "pcie_blk_locn": "X1Y2", "select_quad": "GTY_Quad_227", "pl_link_cap_max_link_width": "X16", "axi_data_width": "512_bit",
        "pl_link_cap_max_link_speed": "8.0_GT/s", "axisten_freq": "250", "axilite_master_en": "true", "pf0_device_id": "903F",
        "axist_bypass_en": "false", "xdma_num_usr_irq": "1",
    }  # fmt: skip
    assert {key: xdma.get(key) for key in wanted} == wanted and design.vlnv["core_0"] == "bitloom:core:sat_core:1.0"
    memory = design.config["ddr4_c2"]
    assert memory["C0.DDR4_MemoryPart"] == "MTA18ASF2G72PZ-2G3" and memory["C0.DDR4_TimePeriod"] == "833"
    assert memory["C0.DDR4_InputClockPeriod"] == "3332" and memory["C0.DDR4_AxiAddressWidth"] == "34"
    ranges = design.ranges()
    segments = {f"ddr4_c{i}/C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK": (i << 34, 1 << 34) for i in range(4)}
    assert ranges == {"xdma/M_AXI_LITE": {"core_0/s_axi/reg0": (0, 0x1000)}, "xdma/M_AXI": segments, "core_0/m_axi_0": segments}
    slices = {cell: config["NUM_SLR_CROSSINGS"] for cell, config in design.config.items() if cell.startswith("slice_")}
    assert slices == {"slice_c0": "1", "slice_c3": "1", "slice_control": "1", "slice_m_axi_0": "1"}
    assert all(design.config[cell]["REG_AW"] == "15" for cell in slices)
    assert design.driver("core_0/aclk") == "core_clock/clk_out1" and design.config["core_clock"]["CLKOUT1_REQUESTED_OUT_FREQ"] == "200"
    assert design.driver("core_0/host_clk") == "xdma/axi_aclk" and design.driver("xdma/usr_irq_req") == "core_0/irq"
    assert design.driver("ddr4_reset_gate") == "zero/dout" and design.driver("led_0") == "all_calibrated/Res"


def test_board_interfaces_only_with_the_board_file(tmp_path: Path) -> None:
    key = "C0_DDR4_BOARD_INTERFACE"
    assert key not in _design(tmp_path, "vcu1525").config["ddr4_c3"]
    with_file = _design(tmp_path, "vcu1525", bitloom_board_part="xilinx.com:vcu1525:part0:1.3").config["ddr4_c3"]
    assert with_file[key] == "ddr4_sdram_c3" and with_file["C0_CLOCK_BOARD_INTERFACE"] == "default_300mhz_clk3"


def test_a_core_in_one_region(tmp_path: Path) -> None:
    """One that stands beside the hub needs no slices; one two regions away has slices over two borders, and a pblock."""
    card, arch = load_vivado_board("vcu1525"), load_vivado_arch("vcu1525")
    session, wrapper = _session(tmp_path, dataclasses.replace(card, core_slrs=("SLR1",)), arch)
    beside = BlockDesign(session, wrapper)
    assert beside.faults == [] and {cell for cell in beside.vlnv if cell.startswith("slice")} == {"slice_c0", "slice_c3"}
    assert card.pcie is not None
    far = dataclasses.replace(card, pcie=dataclasses.replace(card.pcie, slr="SLR0"), core_slrs=("SLR2",))
    session, wrapper = _session(tmp_path, far, arch)
    design = BlockDesign(session, wrapper)
    assert design.faults == [] and design.config["slice_m_axi_0"]["NUM_SLR_CROSSINGS"] == "2"
    constraints = project_files(far, arch, build_id=1)["constraints.xdc"]
    assert "resize_pblock [get_pblocks core] -add {SLR2}" in constraints and "[get_cells {bitloom_i/core_0}]" in constraints
    assert "pblocks core]" not in project_files(card, arch, build_id=1)["constraints.xdc"]


FAULTS = [
    ("ultra96v2", "CONFIG.PSU__USE__M_AXI_GP1 {0}", "CONFIG.PSU__USE__M_AXI_GP1 {1}", "maxihpm1_fpd_aclk is not connected"),
    ("ultra96v2", "[get_bd_pins ps/saxihp0_fpd_aclk] ", "", "ps/saxihp0_fpd_aclk is not connected"),
    ("ultra96v2", " [get_bd_pins core_0/aresetn]", "", "core_0/aresetn is not connected"),
    ("ultra96v2", "[get_bd_pins core_0/aclk]", "[get_bd_pins core_0/clk]", "unknown pin core_0/clk"),
    ("ultra96v2", "reset/peripheral_aresetn] [get_bd_pins core_0", "reset/peripheral_reset] [get_bd_pins core_0", "aresetn is a rstn"),
    ("ultra96v2", "C_EXT_RESET_HIGH {0}", "C_EXT_RESET_HIGH {1}", "reset/ext_reset_in is a rst, and ps/pl_resetn0 is a rstn"),
    ("ultra96v2", "0x00000000a0010000", "0x00000000a0000000", "interrupts/S_AXI/Reg overlaps core_0/s_axi/reg0"),
    ("ultra96v2", "-offset 0x00000000a0010000", "-offset 0x00000000a0010800", "no multiple of 0x1000"),
    ("ultra96v2", "connect_bd_net [get_bd_pins core_0/irq] [get_bd_pins interrupts/intr]", "", "interrupts/intr is not connected"),
    ("ultra96v2", "CONFIG.C_IRQ_CONNECTION {1}", "CONFIG.C_IRQ_CONNECTION {0}", "unknown pin interrupts/irq"),
    ("ultra96v2", "CONFIG.PSU__USE__IRQ0 {1}", "CONFIG.PSU__USE__IRQ0 {0}", "unknown pin ps/pl_ps_irq0"),
    ("ultra96v2", "ps/SAXIGP2/*", "ps/SAXIGP3/*", "ps/SAXIGP2/HP0_QSPI has no address in core_0/m_axi_0"),
    ("ultra96v2", "M01_AXI] [get_bd_intf_pins interrupts/s_axi]", "M01_AXI] [get_bd_intf_pins core_0/s_axi]", "joined 2"),
    ("ultra96v2", "connect_bd_net [get_bd_pins one/dout] [get_bd_ports fan]", "", "fan is not connected"),
    ("ultra96v2", "CONFIG.NUM_MI {2}", "CONFIG.NUM_MI {3}", "bus control/M02_AXI is joined 0 times"),
    ("vcu1525", "[get_bd_pins memory/aclk5]", "", "memory/aclk5 is not connected"),
    ("vcu1525", "[get_bd_pins core_0/host_clk] ", "", "core_0/host_clk is not connected"),
    ("vcu1525", "perst/Res] [get_bd_pins ddr4_c1/sys_rst]", "xdma/axi_aresetn] [get_bd_pins ddr4_c1/sys_rst]", "sys_rst is a rst, and"),
    ("vcu1525", "ddr4_c3/c0_ddr4_ui_clk] [get_bd_pins slice_c3", "ddr4_c2/c0_ddr4_ui_clk] [get_bd_pins slice_c3", "no clock in common"),
    ("vcu1525", "-offset 0x0000000800000000", "-offset 0x0000000400000000", "overlaps ddr4_c1"),
    ("vcu1525", "xdma/M_AXI] [get_bd_intf_pins memory/S00", "xdma/M_AXI_LITE] [get_bd_intf_pins memory/S00", "xdma/M_AXI is joined 0"),
    ("vcu1525", "c0/M_AXI] [get_bd_intf_pins ddr4_c0", "c0/M_AXI] [get_bd_intf_pins ddr4_c1", "bus ddr4_c1/C0_DDR4_S_AXI is"),
    ("vcu1525", "connect_bd_intf_net [get_bd_intf_pins xdma/pcie_mgt] [get_bd_intf_ports pcie]", "", "bus pcie is joined 0 times"),
    ("vcu1525", "connect_bd_net [get_bd_pins refclk_buffer/IBUF_OUT] [get_bd_pins xdma/sys_clk_gt]", "", "xdma/sys_clk_gt is not"),
    ("vcu1525", "[get_bd_pins core_0/irq] [get_bd_pins xdma/usr_irq_req]", "[get_bd_pins core_0/irq]", "xdma/usr_irq_req is not"),
]


@pytest.mark.parametrize(("name", "good", "bad", "fault"), FAULTS, ids=[f"{f[0]}-{f[3]}" for f in FAULTS])
def test_planted_faults_are_found(name: str, good: str, bad: str, fault: str, tmp_path: Path) -> None:
    def plant(text: str) -> str:
        assert good in text
        return text.replace(good, bad)

    answers = f"{ACTUAL} CONFIG.PSU__USE__M_AXI_GP1 0"  # past the script's own guard, to the model's
    faults = _design(tmp_path, name, plant, answers=answers).faults
    assert any(fault in found for found in faults), faults


def test_the_scripts_own_guard_sees_the_override(tmp_path: Path) -> None:
    def plant(text: str) -> str:
        assert "BASIC_CLOCK {0}" in text
        return text.replace("BASIC_CLOCK {0}", "BASIC_CLOCK {1}")

    session, _ = _session(tmp_path, load_vivado_board("ultra96v2"), load_vivado_arch("ultra96v2"), plant)
    assert session.error is not None and "CONFIG.PSU__OVERRIDE__BASIC_CLOCK must be 0" in session.error


def test_a_missing_block_stops_the_design(tmp_path: Path) -> None:
    session, _ = _session(tmp_path, load_vivado_board("vcu1525"), load_vivado_arch("vcu1525"), ipdefs="xilinx.com:ip:util_ds_buf:2.1")
    assert session.error is not None and "this Vivado has no xilinx.com:ip:xdma:4.*" in session.error


def test_cores_that_do_not_suit_are_refused() -> None:
    board, arch = load_vivado_board("ultra96v2"), load_vivado_arch("ultra96v2")
    with pytest.raises(BoardError, match="Avnet Ultra96-V2: the core does not fit"):
        project_files(board, load_vivado_arch("vcu1525"), build_id=0)
    with pytest.raises(BoardError, match=r"registers\.bytes must be 0x1000, the register table's, not 0x2000"):
        wide = dataclasses.replace(board, registers=dataclasses.replace(board.registers, bytes=0x2000))
        project_files(wide, arch, build_id=0)
    with pytest.raises(ValueError, match="build_id must be 64 bits"):
        project_files(board, arch, build_id=1 << 64)
