"""A scenario of training: steps of a small network on the training core, with its state in the board's memory."""

from __future__ import annotations

import json

import numpy as np

from hw.sim.pynq.bitstream import write_bitstream
from hw.sim.pynq.device import SimulatedBoard
from hw.spec.training import Hyper
from hw.spec.training_program import TrainingProgram
from sw.runtime.pynq import open_pynq
from tests.pynq.case import Case, arrays, load_build
from tests.pynq.on_board import Result, scenario

MEMORY = 1 << 20


@scenario
def training(case: Case) -> Result:
    """State after each step, against what the graph has; counters of every program, against the simulated core's."""
    folder, build = case.folder, load_build(case.folder / "sat.json")
    path = write_bitstream(folder / "sat.bit", (folder / "sat.hwh").read_text(), verilog_sha256=build.verilog_sha256)
    program, compared, differing = TrainingProgram.load(folder / "training"), 0, 0
    counters = []
    with SimulatedBoard(build, memory_bytes=2 * MEMORY) as board, open_pynq(path, memory_bytes=MEMORY) as device:
        session = device.open_session(program, arrays(folder / "state0.npz"))
        steps = json.loads((folder / "hyper.json").read_text())
        for number, hyper in enumerate(steps, 1):
            batch = arrays(folder / f"batch{number}.npz")
            report = session.step((batch["images"], batch["labels"]), Hyper(**hyper))
            counters.append({name: launch.counters for name, launch in report.launches.items()})
            state, wanted = session.state(), arrays(folder / f"state{number}.npz")
            assert state.keys() == wanted.keys()
            compared += sum(array.size for array in wanted.values())
            differing += sum(int((state[n].view(np.uint32) != a.view(np.uint32)).sum()) for n, a in wanted.items())
        return {"compared": compared, "mismatches": differing, "counters": counters, "raised": board.controller.raised}
