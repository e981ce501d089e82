"""All texts that Vivado needs for a board but the core's Verilog, which lies beside them as ``core.v``."""

from __future__ import annotations

from boards.board import BoardError
from boards.fit import check_fits
from boards.folder import CORE_FILE
from boards.synth import PARTS
from boards.vivado.board import VivadoBoard
from boards.vivado.constraints import constraints, memory_pins, pin_table
from boards.vivado.packaging import package_script
from boards.vivado.pcie import pcie_design
from boards.vivado.script import build_script
from boards.vivado.wrapper import register_bytes, wrapper_name, wrapper_verilog
from boards.vivado.zynq import zynq_design
from hw.spec.arch import Arch

BUILD_ID_BITS = 64


def project_files(board: VivadoBoard, arch: Arch, *, build_id: int) -> dict[str, str]:
    """Texts by relative path. ``vivado -mode batch -source build.tcl`` in their folder, with ``core.v``, makes the bitstream.

    Parameters
    ----------
    build_id : 64 bits, hash of the design record; it enters by the wrapper, so that ``core.v`` is what was proven

    Raises BoardError where the core does not suit the board.
    """
    _check(board, arch, build_id)
    wrapper = f"{wrapper_name(arch)}.v"
    files = {
        wrapper: wrapper_verilog(board, arch, build_id=build_id),
        "package.tcl": package_script(board, arch, (CORE_FILE, wrapper)),
        "design.tcl": zynq_design(board, arch) if board.kind == "zynq" else pcie_design(board, arch),
        "constraints.xdc": constraints(board),
        "pins.tcl": pin_table(board),
        "build.tcl": build_script(board),
    }
    return files | ({"memory_pins.xdc": memory_pins(board)} if board.controllers else {})


def _check(board: VivadoBoard, arch: Arch, build_id: int) -> None:
    if not 0 <= build_id < 1 << BUILD_ID_BITS:
        raise ValueError(f"build_id must be {BUILD_ID_BITS} bits, not {build_id:#x}")
    if board.registers.bytes != register_bytes(arch):
        raise BoardError(
            f"registers.bytes must be {register_bytes(arch):#x}, the register table's, not {board.registers.bytes:#x}"
        )
    try:
        check_fits(arch, PARTS[board.fit_part])
    except ValueError as error:
        raise BoardError(f"{board.title}: {error}") from error
