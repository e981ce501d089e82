"""Vivado's Tcl commands as recorders, and a model of its block designs that says what Vivado would refuse, or worse, accept.

The generated scripts run in a real Tcl interpreter, Python's own (tkinter) or tclsh, in a process of its own. What they called is read
back; :class:`BlockDesign` joins it to a table of the blocks' pins and lists what is wrong.
"""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

IPS = {
    "zynq_ultra_ps_e": ("3.3", "3.4"), "proc_sys_reset": ("5.0",), "smartconnect": ("1.0",), "axi_intc": ("4.1",), "xdma": ("4.1",),
    "ddr4": ("2.2",), "clk_wiz": ("6.0",), "axi_register_slice": ("2.1",), "util_ds_buf": ("2.1", "2.2"), "util_vector_logic": ("2.0",),
    "util_reduced_logic": ("2.0",), "xlconcat": ("2.1",), "xlconstant": ("1.1",),
}  # fmt: skip
SEGMENTS = [f"ps/SAXIGP{2 + i}/HP{i}_{kind}" for i in range(4) for kind in ("DDR_LOW", "LPS_OCM", "QSPI")]
RUNNER = """\
import os, sys, tkinter
tcl = tkinter.Tcl()
tcl.createcommand("leave", lambda code: os._exit(int(code)))
tcl.eval("proc exit {{code 0}} { flush stdout; flush stderr; leave $code }")
tcl.eval("source " + sys.argv[1])
"""
"""Python's interpreter has no ``exit``."""

PRELUDE = r"""
set calls {}
set properties [dict create]
proc record {args} { lappend ::calls $args }
proc names {words} {
  set found {}
  for {set i 0} {$i < [llength $words]} {incr i} {
    set word [lindex $words $i]
    if {$word in {-of_objects -filter -target_address_space -offset -range -vlnv -type -mode -dir}} { incr i; continue }
    if {![string match -* $word]} { lappend found $word }
  }
  return [expr {[llength $found] == 1 ? [lindex $found 0] : $found}]
}
foreach command {
  create_bd_design create_bd_cell create_bd_port create_bd_intf_port connect_bd_net connect_bd_intf_net assign_bd_address
  exclude_bd_addr_seg regenerate_bd_layout validate_bd_design save_bd_design
  add_files update_compile_order close_project update_ip_catalog open_run reset_run wait_on_run generate_target
  ipx::package_project ipx::associate_bus_interfaces ipx::create_xgui_files ipx::update_checksums ipx::save_core
} {
  namespace eval ipx {}
  proc $command args "record $command {*}\$args; return \[names \$args\]"
}
foreach command {
  get_bd_pins get_bd_intf_pins get_bd_ports get_bd_intf_ports get_bd_cells get_bd_addr_spaces get_files get_runs
} { proc $command args {return [names $args]} }
foreach command {add_register add_field add_address_block add_memory_map add_address_space add_bus_parameter} {
  proc ipx::$command {name owner} "record ipx::$command \$name \$owner; return \$name"
}
proc current_project {} {return project}
proc current_fileset {} {return sources_1}
proc get_ports {} {return $::ports}
proc ipx::current_core {} {return core}
proc ipx::check_integrity args {return $::integrity}
foreach command {get_address_spaces get_memory_maps get_bus_parameters} { proc ipx::$command args {return {}} }
proc ipx::get_bus_interfaces args { set name [names $args]; return [expr {$name in $::interfaces ? $name : {}}] }
proc get_ipdefs {pattern} { return [lsearch -all -inline -glob $::ipdefs $pattern] }
proc get_parts args { return [expr {[names $args] in $::parts ? [names $args] : {}}] }
proc get_board_parts args { return [lsearch -all -inline -glob $::board_parts [names $args]] }
proc get_bd_addr_segs args {
  set name [names $args]
  return [expr {[string first * $name] < 0 ? $name : [lsearch -all -inline -glob $::segments $name]}]
}
proc set_property args {
  set words [lsearch -all -inline -not -exact $args -dict]
  set object [lindex $words end]
  set pairs [expr {[llength $words] == 2 ? [lindex $words 0] : [lrange $words 0 1]}]
  foreach {key value} $pairs { record set_property $key $value $object; dict set ::properties $object $key $value }
}
proc get_property {key object} {
  if {$key eq "NAME"} { return $object }
  if {$key eq "PACKAGE_PIN"} { return [dict get $::placed $object] }
  if {[dict exists $::answers $key]} { return [dict get $::answers $key] }
  if {[dict exists $::properties $object $key]} { return [dict get $::properties $object $key] }
  return {}
}
proc put {path text} { file mkdir [file dirname $path]; set file [open $path w]; puts $file $text; close $file }
proc create_project {name args} { record create_project $name {*}$args; file mkdir [names $args] }
proc launch_runs {name args} { record launch_runs $name; put project/bitloom.runs/$name/runme.log [dict get $::logs $name] }
proc make_wrapper args {
  record make_wrapper {*}$args
  put project/bitloom.gen/sources_1/bd/bitloom/hw_handoff/bitloom.hwh handed
  return bitloom_wrapper.v
}
proc write_bitstream args { record write_bitstream {*}$args; put [names $args] bits }
foreach command {report_timing_summary report_utilization} {
  proc $command args "record $command {*}\$args; put \[lindex \$args end\] $command"
}
"""

