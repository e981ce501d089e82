"""Damaged files: each is refused with its loader's own error, in words, or loads and saves again as the same thing."""

from __future__ import annotations

import functools
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import (
    Add,
    AvgPool2d,
    Clip,
    Concat,
    Conv2d,
    DepthwiseConv2d,
    Linear,
    MaxPool2d,
    Requant,
    Scale,
    Shuffle,
    ShuffleJoin,
    Slice,
    Table,
    Upsample2x,
    mean_requant,
)
from hw.spec.program import Program, ProgramError
from sw.compiler import compile_graph
from sw.graph import GraphError, IntegerGraph, Node, TensorSpec
from sw.quant.recipe import Recipe, RecipeError
from tests.fuzz.file_damage import Chance, damaged_graph, damaged_program, damaged_recipe, damaged_value
from tests.fuzz.machine_campaign import Progress, empty

S8 = FixedFormat(8, 0)
RECIPE = b"""weight_bits = 4
activation_bits = 8
first_layer_weight_bits = 8
rounding = "RND"
input_format = "u8f4"
exclude = ["softmax", "head.*"]
[overrides."stage2.*"]
weight_bits = 8
rounding = "TRN"
[overrides.stem]
activation_bits = 6
"""
SHORTEST_MESSAGE = 15
"""Letters of an error that says anything."""


@dataclass(kw_only=True)
class FileReport:
    """What a campaign counted, by kind of file. ``failures`` name the case by (seed, kind, number); it must be empty."""

    files: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    accepted_different: Counter[str] = field(default_factory=Counter)
    """Accepted contents that differ from the undamaged file's."""
    slowest_seconds: float = 0.0
    grown_megabytes: int = 0
    """Growth of the process over the campaign."""
    failures: list[str] = field(default_factory=list)

    def unexercised(self) -> list[str]:
        """Kinds of files that were never refused or never accepted; empty after a campaign that is large enough."""
        return [*empty("refused", self.refused, formats()), *empty("accepted", self.accepted, formats())]


@dataclass(frozen=True, kw_only=True, eq=False)
class Format:
    """A kind of file: a good one, how to damage it, load it, save it again, and what its loader may raise."""

    good: Any
    damage: Callable[[Chance, Any], Any]
    load: Callable[[Any], Any]
    save: Callable[[Any], Any]
    error: type[ValueError]


def small_graph() -> IntegerGraph:
    """Every kind of attribute that a graph file holds, in a few kilobytes."""
    rng = np.random.default_rng(5)

    def requant(channels: int, shift: int = 5) -> Requant:
        bias, ones = rng.integers(-99, 99, channels), np.ones(channels, np.int64)
        return Requant(bias=bias, multiplier=ones, shift=ones * shift, rounding=Rounding.RND, lo=-128, hi=127)

    def weights(*shape: int) -> np.ndarray:
        return rng.integers(-7, 8, shape)

    steps = (
        ("stem", Conv2d(weight=weights(16, 3, 3, 3), requant=requant(16), padding=1), ("image",), (16, 8, 8)),
        ("pool", MaxPool2d(kernel=2, stride=2), ("stem",), (16, 4, 4)),
        ("left", Slice(start=0, stop=8), ("pool",), (8, 4, 4)),
        ("right", Slice(start=8, stop=16), ("pool",), (8, 4, 4)),
        ("dw", DepthwiseConv2d(weight=weights(8, 3, 3), requant=requant(8)), ("right",), (8, 4, 4)),
        ("pw", Conv2d(weight=weights(8, 8, 1, 1), requant=requant(8)), ("dw",), (8, 4, 4)),
        ("join", ShuffleJoin(), ("left", "pw"), (16, 4, 4)),
        ("grouped", Conv2d(weight=weights(16, 4, 1, 1), requant=requant(16), groups=4), ("join",), (16, 4, 4)),
        ("sum", Add(lo=-128, hi=127), ("join", "grouped"), (16, 4, 4)),
        ("scale", Scale(weight=weights(16), requant=requant(16)), ("sum",), (16, 4, 4)),
        ("table", Table(values=rng.integers(-128, 128, 256)), ("scale",), (16, 4, 4)),
        ("clip", Clip(lo=-99, hi=99), ("table",), (16, 4, 4)),
        ("cat", Concat(), ("clip", "left"), (24, 4, 4)),
        ("mix", Shuffle(groups=3), ("cat",), (24, 4, 4)),
        ("part", Slice(start=5, stop=21), ("mix",), (16, 4, 4)),
        ("up", Upsample2x(), ("part",), (16, 8, 8)),
        ("mean", AvgPool2d(kernel=(8, 8), requant=mean_requant(16, 64, 0, Rounding.RND, -128, 127)), ("up",), (16, 1, 1)),
        ("head", Linear(weight=weights(10, 16), requant=requant(10)), ("mean",), (10, 1, 1)),
    )
    tensors = {"image": TensorSpec(shape=(3, 8, 8), fmt=S8)} | {n: TensorSpec(shape=s, fmt=S8) for n, _, _, s in steps}
    nodes = tuple(Node(name=n, operation=op, inputs=inputs, output=n) for n, op, inputs, _ in steps)
    return IntegerGraph(tensors=tensors, inputs=("image",), outputs=("head",), nodes=nodes)


