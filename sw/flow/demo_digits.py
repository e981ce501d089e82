"""`bitloom demo digits`: train a small network in fixed point, compile it, run it on the simulated core, compare every number.

Building the simulator and proving the core take place in a second process, beside training and verification, which keep one
processor busy.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.markup import escape

from hw.spec.deform import DeformArch
from hw.spec.program import Program, write_atomically
from hw.spec.records import DESIGN_FILE, PROGRAM_FILE, DesignRecord, ProgramRecord
from sw.compiler import compile_graph
from sw.flow.chain import Report
from sw.flow.commands import file_sha256, versions
from sw.flow.files import save_json
from sw.flow.gate import program_record
from sw.flow.layers import LayerCycles, layer_cycles
from sw.flow.prove_design import PROGRAMS, SEEDS, ProofFailure, prove_design
from sw.flow.verify import Simulation, power_up_and_stalls, verify
from sw.graph import IntegerGraph

if TYPE_CHECKING:
    from hw.rtl.emit import EmittedVerilog
    from hw.sim.build import SimulationBuild
    from sw.quant.train import Progress, TrainConfig, Trained

ARCH = DeformArch()
VARIANT_IMAGES = 4
"""Images that the Verilog computes again from another state, and again under stalls."""

Proven = DesignRecord | tuple[str, ...]
"""The design record, or what differed first in each check that failed."""


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Where progress goes: ``say`` a line, ``epoch`` of the training, ``images`` (step, done, total) of the comparison."""

    say: Callable[[str], None] = lambda words: None
    epoch: Callable[[Progress], None] = lambda progress: None
    images: Callable[[str, int, int], None] = lambda step, done, total: None


@dataclass(frozen=True, kw_only=True, eq=False)
class DigitsResult:
    """Everything that the demo found; ``images`` and ``labels`` are those that were verified.

    ``design`` is None where the core is not proven, ``design_failures`` say why; ``recorded`` is None where a link is not equal.
    """

    trained: Trained
    graph: IntegerGraph
    program: Program
    verilog: EmittedVerilog
    arch: DeformArch
    report: Report
    layers: tuple[LayerCycles, ...]
    codes: np.ndarray
    labels: np.ndarray
    trace: dict[str, np.ndarray]
    fixed_accuracy: float
    held_out: int
    seconds: float
    design: DesignRecord | None
    design_failures: tuple[str, ...]
    recorded: ProgramRecord | None

    @property
    def ok(self) -> bool:
        """Every link is equal and the core is proven."""
        return self.report.ok and self.design is not None

    @property
    def records(self) -> dict[str, DesignRecord | ProgramRecord]:
        """The records by the names of their files."""
        found: dict[str, DesignRecord | ProgramRecord | None] = {DESIGN_FILE: self.design, PROGRAM_FILE: self.recorded}
        return {name: record for name, record in found.items() if record is not None}

    @property
    def predictions(self) -> np.ndarray:
        """Classes (N,) that the simulated core gives; empty where it did not finish."""
        scores = self.report.rtl_outputs.get(self.graph.outputs[0])
        return np.zeros(0, np.int64) if scores is None else scores.reshape(len(scores), -1).argmax(axis=1)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON: ``cycles`` and ``macs`` are of one image, ``mac_utilisation`` of the whole array over all cycles."""
        whole = self.report.to_dict()
        macs, images = self.graph.macs(), self.report.images
        cycles = self.report.counters.get("CYCLES", 0)
        peak = cycles * self.arch.rows * self.arch.columns
        right = self.predictions == self.labels if len(self.predictions) else np.zeros(0, bool)
        return {
            **whole,
            "ok": self.ok,
            "records": {name: {"sha256": record.digest} for name, record in self.records.items()},
            "build_id": f"{self.design.build_id:016x}" if self.design else None,
            "design_failures": list(self.design_failures),
            "float_accuracy": self.trained.float_accuracy,
            "fixed_accuracy": self.fixed_accuracy,
            "held_out_images": self.held_out,
            "core_accuracy": float(right.mean()) if len(right) else None,
            "cycles": round(cycles / images),
            "total_cycles": cycles,
            "macs": macs,
            "mac_utilisation": macs * images / peak if peak else 0.0,
            "layers": [layer.to_dict() for layer in self.layers],
            "history": [asdict(epoch) for epoch in self.trained.history],
            "arch": self.arch.to_dict(),
            "versions": versions(),
            "seconds": self.seconds,
        }


def demo_digits(out: Path, *, images: int = 100, config: TrainConfig | None = None, tell: Tell | None = None) -> DigitsResult:
    """Run the whole chain and leave its artefacts in ``out``.

    Parameters
    ----------
    out : folder for graph, program, Verilog, inputs and labels, design record, program record, manifest.json and report.html
    images : held-out images to compare in the simulator, 1..450
    config : of the training; None takes the trainer's default
    """
    from sw.data.digits import load_digits

    tell, start = tell or Tell(), time.perf_counter()
    data = load_digits()
    if not 1 <= images <= len(data.test_labels):
        raise ValueError(f"the number of images must be in 1..{len(data.test_labels)}, not {images}")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        tell.say("building the simulator of the core beside the training, then proving the core")
        building, proving = pool.submit(_build, ARCH), pool.submit(_prove, ARCH, SEEDS, PROGRAMS)
        trained = _train(data, config, tell)
        graph, codes, trace = _export(trained, data.test_images)
        program = compile_graph(graph, ARCH)
        tell.say(f"compiled {len(graph.nodes)} layers to {program.instruction_count} instructions")
        verilog, build = _wait(building, tell)
        report = _verify(graph, program, codes, trace, images, build, tell)
        design, failures = _wait_for_proof(proving, tell)
    fixed = graph({graph.inputs[0]: codes})[graph.outputs[0]].reshape(len(codes), -1).argmax(axis=1)
    labels = data.test_labels.numpy()
    result = DigitsResult(
        trained=trained,
        graph=graph,
        program=program,
        verilog=verilog,
        arch=ARCH,
        report=report,
        layers=layer_cycles(program, graph, ARCH, report.times),
        codes=codes[:images],
        labels=labels[:images],
        trace={name: values[:images] for name, values in trace.items()},
        fixed_accuracy=float((fixed == labels).mean()),
        held_out=len(labels),
        seconds=time.perf_counter() - start,
        design=design,
        design_failures=failures,
        recorded=program_record(report, program, power_up_and_stalls(VARIANT_IMAGES)) if report.ok else None,
    )
    _write(out, result)
    return result


def _build(arch: DeformArch) -> tuple[EmittedVerilog, SimulationBuild]:
    """In a process of its own: elaborate, write Verilog, compile the simulator."""
    from hw.sim.build import build_simulation
    from hw.sim.core import emit_core

    verilog = emit_core(arch)
    return verilog, build_simulation(verilog, random_state=True)


def _wait(building: Future[tuple[EmittedVerilog, SimulationBuild]], tell: Tell) -> tuple[EmittedVerilog, SimulationBuild]:
    if not building.done():
        tell.say("waiting for the simulator")
    verilog, build = building.result()
    tell.say("the simulator was in the cache" if build.cached else "the simulator is built")
    return verilog, build


def _prove(arch: DeformArch, seeds: Sequence[int], programs: int) -> Proven:
    """In the same process, after :func:`_build` has put the simulator into the cache. Failures are plain text, to be handed on."""
    try:
        return prove_design(arch, seeds=seeds, programs=programs)
    except ProofFailure as error:
        return error.failures


def _wait_for_proof(proving: Future[Proven], tell: Tell) -> tuple[DesignRecord | None, tuple[str, ...]]:
    """The record, or why there is none."""
    if not proving.done():
        tell.say("waiting for the proof of the core")
    proven = proving.result()
    return (proven, ()) if isinstance(proven, DesignRecord) else (None, proven)


def _train(data: Any, config: TrainConfig | None, tell: Tell) -> Trained:
    from sw.data.digits import INPUT_FORMAT, augment
    from sw.models.shufflenet_digits import DigitsNet
    from sw.quant import Recipe
    from sw.quant.train import Trainer

    trainer = Trainer(DigitsNet, data, Recipe(input_format=INPUT_FORMAT), config, augment=augment, progress=tell.epoch)
    trained = trainer.run()
    assert trained is not None, "a training that is not told to stop runs to its end"
    return trained


def _export(trained: Trained, images: Any) -> tuple[IntegerGraph, np.ndarray, dict[str, np.ndarray]]:
    """The graph, the input codes of the held-out images, and the frozen model's codes of every tensor."""
    from sw.quant import codes_of, export

    graph = export(trained.model, images)
    trace = {name: codes.cpu().numpy() for name, codes in trained.model.trace(images).items()}
    return graph, codes_of(trained.model, images), trace


