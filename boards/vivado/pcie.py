"""The block design of a PCI Express card: XDMA, a DDR4 controller per slot, and the core between them, each with a clock of its own.

XDMA's memory port and the core's managers reach every controller through one SmartConnect, which changes clocks and widths. It lies in
the hard block's region of the chip: register slices that cross regions stand before what lies elsewhere.
"""

from __future__ import annotations

from boards.board import BoardError
from boards.vivado.board import VivadoBoard
from boards.vivado.common import add_core, add_outputs
from boards.vivado.parts import Controller, Pcie
from boards.vivado.tcl import DesignScript
from boards.vivado.wrapper import CONTROL_BUS, CORE_INSTANCE, REGISTER_BLOCK, manager_names
from hw.spec.arch import Arch

XDMA, CONTROL, MEMORY, CLOCK, RESET = "xdma", "control", "memory", "core_clock", "core_reset"
LOWEST_PORTS = 16
"""Ports of a SmartConnect on one side."""

CHANNEL_REGISTERS: dict[str, object] = {f"REG_{channel}": 15 for channel in ("AW", "W", "B", "AR", "R")}
"""Register slices of this kind cross regions of the chip."""


def pcie_of(board: VivadoBoard) -> Pcie:
    """The board's connector; BoardError where it has none."""
    if board.pcie is None:
        raise BoardError(f"{board.title} has no PCI Express connector: it is a {board.kind} board")
    return board.pcie


def crossings(one: str, other: str) -> int:
    """Borders between two regions of the chip, SLR0..SLR9."""
    return abs(int(one[3:]) - int(other[3:]))


def core_crossings(board: VivadoBoard) -> int:
    """Borders between hub and core: to the farthest region that the core may lie in, 1 where it spans the hub's and others."""
    hub = pcie_of(board).slr
    if not board.core_slrs or set(board.core_slrs) == {hub}:
        return 0
    return 1 if hub in board.core_slrs else max(crossings(hub, slr) for slr in board.core_slrs)


def pcie_design(board: VivadoBoard, arch: Arch) -> str:
    """Text of design.tcl; it reads ``bitloom_board_part``, the board file found or nothing."""
    if arch.managers >= LOWEST_PORTS:
        raise BoardError(f"arch.managers must be below {LOWEST_PORTS} on {board.title}, not {arch.managers}")
    script = DesignScript(f"{board.title}: the block design. Written from vivado.toml.")
    _add_xdma(script, pcie_of(board))
    for controller in board.controllers:
        _add_controller(script, controller)
    _add_core(script, board)
    add_core(script, arch)
    script.cell(CONTROL, "smartconnect", NUM_SI=1, NUM_MI=1, NUM_CLKS=2)
    script.cell(
        MEMORY, "smartconnect", NUM_SI=1 + arch.managers, NUM_MI=len(board.controllers), NUM_CLKS=2 + len(board.controllers)
    )
    _clocks(script, board)
    _buses(script, board, arch)
    _addresses(script, board, arch)
    _add_calibrated(script, board)
    signals = {"running": f"{RESET}/peripheral_aresetn", "irq": f"{CORE_INSTANCE}/irq", "link": f"{XDMA}/user_lnk_up"}
    add_outputs(script, board, signals | {"calibrated": "all_calibrated/Res"})
    return script.text()


