"""Makes the case outside, runs all scenarios inside an environment, and hands out what they found."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boards.vivado.board import load_vivado_board
from boards.vivado.hwh import hwh_text
from hw.sim.core import build_core
from hw.spec.training import Hyper
from sw.compiler.training import compile_training
from sw.runtime import open_device
from sw.sparse import ordered_products
from tests.e2e.tiny import ARCH, make_tiny
from tests.pynq.case import Case, save_build
from tests.pynq.environment import Release, run_main
from tests.runtime.tiny_runs import proof_of
from tests.sat.small_graphs import random_batch, residual_network
from tests.sat.test_training_rtl import SMALLEST

Counters = dict[str, int]
BOARD = load_vivado_board("ultra96v2")
IMAGES, STEPS = 3, 2
HYPER = Hyper(learning_rate=0.05, weight_decay=1e-4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Results by scenario, and what the simulated core counted for the same programs."""

    results: dict[str, dict[str, Any]]
    counters: Counters
    training_counters: list[dict[str, Counters]]


def prepare(release: Release, folder: Path) -> Prepared:
    """NoEnvironment where there is none for the release."""
    counters, training_counters = _inference(folder), _training(folder)
    run_main(release, "tests.pynq.on_board", folder)
    results = json.loads((folder / "results.json").read_text())
    return Prepared(results=results, counters=counters, training_counters=training_counters)


def _inference(folder: Path) -> Counters:
    """A program with inputs and outputs; the counters are those of the simulated core."""
    tiny, build = make_tiny(IMAGES), build_core(ARCH)
    case = Case(folder=folder, build=build, program=tiny.program, inputs=tiny.inputs, outputs=tiny.graph(tiny.inputs))
    case.save()
    hwh = hwh_text(BOARD, ARCH)
    (folder / "board.hwh").write_text(hwh)
    (folder / "straight.hwh").write_text(hwh.replace("axi_intc", "a_wire"))  # no controller: PYNQ sees no interrupt
    proof = proof_of(tiny)
    proof.design.save(folder / "design.json")
    proof.program.save(folder / "program.json")
    with open_device("sim", arch=ARCH, build=build) as device:
        outputs, counters = device.run(tiny.program, tiny.inputs)
    assert all(np.array_equal(outputs[name], codes) for name, codes in case.outputs.items())
    return counters


def _training(folder: Path) -> list[dict[str, Counters]]:
    """A training program with batches and the graph's state after each; the counters are those of the simulated core."""
    graph, build = residual_network((2, 8), size=4), build_core(SMALLEST)
    program, state, found = compile_training(graph, SMALLEST), graph.state, []
    program.save(folder / "training")
    save_build(folder / "sat.json", build)
    (folder / "sat.hwh").write_text(hwh_text(BOARD, SMALLEST))
    (folder / "hyper.json").write_text(json.dumps([asdict(HYPER)] * STEPS))
    np.savez(folder / "state0.npz", **state.arrays())
    with open_device("sim", arch=SMALLEST, build=build) as device:
        session = device.open_session(program, state.arrays())
        for number in range(1, STEPS + 1):
            images, labels = random_batch(graph, number)
            state = graph.step(state, images, labels, HYPER, ordered_products()).state
            np.savez(folder / f"batch{number}.npz", images=images, labels=labels)
            np.savez(folder / f"state{number}.npz", **state.arrays())
            report = session.step((images, labels), HYPER)
            found.append({name: launch.counters for name, launch in report.launches.items()})
    return found
