"""What the tests compile and compute outside, as files for the environment with ``pynq``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hw.sim.binding import Binding
from hw.sim.build import SimulationBuild
from hw.spec.program import Program

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A folder with a simulator, a program, inputs and the outputs that the graph gives for them."""

    folder: Path
    build: SimulationBuild
    program: Program
    inputs: Arrays
    outputs: Arrays

    def save(self) -> None:
        save_build(self.folder / "build.json", self.build)
        self.program.save(self.folder / "program")
        for name in ("inputs", "outputs"):
            np.savez(self.folder / f"{name}.npz", **getattr(self, name))

    @staticmethod
    def load(folder: Path) -> Case:
        return Case(
            folder=folder,
            build=load_build(folder / "build.json"),
            program=Program.load(folder / "program"),
            inputs=arrays(folder / "inputs.npz"),
            outputs=arrays(folder / "outputs.npz"),
        )


def arrays(path: Path) -> Arrays:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def save_build(path: Path, build: SimulationBuild) -> None:
    """A simulator that has been built, for a process that cannot build one."""
    binding = {"top": build.binding.top, "managers": build.binding.managers, "watches": build.binding.watches}
    path.write_text(json.dumps({"library": str(build.library), "sha256": build.verilog_sha256, "binding": binding}))


def load_build(path: Path) -> SimulationBuild:
    found = json.loads(path.read_text())
    watches = tuple((space, lane) for space, lane in found["binding"].pop("watches"))
    return SimulationBuild(
        library=Path(found["library"]), binding=Binding(watches=watches, **found["binding"]), verilog_sha256=found["sha256"],
        random_state=True, cached=True,
    )  # fmt: skip