ENDING = """
set failed [catch {{source {{{script}}}}} message]
set file [open calls.txt w]
fconfigure $file -encoding utf-8
foreach call $calls {{ puts -nonewline $file "[join $call \\x1f]\\x1e" }}
close $file
if {{$failed}} {{ puts "FAILED $message" }}
"""


@dataclass(frozen=True, kw_only=True)
class Session:
    """What a script called, printed, and the error that ended it, if one did."""

    calls: list[list[str]]
    output: str
    error: str | None

    def of(self, command: str) -> list[list[str]]:
        return [call[1:] for call in self.calls if call[0] == command]


def interpreter() -> list[str]:
    """The command that sources a Tcl file; skips the test where there is no Tcl."""
    if importlib.util.find_spec("_tkinter"):
        return [sys.executable, "-c", RUNNER]
    if found := shutil.which("tclsh"):
        return [found]
    pytest.skip("no Tcl here: neither Python's tkinter nor tclsh")


def run_tcl(folder: Path, script: str, **variables: str) -> Session:
    """Runs a script of the folder against the recorders; ``variables`` are Tcl values over the defaults."""
    ipdefs = " ".join(f"xilinx.com:ip:{name}:{version}" for name, versions in IPS.items() for version in versions)
    values = {
        "ipdefs": ipdefs, "segments": " ".join(SEGMENTS), "interfaces": "", "ports": "", "placed": "", "board_parts": "", "parts": "",
        "answers": "", "logs": "synth_1 {} impl_1 {}", "integrity": "1", "bitloom_board_part": "",
    } | variables  # fmt: skip
    text = PRELUDE + "".join(f"set {name} {{{value}}}\n" for name, value in values.items()) + ENDING.format(script=script)
    (folder / "stub.tcl").write_text(text)
    done = subprocess.run([*interpreter(), "stub.tcl"], cwd=folder, capture_output=True, text=True, timeout=60, check=True)
    calls = [call.split("\x1f") for call in (folder / "calls.txt").read_text().split("\x1e") if call]
    output, mark, error = done.stdout.partition("FAILED ")
    return Session(calls=calls, output=output, error=error.strip() if mark else None)


# --- the blocks' pins --------------------------------------------------------------------------------------------------------


@dataclass
class Block:
    """Pins: name to (direction, kind); kinds are clk, rst (high), rstn (low), irq, data. Buses: name to (mode, clock pin)."""

    pins: dict[str, tuple[str, str]] = field(default_factory=dict)
    buses: dict[str, tuple[str, str]] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    segments: dict[str, str] = field(default_factory=dict)
    """Segment to the bus that reaches it."""
    spaces: dict[str, str] = field(default_factory=dict)
    """Address space to the bus that it is of."""


