"""What stands between a model and the core: every obstacle at once, each with its place, before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hw.spec.deform import DeformArch
from sw.compiler import check_graph
from sw.flow.files import load_model
from sw.graph import IntegerGraph

CALIBRATION_IMAGES = 8
"""Random images that stand in for data: only shapes and instructions are checked, not accuracy."""


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """One layer that cannot be carried over: ``stage`` is "quantise" or "compile"."""

    stage: str
    place: str
    reason: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """``layers`` were looked at; ``stages`` names the checks that were made."""

    layers: int
    stages: tuple[str, ...]
    obstacles: tuple[Obstacle, ...]

    @property
    def ok(self) -> bool:
        return not self.obstacles

    def to_dict(self) -> dict[str, Any]:
        return {"ok": self.ok, "layers": self.layers, "stages": list(self.stages),
                "problems": [asdict(o) for o in self.obstacles]}  # fmt: skip


def check_target(target: str, input_shape: Sequence[int] | None, arch: DeformArch) -> CheckResult:
    """Check a torch model (``FILE.py:NAME``) or an integer graph's file for an architecture."""
    if ".py:" in target or target.endswith(".py"):
        return check_model(load_model(target), input_shape, arch)
    return check_graph_for(IntegerGraph.load(Path(target)), arch)


def check_graph_for(graph: IntegerGraph, arch: DeformArch) -> CheckResult:
    """All obstacles to compiling a graph."""
    return CheckResult(layers=len(graph.nodes), stages=("compile",), obstacles=_compile_obstacles(graph, arch))


def check_model(model: Any, input_shape: Sequence[int] | None, arch: DeformArch) -> CheckResult:
    """All unsupported layers of a torch model; where there are none and the input's shape (N, C, H, W) is given, also all
    obstacles to compiling it."""
    from sw.quant import unsupported

    layers = sum(1 for module in model.modules() if not list(module.children()))
    found = tuple(
        Obstacle(stage="quantise", place=p.place or "(model)", reason=f"{p.kind} {p.reason}", advice=p.advice)
        for p in unsupported(model)
    )
    if found or input_shape is None:
        return CheckResult(layers=layers, stages=("quantise",), obstacles=found)
    graph = _export(model, input_shape)
    return CheckResult(layers=layers, stages=("quantise", "compile"), obstacles=_compile_obstacles(graph, arch))


def _compile_obstacles(graph: IntegerGraph, arch: DeformArch) -> tuple[Obstacle, ...]:
    return tuple(Obstacle(stage="compile", place=p.place, reason=p.reason, advice=p.advice) for p in check_graph(graph, arch))


def _export(model: Any, input_shape: Sequence[int]) -> IntegerGraph:
    """The integer graph of an untrained model, calibrated with noise."""
    import torch

    from sw.quant import export, quantize_model

    shape = (CALIBRATION_IMAGES, *input_shape[1:])
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    quantised = quantize_model(model.eval())
    try:
        quantised.calibrate([images])
        return export(quantised, images)
    except RuntimeError as error:
        raise ValueError(f"the model does not run on an input of shape {tuple(input_shape)}: {error}") from error
