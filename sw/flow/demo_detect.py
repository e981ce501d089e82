"""`bitloom demo detect`: train a small CoDeNet to find digits in generated scenes, in float and in fixed point, run it on the simulated
core, compare every number, draw the boxes that the core's scores give. Decoding is the host's.

Digits are one class here, as telling them apart takes more training than a demo should.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.program import Program, write_atomically
from sw.compiler import compile_graph
from sw.flow.chain import Report
from sw.flow.commands import file_sha256, versions
from sw.flow.files import save_json
from sw.flow.layers import LayerCycles, layer_cycles
from sw.flow.verify import Progress, Simulation, verify
from sw.graph import IntegerGraph

if TYPE_CHECKING:
    from sw.data.scenes import Scenes, SceneSet
    from sw.detect.decode import Detections
    from sw.detect.evaluate import Truth
    from sw.detect.train import Report as Losses
    from sw.models.codenet import CodeNet
    from sw.quant import QuantModel

ARCH = DeformArch(rows=8, feature_words=4096, row_words=512, weight_words=4096, parameter_words=1024)
SIZE, CLASSES, BATCH = 96, 1, 16
WIDTHS, UNITS, DECODER = (24, 48, 96, 128), (1, 1), (64, 48)
"""Two stages, so that the coarsest map has a cell for 16 x 16 pixels: digits are smaller than the 32 x 32 of three stages."""

MIN_OVERLAP = 0.3
SHOWN_SCORE = 0.3
"""Boxes of this score and above are drawn."""


@dataclass(frozen=True, kw_only=True)
class DetectConfig:
    """Scenes to train and test on, steps of the float and of the fixed-point phase, scenes that run on the core, and the seed."""

    train: int = 4000
    test: int = 200
    float_steps: int = 2400
    fixed_steps: int = 600
    core_scenes: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        for name, low in (("train", BATCH), ("test", 1), ("float_steps", 1), ("fixed_steps", 1), ("core_scenes", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"{name} must be at least {low}, not {getattr(self, name)}")
        if self.core_scenes > self.test:
            raise ValueError(f"core_scenes must be at most the {self.test} scenes of the test, not {self.core_scenes}")


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Where progress goes: ``say`` a line, ``steps`` (phase, losses, steps in all) of training, ``images`` (step, done, total) of the
    comparison."""

    say: Callable[[str], None] = lambda words: None
    steps: Callable[[str, Losses, int], None] = lambda phase, losses, total: None
    images: Progress = lambda step, done, total: None


@dataclass(frozen=True, kw_only=True, eq=False)
class DetectResult:
    """Everything that the demo found. ``scenes`` are those that ran on the core, ``boxes`` what its scores give, ``trace`` the codes
    of their tensors. Precisions are AP50 on all test scenes, with whole-pixel offsets in fixed point; ``core_ap50`` on those that the
    core saw."""

    config: DetectConfig
    graph: IntegerGraph
    program: Program
    report: Report
    layers: tuple[LayerCycles, ...]
    scenes: Scenes
    boxes: tuple[Detections, ...]
    trace: dict[str, np.ndarray]
    float_ap50: float
    fixed_ap50: float
    core_ap50: float
    float_losses: tuple[Losses, ...]
    fixed_losses: tuple[Losses, ...]
    seconds: float

    @property
    def ok(self) -> bool:
        """Every link is equal."""
        return self.report.ok

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON; ``cycles`` and ``macs`` are of one scene."""
        cycles, images = self.report.counters.get("CYCLES", 0), self.report.images
        return {
            **self.report.to_dict(),
            "ok": self.ok,
            "float_ap50": self.float_ap50,
            "fixed_ap50": self.fixed_ap50,
            "core_ap50": self.core_ap50,
            "boxes": [_plain(found) for found in self.boxes],
            "cycles": round(cycles / images),
            "macs": self.graph.macs(),
            "layers": [layer.to_dict() for layer in self.layers],
            "float_losses": [asdict(losses) for losses in self.float_losses],
            "fixed_losses": [asdict(losses) for losses in self.fixed_losses],
            "config": asdict(self.config),
            "arch": ARCH.to_dict(),
            "versions": versions(),
            "seconds": self.seconds,
        }


def demo_detect(out: Path, *, config: DetectConfig | None = None, tell: Tell | None = None) -> DetectResult:
    """Run the whole chain and leave graph, program, inputs, report.html and manifest.json in ``out``."""
    from sw.data.scenes import load_scenes

    config, tell, start = config or DetectConfig(), tell or Tell(), time.perf_counter()
    tell.say(f"making {config.train + config.test} scenes of {SIZE} x {SIZE}")
    data = of_one_class(load_scenes(config.train, 1, config.test, size=SIZE))
    truth = truth_of(data.test)
    net, float_losses = _train_float(data, config, tell)
    float_ap50 = _ap50(net, data.test, truth)
    model, fixed_losses = _train_fixed(net, data, config, tell)
    fixed_ap50 = _ap50(model, data.test, truth)
    scenes = _first(data.test, config.core_scenes)
    graph, program, report, trace = _verify(model, scenes, tell)
    boxes = _decoded(graph, report)
    result = DetectResult(
        config=config,
        graph=graph,
        program=program,
        report=report,
        layers=layer_cycles(program, graph, ARCH, report.times),
        scenes=scenes,
        boxes=boxes,
        trace=trace,
        float_ap50=float_ap50,
        fixed_ap50=fixed_ap50,
        core_ap50=_precision(boxes, truth[: len(boxes)]) if boxes else 0.0,
        float_losses=float_losses,
        fixed_losses=fixed_losses,
        seconds=time.perf_counter() - start,
    )
    _write(out, result)
    return result


def small_net(**options: Any) -> CodeNet:
    """A CodeNet of the demo's size with new weights; ``options`` as of `sw.models.codenet.CodeNet`."""
    from sw.models.codenet import CodeNet

    return CodeNet(CLASSES, WIDTHS, units=UNITS, decoder=DECODER, **options)


