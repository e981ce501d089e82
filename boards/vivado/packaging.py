"""package.tcl: the core as a block with a name of its own, its buses, clock, reset, interrupt and registers from the register table.

A packaged block has a VLNV, which drivers bind to; its registers reach the hardware hand-off file, which PYNQ reads.
"""

from __future__ import annotations

from boards.vivado.board import VivadoBoard
from boards.vivado.tcl import braced
from boards.vivado.wrapper import (
    CONTROL_BUS,
    REGISTER_BLOCK,
    core_buses,
    core_vlnv,
    manager_names,
    register_bytes,
    wrapper_name,
)
from hw.spec.arch import Arch
from hw.spec.regs import Access, Bit, Register, all_registers

ACCESS = {Access.RO: "read-only", Access.RW: "read-write", Access.WO: "write-only"}
REGISTER_BITS = 32
FOLDER = "ip"


def core_registers(arch: Arch) -> tuple[Register, ...]:
    """The core's registers in the order of their offsets."""
    return tuple(sorted(all_registers(arch.regions), key=lambda register: register.offset))


def package_script(board: VivadoBoard, arch: Arch, sources: tuple[str, ...]) -> str:
    """Text of package.tcl, which leaves the block in the folder ``ip``."""
    return "\n".join([
        f"# {board.title}: packages the core as {core_vlnv(arch)}.",
        _project(board, arch, sources),
        _buses(board, arch),
        *(_address_space(name) for name in manager_names(arch)),
        _memory_map(arch),
        *(_register(register) for register in core_registers(arch)),
        "ipx::create_xgui_files $core",
        "ipx::update_checksums $core",
        "if {[ipx::check_integrity -quiet $core] != 1} { error {BITLOOM: the packaged core is not whole; see the messages above} }",
        "ipx::save_core $core",
        "close_project",
        "",
    ])  # fmt: skip


def _project(board: VivadoBoard, arch: Arch, sources: tuple[str, ...]) -> str:
    vendor, library, name, version = core_vlnv(arch).split(":")
    return f"""\
file delete -force {FOLDER}
create_project package package -part {board.part} -force
add_files -norecurse [list {" ".join(sources)}]
set_property top {wrapper_name(arch)} [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir {FOLDER} -vendor {vendor} -library {library} -taxonomy /UserIP -import_files -force
set core [ipx::current_core]
set_property name {name} $core
set_property version {version} $core
set_property display_name {{Bitloom {name}}} $core
set_property supported_families {{zynquplus Production virtexuplus Production}} $core"""


def _buses(board: VivadoBoard, arch: Arch) -> str:
    """Clock, reset and interrupt by name, whatever was inferred of them."""
    names = [bus.name for bus in core_buses(arch)]
    clocks = ["aclk", "host_clk"] if board.kind == "pcie" else ["aclk"]
    lines = [
        "# Sets a parameter of an interface, made or inferred.",
        "proc bitloom_parameter {interface name value} {",
        "  set bus [ipx::get_bus_interfaces $interface -of_objects [ipx::current_core]]",
        '  if {$bus eq ""} { error "BITLOOM: the packager found no interface $interface" }',
        "  set found [ipx::get_bus_parameters -quiet $name -of_objects $bus]",
        '  if {$found eq ""} { set found [ipx::add_bus_parameter $name $bus] }',
        "  set_property value $value $found",
        "}",
        f"foreach interface {{{' '.join([*names, *clocks, 'aresetn', 'irq'])}}} {{",
        '  if {[ipx::get_bus_interfaces -quiet $interface -of_objects $core] eq ""} {',
        '    error "BITLOOM: the packager found no interface $interface"',
        "  }",
        "}",
        *(f"ipx::associate_bus_interfaces -busif {name} -clock aclk $core" for name in names),
        "ipx::associate_bus_interfaces -clock aclk -reset aresetn $core",
        "bitloom_parameter aresetn POLARITY ACTIVE_LOW",
        "bitloom_parameter irq SENSITIVITY LEVEL_HIGH",
    ]
    return "\n".join(lines)


def _address_space(name: str) -> str:
    """The packager may have inferred one; made again, its size is known."""
    return f"""\
if {{[ipx::get_address_spaces -quiet {name} -of_objects $core] ne ""}} {{ ipx::remove_address_space {name} $core }}
set space [ipx::add_address_space {name} $core]
set_property range 16E $space
set_property width 64 $space
set_property master_address_space_ref {name} [ipx::get_bus_interfaces {name} -of_objects $core]"""


def _memory_map(arch: Arch) -> str:
    return f"""\
if {{[ipx::get_memory_maps -quiet {CONTROL_BUS} -of_objects $core] ne ""}} {{ ipx::remove_memory_map {CONTROL_BUS} $core }}
set map [ipx::add_memory_map {CONTROL_BUS} $core]
set_property slave_memory_map_ref {CONTROL_BUS} [ipx::get_bus_interfaces {CONTROL_BUS} -of_objects $core]
set block [ipx::add_address_block {REGISTER_BLOCK} $map]
set_property base_address 0 $block
set_property range {register_bytes(arch)} $block
set_property width {REGISTER_BITS} $block
set_property usage register $block
set_property access read-write $block"""


def _register(register: Register) -> str:
    lines = [
        f"set register [ipx::add_register {register.name} $block]",
        f"set_property description {braced(register.doc)} $register",
        f"set_property address_offset {register.offset:#x} $register",
        f"set_property size {REGISTER_BITS} $register",
        f"set_property access {ACCESS[register.access]} $register",
    ]
    return "\n".join([*lines, *(_field(bit, register) for bit in register.bits)])


def _field(bit: Bit, register: Register) -> str:
    return "\n".join([
        f"set field [ipx::add_field {bit.name} $register]",
        f"set_property description {braced(bit.doc)} $field",
        f"set_property bit_offset {bit.index} $field",
        "set_property bit_width 1 $field",
        f"set_property access {ACCESS[register.access]} $field",
    ])  # fmt: skip
