"""The ULX3S's data and plan: pins, constraints, wrapper, digest, refusals, and what is read from the tools' reports."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

import boards.build as building
from boards.board import BoardError, Pll, Port, board_names, load_board, load_board_arch, parse_board, pin_constraints
from boards.build import CORE_FILE, SOURCES, SYSTEM_FILE, TOP_FILE, Plan, bridge_parameters, check_ports, plan
from boards.ecp5 import Step, TimingMissed, ToolError, read_report, run_step
from boards.ulx3s.system import Ulx3sSystem
from boards.ulx3s.wrapper import wrapper_verilog
from hw.rtl.common.axi import axi4_manager, axi_lite_subordinate
from hw.rtl.emit import EmittedVerilog, emit
from hw.spec.deform import DeformArch

BOARD = load_board("ulx3s")
REPOSITORY = Path(__file__).resolve().parents[2]


def test_description() -> None:
    arch = load_board_arch("ulx3s")
    assert "ulx3s" in board_names() and BOARD.clock_hz % 1_000_000 == 0 and BOARD.timing.error < 0.01
    assert isinstance(arch, DeformArch) and arch.managers == 1
    multipliers = arch.rows * arch.cells + 32 + 48
    assert multipliers <= 156 and arch.columns == 32


def test_constraints_name_every_port_bit_once() -> None:
    """Sites against the table of the board's public constraint files, written here a second time."""
    lines = pin_constraints(BOARD).splitlines()
    located = dict(re.match(r'LOCATE COMP "(.*)" SITE "(.*)";', line).groups() for line in lines if line.startswith("LOCATE"))
    leds = dict(zip((f"led[{i}]" for i in range(8)), "B2 C2 C1 D2 D1 E2 E1 H3".split(), strict=True))
    assert located == {
        "clk_25mhz": "G2", "ftdi_rxd": "L4", "ftdi_txd": "M1", "wifi_gpio0": "L2", "reset_button": "R1", **leds,
    }  # fmt: skip
    assert "L3" not in located.values()
    standards = [line for line in lines if line.startswith("IOBUF")]
    assert len(standards) == len(located) == 13 and all("IO_TYPE=LVCMOS33" in line for line in standards)
    assert 'FREQUENCY PORT "clk_25mhz" 25 MHZ;' in lines


def test_wrapper_has_exactly_the_constrained_ports() -> None:
    top = wrapper_verilog(BOARD, system="ulx3s_system", build_id=0x0123456789ABCDEF)
    check_ports(BOARD, top)
    assert "64'h0123456789abcdef" in top
    fewer = dataclasses.replace(BOARD, ports=BOARD.ports[:-1])
    with pytest.raises(BoardError, match=r"wifi_gpio0: top \(1, 'output'\), pins None"):
        check_ports(fewer, top)
    more = dataclasses.replace(BOARD, ports=(*BOARD.ports, Port(name="txden", sites=("L3",), direction="output")))
    with pytest.raises(BoardError, match="txden"):
        check_ports(more, top)
    without_pll = wrapper_verilog(dataclasses.replace(BOARD, pll=None), system="ulx3s_system", build_id=0)
    assert "EHXPLLL" not in without_pll and "assign clk = clk_25mhz" in without_pll


def test_refused_descriptions() -> None:
    with pytest.raises(BoardError, match=r"board must be one of .*ulx3s.*, not 'ulx4s'"):
        load_board("ulx4s")
    with pytest.raises(BoardError, match=r"oscillator must run at 400\.\.800 MHz, not 100"):
        Pll(input_divider=1, feedback_divider=2, output_divider=2).output_hz(25_000_000)
    with pytest.raises(BoardError, match="whole number of hertz"):
        Pll(input_divider=3, feedback_divider=2, output_divider=30).output_hz(25_000_000)
    with pytest.raises(BoardError, match="has no entry 'name'"):
        parse_board({})
    with pytest.raises(BoardError, match=r"site must belong to one port only; \['G2'\]"):
        dataclasses.replace(BOARD, ports=(*BOARD.ports, Port(name="x", sites=("G2",), direction="input")))
    with pytest.raises(BoardError, match="must be 1, not 2"):
        plan(BOARD, DeformArch(managers=2, region_manager=(0, 0, 1, 1)))


