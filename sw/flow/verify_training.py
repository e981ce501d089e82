"""Proves a training program: the chain of ``sw.flow.training_chain`` on the simulated core, from other states and under stalls too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.records import Check, TrainingRecord
from hw.spec.training import Hyper
from hw.spec.training_program import TrainingProgram
from sw.flow.commands import versions
from sw.flow.files import load_arrays
from sw.flow.link import Link
from sw.flow.predict import training_predictor
from sw.flow.training_chain import DIRT, Batch, TrainingReport, verify_training
from sw.flow.verify import Variant, power_up_and_stalls
from sw.kernels.products import ordered_products
from sw.runtime.interpreter import InterpreterDevice
from sw.training_graph import TrainingGraph

if TYPE_CHECKING:
    from hw.sim.build import SimulationBuild

HYPER = Hyper(learning_rate=0.03, momentum=0.9, weight_decay=5e-4, loss_scale=1024.0)
"""Of the steps that prove a program: it reads them from memory, as it does the images."""

STEPS = 3
"""Steps that are compared where nobody says how many."""

VARIANT_STEPS = 1
_MACHINE_SEED = 5
Progress = Callable[[str, int, int], None]
"""Told (what runs, steps done, steps in all)."""


@dataclass(frozen=True, kw_only=True)
class TrainingProof:
    """A training on graph, interpreter and, where there was one, core; ``variants`` are further runs of the core, by name."""

    program: TrainingProgram
    report: TrainingReport
    variants: Mapping[str, TrainingReport] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    verilog_sha256: str = ""
    """Of the core; empty where the interpreter alone ran."""
    cycles_per_second: float = 0.0
    """Simulated, of the first run."""

    @property
    def ok(self) -> bool:
        return self.report.ok and all(report.ok for report in self.variants.values())

    @property
    def first(self) -> list[str]:
        """The first differences in words."""
        return self.report.first + [f"{name}: {words}" for name, report in self.variants.items() for words in report.first]

    def record(self) -> TrainingRecord:
        """What lets the program run on a board; RecordError where a link differs, or the core did not run."""
        reports = (self.report, *self.variants.values())
        return TrainingRecord(
            program_sha256=self.program.digest,
            verilog_sha256=self.verilog_sha256,
            arch_id=self.program.arch.arch_id,
            graph_sha256=self.program.graph_sha256,
            steps=sum(len(report.losses) for report in reports),
            programs={name: sum(report.programs[name] for report in reports) for name in self.program.images},
            links=tuple(self._check(link, reports) for link in self.report.links.values()),
            tools=versions(),
        )

    def _check(self, link: Link, reports: Sequence[TrainingReport]) -> Check:
        """A link of the first run with what the variants add to it."""
        same = [report.links[link.name] for report in reports if link.name in report.links]
        mismatches = sum(each.mismatches for each in same)
        return Check(name=link.name, compared={link.unit: sum(each.compared for each in same)}, mismatches=mismatches, seeds=self.seeds)

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.report.to_dict(),
            "ok": self.ok,
            "first_mismatches": self.first,
            "variants": {name: report.to_dict()["links"] for name, report in self.variants.items()},
            "steps": len(self.report.losses),
            "hashes": {"program": self.program.digest, "graph": self.program.graph_sha256, "verilog": self.verilog_sha256},
        }


def prove_training(
    graph: TrainingGraph,
    program: TrainingProgram,
    batches: Sequence[Batch],
    hyper: Hyper,
    *,
    build: SimulationBuild | None,
    variants: Sequence[Variant] = (),
    progress: Progress = lambda what, done, total: None,
) -> TrainingProof:
    """Train on the batches and compare every link; ``variants`` run their first so many batches again (``Variant.images``).

    ``build`` is the simulated core; without one the interpreter runs alone.
    """
    products = ordered_products()
    if build is None:
        report = verify_training(
            graph, program, batches, hyper, InterpreterDevice(program.arch, seed=_MACHINE_SEED), products=products,
            progress=lambda done: progress("interpreter", done, len(batches)),
        )  # fmt: skip
        return TrainingProof(program=program, report=report)
    report, speed = _on_core(graph, program, batches, hyper, build, None, products, lambda n: progress("core", n, len(batches)))
    others: dict[str, TrainingReport] = {}
    for variant in variants if report.ok else ():
        count = min(variant.images, len(batches))
        progress(variant.name, 0, count)
        others[variant.name], _ = _on_core(graph, program, batches[:count], hyper, build, variant, products)
        progress(variant.name, count, count)
    return TrainingProof(
        program=program, report=report, variants=others, seeds=(DIRT, 1, *(variant.state_seed for variant in variants)),
        verilog_sha256=build.verilog_sha256, cycles_per_second=speed,
    )  # fmt: skip


def _on_core(
    graph: TrainingGraph, program: TrainingProgram, batches: Sequence[Batch], hyper: Hyper, build: SimulationBuild,
    variant: Variant | None, products: Any, progress: Callable[[int], None] = lambda step: None,
) -> tuple[TrainingReport, float]:  # fmt: skip
    """One run of the core beside the interpreter; and its simulated cycles per second. Stalls leave the timing out."""
    from hw.sim.loop import MemoryTiming
    from sw.runtime.sim import SimDevice

    timed = None if variant and variant.stalls else training_predictor(MemoryTiming())
    stalls, seed = (variant.stalls, variant.state_seed) if variant else (None, 1)
    with SimDevice(program.arch, build=build, stalls=stalls, state_seed=seed) as core:
        report = verify_training(
            graph, program, batches, hyper, InterpreterDevice(program.arch, seed=_MACHINE_SEED), core=core, products=products,
            predictor=timed, progress=progress,
        )  # fmt: skip
        seconds, cycles = core.simulation.seconds, core.simulation.cycles
    return report, cycles / seconds if seconds else 0.0


def verify_training_files(
    graph: Path, program: Path, data: Path, *, rtl: Path | None = None, steps: int | None = None, interpreter_only: bool = False,
    record: Path | None = None, progress: Progress = lambda what, done, total: None, tell: Callable[[str], None] | None = None,
) -> TrainingProof:  # fmt: skip
    """Verify a training program's file against its graph's file on the first batches of a data file, ``STEPS`` if not told how many.

    ``interpreter_only`` leaves the Verilog out, unless ``rtl`` names a file. ``record``: also run from another state and under stalls,
    and write the training record there; where something is not equal, an older one is removed.
    """
    from hw.sim.core import build_core

    if steps is not None and steps < 1:
        raise ValueError(f"the number of batches must be at least 1, not {steps}")
    if rtl is not None and not rtl.is_file():
        raise ValueError(f"there is no Verilog file {rtl}: write one with 'bitloom emit'")
    loaded, network = TrainingProgram.load(program), TrainingGraph.load(graph)
    if loaded.graph_sha256 != network.structure_sha256:
        raise ValueError(f"{program} was compiled from another training graph than {graph}: compile it again")
    batches = load_batches(data, loaded, STEPS if steps is None else steps)
    build = None if interpreter_only and rtl is None else build_core(loaded.arch, rtl, progress=tell)
    variants = () if record is None else power_up_and_stalls(VARIANT_STEPS)
    proof = prove_training(network, loaded, batches, HYPER, build=build, variants=variants, progress=progress)
    if record is not None and proof.ok:
        proof.record().save(record)
    elif record is not None:
        record.unlink(missing_ok=True)
    return proof


def load_batches(path: Path, program: TrainingProgram, count: int) -> list[Batch]:
    """The first batches of an .npz file: ``images`` float16 (N, H, W, C) and ``labels`` (N,), or ``train_images``, ``train_labels``."""
    shape, classes = program.places["images"].shape, program.places["logits"].shape[-1]
    try:
        arrays = load_arrays(path)
        prefix = "train_" if "train_images" in arrays else ""
        images, labels = arrays[f"{prefix}images"], arrays[f"{prefix}labels"]
    except KeyError as error:
        raise ValueError(f"{path} must hold the arrays images, float16 (N, H, W, C), and labels (N,), or train_images and train_labels"
                         f", not {sorted(arrays)}") from error
    if images.dtype != np.float16 or images.shape[1:] != shape[1:] or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{path} must hold images float16 (N, {', '.join(map(str, shape[1:]))}) and as many labels, not {images.dtype} "
            f"{images.shape} and {labels.shape}"
        )
    used = slice(shape[0] * count)
    if labels.dtype.kind not in "iu" or labels[used].min(initial=0) < 0 or labels[used].max(initial=0) >= classes:
        raise ValueError(f"{path}: labels must be integers in 0..{classes - 1}, not {labels.dtype} {labels.min()}..{labels.max()}")
    if not np.isfinite(images[used]).all():
        raise ValueError(f"{path}: images must be finite, and some values are infinite or NaN")
    if len(images) < shape[0] * count:
        raise ValueError(f"{path} must hold {count} batches of {shape[0]} images, not {len(images)} images: give fewer --images")
    return [(images[at : at + shape[0]], labels[at : at + shape[0]]) for at in range(0, shape[0] * count, shape[0])]
