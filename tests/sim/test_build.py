"""Binding and building: the port contract, the cache, the corrected Verilator root, errors that say what to do."""

import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hw.rtl.emit import EmittedVerilog
from hw.sim.binding import ContractError, bind
from hw.sim.build import BuildError, build_simulation
from hw.sim.cache import cache_root, cached_folder, drop_oldest

REPOSITORY = Path(__file__).resolve().parents[2]


def test_binding_of_the_engine(engine_verilog):
    binding = bind(engine_verilog)
    assert (binding.top, binding.managers, binding.spaces) == ("copy_engine", 1, ("fm",))


def test_contract_lists_every_difference(engine_verilog):
    text = engine_verilog.text
    for old, new in (
        ("  output irq;", "  output interrupt;"),
        ("  input [63:0] build_id;", "  input [31:0] build_id;"),
        ("  output m_axi_0__wlast;", "  input m_axi_0__wlast;"),
        ("  wire [31:0] watch_fm__addr;", "  wire [5:0] watch_fm__addr;"),
    ):
        assert old in text
        text = text.replace(old, new, 1)  # the top module comes first
    with pytest.raises(ContractError) as caught:
        bind(EmittedVerilog.from_text(text, "copy_engine"))
    for words in (
        "irq is missing (must be an output of 1 bits)",
        "interrupt is not known",
        "build_id must be an input of 64 bits, not an input of 32 bits",
        "m_axi_0__wlast must be an output of 1 bits, not an input of 1 bits",
        "watch_fm__addr must be a net of 32 bits, not a net of 6 bits",
    ):
        assert words in str(caught.value)
    assert str(caught.value).count(";") == 4


def test_second_build_is_the_first(engine_verilog, engine_build, random_build):
    again = build_simulation(engine_verilog)
    assert again.cached and again.library == engine_build.library and again.library.is_file()
    assert random_build.library != engine_build.library
    assert engine_build.verilog_sha256 == engine_verilog.sha256
    assert sorted(path.name for path in again.library.parent.iterdir()) == [
        "build.log",
        "copy_engine.v",
        "design.h",
        "simulation.so",
        "watch.vlt",
    ]
    assert (again.library.parent / "copy_engine.v").read_text() == engine_verilog.text


def test_failed_build_shows_the_log_and_keeps_it(engine_verilog):
    broken = EmittedVerilog.from_text(
        engine_verilog.text.replace("always @(posedge clk)", "always @@(posedge clk)", 1), "copy_engine"
    )
    messages: list[str] = []
    with pytest.raises(BuildError, match=r"(?s)'copy_engine' could not be built.*syntax error") as caught:
        build_simulation(broken, progress=messages.append)
    log = Path(re.search(r"Whole log: (\S+\.log)\.", str(caught.value))[1])
    assert "syntax error" in log.read_text()
    assert len(messages) == 1 and "compiling the simulator of copy_engine" in messages[0]
    assert not (cache_root() / "simulation" / log.stem).exists()


def test_folder_is_made_once_by_many(tmp_path):
    made = []

    def make(folder):
        time.sleep(0.05)
        made.append(folder)
        (folder / "file").write_text("content")

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: cached_folder(tmp_path / "entry", make), range(8)))
    assert sorted(results) == [False] * 7 + [True]
    assert len(made) == 1 and (tmp_path / "entry" / "file").read_text() == "content"


def test_folder_that_could_not_be_made_leaves_nothing(tmp_path):
    (tmp_path / ".entry-left-over").mkdir()

    def fail(folder):
        (folder / "half").write_text("")
        raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        cached_folder(tmp_path / "entry", fail)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []


def test_oldest_folders_go(tmp_path):
    for age in range(6):
        cached_folder(tmp_path / f"entry{age}", lambda folder: None)
        os.utime(tmp_path / f"entry{age}", (1000 - age, 1000 - age))
    cached_folder(tmp_path / "entry5", lambda folder: None)  # used again
    drop_oldest(tmp_path, 3)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["entry0", "entry1", "entry5"]


def test_cache_path_with_spaces_is_refused(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/some where")
    with pytest.raises(ValueError, match=r"must have no spaces .* set XDG_CACHE_HOME"):
        cache_root()


def test_two_processes_make_one_verilator(tmp_path):
    code = "from hw.sim.verilator_root import verilator_root; print(verilator_root())"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    roots = {process.communicate()[0].strip() for process in both}
    assert len(roots) == 1
    root = Path(roots.pop())
    makefile = (root / "include" / "verilated.mk").read_text()
    assert "CFG_CXXFLAGS_PCH_I = -include\n" in makefile and "CXX = g++\n" in makefile
    assert "\nPYTHON3 = python\n" not in makefile and "/opt/rh" not in makefile
    config = (root / "include" / "verilated_config.h").read_text()
    assert re.search(r"VERILATOR_VERSION_INTEGER \d{6}\n", config)
    subprocess.run([root / "bin" / "verilator", "--version"], capture_output=True, check=True)
