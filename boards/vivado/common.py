"""What the block designs of all kinds share: the core's cell and the plain outputs."""

from __future__ import annotations

from collections.abc import Mapping

from boards.vivado.board import VivadoBoard
from boards.vivado.tcl import DesignScript
from boards.vivado.wrapper import CORE_INSTANCE, core_vlnv
from hw.spec.arch import Arch

CONSTANTS = {"zero": 0, "one": 1}


def add_core(script: DesignScript, arch: Arch) -> None:
    script.line(f"create_bd_cell -type ip -vlnv {core_vlnv(arch)} {CORE_INSTANCE}")


def add_outputs(script: DesignScript, board: VivadoBoard, signals: Mapping[str, str]) -> None:
    """A port for each bit of the outputs, driven by the pin that ``signals`` names or by a constant."""
    bits = [bit for output in board.outputs for bit in output.bits]
    if bits:
        script.remark("Plain outputs.")
    for name, value in CONSTANTS.items():
        if name in [signal for _, _, signal in bits]:
            script.cell(name, "xlconstant", CONST_WIDTH=1, CONST_VAL=value)
    for port, _, signal in bits:
        script.port(port, "O")
        script.net(f"{signal}/dout" if signal in CONSTANTS else signals[signal], port)
