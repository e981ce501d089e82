"""Checks the hardware hand-off file that Vivado wrote for a Zynq board against the register table and the board.

PYNQ finds the core by it: name and version, address, registers, memory buses. What the file does not tell is left alone, because
its format is known from public designs only.
"""

from __future__ import annotations

import xml.etree.ElementTree as tree
from collections.abc import Iterator

from boards.ecp5 import ToolError
from boards.vivado.board import VivadoBoard
from boards.vivado.packaging import core_registers
from boards.vivado.reports import same_part
from boards.vivado.wrapper import CORE_INSTANCE, core_buses, core_vlnv
from hw.spec.arch import Arch


def check_hand_off(text: str, name: str, board: VivadoBoard, arch: Arch) -> str | None:
    """The version of Vivado that wrote it, or None. ToolError, with everything that differs, where it is of another design."""
    try:
        root = tree.fromstring(text)
    except tree.ParseError as error:
        raise ToolError(f"{name} is cut off or damaged: {error}") from error
    core = next((module for module in root.iter("MODULE") if module.get("INSTANCE") == CORE_INSTANCE), None)
    if core is None:
        raise ToolError(f"{name} has no core: no module of it is {CORE_INSTANCE}")
    of_board, of_core = (
        [*_part(root, board), *_addresses(root, board)],
        [*_name(core, arch), *_registers(core, arch), *_buses(core, arch)],
    )
    if wrong := [*of_board, *of_core]:
        raise ToolError(f"{name} is of another design: {'; '.join(wrong)}")
    version = root.get("VIVADOVERSION", "")
    return ".".join(version.split(".")[:2]) or None


def _part(root: tree.Element, board: VivadoBoard) -> Iterator[str]:
    info = root.find("SYSTEMINFO")
    if info is not None and info.get("DEVICE"):
        found = info.get("DEVICE", "") + info.get("PACKAGE", "")
        if not same_part(found, board.part):
            yield f"its part is {found}, and the board has {board.part}"


def _name(core: tree.Element, arch: Arch) -> Iterator[str]:
    if core.get("VLNV") != core_vlnv(arch):
        yield f"its core is {core.get('VLNV')}, and this one is {core_vlnv(arch)}"


def _addresses(root: tree.Element, board: VivadoBoard) -> Iterator[str]:
    wanted = (board.registers.base, board.registers.end - 1)
    ranges = [entry for entry in root.iter("MEMRANGE") if entry.get("INSTANCE") == CORE_INSTANCE]
    found = {(int(entry.get("BASEVALUE", "0"), 0), int(entry.get("HIGHVALUE", "0"), 0)) for entry in ranges}
    if found != {wanted}:
        listed = ", ".join(f"{low:#x}..{high:#x}" for low, high in sorted(found)) or "nowhere"
        yield f"its core lies at {listed}, and the board has it at {wanted[0]:#x}..{wanted[1]:#x}"


def _registers(core: tree.Element, arch: Arch) -> Iterator[str]:
    """Names and offsets; the number of memory regions, a parameter of the architecture, shows in them."""
    found = {}
    for register in core.iter("REGISTER"):
        offsets = [entry.get("VALUE", "") for entry in register.findall("PROPERTY") if entry.get("NAME") == "ADDRESS_OFFSET"]
        found[register.get("NAME", "")] = int(offsets[0], 0) if offsets else None
    wanted = {register.name: register.offset for register in core_registers(arch)}
    if differing := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        yield f"registers differ from the register table: {', '.join(differing[:10])}{' ...' if len(differing) > 10 else ''}"


def _buses(core: tree.Element, arch: Arch) -> Iterator[str]:
    found = {bus.get("NAME", "") for bus in core.iter("BUSINTERFACE") if bus.get("TYPE") in ("MASTER", "SLAVE")}
    wanted = {bus.name for bus in core_buses(arch)}
    if found and found != wanted:
        yield f"its core has the buses {sorted(found)}, and this one has {sorted(wanted)}"