def of_one_class(data: SceneSet) -> SceneSet:
    """The same scenes with every label 0."""

    def part(scenes: Scenes) -> Scenes:
        return replace(scenes, labels=[labels * 0 for labels in scenes.labels])

    return replace(data, train=part(data.train), validation=part(data.validation), test=part(data.test))


def _train_float(data: SceneSet, config: DetectConfig, tell: Tell) -> tuple[CodeNet, tuple[Losses, ...]]:
    import torch

    from sw.detect.feeds import shuffled
    from sw.detect.train import Settings, train_detector

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        net = small_net()
    settings = Settings(steps=config.float_steps, rate=5e-3, min_overlap=MIN_OVERLAP, seed=config.seed)
    trained = train_detector(
        net, shuffled(data.train, BATCH, seed=config.seed), settings, classes=CLASSES,
        progress=lambda losses: tell.steps("float", losses, settings.steps),
    )  # fmt: skip
    return net, trained.reports


def _train_fixed(net: CodeNet, data: SceneSet, config: DetectConfig, tell: Tell) -> tuple[QuantModel, tuple[Losses, ...]]:
    """4-bit weights (8 in the first layer), 8-bit activations, whole-pixel offsets; frozen at the end."""
    from sw.data.glyphs32 import INPUT_FORMAT
    from sw.detect.feeds import shuffled
    from sw.detect.train import Settings, train_detector
    from sw.quant import Recipe, quantize_model

    model = quantize_model(net, Recipe(input_format=INPUT_FORMAT))
    model.calibrate([data.train.images[:128]])
    settings = Settings(steps=config.fixed_steps, rate=1e-3, min_overlap=MIN_OVERLAP, seed=config.seed + 1)
    trained = train_detector(
        model, shuffled(data.train, BATCH, seed=config.seed + 1), settings, classes=CLASSES,
        progress=lambda losses: tell.steps("fixed", losses, settings.steps),
    )  # fmt: skip
    model.freeze()
    return model, trained.reports


def _verify(
    model: QuantModel, scenes: Scenes, tell: Tell
) -> tuple[IntegerGraph, Program, Report, dict[str, np.ndarray]]:
    from hw.sim.core import build_core
    from sw.quant import codes_of, export

    graph = export(model, scenes.images)
    program = compile_graph(graph, ARCH, windows=True)
    tell.say(f"compiled {len(graph.nodes)} layers to {program.instruction_count} instructions")
    simulation = Simulation(build=build_core(ARCH, progress=tell.say))
    trace = {name: codes.numpy() for name, codes in model.trace(scenes.images).items()}
    codes = {graph.inputs[0]: codes_of(model, scenes.images)}
    return graph, program, verify(graph, program, codes, torch_trace=trace, simulation=simulation, progress=tell.images), trace


def _decoded(graph: IntegerGraph, report: Report) -> tuple[Detections, ...]:
    """The boxes that the core's scores give; none where it did not finish."""
    from sw.detect.decode import decode

    if not set(graph.outputs) <= set(report.rtl_outputs):
        return ()
    scales = [2.0**-graph.tensors[name].fmt.frac for name in graph.outputs]
    return tuple(decode([report.rtl_outputs[name] for name in graph.outputs], scales=scales))


def truth_of(scenes: Scenes) -> list[Truth]:
    """What detections of the scenes are compared with."""
    from sw.detect.evaluate import Truth

    return [Truth(boxes=boxes, labels=labels) for boxes, labels in zip(scenes.boxes, scenes.labels, strict=True)]


def _ap50(model: Any, scenes: Scenes, truth: list[Truth]) -> float:
    from sw.detect.decode import detect

    return _precision(detect(model, scenes.images), truth)


def _precision(found: Any, truth: list[Truth]) -> float:
    from sw.detect.evaluate import average_precision

    return average_precision(found, truth).ap50


def _first(scenes: Scenes, count: int) -> Scenes:
    return replace(scenes, images=scenes.images[:count], boxes=scenes.boxes[:count], labels=scenes.labels[:count])


def _plain(found: Detections) -> list[dict[str, Any]]:
    """Detections that are drawn, as plain data."""
    kept = [i for i, score in enumerate(found.scores.tolist()) if score >= SHOWN_SCORE]
    return [
        {"label": int(found.labels[i]), "score": float(found.scores[i]), "box": [round(v, 2) for v in found.boxes[i].tolist()]}
        for i in kept
    ]


def _write(out: Path, result: DetectResult) -> None:
    """All artefacts; the manifest, which names every other file's hash, comes last."""
    from sw.flow.report_detect import detect_page

    out.mkdir(parents=True, exist_ok=True)
    result.graph.save(out / "detect.graph")
    result.program.save(out / "detect.program")
    with (out / "inputs.npy").open("wb") as file:
        np.save(file, result.trace[result.graph.inputs[0]])
    write_atomically(out / "report.html", detect_page(result).encode())
    files = {name: file_sha256(out / name) for name in ("detect.graph", "detect.program", "inputs.npy", "report.html")}
    save_json(out / "manifest.json", {"artefact": "demo detect", "files": files, "result": result.to_dict()})