def _inputs(kind: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: ("I", kind) for name in names}


def _outputs(kind: str, *names: str) -> dict[str, tuple[str, str]]:
    return {name: ("O", kind) for name in names}


def _zynq(p: Mapping[str, str]) -> Block:
    """Both FPD manager ports are on by default, as in the vendor's block."""
    block = Block(pins=_outputs("rstn", "pl_resetn0"))
    block.pins |= _outputs("clk", *(f"pl_clk{i}" for i in range(4) if p.get(f"PSU__FPGA_PL{i}_ENABLE", "0") == "1"))
    for gp, default, name in ((0, "1", "HPM0_FPD"), (1, "1", "HPM1_FPD"), (2, "0", "HPM0_LPD")):
        if p.get(f"PSU__USE__M_AXI_GP{gp}", default) == "1":
            block.pins |= _inputs("clk", f"maxi{name.lower()}_aclk")
            block.buses[f"M_AXI_{name}"] = ("Master", f"maxi{name.lower()}_aclk")
            block.spaces["Data"] = f"M_AXI_{name}" if gp == 0 else block.spaces.get("Data", "")
    for i in range(4):
        if p.get(f"PSU__USE__S_AXI_GP{2 + i}", "0") == "1":
            block.pins |= _inputs("clk", f"saxihp{i}_fpd_aclk")
            block.buses[f"S_AXI_HP{i}_FPD"] = ("Slave", f"saxihp{i}_fpd_aclk")
            block.segments |= {f"SAXIGP{2 + i}/HP{i}_{kind}": f"S_AXI_HP{i}_FPD" for kind in ("DDR_LOW", "LPS_OCM", "QSPI")}
    if p.get("PSU__USE__IRQ0", "0") == "1":
        block.pins |= _inputs("irq", "pl_ps_irq0")
    return block


def _reset(p: Mapping[str, str]) -> Block:
    external = "rst" if p["C_EXT_RESET_HIGH"] == "1" else "rstn"
    pins = _inputs("clk", "slowest_sync_clk") | _inputs(external, "ext_reset_in") | _inputs("data", "dcm_locked")
    pins |= _outputs("rstn", "interconnect_aresetn", "peripheral_aresetn") | _outputs("rst", "peripheral_reset", "bus_struct_reset")
    return Block(pins=pins, optional={"dcm_locked"})


def _smartconnect(p: Mapping[str, str]) -> Block:
    clocks = ["aclk", *(f"aclk{i}" for i in range(1, int(p.get("NUM_CLKS", "1"))))]
    buses = {f"S{i:02}_AXI": ("Slave", "*") for i in range(int(p["NUM_SI"]))}
    buses |= {f"M{i:02}_AXI": ("Master", "*") for i in range(int(p["NUM_MI"]))}
    return Block(pins=_inputs("clk", *clocks) | _inputs("rstn", "aresetn"), buses=buses)


def _intc(p: Mapping[str, str]) -> Block:
    pins = _inputs("clk", "s_axi_aclk") | _inputs("rstn", "s_axi_aresetn") | _inputs("irq", "intr")
    pins |= _outputs("irq", "irq") if p.get("C_IRQ_CONNECTION") == "1" else {}
    return Block(pins=pins, buses={"s_axi": ("Slave", "s_axi_aclk")}, segments={"S_AXI/Reg": "s_axi"})


def _xdma(p: Mapping[str, str]) -> Block:
    pins = _inputs("clk", "sys_clk", "sys_clk_gt") | _inputs("rstn", "sys_rst_n") | _inputs("irq", "usr_irq_req")
    pins |= _outputs("clk", "axi_aclk") | _outputs("rstn", "axi_aresetn") | _outputs("data", "user_lnk_up", "usr_irq_ack")
    buses = {"M_AXI": ("Master", "axi_aclk"), "pcie_mgt": ("Master", "")}
    if p.get("axilite_master_en") == "true":
        buses["M_AXI_LITE"] = ("Master", "axi_aclk")
    return Block(pins=pins, buses=buses, spaces={name: name for name in buses if name != "pcie_mgt"})


