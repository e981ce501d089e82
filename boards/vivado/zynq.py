"""The block design of a Zynq UltraScale+ board: processing system, core, interrupt controller, one clock and one reset.

Traps that the text avoids: the preset's override of the PL clock; its second manager port, which would stay without a clock; a rounded
clock, which is read back; interrupts wired straight to the processor, which PYNQ does not find.
"""

from __future__ import annotations

from boards.board import BoardError
from boards.vivado.board import VivadoBoard
from boards.vivado.common import add_core, add_outputs
from boards.vivado.parts import ProcessingSystem
from boards.vivado.tcl import DesignScript
from boards.vivado.wrapper import CONTROL_BUS, CORE_INSTANCE, REGISTER_BLOCK, manager_names
from hw.rtl.common.interfaces import DATA_BITS
from hw.spec.arch import Arch

PS, RESET, INTERRUPTS, CONTROL = "ps", "reset", "interrupts", "control"
MASTER_PORT, MASTER_DATA_BITS = "M_AXI_HPM0_FPD", 128
PORTS = 4
"""HP0..HP3: a port for each of the core's managers."""

FIRST_HP = 2
"""Slave port GP2 is HP0."""


def hp_port(manager: int) -> str:
    return f"S_AXI_HP{manager}_FPD"


def hp_segment(manager: int) -> tuple[str, str]:
    """(memory map, address block) of the processor's memory behind the port of a manager."""
    return f"SAXIGP{FIRST_HP + manager}", f"HP{manager}_DDR_LOW"


def ps_properties(board: VivadoBoard, arch: Arch) -> dict[str, str]:
    """All properties of the processing system, without their CONFIG prefix: the board's and the design's."""
    system = processing_system(board)
    if arch.managers > PORTS:
        raise BoardError(f"{board.title} has {PORTS} memory ports: arch.managers must be at most {PORTS}, not {arch.managers}")
    used = {FIRST_HP + i for i in range(arch.managers)}
    return {
        **system.properties,
        "PSU__OVERRIDE__BASIC_CLOCK": "0",
        "PSU__FPGA_PL0_ENABLE": "1",
        **{f"PSU__FPGA_PL{i}_ENABLE": "0" for i in (1, 2, 3)},
        "PSU__CRL_APB__PL0_REF_CTRL__SRCSEL": "IOPLL",
        "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": f"{board.clock_mhz:g}",
        "PSU__USE__FABRIC__RST": "1",
        "PSU__NUM_FABRIC_RESETS": "1",
        "PSU__USE__M_AXI_GP0": "1",
        "PSU__MAXIGP0__DATA_WIDTH": str(MASTER_DATA_BITS),
        "PSU__USE__M_AXI_GP1": "0",
        "PSU__USE__M_AXI_GP2": "0",
        **{f"PSU__USE__S_AXI_GP{i}": str(int(i in used)) for i in range(7)},
        **{f"PSU__SAXIGP{i}__DATA_WIDTH": str(DATA_BITS) for i in sorted(used)},
        "PSU__USE__IRQ0": "1",
        "PSU__USE__IRQ1": "0",
    }


def processing_system(board: VivadoBoard) -> ProcessingSystem:
    """The board's; BoardError where it has none."""
    if board.processing_system is None:
        raise BoardError(f"{board.title} has no processing system: it is a {board.kind} board")
    return board.processing_system


def zynq_design(board: VivadoBoard, arch: Arch) -> str:
    """Text of design.tcl."""
    script = DesignScript(f"{board.title}: the block design. Written from vivado.toml.")
    script.remark("The processing system, all its properties here: no board file is needed.")
    script.cell(PS, "zynq_ultra_ps_e", "3.*")
    script.configure(PS, ps_properties(board, arch))
    script.line(_read_back(board.clock_mhz, processing_system(board).TOLERANCE))
    script.remark("The core and what lies between it and the processor.")
    add_core(script, arch)
    script.cell(RESET, "proc_sys_reset", C_EXT_RESET_HIGH=0)
    script.cell(CONTROL, "smartconnect", NUM_SI=1, NUM_MI=2)
    script.cell(INTERRUPTS, "axi_intc", C_IRQ_CONNECTION=1)
    for manager in range(arch.managers):
        script.cell(f"memory_{manager}", "smartconnect", NUM_SI=1, NUM_MI=1)
    _clock_and_reset(script, arch)
    _buses(script, arch)
    _addresses(script, board, arch)
    add_outputs(script, board, {"running": f"{RESET}/peripheral_aresetn", "irq": f"{CORE_INSTANCE}/irq"})
    return script.text()


