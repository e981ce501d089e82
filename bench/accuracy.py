"""Accuracy of float, post-training and learned fixed point at 8, 6, 5, 4 and 3 bits, and of weights with few digits.

    python bench/accuracy.py [--results build/accuracy.jsonl] [--seeds 5] [--task digits] [--json FILE]

Every run is one line of the results file and is never repeated: a stopped command goes on where it was. For each seed one float
network is trained; every other run starts from it (or only calibrates it), with the same images. ``--report`` writes the tables
of what is there without running anything. About an hour of one core for both tasks and five seeds.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy_report import Run, numbers, write_tables
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat
from sw.data import digits, glyphs32
from sw.models.small_cnn import PlainNet, ResidualNet
from sw.quant import Recipe, quantize_model
from sw.quant.train import TrainConfig, Trainer, accuracy

BITS = (8, 6, 5, 4, 3)
CALIBRATION = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A data set, its network and how long it trains. ``held`` images choose hyper-parameters; test images only count."""

    name: str
    net: Callable[[], nn.Module]
    input_format: FixedFormat
    train: tuple[Tensor, Tensor]
    held: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
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
        """Eight hexadecimal digits that change with everything a result depends on but the code."""
        sizes = [len(labels) for _, labels in (self.train, self.held, self.test)]
        parts = (self.name, self.net.__name__, sorted(self.training.items()), CALIBRATION, sizes)
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


def digits_task() -> Task:
    data = digits.load_digits()
    held = torch.from_numpy(digits.held_out_mask(data.train_labels.numpy(), 270, seed=1))
    return Task(
        name="digits", net=PlainNet, input_format=digits.INPUT_FORMAT, augment=digits.augment,
        train=(data.train_images[~held], data.train_labels[~held]), held=(data.train_images[held], data.train_labels[held]),
        test=(data.test_images, data.test_labels),
        training={"float_epochs": 40, "fixed_epochs": 20, "fixed_rate": 3e-3, "batch": 64})


def glyphs_task() -> Task:
    data = glyphs32.load_glyphs()
    return Task(
        name="glyphs", net=ResidualNet, input_format=glyphs32.INPUT_FORMAT,
        train=(data.train_images, data.train_labels), held=(data.validation_images, data.validation_labels),
        test=(data.test_images, data.test_labels),
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
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(trained.float_model.state_dict(), path)
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
    model = network_of(task, method, seed, start)
    right = round(accuracy(model, *task.test) * len(task.test[1]))
    held = accuracy(model, *task.held)
    return Run(task=task.name, seed=seed, method=method.name, settings=task.settings, right=right, images=len(task.test[1]),
               held_accuracy=held, seconds=round(time.perf_counter() - begin, 1))


# --- all runs ---------------------------------------------------------------------------------------------------------


def wanted(tasks: list[Task], seeds: int) -> Iterator[tuple[Task, int, Method]]:
    """Seed by seed, so that a run stopped early has whole pairs; weights of few digits come last."""
    few = [[m for m in methods() if bool(m.digits) is late] for late in (False, True)]
    return ((task, seed, method) for part in few for seed in range(seeds) for task in tasks for method in part)


def execute(tasks: list[Task], seeds: int, results: Path) -> list[Run]:
    """Run what is missing and append it; all runs of these settings."""
    done = {run.key: run for run in read(results)}
    todo = [(t, s, m) for t, s, m in wanted(tasks, seeds) if (t.name, s, m.name, t.settings) not in done]
    print(f"{len(todo)} of {len(list(wanted(tasks, seeds)))} runs to do; results in {results}", flush=True)
    start: dict[tuple[str, int], nn.Module] = {}
    for count, (task, seed, method) in enumerate(todo, 1):
        key = (task.name, seed)
        if key not in start:
            start = {key: float_network(task, seed, results.parent / f"accuracy-{task.name}-{task.settings}-{seed}.float")}
        found = run(task, method, seed, start[key])
        append(results, found)
        done[found.key] = found
        print(f"[{count}/{len(todo)}] {task.name} seed {seed} {method.name}: {float(found.percent):.2f} % "
              f"({found.seconds:.0f} s)", flush=True)
    return [done[t.name, s, m.name, t.settings] for t, s, m in wanted(tasks, seeds)]


def read(results: Path) -> list[Run]:
    if not results.exists():
        return []
    return [run for line in results.read_text(encoding="utf-8").splitlines() if (run := _whole(line)) is not None]


def _whole(line: str) -> Run | None:
    """None for the torn last line of a run that was killed while it wrote."""
    try:
        return Run(**json.loads(line))
    except json.JSONDecodeError:
        return None


def latest(runs: list[Run]) -> list[Run]:
    """The runs of each task's last settings."""
    settings = {run.task: run.settings for run in runs}
    return [run for run in runs if run.settings == settings[run.task]]


def append(results: Path, found: Run) -> None:
    results.parent.mkdir(parents=True, exist_ok=True)
    before = results.read_bytes() if results.exists() else b""
    torn = before != b"" and not before.endswith(b"\n")
    with results.open("a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + json.dumps(asdict(found)) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("build/accuracy.jsonl"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--task", choices=sorted(TASKS), action="append", help="only this one")
    parser.add_argument("--report", action="store_true", help="run nothing, report what is there")
    parser.add_argument("--docs", type=Path, default=Path("docs/accuracy.md"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not args.report:
        execute([TASKS[task]() for task in args.task or TASKS], args.seeds, args.results)
    runs = latest(read(args.results))
    write_tables(args.docs, runs)
    text = json.dumps(numbers(runs), indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
