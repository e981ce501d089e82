"""Tcl texts of a block design, line by line."""

from __future__ import annotations

from collections.abc import Mapping

NEWEST = """\
# The newest version of a block of the vendor's whose version matches.
proc newest {ip {version *}} {
  set found [lsort -dictionary [get_ipdefs xilinx.com:ip:$ip:$version]]
  if {[llength $found] == 0} { error "BITLOOM: this Vivado has no xilinx.com:ip:$ip:$version" }
  return [lindex $found end]
}
"""


def braced(value: object) -> str:
    """A word that Tcl leaves as it is; ValueError where braces within would end it."""
    text = str(value)
    if any(mark in text for mark in "{}\\"):
        raise ValueError(f"a Tcl word must have no braces or backslashes, not {text!r}")
    return f"{{{text}}}"


class DesignScript:
    """A block design's script as it grows; ends are ``cell/pin`` or the name of a port of the design."""

    def __init__(self, title: str) -> None:
        self._lines = [f"# {title}", NEWEST, "create_bd_design bitloom"]

    def line(self, text: str) -> None:
        """Any Tcl."""
        self._lines.append(text)

    def remark(self, text: str) -> None:
        self._lines += ["", f"# {text}"]

    def cell(self, name: str, ip: str, version: str = "*", **config: object) -> None:
        """A block of the vendor's, the newest whose version matches, with its properties."""
        self.line(f"create_bd_cell -type ip -vlnv [newest {ip} {version}] {name}")
        self.configure(name, config)

    def configure(self, name: str, config: Mapping[str, object]) -> None:
        """Set properties of a cell, without their CONFIG prefix."""
        if config:
            pairs = "\n".join(f"  CONFIG.{key} {braced(value)} \\" for key, value in config.items())
            self.line(f"set_property -dict [list \\\n{pairs}\n] [get_bd_cells {name}]")

    def net(self, *ends: str) -> None:
        """Joins pins and ports; the driver comes first."""
        self.line("connect_bd_net " + " ".join(self._end(end, "") for end in ends))

    def bus(self, one: str, other: str) -> None:
        """Joins two buses, pins or ports."""
        self.line(f"connect_bd_intf_net {self._end(one, '_intf')} {self._end(other, '_intf')}")

    def port(self, name: str, direction: str, kind: str = "") -> None:
        """A port of the design, "I" or "O", of a kind such as clk or rst."""
        self.line(f"create_bd_port -dir {direction}{f' -type {kind}' if kind else ''} {name}")

    def bus_port(self, name: str, mode: str, interface: str) -> None:
        self.line(f"create_bd_intf_port -mode {mode} -vlnv xilinx.com:interface:{interface}:1.0 {name}")

    def assign(self, space: str, segment: str, base: int, size: int) -> None:
        """Puts a segment into an address space."""
        self.line(
            f"assign_bd_address -offset {base:#018x} -range {size:#x} "
            f"-target_address_space [get_bd_addr_spaces {space}] [get_bd_addr_segs {segment}] -force"
        )

    def exclude_others(self, space: str, pattern: str, kept: str) -> None:
        """Leaves out the segments of a pattern but one: an unassigned one is a critical warning."""
        self.line(
            f"foreach segment [get_bd_addr_segs -quiet {pattern}] {{\n"
            f"  if {{![string match */{kept} $segment]}} {{\n"
            f"    exclude_bd_addr_seg -target_address_space [get_bd_addr_spaces {space}] [get_bd_addr_segs $segment]\n"
            f"  }}\n}}"
        )

    def text(self) -> str:
        """The script, which checks and saves the design at its end."""
        return "\n".join([*self._lines, "", "regenerate_bd_layout", "validate_bd_design", "save_bd_design", ""])

    @staticmethod
    def _end(end: str, kind: str) -> str:
        return f"[get_bd{kind}_{'pins' if '/' in end else 'ports'} {end}]"
