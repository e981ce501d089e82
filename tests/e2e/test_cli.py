"""The command as users meet it: artefacts, JSON, exit codes, and one clear line for every mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hw.spec.program import Program
from sw.cli import app
from tests.e2e.tiny import ARCH, Tiny

MODEL = """
import torch
from torch import nn

def good():
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))

def bad():
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding_mode="reflect"), nn.PReLU(), nn.ConvTranspose2d(16, 16, 2), nn.GroupNorm(4, 16))

def big():
    return nn.Sequential(nn.Conv2d(1, 256, 11), nn.ReLU(), nn.Conv2d(256, 32, 7), nn.ReLU())

def failing():
    raise KeyError("weights")

not_a_model = 3
"""


@pytest.fixture(scope="module")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    tiny.graph.save(folder / "tiny.graph")
    tiny.program.save(folder / "tiny.program")
    np.save(folder / "inputs.npy", tiny.inputs["image"])
    (folder / "arch.json").write_text(json.dumps(ARCH.to_dict()))
    (folder / "arch.toml").write_text("\n".join(f"{k} = {json.dumps(v)}" for k, v in ARCH.to_dict().items()))
    (folder / "models.py").write_text(MODEL)
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    (folder / "bad.toml").write_text("rowz = 3\n")
    damaged = bytearray((folder / "tiny.program").read_bytes())
    damaged[400] ^= 1
    (folder / "damaged.program").write_bytes(damaged)
    return folder


def call(folder: Path, *arguments: str) -> tuple[int, str, dict]:
    """Exit code, everything printed, and the JSON result."""
    named = [str(folder / a[1:]) if a.startswith("@") else a for a in arguments]
    result = CliRunner().invoke(app, [*named, "--json", str(folder / "result.json")], env={"COLUMNS": "200"})
    data = json.loads((folder / "result.json").read_text())
    assert data["ok"] == (result.exit_code == 0), result.output
    return result.exit_code, result.output, data


@pytest.mark.parametrize("arch", ["@arch.json", "@arch.toml"])
def test_compile_writes_the_program(folder: Path, tiny: Tiny, arch: str):
    code, output, data = call(folder, "compile", "@tiny.graph", "--arch", arch[0] + arch[1:], "-o", "@again.program")
    assert code == 0 and f"{tiny.program.instruction_count} instructions" in output
    assert Program.load(folder / "again.program").digest == tiny.program.digest == data["sha256"]
    assert data["macs"] == tiny.graph.macs() > 0


def test_a_program_on_windows_runs_and_verifies(folder: Path, tiny: Tiny):
    code, _, data = call(folder, "compile", "@tiny.graph", "--arch", "@arch.toml", "--windows", "-o", "@windows.program")
    assert code == 0 and set(data["windows"]) == {"image"} and data["windows"]["image"]["rows"] == 3
    code, _, data = call(folder, "run", "@windows.program", "--inputs", "@inputs.npy", "-o", "@out.npy")
    assert code == 0 and np.array_equal(np.load(folder / "out.npy"), tiny.graph(tiny.inputs)["head"])
    verify = ("verify", "--graph", "@tiny.graph", "--program", "@windows.program", "--inputs", "@inputs.npy", "--images", "1")
    code, _, data = call(folder, *verify, "--interpreter-only")
    assert code == 0 and data["links"]["ops_machine"]["compared"] > 100


def test_run_gives_the_graphs_codes(folder: Path, tiny: Tiny):
    code, _, data = call(folder, "run", "@tiny.program", "--inputs", "@inputs.npy", "-o", "@out.npy")
    assert code == 0 and data["counters"]["RETIRED"] == 4 * tiny.program.instruction_count
    assert np.array_equal(np.load(folder / "out.npy"), tiny.graph(tiny.inputs)["head"])


def test_list_prints_every_instruction(folder: Path, tiny: Tiny):
    code, output, data = call(folder, "list", "@tiny.program")
    assert code == 0 and data["instructions"] == tiny.program.instruction_count
    assert all(layer in output for layer in set(tiny.program.layers))


def test_check_lists_every_unsupported_layer_with_its_place(folder: Path):
    code, output, data = call(folder, "check", f"{folder}/models.py:bad")
    assert code == 1 and [p["place"] for p in data["problems"]] == ["0", "1", "2", "3"]
    assert "4 unsupported of 4 layers" in output and all(p["reason"] in output for p in data["problems"])


def test_check_goes_on_to_compile_where_a_shape_is_given(folder: Path):
    code, output, data = call(folder, "check", f"{folder}/models.py:good", "--input-shape", "1,1,8,8")
    assert code == 0 and data["stages"] == ["quantise", "compile"]
    assert "models.py:good: can be quantised and compiles" in output  # and no picture for ":good:"
    code, output, data = call(folder, "check", f"{folder}/models.py:big", "--input-shape", "1,1,24,24")
    assert code == 1 and {p["stage"] for p in data["problems"]} == {"compile"} and data["problems"][0]["advice"] in output


def test_check_takes_a_graph(folder: Path, tiny: Tiny):
    code, output, data = call(folder, "check", "@tiny.graph", "--arch", "@arch.json")
    assert code == 0 and data["layers"] == len(tiny.graph.nodes) and "compiles" in output


MISTAKES = {
    "no such file": (("run", "@nothing", "--inputs", "@inputs.npy"), "No such file"),
    "damaged program": (("list", "@damaged.program"), "damaged or truncated (CRC-32 differs); compile it again"),
    "a graph is no program": (("list", "@tiny.graph"), "is not a Bitloom program file"),
    "a program is no graph": (("check", "@tiny.program"), "is not a usable integer graph"),
    "unknown device": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--device", "abacus"), "must be one of interpreter, sim"),
    "bitstream of no board": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--device", "uart", "--without-proof", "--bitstream",
                               "a.bit"), "--device must be pynq where --bitstream is given, not uart"),
    "card of no bus": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--card", "1"), "--device must be xdma where --card"),
    "board without bitstream": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--device", "pynq", "--without-proof"),
                                "--device pynq needs the board's bitstream: give --bitstream"),
    "no such bitstream": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--device", "pynq", "--without-proof", "--bitstream",
                           "none.bit"), "none.bit is not there: PYNQ needs a .bit file"),
    "no such card": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--device", "xdma", "--without-proof", "--card", "31"),
                     "there is no such node"),
    "port of no line": (("run", "@tiny.program", "--inputs", "@inputs.npy", "--port", "ttyUSB0"), "--device must be uart where --port"),
    "inputs that are none": (("run", "@tiny.program", "--inputs", "@models.py"), "is not a .npy or .npz file"),
    "unknown architecture parameter": (("compile", "@tiny.graph", "-o", "@x", "--arch", "@bad.toml"), "no parameter ['rowz']"),
    "no factory": (("check", "@models.py:missing"), "has no 'missing'; it has"),
    "no name": (("check", "@models.py"), "FILE.py:NAME"),
    "not a model": (("check", "@models.py:not_a_model"), "must give a torch.nn.Module"),
    "a factory that fails": (("check", "@models.py:failing"), "raised KeyError"),
    "a file that does not import": (("check", "@broken.py:model"), "nothing_of_this_name"),
    "a shape that is none": (("check", "@models.py:good", "--input-shape", "8x8"), "such as 1,3,32,32"),
    "a shape that does not fit": (("check", "@models.py:good", "--input-shape", "1,3,8,8"), "does not run on an input"),
    "no images": (("verify", "--graph", "@tiny.graph", "--program", "@tiny.program", "--inputs", "@inputs.npy", "--images", "0"),
                  "must be at least 1"),
    "no Verilog": (("verify", "--graph", "@tiny.graph", "--program", "@tiny.program", "--inputs", "@inputs.npy",
                    "--rtl", "@core.v"), "write one with 'bitloom emit'"),
    "not this Verilog": (("verify", "--graph", "@tiny.graph", "--program", "@tiny.program", "--inputs", "@inputs.npy",
                          "--rtl", "@models.py"), "cannot be simulated as a deform core"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(folder: Path, mistake: str):
    arguments, words = MISTAKES[mistake]
    code, output, data = call(folder, *arguments)
    assert code == 1 and words in output and words in data["error"] and "Traceback" not in output


def test_a_pipe_gets_plain_text(folder: Path):
    command = [sys.executable, "-m", "sw.cli", "check", f"{folder}/models.py:bad"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 1 and "\x1b" not in done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 6 and "Traceback" not in done.stderr
