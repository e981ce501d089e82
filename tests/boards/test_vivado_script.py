"""build.tcl from end to end against recorders: steps, results, and everything that must stop it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from boards.vivado.board import VivadoBoard, load_vivado_arch, load_vivado_board
from boards.vivado.project import project_files
from tests.boards.vivado_stub import Session, run_tcl

GOOD = {
    "PROGRESS": "100%", "STATUS": "{write_bitstream Complete!}", "STATS.WNS": "0.101", "STATS.WHS": "0.010", "STATS.TPWS": "0.5",
    "CONFIG.PSU__CRL_APB__PL0_REF_CTRL__ACT_FREQMHZ": "249.997498",
}  # fmt: skip
STEPS = ["package 1/6", "design 2/6", "synthesis 3/6", "implementation 4/6", "checks 5/6", "bitstream 6/6"]


def _build(folder: Path, board: VivadoBoard, *, log: str = "", core: bool = True, **variables: str) -> Session:
    files = project_files(board, load_vivado_arch(board.name), build_id=1)
    for name, text in files.items():
        (folder / name).write_text(text)
    if core:
        (folder / "core.v").write_text("module core; endmodule\n")
    if log is not None:
        (folder / "vivado.log").write_text(log)
    pins = dict(re.findall(r"^  \{(\S+)\} (\w+)$", files["pins.tcl"], re.MULTILINE))
    values = {
        "parts": board.part, "ports": " ".join(f"{{{port}}}" for port in pins), "interfaces": "s_axi m_axi_0 aclk host_clk aresetn irq",
        "placed": " ".join(f"{{{port}}} {site}" for port, site in pins.items()), "answers": _answers(),
    }  # fmt: skip
    return run_tcl(folder, "build.tcl", **values | variables)


def _answers(**changes: str) -> str:
    return " ".join(f"{key} {value}" for key, value in {**GOOD, **changes}.items())


def _steps(session: Session) -> list[str]:
    return re.findall(r"^BITLOOM STEP (.*)$", session.output, re.MULTILINE)


@pytest.mark.parametrize("name", ["ultra96v2", "vcu1525", "u200"])
def test_a_build(name: str, tmp_path: Path) -> None:
    board = load_vivado_board(name)
    session = _build(tmp_path, board)
    assert session.error is None and _steps(session) == STEPS and session.output.strip().endswith(f"BITLOOM DONE {name}.bit")
    made = [f"{name}.bit", "timing.rpt", "utilization.rpt", "messages.rpt"] + ([f"{name}.hwh"] if board.kind == "zynq" else [])
    assert all((tmp_path / file).is_file() for file in made)
    assert (tmp_path / f"{name}.hwh").exists() == (board.kind == "zynq")
    assert all(board.part in call for call in session.of("create_project")) and len(session.of("create_project")) == 2
    order = [call[0] for call in session.calls]
    wanted = ["ipx::package_project", "ipx::save_core", "close_project", "create_bd_design", "save_bd_design", "make_wrapper",
              "launch_runs", "open_run", "report_timing_summary", "write_bitstream"]  # fmt: skip
    places = [order.index(command) for command in wanted]
    assert places == sorted(places) and [call[0] for call in session.of("launch_runs")] == ["synth_1", "impl_1"]
    assert ["ip_repo_paths", str(tmp_path / "ip"), "project"] in session.of("set_property")


def test_the_board_file_replaces_the_pin_table(tmp_path: Path) -> None:
    board = load_vivado_board("vcu1525")
    added = [call[-1] for call in _build(tmp_path, board).of("add_files")]
    assert added[-2:] == ["constraints.xdc", "memory_pins.xdc"]
    session = _build(tmp_path, board, board_parts="xilinx.com:vcu1525:part0:1.3 xilinx.com:vcu1525:part0:1.10 other:vcu1525:part0:2")
    assert [call[-1] for call in session.of("add_files")][-1] == "constraints.xdc" and session.error is None
    assert ["board_part", "xilinx.com:vcu1525:part0:1.10", "project"] in session.of("set_property")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"STATS.WNS": "-0.001"}, "timing is missed: set-up slack (WNS) is -0.001 ns"),
        ({"STATS.WHS": "-0.2"}, "timing is missed: hold slack (WHS) is -0.2 ns"),
        ({"STATS.TPWS": "-0.2"}, "timing is missed: pulse width slack (TPWS)"),
        ({"STATS.WNS": "{}"}, "the implemented design has no WNS: nothing was timed"),
        ({"PROGRESS": "50%", "STATUS": "{synth_design ERROR}"}, "synth_1 ended at 50% with 'synth_design ERROR'"),
    ],
)
def test_what_stops_a_build(changes: dict[str, str], words: str, tmp_path: Path) -> None:
    """No bitstream is written then, and one of an earlier build is gone."""
    (tmp_path / "ultra96v2.bit").write_text("old")
    (tmp_path / "ultra96v2.hwh").write_text("old")
    session = _build(tmp_path, load_vivado_board("ultra96v2"), answers=_answers(**changes))
    assert session.error is not None and words in session.error and "BITLOOM: " in session.error
    assert not (tmp_path / "ultra96v2.bit").exists() and not (tmp_path / "ultra96v2.hwh").exists()
    assert not session.of("write_bitstream") and "DONE" not in session.output


CRITICAL = "CRITICAL WARNING: [Vivado 12-4739] set_false_path: no valid object\n"


@pytest.mark.parametrize("where", ["session", "synth_1", "impl_1"])
def test_critical_warnings_stop_a_build_wherever_they_stand(where: str, tmp_path: Path) -> None:
    board = load_vivado_board("ultra96v2")
    runs = {name: CRITICAL if name == where else "WARNING: [A 1-1] nothing\n" for name in ("synth_1", "impl_1")}
    logs = " ".join(f"{name} {{{text}}}" for name, text in runs.items())
    session = _build(tmp_path, board, log=CRITICAL if where == "session" else "INFO: [A 1-2] nothing\n", logs=logs)
    assert session.error is not None and "set_false_path: no valid object" in session.error and not session.of("write_bitstream")
    assert "CRITICAL WARNING: 1" in (tmp_path / "messages.rpt").read_text()
    allowed = dataclasses.replace(board, allowed_critical={"Vivado 12-4739": "a reason"})
    assert _build(tmp_path, allowed, log=CRITICAL if where == "session" else "", logs=logs).error is None
    other = dataclasses.replace(board, allowed_critical={"Vivado 12-473": "another"})
    assert _build(tmp_path, other, log=CRITICAL if where == "session" else "", logs=logs).error is not None


def test_a_port_at_another_pin_stops_a_build(tmp_path: Path) -> None:
    board = load_vivado_board("vcu1525")
    session = _build(tmp_path, board, ports="{ddr4_c0_dq[5]}", placed="{ddr4_c0_dq[5]} BA29")
    assert session.error is None
    session = _build(tmp_path, board, ports="{ddr4_c0_dq[5]}", placed="{ddr4_c0_dq[5]} BB29")
    assert session.error is not None and "port ddr4_c0_dq[5] lies at 'BB29', and the board has it at BA29" in session.error
    session = _build(tmp_path, board, ports="ghost", placed="ghost BB29")
    assert session.error is not None and "a port ghost that the board has no pin for" in session.error
    one_bit = _build(tmp_path, board, ports="{pcie_refclk_clk_p[0]}", placed="{pcie_refclk_clk_p[0]} AM11")
    assert one_bit.error is None


def test_before_anything_runs(tmp_path: Path) -> None:
    board = load_vivado_board("ultra96v2")
    without_core = _build(tmp_path, board, core=False)
    assert without_core.error is not None and "there is no core.v" in without_core.error and without_core.calls == []
    without_part = _build(tmp_path, board, parts="xc7z020clg400-1")
    assert without_part.error is not None and "has no part xczu3eg-sbva484-1-i" in without_part.error and without_part.calls == []


def test_a_log_elsewhere_stops_a_build(tmp_path: Path) -> None:
    """Without the session's log critical warnings could not be seen."""
    session = _build(tmp_path, load_vivado_board("ultra96v2"), log=None)  # type: ignore[arg-type]
    assert session.error is not None and "there is no vivado.log" in session.error and not session.of("launch_runs")


def test_a_core_that_was_packaged_wrongly_stops_a_build(tmp_path: Path) -> None:
    session = _build(tmp_path, load_vivado_board("ultra96v2"), integrity="0")
    assert session.error is not None and "packaged core is not whole" in session.error
    session = _build(tmp_path, load_vivado_board("vcu1525"), interfaces="s_axi m_axi_0 aclk aresetn irq")
    assert session.error is not None and "the packager found no interface host_clk" in session.error
