"""Accuracy of float, post-training and learned fixed point at 8, 6, 5, 4 and 3 bits, and of weights with few digits.

    python bench/accuracy.py [--results build/accuracy] [--seeds 5] [--task digits] [--json FILE]

Every run is one file in the results folder and is never repeated while its settings are the same: a stopped command goes on where
it was. For each seed one float network is trained; every other run starts from it (or only calibrates it), with the same images.
``--report`` writes the tables of what is there without running anything; tables of other tasks stay. About an hour of one core
for both tasks and five seeds.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from accuracy_report import Run, numbers, sections, write_tables
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat
from hw.spec.program import write_atomically
from sw.data import digits, glyphs32
from sw.models.small_cnn import PlainNet, ResidualNet
from sw.quant import Recipe, quantize_model
from sw.quant.train import TrainConfig, Trainer, accuracy

BITS = (8, 6, 5, 4, 3)
CALIBRATION = 512
SEEDS = 5
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A data set, its network and how long it trains. ``held`` images choose hyper-parameters; test images only count."""

    name: str
    net: Callable[[], nn.Module]
    input_format: FixedFormat
    train: Images
    held: Images
    test: Images
    training: dict[str, Any]
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    # What a Trainer asks of its data: it watches the held images, never the test images.
    @property
    def train_images(self) -> Tensor:
        return self.train[0]

    @property
    def train_labels(self) -> Tensor:
        return self.train[1]

    @property
    def test_images(self) -> Tensor:
        return self.held[0]

    @property
    def test_labels(self) -> Tensor:
        return self.held[1]

    @property
    def settings(self) -> str:
        return fingerprint(self, self.training, CALIBRATION)