def _read_back(mhz: float, tolerance: float) -> str:
    return f"""\
set actual [get_property CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ [get_bd_cells {PS}]]
if {{![string is double -strict $actual] || abs($actual - {mhz:g}) > {tolerance:g} * {mhz:g}}} {{
  error "BITLOOM: pl_clk0 must run at {mhz:g} MHz, and the processing system gives '$actual'"
}}
foreach {{property wanted}} {{PSU__OVERRIDE__BASIC_CLOCK 0 PSU__USE__M_AXI_GP1 0}} {{
  set found [get_property CONFIG.$property [get_bd_cells {PS}]]
  if {{$found ne $wanted}} {{ error "BITLOOM: CONFIG.$property must be $wanted, and the processing system has '$found'" }}
}}"""


def _clock_and_reset(script: DesignScript, arch: Arch) -> None:
    memories = [f"memory_{i}" for i in range(arch.managers)]
    script.remark("One clock, one reset.")
    script.net(
        f"{PS}/pl_clk0",
        f"{PS}/maxihpm0_fpd_aclk",
        *(f"{PS}/saxihp{i}_fpd_aclk" for i in range(arch.managers)),
        f"{RESET}/slowest_sync_clk",
        f"{INTERRUPTS}/s_axi_aclk",
        *(f"{cell}/aclk" for cell in (CORE_INSTANCE, CONTROL, *memories)),
    )
    script.net(f"{PS}/pl_resetn0", f"{RESET}/ext_reset_in")
    script.net(f"{RESET}/interconnect_aresetn", *(f"{cell}/aresetn" for cell in (CONTROL, *memories)))
    script.net(f"{RESET}/peripheral_aresetn", f"{CORE_INSTANCE}/aresetn", f"{INTERRUPTS}/s_axi_aresetn")


def _buses(script: DesignScript, arch: Arch) -> None:
    script.remark("Registers, memory, interrupt.")
    script.bus(f"{PS}/{MASTER_PORT}", f"{CONTROL}/S00_AXI")
    script.bus(f"{CONTROL}/M00_AXI", f"{CORE_INSTANCE}/{CONTROL_BUS}")
    script.bus(f"{CONTROL}/M01_AXI", f"{INTERRUPTS}/s_axi")
    for i, name in enumerate(manager_names(arch)):
        script.bus(f"{CORE_INSTANCE}/{name}", f"memory_{i}/S00_AXI")
        script.bus(f"memory_{i}/M00_AXI", f"{PS}/{hp_port(i)}")
    script.net(f"{CORE_INSTANCE}/irq", f"{INTERRUPTS}/intr")
    script.net(f"{INTERRUPTS}/irq", f"{PS}/pl_ps_irq0")


def _addresses(script: DesignScript, board: VivadoBoard, arch: Arch) -> None:
    script.remark("Addresses.")
    assert board.interrupts is not None
    registers = f"{CORE_INSTANCE}/{CONTROL_BUS}/{REGISTER_BLOCK}"
    script.assign(f"{PS}/Data", registers, board.registers.base, board.registers.bytes)
    script.assign(f"{PS}/Data", f"{INTERRUPTS}/S_AXI/Reg", board.interrupts.base, board.interrupts.bytes)
    (memory,) = board.memories.values()
    for i, name in enumerate(manager_names(arch)):
        space, (group, block) = f"{CORE_INSTANCE}/{name}", hp_segment(i)
        script.assign(space, f"{PS}/{group}/{block}", memory.base, memory.bytes)
        script.exclude_others(space, f"{PS}/{group}/*", block)
