"""build.tcl: the one script, from texts to bitstream, that stops with a reason where anything is not as it must be.

The constraint files count for implementation only: at synthesis the blocks are still closed, and what lies within cannot be named.

It stops on a run that did not end, on missed timing (set-up, hold, pulse width), on a port at another pin than the board's, and on
critical warnings other than the board's short list. No bitstream is written then.
"""

from __future__ import annotations

from boards.vivado.board import VivadoBoard

STEPS = ("package", "design", "synthesis", "implementation", "checks", "bitstream")
JOBS = 4
PROJECT = "project"

_HEAD = """\
# {title}: builds {name}.bit. Run in this folder:  vivado -mode batch -source build.tcl
set steps {{{steps}}}
set part {part}
set board_part_pattern {{{board_part}}}
set allowed_critical {{{allowed}}}

namespace eval bitloom {{}}
proc bitloom::step {{name}} {{
  global steps
  puts "BITLOOM STEP $name [expr {{[lsearch -exact $steps $name] + 1}}]/[llength $steps]"
  flush stdout
}}
"""

_PROCEDURES = """
proc bitloom::stop {why} { error "BITLOOM: $why" }

# Runs a run of the project to a step or to its end.
proc bitloom::run {name} {
  reset_run $name
  launch_runs $name -jobs @JOBS@
  wait_on_run $name
  set run [get_runs $name]
  set progress [get_property PROGRESS $run]
  if {$progress ne "100%"} {
    stop "$name ended at $progress with '[get_property STATUS $run]'; see @PROJECT@/bitloom.runs/$name/runme.log"
  }
}

# Messages of this session and of every run: lines by severity. The session's log must be Vivado's default, vivado.log.
proc bitloom::messages {} {
  if {![file exists vivado.log]} { stop "there is no vivado.log in [pwd]: run Vivado in this folder, without -log and -nolog" }
  set found [dict create {CRITICAL WARNING} {} ERROR {} WARNING {}]
  foreach log [concat vivado.log [lsort [glob -nocomplain @PROJECT@/bitloom.runs/*/runme.log]]] {
    set file [open $log]
    foreach line [split [read $file] "\\n"] {
      if {[regexp {^(CRITICAL WARNING|ERROR|WARNING): \\[([^\\]]+)\\]} $line all severity id]} {
        dict lappend found $severity [list $id $line]
      }
    }
    close $file
  }
  return $found
}

# Writes messages.rpt, and stops on critical warnings that are not allowed.
proc bitloom::check_messages {} {
  global allowed_critical
  set found [messages]
  set report [open messages.rpt w]
  dict for {severity lines} $found {
    puts $report "$severity: [llength $lines]"
    foreach line [lsort -unique $lines] { puts $report "  [lindex $line 1]" }
  }
  close $report
  set refused {}
  foreach line [lsort -unique [dict get $found {CRITICAL WARNING}]] {
    if {[lsearch -exact $allowed_critical [lindex $line 0]] < 0} { lappend refused [lindex $line 1] }
  }
  if {[llength $refused]} { stop "critical warnings, all in messages.rpt:\\n[join $refused \\n]" }
}

# Stops unless every slack of the implemented design is there and not negative.
proc bitloom::check_timing {} {
  foreach {name what} {WNS set-up WHS hold TPWS {pulse width}} {
    set slack [get_property STATS.$name [get_runs impl_1]]
    if {![string is double -strict $slack]} { stop "the implemented design has no $name: nothing was timed; see timing.rpt" }
    if {$slack < 0} { stop "timing is missed: $what slack ($name) is $slack ns; see timing.rpt" }
  }
}

# Stops unless every port lies where the board has it.
proc bitloom::check_pins {} {
  global bitloom_pins
  foreach port [get_ports] {
    set name [get_property NAME $port]
    if {![dict exists $bitloom_pins $name]} { regsub {\\[0\\]$} $name {} name }
    if {![dict exists $bitloom_pins $name]} { stop "the design has a port $name that the board has no pin for" }
    set site [get_property PACKAGE_PIN $port]
    set wanted [dict get $bitloom_pins $name]
    if {$site ne $wanted} { stop "port $name lies at '$site', and the board has it at $wanted" }
  }
}
"""

_PREPARE = """
if {![file exists core.v]} { bitloom::stop "there is no core.v in [pwd]: write the core's Verilog there first" }
if {[llength [get_parts -quiet $part]] == 0} {
  bitloom::stop "this Vivado has no part $part: install its device family, and a licence for it"
}
source pins.tcl

bitloom::step package
source package.tcl

bitloom::step design
create_project bitloom @PROJECT@ -part $part -force
set bitloom_board_part {}
if {$board_part_pattern ne {}} {
  set bitloom_board_part [lindex [lsort -dictionary [get_board_parts -quiet $board_part_pattern]] end]
  if {$bitloom_board_part ne {}} { set_property board_part $bitloom_board_part [current_project] }
}
set_property ip_repo_paths [file normalize ip] [current_project]
update_ip_catalog
source design.tcl
set made [make_wrapper -files [get_files bitloom.bd] -top]
add_files -norecurse $made
set_property top bitloom_wrapper [current_fileset]
update_compile_order -fileset sources_1
add_files -fileset constrs_1 -norecurse constraints.xdc
set_property used_in_synthesis false [get_files constraints.xdc]
"""

_MEMORY_PINS = """\
if {$bitloom_board_part eq {}} {
  add_files -fileset constrs_1 -norecurse memory_pins.xdc
  set_property used_in_synthesis false [get_files memory_pins.xdc]
}
"""

_BUILD = """\
generate_target all [get_files bitloom.bd]
bitloom::check_messages

bitloom::step synthesis
bitloom::run synth_1
bitloom::check_messages

bitloom::step implementation
set_property strategy Performance_Explore [get_runs impl_1]
bitloom::run impl_1

bitloom::step checks
open_run impl_1
report_timing_summary -file timing.rpt
report_utilization -hierarchical -hierarchical_depth 3 -file utilization.rpt
bitloom::check_timing
bitloom::check_pins
bitloom::check_messages

bitloom::step bitstream
write_bitstream -force @BOARD@.bit
"""

_HAND_OFF = """\
set handed [glob -nocomplain @PROJECT@/bitloom.{gen,srcs}/sources_1/bd/bitloom/hw_handoff/*.hwh]
if {[llength $handed] != 1} { bitloom::stop "one hardware hand-off file was expected, not '$handed'" }
file copy -force [lindex $handed 0] @BOARD@.hwh
"""


def build_script(board: VivadoBoard) -> str:
    """Text of build.tcl."""
    head = _HEAD.format(
        title=board.title,
        name=board.name,
        steps=" ".join(STEPS),
        part=board.part,
        board_part=board.board_part or "",
        allowed=" ".join(f"{{{identifier}}}" for identifier in board.allowed_critical),
    )
    body = _PROCEDURES + f"\nforeach old {{{board.name}.bit {board.name}.hwh}} {{ file delete -force $old }}" + _PREPARE
    body += (_MEMORY_PINS if board.controllers else "") + _BUILD + (_HAND_OFF if board.kind == "zynq" else "")
    body = body.replace("@PROJECT@", PROJECT).replace("@JOBS@", str(JOBS)).replace("@BOARD@", board.name)
    return head + body + f'puts "BITLOOM DONE {board.name}.bit"\n'
