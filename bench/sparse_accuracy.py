"""Accuracy of N:M sparse training: dense, SR-STE, SDGP, SDWP and BDWP at 2:4 and 2:8, in pairs over seeds.

    python bench/sparse_accuracy.py [--results build/sparse-accuracy] [--seeds 5] [--task digits] [--json FILE]

A seed gives the initial weights and the order of the batches, the same for every method, so rows are compared in pairs. Every
run is one file in the results folder and is never repeated while its settings are the same: a stopped command goes on where it
was. ``--report`` writes the tables of what is there without running anything. ``--validate`` trains dense with a seed outside
the table and prints its accuracy on validation images: how learning rates were chosen.

The tasks "glyphs-..." are the glyphs with a wider network, with more epochs or with both, for few methods: what the loss of a
method depends on. They keep the rate of the glyphs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import torch
from accuracy import SEEDS, Images, Job, digits_images, fingerprint, finish, glyphs_images, options
from sparse_accuracy_report import Run, numbers, sections
from torch import Tensor, nn
from torch.nn import functional as F

from sw.data import digits
from sw.models.small_cnn import PlainNet, ResidualNet
from sw.sparse import sparsify

RATIOS = ((2, 4), (2, 8))
METHODS = ("bdwp", "srste", "sdgp", "sdwp")
TUNING_SEED = 100


@dataclass(frozen=True, kw_only=True)
class Training:
    """Momentum SGD with a linear warm-up of one epoch and then a cosine to 0."""

    epochs: int
    rate: float
    batch: int
    momentum: float = 0.9
    weight_decay: float = 5e-5


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


DENSE = Method(kind="dense")
ALL = (DENSE, *(Method(kind=kind, n=n, m=m) for kind in METHODS for n, m in RATIOS))
PAIR = (DENSE, Method(kind="bdwp", n=2, m=8))
FEW = (*PAIR, Method(kind="srste", n=2, m=8))


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A data set, its network, its training and its table. ``held`` images choose the rate; test images only count."""

    name: str
    net: Callable[[], nn.Module]
    training: Training
    train: Images
    held: Images
    test: Images
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None
    methods: tuple[Method, ...] = ALL
    seeds: int = SEEDS

    @property
    def settings(self) -> str:
        return fingerprint(self, asdict(self.training))


def digits_task() -> Task:
    return Task(name="digits", net=PlainNet, augment=digits.augment, training=Training(epochs=40, rate=0.05, batch=64),
                **digits_images())


def glyphs_task(
    name: str = "glyphs", net: Callable[[], nn.Module] = ResidualNet, epochs: int = 5, *, methods: tuple[Method, ...] = ALL,
    seeds: int = SEEDS,
) -> Task:
    """The glyphs; variants differ from it in the network, in the epochs or in both, and keep the rate."""
    return Task(name=name, net=net, training=Training(epochs=epochs, rate=0.1, batch=128), methods=methods, seeds=seeds,
                **glyphs_images())


def residual_net_2x() -> ResidualNet:
    return ResidualNet(width=32)


TASKS: dict[str, Callable[[], Task]] = {
    "digits": digits_task,
    "glyphs": glyphs_task,
    "glyphs-long": lambda: glyphs_task("glyphs-long", epochs=20, methods=FEW, seeds=4),
    "glyphs-wide": lambda: glyphs_task("glyphs-wide", residual_net_2x, methods=FEW, seeds=3),
    "glyphs-wide-long": lambda: glyphs_task("glyphs-wide-long", residual_net_2x, 20, methods=PAIR, seeds=3),
}


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


def run(task: Task, seed: int, method: Method) -> Run:
    begin = time.perf_counter()
    model = train(task, method, seed)
    return Run(task=task.name, seed=seed, method=method.name, settings=task.settings, right=right(model, *task.test),
               images=len(task.test[1]), held_accuracy=right(model, *task.held) / len(task.held[1]),
               train_accuracy=right(model, *task.train) / len(task.train[1]), seconds=round(time.perf_counter() - begin, 1))


# --- all runs ---------------------------------------------------------------------------------------------------------


def wanted(tasks: Sequence[Task], seeds: Iterable[int] | None = None) -> Iterator[Job]:
    """Seed by seed, so that a command stopped early has whole pairs; without ``seeds`` each task's own number of them."""
    for seed in range(max(task.seeds for task in tasks)) if seeds is None else seeds:
        for task in tasks:
            if seeds is not None or seed < task.seeds:
                yield from ((task, seed, method) for method in task.methods)


def validate(task: Task, rate: float) -> None:
    found = run(replace(task, training=replace(task.training, rate=rate)), TUNING_SEED, DENSE)
    print(f"{task.name}, rate {rate:g}: {100 * found.held_accuracy:.2f} % of validation images ({found.seconds:.0f} s)",
          flush=True)


def main() -> None:
    parser = options(__doc__, "sparse-accuracy", TASKS)
    parser.add_argument("--validate", type=float, nargs="+", metavar="RATE", help="try learning rates and stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tasks = [TASKS[task]() for task in args.task or TASKS]
    if args.validate:
        for task in tasks:
            for rate in args.validate:
                validate(task, rate)
        return
    jobs = list(wanted(tasks, args.only_seed or (range(args.seeds) if args.seeds else None)))
    finish(args, jobs, run, sections, numbers)


if __name__ == "__main__":
    main()