def load_recipe(data: bytes) -> Recipe:
    """A recipe from a file with these bytes."""
    with tempfile.NamedTemporaryFile(suffix=".toml") as file:
        Path(file.name).write_bytes(data)
        return Recipe.from_toml(file.name)


@functools.cache
def formats() -> dict[str, Format]:
    """Every kind of file, by name."""
    graph = small_graph()
    arch = DeformArch(rows=2, feature_words=512, row_words=64, weight_words=512, parameter_words=256)
    program = compile_graph(graph, arch)
    return {
        "graph": Format(
            good=graph.to_bytes(),
            damage=damaged_graph,
            load=IntegerGraph.from_bytes,
            save=IntegerGraph.to_bytes,
            error=GraphError,
        ),
        "program": Format(
            good=program.to_bytes(), damage=damaged_program, load=Program.from_bytes, save=Program.to_bytes, error=ProgramError
        ),
        "recipe": Format(good=RECIPE, damage=damaged_recipe, load=load_recipe, save=vars, error=RecipeError),
        "architecture": Format(
            good=arch.to_dict(),
            damage=damaged_value,
            load=Arch.from_dict,
            save=lambda loaded: loaded.to_dict(),
            error=ValueError,
        ),
    }


class FileCampaign:
    """Damages files of every kind in turn."""

    def __init__(self, seed: int) -> None:
        self.seed, self.report = seed, FileReport()

    def run(self, count: int, progress: Progress | None = None) -> FileReport:
        kinds, before = list(formats()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(count):
            self.one(kinds[number % len(kinds)], number)
            if progress:
                progress(number + 1, count)
        self.report.grown_megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        return self.report

    def one(self, kind: str, number: int) -> None:
        """The damaged file with this number."""
        form, start = formats()[kind], time.perf_counter()
        damaged = form.damage(Chance(self.seed, number), form.good)
        self.report.files[kind] += 1
        if problem := self._load(kind, form, damaged):
            self.report.failures.append(f"seed {self.seed}, {kind}, number {number}: {problem}")
        self.report.slowest_seconds = max(self.report.slowest_seconds, time.perf_counter() - start)

    def _load(self, kind: str, form: Format, damaged: Any) -> str | None:
        try:
            loaded = form.load(damaged)
        except form.error as error:
            self.report.refused[kind] += 1
            return (
                None
                if type(error) in (form.error, ValueError) and len(str(error)) > SHORTEST_MESSAGE
                else f"only says {error!r}"
            )
        except BaseException as error:
            return f"raised {type(error).__name__}: {str(error)[:200]}"
        self.report.accepted[kind] += 1
        saved = form.save(loaded)
        self.report.accepted_different[kind] += saved != form.save(form.load(form.good))
        if isinstance(saved, bytes) and form.save(form.load(saved)) != saved:
            return "saves as something else than it was loaded from"
        if kind == "program" and saved != damaged:
            return "was accepted, and saves as other bytes"
        if kind == "architecture" and saved != {**form.save(type(loaded)()), **damaged}:
            return f"was accepted as {saved}"
        return None
