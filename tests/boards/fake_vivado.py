"""A stand-in for Vivado in batch mode, put on the PATH: it runs the real build.tcl in Tcl, with recorders as Vivado's commands.

Steps, checks and reasons are therefore the script's own. What the commands leave, bitstream, hand-off file and reports, has Vivado's
formats as far as they are documented, not as a real run showed them. Modes make it fail, hang, miss timing, write nothing, be killed.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from boards.vivado.board import VivadoBoard
from boards.vivado.hwh import hwh_text
from hw.spec.arch import Arch
from tests.boards.vivado_stub import IPS, PRELUDE, SEGMENTS, interpreter

VERSION = "2022.1"
TOOL = f"| Tool Version : Vivado v.{VERSION} (lin64) Build 3526262 Mon Apr 18 15:47:01 MDT 2022"
RULE = "-" * 96

LAUNCHER = """\
#!/bin/sh
echo "$@" >> "{here}/calls"
"{python}" -S -E "{here}/start.py" "$@"
"""
"""Like the real one a script that starts the program as a child."""

START = """\
import os, signal, subprocess, sys
assert sys.argv[1:] == ["-mode", "batch", "-source", "build.tcl"], sys.argv
banner = "****** Vivado v{version} (64-bit)\\n  **** SW Build 3526262 on Mon Apr 18 15:47:01 MDT 2022\\n"
print(banner + "\\nsource build.tcl\\n# proc bitloom::stop {{why}} {{ error \\"BITLOOM: $why\\" }}", flush=True)
with open("vivado.log", "w") as log:
    log.write("# Vivado v{version} (64-bit)\\n# Start of session at: Sat Nov 28 02:00:00 2026\\n")
run = subprocess.Popen([*{tcl!r}, {here!r} + "/session.tcl"], stdout=subprocess.PIPE, text=True)
with open("vivado.log", "a") as log:
    for line in run.stdout:
        if line.startswith("KILL"):
            run.kill()
            os.kill(os.getpid(), signal.SIGKILL)
        print(line, end="", flush=True)
        log.write(line)
        log.flush()
    status = run.wait()
    log.write("INFO: [Common 17-206] Exiting Vivado at Sat Nov 28 03:00:00 2026...\\n")
