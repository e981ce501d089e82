"""Accuracy of N:M sparse training: dense, SR-STE, SDGP, SDWP and BDWP at 2:4 and 2:8, in pairs over seeds.

    python bench/sparse_accuracy.py [--results build/sparse-accuracy] [--seeds 5] [--task digits] [--json FILE]

A seed gives the initial weights and the order of the batches, the same for every method, so rows are compared in pairs. Every
run is one file in the results folder and is never repeated while its settings are the same: a stopped command goes on where it
was. ``--report`` writes the tables of what is there without running anything. ``--validate`` trains dense with a seed outside
the table and prints its accuracy on validation images: how learning rates were chosen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from sparse_accuracy_report import Run, numbers, write_tables
from torch import Tensor, nn
from torch.nn import functional as F

from sw.data import digits, glyphs32
from sw.models.small_cnn import PlainNet, ResidualNet
from sw.sparse import sparsify

RATIOS = ((2, 4), (2, 8))
METHODS = ("bdwp", "srste", "sdgp", "sdwp")
TUNING_SEED = 100
Images = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Training:
    """Momentum SGD with a linear warm-up of one epoch and then a cosine to 0."""

    epochs: int
    rate: float
    batch: int
    momentum: float = 0.9
    weight_decay: float = 5e-5


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A data set, its network and its training. ``held`` images choose the rate; test images only count."""

    name: str
    net: Callable[[], nn.Module]
    training: Training
    train: Images
    held: Images
    test: Images
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None

    @property
    def settings(self) -> str:
        """Eight hexadecimal digits that change with everything a result depends on but the code."""
        sizes = [len(labels) for _, labels in (self.train, self.held, self.test)]
        parts = (self.name, self.net.__name__, sorted(asdict(self.training).items()), sizes)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:8]


def digits_task() -> Task:
    data = digits.load_digits()
    held = torch.from_numpy(digits.held_out_mask(data.train_labels.numpy(), 270, seed=1))
    return Task(
        name="digits", net=PlainNet, augment=digits.augment, training=Training(epochs=40, rate=0.05, batch=64),
        train=(data.train_images[~held], data.train_labels[~held]), held=(data.train_images[held], data.train_labels[held]),
        test=(data.test_images, data.test_labels))


def glyphs_task() -> Task:
    data = glyphs32.load_glyphs()
    return Task(
        name="glyphs", net=ResidualNet, training=Training(epochs=5, rate=0.1, batch=128),
        train=(data.train_images, data.train_labels), held=(data.validation_images, data.validation_labels),
        test=(data.test_images, data.test_labels))


TASKS = {"digits": digits_task, "glyphs": glyphs_task}


@dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table."""

    kind: str
    n: int = 0
    m: int = 0

    @property
    def name(self) -> str:
        return self.kind if self.kind == "dense" else f"{self.kind} {self.n}:{self.m}"

    def of(self, net: nn.Module) -> nn.Module:
        return net if self.kind == "dense" else sparsify(net, self.n, self.m, self.kind)


def methods() -> list[Method]:
    return [Method(kind="dense"), *(Method(kind=kind, n=n, m=m) for kind in METHODS for n, m in RATIOS)]


# --- one run ----------------------------------------------------------------------------------------------------------


def train(task: Task, method: Method, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = method.of(task.net()).train()
    random = torch.Generator().manual_seed(seed)
    setting, (images, labels) = task.training, task.train
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.rate, momentum=setting.momentum,
                                weight_decay=setting.weight_decay)
    steps = len(labels) // setting.batch  # the rest of an epoch, less than a batch, waits for another shuffle
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=steps)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, (setting.epochs - 1) * steps)
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [steps])
    for _ in range(setting.epochs):
        order = torch.randperm(len(labels), generator=random)[: steps * setting.batch]
        for chosen in order.split(setting.batch):
            batch = images[chosen] if task.augment is None else task.augment(images[chosen], random)
            optimizer.zero_grad()
            F.cross_entropy(model(batch), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def right(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    found = [model(part).argmax(1) for part in images.split(500)]
    return int((torch.cat(found) == labels).sum())


def run(task: Task, method: Method, seed: int) -> Run:
    begin = time.perf_counter()
    model = train(task, method, seed)
    return Run(task=task.name, seed=seed, method=method.name, settings=task.settings, right=right(model, *task.test),
               images=len(task.test[1]), held_accuracy=right(model, *task.held) / len(task.held[1]),
               seconds=round(time.perf_counter() - begin, 1))


# --- all runs ---------------------------------------------------------------------------------------------------------


def wanted(tasks: list[Task], seeds: Iterable[int]) -> Iterator[tuple[Task, int, Method]]:
    """Seed by seed, so that a command stopped early has whole pairs."""
    return ((task, seed, method) for seed in seeds for task in tasks for method in methods())


def execute(tasks: list[Task], seeds: Iterable[int], results: Path) -> list[Run]:
    """Run what is missing and store it; all runs of these settings."""
    every = list(wanted(tasks, seeds))
    todo = [(t, s, m) for t, s, m in every if stored(path_of(results, t, s, m)) is None]
    print(f"{len(todo)} of {len(every)} runs to do; results in {results}", flush=True)
    for count, (task, seed, method) in enumerate(todo, 1):
        if stored(path_of(results, task, seed, method)) is not None:
            continue  # another command on the same folder was here first
        found = run(task, method, seed)
        store(path_of(results, task, seed, method), found)
        print(f"[{count}/{len(todo)}] {task.name} seed {seed} {method.name}: {float(found.percent):.2f} % "
              f"({found.seconds:.0f} s)", flush=True)
    return [found for t, s, m in every if (found := stored(path_of(results, t, s, m))) is not None]


def path_of(results: Path, task: Task, seed: int, method: Method) -> Path:
    return results / f"{task.name}-{task.settings}-{method.name.replace(' ', '-').replace(':', 'of')}-{seed}.json"


def store(path: Path, found: Run) -> None:
    """Whole or not at all: a killed command leaves no torn file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(asdict(found)) + "\n", encoding="utf-8")
    os.replace(part, path)


def stored(path: Path) -> Run | None:
    return Run(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def validate(task: Task, rate: float) -> None:
    tried = Task(**{**{f: getattr(task, f) for f in task.__dataclass_fields__}, "training": replace(task.training, rate=rate)})
    found = run(tried, Method(kind="dense"), TUNING_SEED)
    print(f"{task.name}, rate {rate:g}: {100 * found.held_accuracy:.2f} % of validation images ({found.seconds:.0f} s)",
          flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("build/sparse-accuracy"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only-seed", type=int, action="append", help="run these and write no tables: several commands can share")
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="only this one")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is there")
    parser.add_argument("--validate", type=float, nargs="+", metavar="RATE", help="try learning rates and stop")
    parser.add_argument("--docs", type=Path, default=Path("docs/sparse-accuracy.md"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks = [TASKS[task]() for task in args.task or TASKS]
    if args.validate:
        for task in tasks:
            for rate in args.validate:
                validate(task, rate)
        return
    if args.only_seed:
        execute(tasks, args.only_seed, args.results)
        return
    seeds = range(args.seeds)
    if args.report:
        every: list[Any] = [stored(path_of(args.results, t, s, m)) for t, s, m in wanted(tasks, seeds)]
        runs = [found for found in every if found is not None]
    else:
        runs = execute(tasks, seeds, args.results)
    write_tables(args.docs, runs)
    text = json.dumps(numbers(runs), indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