def _add_xdma(script: DesignScript, pcie: Pcie) -> None:
    script.remark("PCI Express. BAR0 holds the core's registers; the DMA's own follow in BAR1.")
    script.bus_port("pcie", "Master", "pcie_7x_mgt_rtl")
    script.bus_port("pcie_refclk", "Slave", "diff_clock_rtl")
    script.port("pcie_perst_n", "I", "rst")
    script.line("set_property CONFIG.POLARITY ACTIVE_LOW [get_bd_ports pcie_perst_n]")
    script.line("set_property CONFIG.FREQ_HZ 100000000 [get_bd_intf_ports pcie_refclk]")
    script.cell("refclk_buffer", "util_ds_buf", C_BUF_TYPE="IBUFDSGTE")
    script.cell(
        XDMA, "xdma", "4.*",
        mode_selection="Advanced", functional_mode="DMA", xdma_axi_intf_mm="AXI_Memory_Mapped", pcie_blk_locn=pcie.block,
        en_gt_selection="true", select_quad=pcie.quad, pl_link_cap_max_link_width=f"X{len(pcie.lanes)}",
        pl_link_cap_max_link_speed=pcie.speed, axi_data_width=f"{pcie.axi_bits}_bit", axisten_freq=f"{pcie.axi_mhz:g}",
        pf0_device_id=pcie.device_id, axilite_master_en="true", axilite_master_size=pcie.bar_bytes >> 20,
        axilite_master_scale="Megabytes", pciebar2axibar_axil_master="0x00000000", axist_bypass_en="false", xdma_rnum_chnl=1,
        xdma_wnum_chnl=1, xdma_num_usr_irq=1,
    )  # fmt: skip
    script.bus("pcie_refclk", "refclk_buffer/CLK_IN_D")
    script.net("refclk_buffer/IBUF_OUT", f"{XDMA}/sys_clk_gt")
    script.net("refclk_buffer/IBUF_DS_ODIV2", f"{XDMA}/sys_clk")
    script.bus(f"{XDMA}/pcie_mgt", "pcie")
    script.cell("perst", "util_vector_logic", C_OPERATION="not", C_SIZE=1)
    script.net("pcie_perst_n", f"{XDMA}/sys_rst_n", "perst/Op1")


def _add_controller(script: DesignScript, controller: Controller) -> None:
    """A controller with its clock's and memory's ports, and a reset in its own clock."""
    cell, reset = controller.port, f"reset_{controller.name}"
    script.remark(f"Memory {controller.name}, in {controller.slr}.")
    script.bus_port(controller.clock_port, "Slave", "diff_clock_rtl")
    script.line(f"set_property CONFIG.FREQ_HZ 300000000 [get_bd_intf_ports {controller.clock_port}]")
    script.bus_port(controller.port, "Master", "ddr4_rtl")
    script.cell(cell, "ddr4", "2.*")
    script.configure(cell, {
        "C0.DDR4_AxiSelection": "true", "C0.DDR4_MemoryType": "RDIMMs", "C0.DDR4_MemoryPart": "MTA18ASF2G72PZ-2G3",
        "C0.DDR4_TimePeriod": 833, "C0.DDR4_InputClockPeriod": 3332, "C0.DDR4_CasLatency": 17, "C0.DDR4_CasWriteLatency": 12,
        "C0.DDR4_DataWidth": 72, "C0.DDR4_Ecc": "true", "C0.DDR4_DataMask": "NONE", "C0.DDR4_AxiDataWidth": 512,
        "C0.DDR4_AxiAddressWidth": (controller.window.bytes - 1).bit_length(),
    })  # fmt: skip
    interfaces = (
        f"CONFIG.C0_CLOCK_BOARD_INTERFACE {controller.board_clock} CONFIG.C0_DDR4_BOARD_INTERFACE {controller.board_memory}"
    )
    script.line(f"if {{$bitloom_board_part ne {{}}}} {{ set_property -dict {{{interfaces}}} [get_bd_cells {cell}] }}")
    script.cell(reset, "proc_sys_reset", C_EXT_RESET_HIGH=1)
    script.bus(controller.clock_port, f"{cell}/C0_SYS_CLK")
    script.bus(f"{cell}/C0_DDR4", controller.port)
    script.net("perst/Res", f"{cell}/sys_rst")
    script.net(f"{cell}/c0_ddr4_ui_clk_sync_rst", f"{reset}/ext_reset_in")
    script.net(f"{reset}/peripheral_aresetn", f"{cell}/c0_ddr4_aresetn")


def _add_core(script: DesignScript, board: VivadoBoard) -> None:
    script.remark("The core's clock and reset.")
    script.cell(
        CLOCK, "clk_wiz",
        PRIM_SOURCE="No_buffer", PRIM_IN_FREQ=f"{pcie_of(board).axi_mhz:g}", CLKOUT1_REQUESTED_OUT_FREQ=f"{board.clock_mhz:g}",
        USE_LOCKED="true", USE_RESET="true", RESET_TYPE="ACTIVE_LOW", RESET_PORT="resetn",
    )  # fmt: skip
    script.cell(RESET, "proc_sys_reset", C_EXT_RESET_HIGH=0)
    script.net(f"{XDMA}/axi_aresetn", f"{CLOCK}/resetn", f"{RESET}/ext_reset_in")
    script.net(f"{CLOCK}/locked", f"{RESET}/dcm_locked")


