"""Constraint files: pins, clocks, configuration and floor plan; and the table that the finished design's pins are checked against."""

from __future__ import annotations

from collections.abc import Iterator

from boards.vivado.board import VivadoBoard
from boards.vivado.parts import Controller, Pcie
from boards.vivado.pcie import CONTROL, MEMORY, XDMA
from boards.vivado.wrapper import CORE_INSTANCE

REFCLK_NS = 10.0
INSTANCE = "bitloom_i"
"""The block design's instance in the wrapper that Vivado makes."""


def constraints(board: VivadoBoard) -> str:
    """Text of constraints.xdc."""
    lines = [f"# {board.title}: pins, clocks, configuration. Written from vivado.toml.", *_outputs(board)]
    if board.pcie:
        lines += [*_pcie(board.pcie), *_floor_plan(board)]
    lines += [f"set_property {key} {value} [current_design]" for key, value in board.bitstream.items()]
    return "\n".join(lines) + "\n"


def _pin(port: str, site: str, standard: str) -> str:
    return f"set_property -dict {{PACKAGE_PIN {site} IOSTANDARD {standard}}} [get_ports {{{port}}}]"


def _outputs(board: VivadoBoard) -> Iterator[str]:
    """Pins for eyes and fans: their delay does not matter."""
    for output in board.outputs:
        for port, site, _ in output.bits:
            yield _pin(port, site, output.standard)
            yield f"set_false_path -to [get_ports {{{port}}}]"


def _pcie(pcie: Pcie) -> Iterator[str]:
    """Lanes get their pins from the block's location. Port and pins of the reference clock may be vectors of one bit."""
    yield _pin("pcie_perst_n", pcie.reset, pcie.reset_standard)
    yield "set_property PULLTYPE PULLUP [get_ports {pcie_perst_n}]"
    yield "set_false_path -from [get_ports {pcie_perst_n}]"
    for end, site in zip("pn", pcie.refclk, strict=True):
        yield f"set_property PACKAGE_PIN {site} [get_ports {{pcie_refclk_clk_{end}*}}]"
    yield f"create_clock -name pcie_refclk -period {REFCLK_NS:g} [get_ports {{pcie_refclk_clk_p*}}]"
    yield "# The interrupt's way from the core's clock to the host's: two registers, the first of which may take its time."
    yield "set_false_path -to [get_pins -hierarchical -filter {NAME =~ */irq_first_reg/D}]"


def _floor_plan(board: VivadoBoard) -> Iterator[str]:
    """What stands beside the hard block, and the core where it may not lie anywhere. Controllers follow their pins."""
    assert board.pcie is not None
    yield from _pblock("hub", [board.pcie.slr], [XDMA, MEMORY, CONTROL])
    if board.core_slrs and len(board.core_slrs) < len(_regions(board)):
        yield from _pblock("core", list(board.core_slrs), [CORE_INSTANCE])


def _regions(board: VivadoBoard) -> set[str]:
    return {controller.slr for controller in board.controllers} | set(board.core_slrs)


def _pblock(name: str, slrs: list[str], cells: list[str]) -> Iterator[str]:
    yield f"create_pblock {name}"
    yield f"resize_pblock [get_pblocks {name}] -add {{{' '.join(slrs)}}}"
    names = " ".join(f"{INSTANCE}/{cell}" for cell in cells)
    yield f"add_cells_to_pblock [get_pblocks {name}] [get_cells {{{names}}}]"


def memory_pins(board: VivadoBoard) -> str:
    """Text of memory_pins.xdc, for a Vivado without the board's file: every pin of every slot.

    A controller for modules of one rank has no port for some of them: those lines, and no others, say -quiet.
    """
    lines = [
        f"# {board.title}: pins of the memories, where the vendor's board file does not place them. Written from vivado.toml."
    ]
    for controller in board.controllers:
        lines += [*_clock_pins(controller), *(_memory_pin(*bit) for bit in controller.bits)]
    return "\n".join(lines) + "\n"


def _clock_pins(controller: Controller) -> Iterator[str]:
    for end, site in zip("pn", controller.clock, strict=True):
        yield _pin(f"{controller.clock_port}_clk_{end}*", site, controller.clock_standard)


def _memory_pin(port: str, site: str, standard: str, there: bool) -> str:
    line = _pin(port, site, standard)
    return line if there else line.replace("set_property", "set_property -quiet").replace("get_ports", "get_ports -quiet")


def pin_table(board: VivadoBoard) -> str:
    """Text of pins.tcl: port and site of every pin, which the built design is compared with, whoever placed it."""
    rows = "\n".join(f"  {{{port}}} {site}" for port, site in board.sites)
    return f"# {board.title}: where each port must lie. Written from vivado.toml.\nset bitloom_pins [dict create {{*}}{{\n{rows}\n}}]\n"
