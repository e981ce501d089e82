"""AP50 of small CoDeNets on scenes: the decoder's operators in float, and float against W4A8 with fractional and with whole offsets.

    python bench/detection.py [--results build/detection] [--seeds 5] [--task formats] [--json FILE]

The task "operators" compares the operators of `sw.models.codenet.Operator` in float; "formats" compares float with fixed point
(4-bit weights, 8 in the first layer, 8-bit activations) for CoDeNet's operator and a plain depthwise one. A seed gives initial weights
and the order of batches, so rows are compared in pairs; float networks are trained once for both tasks. Digits are one class.

Every run is one file in the results folder and is never repeated while its settings are the same: a stopped command goes on where it
was. ``--report`` writes the tables of what is there without running anything. About two and a half hours of one core.
"""

from __future__ import annotations

import copy
import hashlib
import io
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch
from accuracy import SEEDS, Job, finish, options
from detection_report import Run, numbers, sections
from torch import nn

from hw.spec.fixed import FixedFormat
from hw.spec.program import write_atomically
from sw.data.glyphs32 import INPUT_FORMAT
from sw.data.scenes import SceneSet, load_scenes
from sw.detect.decode import detect
from sw.detect.evaluate import average_precision
from sw.detect.feeds import shuffled
from sw.detect.train import Settings, train_detector
from sw.flow.demo_detect import BATCH, CLASSES, DECODER, MIN_OVERLAP, SIZE, UNITS, WIDTHS, of_one_class, small_net, truth_of
from sw.models.codenet import CodeNet, Operator
from sw.quant import QuantModel, Recipe, quantize_model

SCENES = {"train": 4000, "validation": 500, "test": 2000}
CALIBRATION = 128
OFFSETS = FixedFormat(8, 3)
"""Fractional offsets: eighths of a pixel, so that -7..8 fit a byte."""

FLOAT, LONGER, FIXED, WHOLE = "float", "float longer", "w4a8", "w4a8 whole"


@dataclass(frozen=True, kw_only=True)
class Training:
    """Steps and highest rates. "float longer" and fixed point both go on from the float network, for ``more_steps``."""

    float_steps: int = 2400
    float_rate: float = 5e-3
    more_steps: int = 1200
    more_rate: float = 2e-3
    min_overlap: float = MIN_OVERLAP


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row: an operator in one of the forms "float", "float longer", "w4a8" and "w4a8 whole"."""

    operator: Operator
    form: str

    @property
    def name(self) -> str:
        return f"{self.operator.value} {self.form}"


OPERATORS = tuple(Method(operator=operator, form=FLOAT) for operator in Operator)
FORMATS = (*(Method(operator=Operator.SQUARE_DEPTHWISE, form=form) for form in (FLOAT, LONGER, FIXED, WHOLE)),
           *(Method(operator=Operator.DEPTHWISE, form=form) for form in (FLOAT, FIXED)))


@dataclass(frozen=True, kw_only=True)
class Task:
    """A table."""

    name: str
    methods: tuple[Method, ...]
    training: Training = Training()

    @property
    def settings(self) -> str:
        parts = (SIZE, CLASSES, BATCH, WIDTHS, UNITS, DECODER, sorted(SCENES.items()), CALIBRATION, asdict(self.training))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


TASKS = {"formats": Task(name="formats", methods=FORMATS), "operators": Task(name="operators", methods=OPERATORS)}


@cache
def scenes() -> SceneSet:
    """All scenes, with every label 0."""
    return of_one_class(load_scenes(SCENES["train"], SCENES["validation"], SCENES["test"], size=SIZE))


# --- one run ----------------------------------------------------------------------------------------------------------


def float_network(task: Task, operator: Operator, seed: int, results: Path) -> CodeNet:
    """The trained float network of an operator and a seed, from the results folder if it is there."""
    path = results / f"{operator.value}-{task.settings}-{seed}.float"
    torch.manual_seed(seed)
    net = small_net(operator=operator)
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    train(net, task.training, task.training.float_steps, task.training.float_rate, seed)
    content = io.BytesIO()
    torch.save(net.state_dict(), content)
    write_atomically(path, content.getvalue())
    return net


def train(net: nn.Module, training: Training, steps: int, rate: float, seed: int) -> None:
    settings = Settings(steps=steps, rate=rate, min_overlap=training.min_overlap, seed=seed, report=steps)
    train_detector(net, shuffled(scenes().train, BATCH, seed=seed), settings, classes=CLASSES)


def network_of(task: Task, method: Method, seed: int, results: Path) -> nn.Module:
    """The network that a row is measured on; fixed-point ones are frozen, so they are integers."""
    net: nn.Module = float_network(task, method.operator, seed, results)
    if method.form == FLOAT:
        return net
    model = copy.deepcopy(net) if method.form == LONGER else fixed_network(net, whole=method.form == WHOLE)
    train(model, task.training, task.training.more_steps, task.training.more_rate, seed + 1000)
    if isinstance(model, QuantModel):
        model.freeze()
    return model


def fixed_network(net: nn.Module, *, whole: bool) -> QuantModel:
    """Calibrated, ready to be trained. Only square deformable layers have offsets."""
    names = [name for name, _ in net.named_modules() if name.endswith(".offset")]
    overrides = {} if whole else {name: {"activation_format": OFFSETS} for name in names}
    model = quantize_model(net, Recipe(input_format=INPUT_FORMAT, overrides=overrides))
    model.calibrate([scenes().train.images[:CALIBRATION]])
    return model


def run(task: Task, seed: int, method: Method, results: Path) -> Run:
    begin = time.perf_counter()
    model = network_of(task, method, seed, results)
    held, test = (average_precision(detect(model, part.images), truth_of(part)) for part in (scenes().validation, scenes().test))
    return Run(task=task.name, seed=seed, method=method.name, settings=task.settings, ap50=test.ap50, ap=test.ap, held_ap50=held.ap50,
               scenes=len(scenes().test.images), seconds=round(time.perf_counter() - begin, 1))


# --- all runs ---------------------------------------------------------------------------------------------------------


def wanted(tasks: Sequence[Task], seeds: Iterable[int]) -> Iterator[Job]:
    """Seed by seed, so that a command stopped early has whole pairs."""
    return ((task, seed, method) for task in tasks for seed in seeds for method in task.methods)


def main() -> None:
    args = options(__doc__, "detection", TASKS).parse_args()
    torch.set_num_threads(1)
    tasks = [TASKS[task] for task in args.task or TASKS]
    jobs = list(wanted(tasks, args.only_seed or range(args.seeds or SEEDS)))
    args.results.mkdir(parents=True, exist_ok=True)
    finish(args, jobs, lambda task, seed, method: run(task, seed, method, args.results), sections, numbers, kind=Run)


if __name__ == "__main__":
    main()