def _verify(
    graph: IntegerGraph,
    program: Program,
    codes: np.ndarray,
    trace: dict[str, np.ndarray],
    images: int,
    build: SimulationBuild,
    tell: Tell,
) -> Report:
    return verify(
        graph,
        program,
        {graph.inputs[0]: codes},
        torch_trace=trace,
        images=images,
        simulation=Simulation(build=build, variants=power_up_and_stalls(VARIANT_IMAGES)),
        progress=tell.images,
    )


def _write(out: Path, result: DigitsResult) -> None:
    """All artefacts, the report last but for the manifest, which names every other file's hash; no record of what is not proven."""
    from sw.flow.report_html import digits_page

    out.mkdir(parents=True, exist_ok=True)
    result.graph.save(out / "digits.graph")
    result.program.save(out / "digits.program")
    write_atomically(out / "core.v", result.verilog.text.encode())
    save_json(out / "arch.json", result.arch.to_dict())
    for name, array in (("inputs.npy", result.codes), ("labels.npy", result.labels)):
        with (out / name).open("wb") as file:
            np.save(file, array)
    write_atomically(out / "report.html", digits_page(result).encode())
    for name in (DESIGN_FILE, PROGRAM_FILE):
        (out / name).unlink(missing_ok=True)
    for name, record in result.records.items():
        record.save(out / name)
    names = ("digits.graph", "digits.program", "core.v", "arch.json", "inputs.npy", "labels.npy", "report.html", *result.records)
    files = {name: file_sha256(out / name) for name in names}
    save_json(out / "manifest.json", {"artefact": "demo digits", "files": files, "result": result.to_dict()})


def show_records(console: Console, out: Path, result: DigitsResult) -> None:
    """One line per record: where it is and what it holds; or why there is none."""
    lines = [f"the core is not proven, {words}" for words in result.design_failures]
    if result.design:
        programs = sum(check.compared.get("programs", 0) for check in result.design.checks)
        words = f"{len(result.design.checks)} checks, {programs:,} programs, {len(result.design.coverage)} coverage bins, 0 mismatches"
        lines.append(f"design record: {out / DESIGN_FILE}, build_id {result.design.build_id:016x}; {words}")
    if result.recorded:
        words = f"{len(result.recorded.links)} links, {result.recorded.images} images, 0 mismatches"
        lines.append(f"program record: {out / PROGRAM_FILE}; {words}")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
