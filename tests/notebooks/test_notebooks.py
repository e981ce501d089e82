"""Every notebook runs as it is: against the simulator, a simulated PYNQ board and a simulated card; and is kept without outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
from matplotlib.image import imread
from nbclient import NotebookClient

from boards.vivado.board import load_vivado_board
from boards.vivado.hwh import hwh_text
from hw.sim.core import build_core
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE
from hw.spec.training_program import TrainingProgram
from sw.compiler.training import compile_training
from sw.runtime import xdma
from sw.runtime.sim import SimDevice
from tests.e2e.tiny import ARCH, make_tiny
from tests.environments import ROOT, NoEnvironment
from tests.notebooks.cells import FOLDER, run_cells
from tests.pynq.case import save_build
from tests.pynq.environment import NEWEST, environment, run_main
from tests.runtime.tiny_runs import proof_of, training_proof_of
from tests.runtime.xdma_cores import VerilatedCore
from tests.runtime.xdma_nodes import SimulatedNodes
from tests.sat.small_graphs import random_batch, residual_network
from tests.sat.test_training_rtl import SMALLEST

NAMES = ("simulator", "ultra96v2", "vcu1525")
COMPARED = re.compile(r"([\d,]+) (?:numbers|scores) compared, (\d+) differ")


def compared(printed: str) -> int:
    """How many numbers a notebook says it compared; none may differ."""
    found = COMPARED.search(printed)
    assert found and found[2] == "0", printed
    return int(found[1].replace(",", ""))


def check_pictures(folder: Path, name: str, count: int) -> None:
    for number in range(1, count + 1):
        assert imread(folder / f"{name}-{number}.png")[..., :3].std() > 0.02


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_whole_and_has_no_outputs(name: str) -> None:
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5 and all(not cell.outputs and cell.execution_count is None for cell in code)
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(NAMES)


def test_the_simulators_notebook(tmp_path: Path) -> None:
    """In a kernel of its own, as Jupyter runs it."""
    notebook = nbformat.read(FOLDER / "simulator.ipynb", as_version=4)
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": str(ROOT)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert compared(printed) == 80
    accuracy = re.search(r"float (\d+\.\d+)%, fixed point (\d+\.\d+)%", printed)
    assert accuracy and min(float(value) for value in accuracy.groups()) > 90
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_the_boards_notebook(tmp_path: Path) -> None:
    """With the real package; the design's records are those that its gate asks for."""
    try:
        environment(NEWEST)
    except NoEnvironment as reason:
        pytest.skip(f"NOT TESTED with pynq {NEWEST.version}: {reason}")
    tiny = make_tiny(3)
    tiny.program.save(tmp_path / "digits.program")
    tiny.graph.save(tmp_path / "digits.graph")
    np.save(tmp_path / "inputs.npy", tiny.inputs["image"])
    np.save(tmp_path / "labels.npy", np.array([1, 2, 3]))
    proof = proof_of(tiny)
    proof.design.save(tmp_path / DESIGN_FILE)
    proof.program.save(tmp_path / PROGRAM_FILE)
    save_build(tmp_path / "build.json", build_core(ARCH))
    (tmp_path / "board.hwh").write_text(hwh_text(load_vivado_board("ultra96v2"), ARCH))
    run_main(NEWEST, "tests.notebooks.on_board", tmp_path)
    result = json.loads((tmp_path / "result.json").read_text())
    assert compared(result["printed"]) == 30 and result["shown"] == 2
    check_pictures(tmp_path, "ultra96v2", 2)


def test_the_cards_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost in the third step and run again, it goes on from the saved state to the same weights."""
    graph, build = residual_network((2, 8), size=4), build_core(SMALLEST)
    compile_training(graph, SMALLEST).save(tmp_path / "digits.training")
    graph.save(tmp_path / "digits.traingraph")
    parts = {part: [random_batch(graph, seed) for seed in seeds] for part, seeds in (("train", range(4)), ("test", (9,)))}
    proof = training_proof_of(TrainingProgram.load(tmp_path / "digits.training"))
    proof.design.save(tmp_path / DESIGN_FILE)
    proof.program.save(tmp_path / PROGRAM_FILE)
    np.savez(tmp_path / "digits.npz", **{
        f"{part}_{what}": np.concatenate([batch[i] for batch in batches])
        for part, batches in parts.items() for i, what in enumerate(("images", "labels"))
    })  # fmt: skip
    monkeypatch.chdir(tmp_path)
    own = {"memory_base": 0, "memory_bytes": 1 << 20, "state_seed": 2, "build_id": proof.design.build_id}
    with SimDevice(SMALLEST, build=build, **own) as device:
        nodes = SimulatedNodes(VerilatedCore(device))
        monkeypatch.setattr(xdma, "SystemCalls", lambda: nodes)
        starts = 0

        def die_in_the_third_step(call) -> None:
            nonlocal starts
            starts += call.kind == "pwrite" and "user" in call.node
            if starts == 200:
                nodes.die()

        nodes.meddle = die_in_the_third_step
        with pytest.raises(xdma.DeviceLost, match="goes on from its last saved state"):
            run_cells("vcu1525", tmp_path)
        with np.load(tmp_path / "state.npz") as saved:
            assert 1 <= len(saved["losses"]) < 4
        nodes.meddle = lambda call: None
        nodes.replace()
        printed, shown = run_cells("vcu1525", tmp_path)
        assert compared(printed) > 2000 and shown == 2 and "step 4: loss" in printed
        check_pictures(tmp_path, "vcu1525", 2)
        printed, shown = run_cells("vcu1525", tmp_path)  # all steps are made: it only infers and compares
        assert compared(printed) > 2000 and shown == 2 and "step" not in printed
        with np.load(tmp_path / "state.npz") as file:
            others = {name: file[name] for name in file.files} | {"program": "ab" * 32}
        np.savez(tmp_path / "state.npz", **others)
        with pytest.raises(AssertionError, match=r"state\.npz is of another program \(abababababab\): move it away"):
            run_cells("vcu1525", tmp_path)