def _ddr4(p: Mapping[str, str]) -> Block:
    """With ECC there is a port for its counters, which stays open."""
    pins = _inputs("rst", "sys_rst") | _inputs("rstn", "c0_ddr4_aresetn") | _outputs("clk", "c0_ddr4_ui_clk")
    pins |= _outputs("rst", "c0_ddr4_ui_clk_sync_rst") | _outputs("data", "c0_init_calib_complete")
    buses = {"C0_SYS_CLK": ("Slave", ""), "C0_DDR4": ("Master", ""), "C0_DDR4_S_AXI": ("Slave", "c0_ddr4_ui_clk")}
    if p.get("C0.DDR4_Ecc") == "true":
        buses["C0_DDR4_S_AXI_CTRL"] = ("Slave", "c0_ddr4_ui_clk")
    segments = {"C0_DDR4_MEMORY_MAP/C0_DDR4_ADDRESS_BLOCK": "C0_DDR4_S_AXI"}
    return Block(pins=pins, buses=buses, optional={"C0_DDR4_S_AXI_CTRL"}, segments=segments)


def _clk_wiz(p: Mapping[str, str]) -> Block:
    reset = _inputs("rstn", "resetn") if p.get("RESET_TYPE") == "ACTIVE_LOW" else _inputs("rst", "reset")
    return Block(pins=_inputs("clk", "clk_in1") | reset | _outputs("clk", "clk_out1") | _outputs("data", "locked"))


def _slice(p: Mapping[str, str]) -> Block:
    buses = {"S_AXI": ("Slave", "aclk"), "M_AXI": ("Master", "aclk")}
    return Block(pins=_inputs("clk", "aclk") | _inputs("rstn", "aresetn"), buses=buses)


TYPES = {
    "zynq_ultra_ps_e": _zynq, "proc_sys_reset": _reset, "smartconnect": _smartconnect, "axi_intc": _intc, "xdma": _xdma, "ddr4": _ddr4,
    "clk_wiz": _clk_wiz, "axi_register_slice": _slice,
    "util_ds_buf": lambda p: Block(pins=_outputs("clk", "IBUF_OUT", "IBUF_DS_ODIV2"), buses={"CLK_IN_D": ("Slave", "")}),
    "util_vector_logic": lambda p: Block(pins=_inputs("rstn", "Op1") | _outputs("rst", "Res")),
    "util_reduced_logic": lambda p: Block(pins=_inputs("data", "Op1") | _outputs("data", "Res")),
    "xlconstant": lambda p: Block(pins=_outputs("data", "dout")),
    "xlconcat": lambda p: Block(pins=_inputs("data", *(f"In{i}" for i in range(int(p["NUM_PORTS"])))) | _outputs("data", "dout")),
}  # fmt: skip


def core_block(wrapper: str) -> Block:
    """The packaged core's pins, read from the wrapper's attributes as the packager reads them."""
    kinds = {"clock": "clk", "reset": "rstn", "interrupt": "irq"}
    block = Block()
    signal = r'X_INTERFACE_INFO = "xilinx\.com:signal:(\w+):1\.0 \w+ \w+" \*\)(?:\s*\(\*.*?\*\))?\s*(input|output) wire (\w+)'
    for kind, direction, name in re.findall(signal, wrapper):
        block.pins[name] = (direction[0].upper(), kinds[kind])
    awvalid = r'aximm:1\.0 (\w+) AWVALID" \*\)\s*(input|output)'
    for name, direction in re.findall(awvalid, wrapper):
        block.buses[name] = ("Master" if direction == "output" else "Slave", "aclk")
    block.segments = {f"{name}/reg0": name for name, (mode, _) in block.buses.items() if mode == "Slave"}
    block.spaces = {name: name for name, (mode, _) in block.buses.items() if mode == "Master"}
    return block


# --- the design --------------------------------------------------------------------------------------------------------------


