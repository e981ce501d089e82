"""The Ultra96-V2's notebook on the real ``pynq`` package and a simulated board; runs in the environment that has the package.

``main(folder)`` runs the cells in that folder, which holds what the notebook asks for, and writes result.json there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from hw.sim.pynq.bitstream import write_bitstream
from hw.sim.pynq.device import SimulatedBoard
from hw.spec.records import DESIGN_FILE, DesignRecord
from sw.runtime.placement import MEMORY_BYTES
from tests.notebooks.cells import run_cells
from tests.pynq.case import load_build


def main(folder: Path) -> None:
    build = load_build(folder / "build.json")
    write_bitstream(folder / "ultra96v2.bit", (folder / "board.hwh").read_text(), verilog_sha256=build.verilog_sha256)
    os.chdir(folder)
    record = DesignRecord.load(folder / DESIGN_FILE)
    with SimulatedBoard(build, build_id=record.build_id, memory_bytes=2 * MEMORY_BYTES):
        printed, shown = run_cells("ultra96v2", folder)
    (folder / "result.json").write_text(json.dumps({"printed": printed, "shown": shown}))
