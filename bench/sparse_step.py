"""Cost of an N:M sparse training step of ResNet-20 against a dense one, on the CPU.

    python bench/sparse_step.py [--batch 32] [--repeats 15] [--threads 1] [--compiled] [--skip NAME ...] [--json FILE]

A step is forward, cross entropy, backward and one update by SGD with momentum on (batch, 3, 32, 32); it makes both sparse
copies of every weight anew, since the update changed them. The candidates take turns, so that a busy machine slows all of
them. Times are CPU times of the process; each ratio is the median over the turns of the ratio to dense within a turn. Sparse
products are dense ones with zeros here: the ratio is what training in torch costs, not what hardware would gain.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from sw.kernels import nm_select
from sw.models.resnet import resnet20
from sw.sparse import sparsify

WARM_UP = 3
LIMIT = 1.3
"""What a sparse step may cost, in dense steps; runs with ``wu`` are measured beside it."""

SPARSE: dict[str, dict[str, Any]] = {
    "bdwp 2:4": {"n": 2, "m": 4}, "bdwp 2:8": {"n": 2, "m": 8}, "bdwp 2:16": {"n": 2, "m": 16},
    "srste 2:8": {"n": 2, "m": 8, "method": "srste"}, "sdgp 2:8": {"n": 2, "m": 8, "method": "sdgp"},
    "sdwp 2:8": {"n": 2, "m": 8, "method": "sdwp"},
    "bdwp 2:8 + wu 1:2": {"n": 2, "m": 8, "wu": (1, 2)}, "bdwp 2:8 + wu 2:4": {"n": 2, "m": 8, "wu": (2, 4)},
}


def stepper(network: nn.Module, batch: int, compiled: bool) -> Callable[[], None]:
    """One training step as a call."""
    random = torch.Generator().manual_seed(1)
    images, labels = torch.randn(batch, 3, 32, 32, generator=random), torch.randint(0, 10, (batch,), generator=random)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.9)
    run: Any = torch.compile(network) if compiled else network

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(run(images), labels).backward()
        optimizer.step()

    return step


def candidates(batch: int, skip: list[str], compiled: bool) -> dict[str, Callable[[], None]]:
    """Every network's step by name; all start from one dense network."""
    torch.manual_seed(0)
    dense = resnet20().train()
    names = [name for name in ("dense", *SPARSE) if name not in skip]
    return {name: stepper(copy.deepcopy(dense) if name == "dense" else sparsify(dense, **SPARSE[name]), batch, compiled)
            for name in names}


def measure(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """CPU milliseconds of each step, candidates in turn."""
    for step in steps.values():
        for _ in range(WARM_UP):
            step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(repeats):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append((time.process_time() - start) * 1e3)
    return times


def report(times: dict[str, list[float]], batch: int, threads: int, compiled: bool) -> dict[str, Any]:
    """Medians, ratios within turns, which of them keep the limit, and the machine's state."""
    ratios = {name: statistics.median(x / y for x, y in zip(t, times["dense"], strict=True))
              for name, t in times.items() if name != "dense"}
    return {"batch": batch, "threads": threads, "compiled": compiled, "repeats": len(times["dense"]), "limit": LIMIT,
            "kernel": nm_select.usable(torch.zeros(1)), "cpu_ms": {name: statistics.median(t) for name, t in times.items()},
            "ratios": ratios, "within_limit": {name: ratio <= LIMIT for name, ratio in ratios.items()},
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                        "load": os.getloadavg()[0], "torch": torch.__version__}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compiled", action="store_true", help="all candidates through torch.compile")
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if "dense" in args.skip:
        parser.error("dense is what the others are compared with: it cannot be skipped")
    torch.set_num_threads(args.threads)
    found = report(measure(candidates(args.batch, args.skip, args.compiled), args.repeats), args.batch, args.threads, args.compiled)
    for name, ratio in found["ratios"].items():
        print(f"{name:20} {found['cpu_ms'][name]:8.1f} ms  {ratio:.3f} x dense"
              f"{'' if found['within_limit'][name] else f'  above the limit of {LIMIT}'}")
    print(f"{'dense':20} {found['cpu_ms']['dense']:8.1f} ms; one-minute load {found['machine']['load']:.1f}")
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