def fingerprint(task: Any, training: Mapping[str, Any], *more: Any) -> str:
    """Eight hexadecimal digits that change with everything a result depends on but the code."""
    sizes = [len(labels) for _, labels in (task.train, task.held, task.test)]
    parts = (task.name, task.net.__name__, sorted(training.items()), *more, sizes)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: ``kind`` is float, minmax, mse or learned; ``digits`` of ``digit_kind`` limit the weights (0: no limit)."""

    kind: str
    bits: int = 0
    digits: int = 0
    digit_kind: str = "k_hot"

    @property
    def name(self) -> str:
        text = self.kind + (f" {self.bits}" if self.bits else "")
        return f"{text} {self.digit_kind} {self.digits}" if self.digits else text

    def recipe(self, input_format: FixedFormat) -> Recipe:
        """All layers at ``bits``, weights and activations; the logits, which no layer reads, have 8 bits."""
        return Recipe(weight_bits=self.bits, first_layer_weight_bits=self.bits, activation_bits=self.bits,
                      input_format=input_format, overrides={"head": {"activation_bits": 8}},
                      weight_digits=self.digits, digit_kind=self.digit_kind)


def methods() -> list[Method]:
    """All rows, in the order in which they run."""
    plain = [Method(kind=kind, bits=bits) for bits in BITS for kind in ("minmax", "mse", "learned")]
    few = [Method(kind="learned", bits=8, digits=k, digit_kind=kind) for k in (1, 2, 3) for kind in ("k_hot", "signed")]
    return [Method(kind="float"), *plain, *few]


# --- the two tasks ----------------------------------------------------------------------------------------------------


@cache
def digits_images() -> dict[str, Any]:
    """The digits by part: train, held and test."""
    data = digits.load_digits()
    held = torch.from_numpy(digits.held_out_mask(data.train_labels.numpy(), 270, seed=1))
    return {"train": (data.train_images[~held], data.train_labels[~held]),
            "held": (data.train_images[held], data.train_labels[held]), "test": (data.test_images, data.test_labels)}


@cache
def glyphs_images() -> dict[str, Any]:
    """The glyphs by part: train, held and test."""
    data = glyphs32.load_glyphs()
    return {"train": (data.train_images, data.train_labels), "held": (data.validation_images, data.validation_labels),
            "test": (data.test_images, data.test_labels)}


def digits_task() -> Task:
    return Task(
        name="digits", net=PlainNet, input_format=digits.INPUT_FORMAT, augment=digits.augment, **digits_images(),
        training={"float_epochs": 40, "fixed_epochs": 20, "fixed_rate": 3e-3, "batch": 64})


def glyphs_task() -> Task:
    return Task(
        name="glyphs", net=ResidualNet, input_format=glyphs32.INPUT_FORMAT, **glyphs_images(),
        training={"float_epochs": 12, "fixed_epochs": 3, "fixed_rate": 3e-3, "batch": 128})


TASKS = {"digits": digits_task, "glyphs": glyphs_task}


# --- one run ----------------------------------------------------------------------------------------------------------


def with_seed(task: Task, seed: int, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**task.training, "seed": seed, "calibration_images": CALIBRATION, **changes})


def float_network(task: Task, seed: int, path: Path) -> nn.Module:
    """The trained float network of a seed, from ``path`` if it is there."""
    net = task.net()
    if path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval()
    trainer = Trainer(task.net, task, Recipe(), with_seed(task, seed, fixed_epochs=0), augment=task.augment)
    trained = trainer.run()
    assert trained is not None
    content = io.BytesIO()
    torch.save(trained.float_model.state_dict(), content)
    write_atomically(path, content.getvalue())
    return trained.float_model.eval()


def network_of(task: Task, method: Method, seed: int, start: nn.Module) -> nn.Module:
    """The network that a row is measured on; fixed-point ones are frozen, so they are integers."""
    if method.kind == "float":
        return start
    recipe = method.recipe(task.input_format)
    if method.kind != "learned":
        model = quantize_model(start, recipe)
        model.calibrate(task.train_images[:CALIBRATION].split(128), method.kind)
        model.freeze()
        return model.eval()
    config = with_seed(task, seed, float_epochs=0)
    trained = Trainer(lambda: copy.deepcopy(start), task, recipe, config, augment=task.augment).run()
    assert trained is not None
    return trained.model


def run(task: Task, method: Method, seed: int, start: nn.Module) -> Run:
    begin = time.perf_counter()
    return measured(task, method, seed, network_of(task, method, seed, start), begin)


def measured(task: Task, method: Method, seed: int, model: nn.Module, begin: float) -> Run:
    """The run of a network that was begun at ``begin`` seconds."""
    right = round(accuracy(model, *task.test) * len(task.test[1]))
    held = accuracy(model, *task.held)
    return Run(task=task.name, seed=seed, method=method.name, settings=task.settings, right=right, images=len(task.test[1]),
               held_accuracy=held, seconds=round(time.perf_counter() - begin, 1))


# --- all runs ---------------------------------------------------------------------------------------------------------

Job = tuple[Any, int, Any]
"""Task, seed and method; of this bench or of `sparse_accuracy`."""


def wanted(tasks: Sequence[Task], seeds: Iterable[int]) -> Iterator[Job]:
    """Seed by seed, so that a command stopped early has whole pairs; weights of few digits come last."""
    few = [[m for m in methods() if bool(m.digits) is late] for late in (False, True)]
    return ((task, seed, method) for part in few for seed in seeds for task in tasks for method in part)


def runner(results: Path) -> Callable[[Task, int, Method], Run]:
    """A run of a job whose float network lies in the results folder."""
    return lambda task, seed, method: run(
        task, method, seed, float_network(task, seed, results / f"{task.name}-{task.settings}-{seed}.float"))


def execute(jobs: Sequence[Job], results: Path, run: Callable[[Any, int, Any], Any], kind: type = Run) -> list[Any]:
    """Run what is missing and store it; all runs of these jobs, each a ``kind``."""
    todo = [job for job in jobs if not path_of(results, job).exists()]
    print(f"{len(todo)} of {len(jobs)} runs to do; results in {results}", flush=True)
    for count, job in enumerate(todo, 1):
        if path_of(results, job).exists():
            continue  # another command on the same folder was here first
        found = run(*job)
        write_atomically(path_of(results, job), (json.dumps(asdict(found)) + "\n").encode())
        print(f"[{count}/{len(todo)}] {found.task} seed {found.seed} {found.method}: {float(found.percent):.2f} % "
              f"({found.seconds:.0f} s)", flush=True)
    return stored(jobs, results, kind)


def stored(jobs: Iterable[Job], results: Path, kind: type = Run) -> list[Any]:
    """The runs of these jobs that are in the folder."""
    paths = [path_of(results, job) for job in jobs]
    return [kind(**json.loads(path.read_text(encoding="utf-8"))) for path in paths if path.exists()]


def path_of(results: Path, job: Job) -> Path:
    task, seed, method = job
    return results / f"{task.name}-{task.settings}-{method.name.replace(' ', '-').replace(':', 'of')}-{seed}.json"


# --- the command ------------------------------------------------------------------------------------------------------


def options(about: str, name: str, tasks: Iterable[str]) -> argparse.ArgumentParser:
    """The options of a command whose results lie in ``build/name`` and whose page is ``docs/name.md``."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("build") / name)
    parser.add_argument("--seeds", type=int, help="as many instead of the task's own number")
    parser.add_argument("--only-seed", type=int, action="append", help="run these and write no tables: several commands can share")
    parser.add_argument("--task", choices=sorted(tasks), action="append", help="only this one; the tables of others stay")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is there")
    parser.add_argument("--docs", type=Path, default=Path("docs") / f"{name}.md")
    parser.add_argument("--json", type=Path)
    return parser


def finish(
    args: argparse.Namespace, jobs: Sequence[Job], run: Callable[[Any, int, Any], Any],
    sections: Callable[[list[Any]], dict[str, str]], numbers: Callable[[list[Any]], dict[str, Any]], kind: type = Run,
) -> None:
    """Run what is missing, and write the tables and the numbers, as the options ask."""
    runs = stored(jobs, args.results, kind) if args.report else execute(jobs, args.results, run, kind)
    if args.only_seed:
        return
    write_tables(args.docs, sections(runs))
    text = json.dumps(numbers(runs), indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


def main() -> None:
    args = options(__doc__, "accuracy", TASKS).parse_args()
    torch.set_num_threads(1)
    tasks = [TASKS[task]() for task in args.task or TASKS]
    jobs = list(wanted(tasks, args.only_seed or range(args.seeds or SEEDS)))
    finish(args, jobs, runner(args.results), sections, numbers)


if __name__ == "__main__":
    main()