def test_system_instantiates_the_proven_module() -> None:
    """The core is no part of the system's text: its file alone is what a design record names."""
    system = emit(Ulx3sSystem(core="deform_core", bridge=bridge_parameters(BOARD)), "ulx3s_system")
    assert re.search(r"^  deform_core core \($", system.text, re.MULTILINE) and "module deform_core" not in system.text
    instance = re.search(r"deform_core core \((.*?)\);", system.text, re.DOTALL)[1]
    connected = set(re.findall(r"\.(\w+)\(", instance))
    buses = {"s_axi": axi_lite_subordinate(), "m_axi_0": axi4_manager()}
    pins = {f"{prefix}__{name}" for prefix, signature in buses.items() for name in signature.members}
    assert connected == {"clk", "rst", "build_id"} | pins and len(pins) > 50
    assert {port.name for port in system.ports} == {"clk", "rst", "build_id", "uart_rx", "uart_tx", "led"}


def _plan(**changes: Any) -> Plan:
    files = {CORE_FILE: "a", SYSTEM_FILE: "b", TOP_FILE: "c", "synthesis.ys": "d", "ulx3s.lpf": "e"} | changes
    return Plan(board=BOARD, arch=load_board_arch("ulx3s"), build_id=0, files=files, tools={"yosys": "1"})


def test_digest_depends_on_every_text_and_tool() -> None:
    digests = {_plan().digest, dataclasses.replace(_plan(), tools={"yosys": "2"}).digest}
    digests |= {_plan(**{name: "changed"}).digest for name in _plan().files}
    digests.add(dataclasses.replace(_plan(), board=dataclasses.replace(BOARD, speed=8)).digest)
    assert len(digests) == 8 and _plan().digest == _plan().digest and list(_plan().sources) == list(SOURCES)


def _report(achieved: float) -> str:
    hop = {"delay": 1.5, "type": "routing", "from": {}, "to": {"cell": "core.sum", "port": "D"}}
    return json.dumps({
        "fmax": {"clk": {"achieved": achieved, "constraint": BOARD.clock_hz / 1e6}},
        "utilization": {"MULT18X18D": {"used": 150, "available": 156}, "DCUA": {"used": 0, "available": 2}},
        "critical_paths": [{"from": "posedge clk", "to": "posedge clk", "path": [hop]}],
    })  # fmt: skip


def test_a_missed_clock_fails_in_words(tmp_path: Path) -> None:
    wanted = BOARD.clock_hz / 1e6
    (tmp_path / "report.json").write_text(_report(wanted + 3.456))
    routed = read_report(tmp_path / "report.json", BOARD)
    assert routed.frequency_mhz == round(wanted + 3.456, 2) and routed.utilisation == {"MULT18X18D": (150, 156)}
    (tmp_path / "report.json").write_text(_report(wanted - 0.5))
    with pytest.raises(TimingMissed, match=rf"runs at {wanted - 0.5:.1f} MHz and the board's clock is {wanted:g} MHz") as error:
        read_report(tmp_path / "report.json", BOARD)
    assert "1.50 ns routing to core.sum.D" in str(error.value)


def test_a_failing_tool_shows_its_log(tmp_path: Path) -> None:
    step = Step(name="synthesis", run="runpy.run_path", arguments=("nothing",), watch=lambda: lambda line: None)
    told: list[tuple[str, int, int]] = []
    with pytest.raises(ToolError, match=r"synthesis failed; whole log: .*synthesis\.txt"):
        run_step(step, tmp_path, lambda name, done, total, note: told.append((name, done, total)))
    assert told == [("synthesis", 0, 1)] and "Error" in (tmp_path / "synthesis.txt").read_text()


def test_build_asks_the_gate_with_the_verilog_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal ends the build before any tool runs, and leaves the core's file to be proven."""

    class Refused(Exception):
        pass

    def admit(verilog: Path, arch: DeformArch) -> Any:
        assert verilog == tmp_path / CORE_FILE and verilog.read_text() == "module deform_core" and arch == load_board_arch("ulx3s")
        raise Refused

    stub = EmittedVerilog(text="module deform_core", sha256="", name="deform_core", ports=(), watches=())
    monkeypatch.setattr(building, "core_verilog", lambda board, arch, say: stub)
    with pytest.raises(Refused):
        building.build("ulx3s", tmp_path, admit=admit)
    assert [path.name for path in tmp_path.iterdir()] == [CORE_FILE]