def _clocks(script: DesignScript, board: VivadoBoard) -> None:
    script.remark("Clocks: the host's, the core's, and one of each memory.")
    script.net(f"{XDMA}/axi_aclk", f"{CLOCK}/clk_in1", f"{CORE_INSTANCE}/host_clk", f"{CONTROL}/aclk", f"{MEMORY}/aclk")
    script.net(f"{CLOCK}/clk_out1", f"{RESET}/slowest_sync_clk", f"{CORE_INSTANCE}/aclk", f"{CONTROL}/aclk1", f"{MEMORY}/aclk1")
    for i, controller in enumerate(board.controllers):
        script.net(f"{controller.port}/c0_ddr4_ui_clk", f"reset_{controller.name}/slowest_sync_clk", f"{MEMORY}/aclk{2 + i}")
    script.net(f"{XDMA}/axi_aresetn", f"{CONTROL}/aresetn", f"{MEMORY}/aresetn")
    script.net(f"{RESET}/peripheral_aresetn", f"{CORE_INSTANCE}/aresetn")


def _buses(script: DesignScript, board: VivadoBoard, arch: Arch) -> None:
    script.remark("Registers, memory, interrupt.")
    away, core = core_crossings(board), (f"{CLOCK}/clk_out1", f"{RESET}/peripheral_aresetn")
    script.bus(f"{XDMA}/M_AXI_LITE", f"{CONTROL}/S00_AXI")
    _crossing(script, "control", f"{CONTROL}/M00_AXI", f"{CORE_INSTANCE}/{CONTROL_BUS}", away, core)
    script.bus(f"{XDMA}/M_AXI", f"{MEMORY}/S00_AXI")
    for i, name in enumerate(manager_names(arch)):
        _crossing(script, name, f"{CORE_INSTANCE}/{name}", f"{MEMORY}/S{i + 1:02}_AXI", away, core)
    for i, controller in enumerate(board.controllers):
        own = (f"{controller.port}/c0_ddr4_ui_clk", f"reset_{controller.name}/peripheral_aresetn")
        far = crossings(pcie_of(board).slr, controller.slr)
        _crossing(script, controller.name, f"{MEMORY}/M{i:02}_AXI", f"{controller.port}/C0_DDR4_S_AXI", far, own)
    script.net(f"{CORE_INSTANCE}/irq", f"{XDMA}/usr_irq_req")


def _crossing(script: DesignScript, name: str, source: str, target: str, borders: int, clock: tuple[str, str]) -> None:
    """Joins two buses, by way of a register slice where they lie ``borders`` borders apart; (clock, reset) are the slice's."""
    if not borders:
        script.bus(source, target)
        return
    cell = f"slice_{name}"
    script.cell(cell, "axi_register_slice")
    script.configure(cell, {**CHANNEL_REGISTERS, "NUM_SLR_CROSSINGS": borders, "USE_AUTOPIPELINING": 0})
    script.net(clock[0], f"{cell}/aclk")
    script.net(clock[1], f"{cell}/aresetn")
    script.bus(source, f"{cell}/S_AXI")
    script.bus(f"{cell}/M_AXI", target)


def _addresses(script: DesignScript, board: VivadoBoard, arch: Arch) -> None:
    script.remark("Addresses: the memories lie alike for host and core.")
    registers = f"{CORE_INSTANCE}/{CONTROL_BUS}/{REGISTER_BLOCK}"
    script.assign(f"{XDMA}/M_AXI_LITE", registers, board.registers.base, board.registers.bytes)
    for controller in board.controllers:
        segment = f"{controller.port}/C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK"
        for space in (f"{XDMA}/M_AXI", *(f"{CORE_INSTANCE}/{name}" for name in manager_names(arch))):
            script.assign(space, segment, controller.window.base, controller.window.bytes)


def _add_calibrated(script: DesignScript, board: VivadoBoard) -> None:
    count = len(board.controllers)
    script.remark("Whether every memory is ready.")
    script.cell("calibrated", "xlconcat", NUM_PORTS=count)
    script.cell("all_calibrated", "util_reduced_logic", C_OPERATION="and", C_SIZE=count)
    for i, controller in enumerate(board.controllers):
        script.net(f"{controller.port}/c0_init_calib_complete", f"calibrated/In{i}")
    script.net("calibrated/dout", "all_calibrated/Op1")