class BlockDesign:
    """The design that a session made. ``faults`` lists in words what is wrong with it."""

    def __init__(self, session: Session, wrapper: str) -> None:
        self.vlnv = {call[-1]: call[call.index("-vlnv") + 1] for call in session.of("create_bd_cell")}
        self.config: dict[str, dict[str, str]] = {cell: {} for cell in self.vlnv}
        for key, value, owner in session.of("set_property"):
            if owner in self.config and key.startswith("CONFIG."):
                self.config[owner][key.removeprefix("CONFIG.")] = value
        self.blocks = {
            cell: core_block(wrapper) if vlnv.startswith("bitloom:") else TYPES[vlnv.split(":")[2]](self.config[cell])
            for cell, vlnv in self.vlnv.items()
        }
        self.ports = {call[-1]: call[call.index("-dir") + 1] for call in session.of("create_bd_port")}
        self.bus_ports = {call[-1]: call[call.index("-mode") + 1] for call in session.of("create_bd_intf_port")}
        self.joined, self.wires = session.of("connect_bd_intf_net"), session.of("connect_bd_net")
        self.nets = self._merge(self.wires)
        self.assigned = session.of("assign_bd_address")
        self.excluded = session.of("exclude_bd_addr_seg")

    @staticmethod
    def _merge(wires: list[list[str]]) -> dict[str, frozenset[str]]:
        """Pin to all pins of its net: calls that share a pin are one net."""
        nets: dict[str, frozenset[str]] = {}
        for wire in wires:
            whole = frozenset(wire).union(*(nets.get(pin, frozenset()) for pin in wire))
            nets.update(dict.fromkeys(whole, whole))
        return nets

    def driver(self, end: str) -> str | None:
        """The pin that drives the net of a pin."""
        return next((pin for pin in sorted(self.nets.get(end, ())) if self._pin(pin) and self._pin(pin)[0] == "O"), None)

    def _pin(self, end: str) -> tuple[str, str] | None:
        """(direction, kind) seen from the net: a port "in" drives it."""
        if "/" not in end:
            kind = "rstn" if end.endswith("_n") else "data"
            return ({"I": "O", "O": "I"}[self.ports[end]], kind) if end in self.ports else None
        cell, pin = end.split("/")
        return self.blocks[cell].pins.get(pin) if cell in self.blocks else None

    def _bus(self, end: str) -> tuple[str, str] | None:
        if "/" not in end:
            return ({"Master": "Slave", "Slave": "Master"}[self.bus_ports[end]], "") if end in self.bus_ports else None
        cell, bus = end.split("/")
        return self.blocks[cell].buses.get(bus) if cell in self.blocks else None

    @property
    def faults(self) -> list[str]:
        unknown = [f"unknown pin {end}" for wire in self.wires for end in wire if self._pin(end) is None]
        unknown += [f"unknown bus {end}" for pair in self.joined for end in pair if self._bus(end) is None]
        return unknown or [*self._net_faults(), *self._bus_faults(), *self._address_faults()]

    def _net_faults(self) -> Iterator[str]:
        for net in set(self.nets.values()):
            drivers = [end for end in net if self._pin(end)[0] == "O"]
            if len(drivers) != 1:
                yield f"net of {sorted(net)} has drivers {drivers}"
        ends = [f"{cell}/{pin}" for cell, block in self.blocks.items() for pin in block.pins if pin not in block.optional]
        for end in [*ends, *self.ports]:
            if end not in self.nets and (self._pin(end)[0] == "I" or "/" not in end):
                yield f"{end} is not connected"
        for end in self.nets:
            kind, source = self._pin(end)[1], self.driver(end)
            if kind != "data" and source and self._pin(source)[1] != kind:
                yield f"{end} is a {kind}, and {source} is a {self._pin(source)[1]}"

    def _bus_faults(self) -> Iterator[str]:
        ends = [end for pair in self.joined for end in pair]
        for cell, block in self.blocks.items():
            for bus in block.buses:
                count = ends.count(f"{cell}/{bus}")
                if count > 1 or not (count or bus in block.optional):
                    yield f"bus {cell}/{bus} is joined {count} times"
        yield from (f"bus {port} is joined {ends.count(port)} times" for port in self.bus_ports if ends.count(port) != 1)
        for one, other in self.joined:
            modes = {self._bus(one)[0], self._bus(other)[0]}
            if modes != {"Master", "Slave"}:
                yield f"{one} and {other} are both {modes}"
            yield from self._clock_faults(one, other)

    def _clocks(self, end: str) -> set[str | None]:
        """Drivers of the clocks that a bus may run at."""
        cell, _ = end.split("/")
        clock = self._bus(end)[1]
        pins = [pin for pin, (_, kind) in self.blocks[cell].pins.items() if kind == "clk"] if clock == "*" else [clock]
        return {self.driver(f"{cell}/{pin}") for pin in pins}

    def _clock_faults(self, one: str, other: str) -> Iterator[str]:
        if "/" in one and "/" in other and self._bus(one)[1] and not self._clocks(one) & self._clocks(other):
            yield f"{one} and {other} have no clock in common"

    def _reaches(self, bus: str, seen: frozenset[str] = frozenset()) -> set[str]:
        """Subordinate buses behind a manager's bus, through what passes buses on."""
        found = set()
        for pair in self.joined:
            if bus in pair and bus not in seen:
                other = pair[1 - pair.index(bus)]
                cell = other.split("/")[0]
                onward = [b for b, (mode, _) in self.blocks[cell].buses.items() if mode == "Master"]
                passes = self.vlnv[cell].split(":")[2] in ("smartconnect", "axi_register_slice")
                found |= {other} if not passes else set()
                for name in onward if passes else ():
                    found |= self._reaches(f"{cell}/{name}", seen | {bus})
        return found

    def ranges(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Address space to segment to (base, bytes)."""
        found: dict[str, dict[str, tuple[int, int]]] = {}
        for call in self.assigned:
            option = dict(zip(call[::2], call[1::2], strict=False))
            bounds = int(option["-offset"], 0), int(option["-range"], 0)
            segment = next(word for word in call if word.count("/") == 2)
            found.setdefault(option["-target_address_space"], {})[segment] = bounds
        return found

    def _address_faults(self) -> Iterator[str]:
        for space, segments in self.ranges().items():
            cell, name = space.split("/")
            if name not in self.blocks[cell].spaces:
                yield f"unknown address space {space}"
                continue
            reached = self._reaches(f"{cell}/{self.blocks[cell].spaces[name]}")
            taken = sorted((base, base + size, segment) for segment, (base, size) in segments.items())
            yield from (f"{b[2]} overlaps {a[2]} in {space}" for a, b in pairwise(taken) if a[1] > b[0])
            yield from (f"{s} is at {b:#x}, no multiple of {n:#x}" for s, (b, n) in segments.items() if n & (n - 1) or b % n)
            for segment in segments:
                owner, rest = segment.split("/", 1)
                bus = self.blocks[owner].segments.get(rest) if owner in self.blocks else None
                if bus is None:
                    yield f"unknown segment {segment}"
                elif f"{owner}/{bus}" not in reached:
                    yield f"{space} does not reach {segment}"
        yield from self._unassigned()

    def _unassigned(self) -> Iterator[str]:
        """Segments that a space reaches must be assigned or excluded: Vivado warns critically of others."""
        ranges = self.ranges()
        excluded = {(call[call.index("-target_address_space") + 1], call[-1]) for call in self.excluded}
        for cell, block in self.blocks.items():
            for space, bus in block.spaces.items():
                for other in sorted(self._reaches(f"{cell}/{bus}")):
                    owner, name = other.split("/")
                    for segment in (f"{owner}/{s}" for s, b in self.blocks[owner].segments.items() if b == name):
                        if segment not in ranges.get(f"{cell}/{space}", {}) and (f"{cell}/{space}", segment) not in excluded:
                            yield f"{segment} has no address in {cell}/{space}"