sys.exit(status)
"""

HANG = """
exec PYTHON -S -E -c {
import os, signal, time
os.setsid()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open("pid", "w").write(str(os.getpid()))
time.sleep(300)
} > /dev/null 2> /dev/null &
put project/bitloom.runs/impl_1/runme.log "Starting Placer Task\\nPhase 2.1 Floorplanning | Checksum: 1b"
after 300000
""".replace("PYTHON", sys.executable)
"""A run that has left the session and does not listen, as a router might."""

OVERRIDES = """
proc launch_runs {name args} { record launch_runs $name; put project/bitloom.runs/$name/runme.log [dict get $::logs $name]
  if {$name eq "impl_1"} { uplevel #0 $::during } }
proc make_wrapper args { record make_wrapper {*}$args
  file mkdir project/bitloom.gen/sources_1/bd/bitloom/hw_handoff
  file copy -force $::here/made.hwh project/bitloom.gen/sources_1/bd/bitloom/hw_handoff/bitloom.hwh
  return bitloom_wrapper.v }
proc write_bitstream args { record write_bitstream {*}$args; uplevel #0 $::writing; file copy -force $::here/made.bit [names $args] }
proc report_timing_summary args { record report_timing_summary; file copy -force $::here/timing.rpt [lindex $args end] }
proc report_utilization args { record report_utilization; file copy -force $::here/utilization.rpt [lindex $args end] }
"""

ENDING = """
if {[catch {source build.tcl}]} { puts $::errorInfo; exit 1 }
eval $after_all
"""


def bit_file(part: str, *, design: str = "bitloom_wrapper", version: str = VERSION, data: bytes = bytes(range(64))) -> bytes:
    """A .bit file with Xilinx's header."""
    texts = {"a": f"{design};UserID=0XFFFFFFFF;Version={version}", "b": part, "c": "2026/11/28", "d": "03:00:00"}
    fields = b"".join(key.encode() + struct.pack(">H", len(text) + 1) + text.encode() + b"\0" for key, text in texts.items())
    return bytes.fromhex("00090ff00ff00ff00ff0000001") + fields + b"e" + struct.pack(">I", len(data)) + data


def timing_report(
    part: str, mhz: float, *, wns: str = "0.101", whs: str = "0.010", wpws: str = "0.500", met: bool = True
) -> str:
    """What ``report_timing_summary`` writes, its parts that matter."""
    columns = [("WNS(ns)", wns), ("TNS(ns)", "0.000"), ("TNS Failing Endpoints", "0"), ("TNS Total Endpoints", "723"),
               ("WHS(ns)", whs), ("THS(ns)", "0.000"), ("THS Failing Endpoints", "0"), ("THS Total Endpoints", "723"),
               ("WPWS(ns)", wpws), ("TPWS(ns)", "0.000"), ("TPWS Failing Endpoints", "0"), ("TPWS Total Endpoints", "333")]  # fmt: skip
    rows = [title for title, _ in columns], ["-" * len(title) for title, _ in columns], [value for _, value in columns]
    table = ["  ".join(f"{cell:>{len(title)}}" for cell, (title, _) in zip(row, columns, strict=True)) for row in rows]
    verdict = "All user specified timing constraints are met." if met else "Timing constraints are not met."
    device = part.rsplit("-", 2)[0].removeprefix("xc")
    return "\n".join([
        TOOL, "| Design       : bitloom_wrapper", f"| Device       : {device}", RULE, "", RULE, "| Design Timing Summary",
        "| ---------------------", RULE, "", *(f"    {line}  " for line in table), "", "", verdict, "", RULE, "| Clock Summary",
        "| -------------", RULE, "", "Clock      Waveform(ns)       Period(ns)      Frequency(MHz)",
        "-----      ------------       ----------      --------------", "pcie_clk   {0.000 5.000}      10.000          100.000",
        f"  clk_pl_0  {{0.000 {500 / mhz:.3f}}}      {1000 / mhz:.3f}           {mhz:.3f}  ", "",
    ])  # fmt: skip


def utilisation_report(part: str, *, luts: int = 40_000) -> str:
    """What ``report_utilization -hierarchical`` writes."""
    titles = [
        "Instance",
        "Module",
        "Total LUTs",
        "Logic LUTs",
        "LUTRAMs",
        "SRLs",
        "FFs",
        "RAMB36",
        "RAMB18",
        "URAM",
        "DSP Blocks",
    ]
    rows = [["bitloom_wrapper", "(top)", luts, 38_000, 1_500, 500, 50_000, 100, 3, 0, 200],
            ["  bitloom_i", "bitloom", 39_900, 37_900, 1_500, 500, 49_000, 100, 3, 0, 200],
            ["    core_0", "bitloom_core_0_0", 31_000, 30_000, 900, 100, 30_000, 90, 1, 0, 190]]  # fmt: skip
    line = "+" + "+".join("-" * 20 for _ in titles) + "+"
    table = ["| " + " | ".join(f"{cell!s:<18}" for cell in row) + " |" for row in [titles, *rows]]
    head = [TOOL, "| Command      : report_utilization -hierarchical", "| Design       : bitloom_wrapper",
            f"| Device       : {''.join(part.split('-')[:2])}-{part.split('-')[2]}", "| Design State : Routed", RULE]  # fmt: skip
    return "\n".join(
        [
            *head,
            "",
            "1. Utilization by Hierarchy",
            "---------------------------",
            "",
            line,
            table[0],
            line,
            *table[1:],
            line,
            "",
        ]
    )


@dataclass(kw_only=True)
class FakeVivado:
    """The program of a folder; ``put`` writes it with what its next run does.

    Members: ``answers`` are properties that the script reads; ``files`` replace what commands leave; ``log`` goes to a run's log;
    ``during``, ``writing``, ``after_all`` are Tcl at implementation, before the bitstream and at the end.
    """

    here: Path
    board: VivadoBoard
    arch: Arch
    answers: dict[str, str] = field(default_factory=dict)
    files: dict[str, str | bytes] = field(default_factory=dict)
    log: str = "INFO: [A 1-2] nothing\n"
    during: str = ""
    writing: str = ""
    after_all: str = ""
    parts: str | None = None

    @property
    def program(self) -> Path:
        return self.here / "bin" / "vivado"

    @property
    def calls(self) -> list[str]:
        path = self.here / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def put(self) -> Path:
        self.program.parent.mkdir(parents=True, exist_ok=True)
        self.program.write_text(LAUNCHER.format(here=self.here, python=sys.executable))
        self.program.chmod(0o755)
        (self.here / "start.py").write_text(START.format(version=VERSION, tcl=interpreter(), here=str(self.here)))
        (self.here / "session.tcl").write_text("".join(self._session()))
        for name, content in (self._made() | self.files).items():
            (self.here / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return self.program

    def _made(self) -> dict[str, str | bytes]:
        part = self.board.part
        hand_off = hwh_text(self.board, self.arch) if self.board.kind == "zynq" else "unused"
        reports = {"timing.rpt": timing_report(part, self.board.clock_mhz), "utilization.rpt": utilisation_report(part)}
        return {"made.bit": bit_file(part), "made.hwh": hand_off, **reports}

    def _session(self) -> Iterator[str]:
        yield PRELUDE + OVERRIDES
        pins = dict(self.board.sites)
        ps = {"CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ": "249.9975", "CONFIG.PSU__OVERRIDE__BASIC_CLOCK": "0"}
        answers = {"PROGRESS": "100%", "STATUS": "{write_bitstream Complete!}", "STATS.WNS": "0.101", "STATS.WHS": "0.010",
                   "STATS.TPWS": "0", **ps, **self.answers}  # fmt: skip
        values = {
            "here": str(self.here), "during": self.during, "writing": self.writing, "after_all": self.after_all,
            "ipdefs": " ".join(f"xilinx.com:ip:{name}:{version}" for name, versions in IPS.items() for version in versions),
            "segments": " ".join(SEGMENTS), "interfaces": "s_axi m_axi_0 aclk host_clk aresetn irq", "board_parts": "",
            "parts": self.board.part if self.parts is None else self.parts, "integrity": "1",
            "ports": " ".join(f"{{{port}}}" for port in pins),
            "placed": " ".join(f"{{{port}}} {site}" for port, site in pins.items()),
            "answers": " ".join(f"{key} {value}" for key, value in answers.items()), "logs": f"synth_1 {{}} impl_1 {{{self.log}}}",
        }  # fmt: skip
        yield "".join(f"set {name} {{{value}}}\n" for name, value in values.items()) + ENDING


def fill(folder: Path, fake: FakeVivado) -> None:
    """What a good run of another machine leaves in a prepared folder, without running anything."""
    name, made = fake.board.name, fake._made() | fake.files
    hand_off = {f"{name}.hwh": made["made.hwh"]} if fake.board.kind == "zynq" else {}
    log = f"# Vivado v{VERSION} (64-bit)\n# Start of session at: Sat Nov 28 02:00:00 2026\nBITLOOM DONE {name}.bit\n"
    log += "INFO: [Common 17-206] Exiting Vivado at Sat Nov 28 03:00:00 2026...\n"
    messages = "CRITICAL WARNING: 0\nERROR: 0\nWARNING: 0\n"
    reports = {
        "timing.rpt": made["timing.rpt"],
        "utilization.rpt": made["utilization.rpt"],
        "vivado.log": log,
        "messages.rpt": messages,
    }
    for file, content in {f"{name}.bit": made["made.bit"], **hand_off, **reports}.items():
        (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
