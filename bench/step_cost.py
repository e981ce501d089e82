"""What the benches of a training step share: a step as a call, candidates in turn, and the machine's state beside the times.

Times are CPU times of the process; a ratio is the median over the turns of the ratio within a turn, so that a busy machine
slows both sides of it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["WARM_UP", "Step", "measure", "options", "ratio", "stepper", "summary", "write"]

WARM_UP = 3
FORMS = 64
Step = Callable[[], None]


def stepper(network: nn.Module, images: Tensor, labels: Tensor, rate: float, compiled: bool = False) -> Step:
    """One training step as a call: forward, cross entropy, backward and one update by SGD with momentum.

    A compiled network is one graph or an error. Networks of one class share its code, of which torch compiles only so many
    forms and runs the others eagerly: the limit is raised, so that no candidate is measured uncompiled.
    """
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=rate, momentum=0.9)
    run: Any = network
    if compiled:
        torch._dynamo.config.cache_size_limit = FORMS
        run = torch.compile(network, fullgraph=True)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(run(images), labels).backward()
        optimizer.step()

    return step


def measure(steps: Mapping[str, Step], repeats: int) -> dict[str, list[float]]:
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


def ratio(times: Mapping[str, list[float]], first: str, second: str) -> float:
    """The median over the turns of ``first`` in units of ``second``."""
    return statistics.median(x / y for x, y in zip(times[first], times[second], strict=True))


def summary(times: Mapping[str, list[float]], batch: int, threads: int) -> dict[str, Any]:
    """Medians, what was measured and the machine's state."""
    return {"batch": batch, "threads": threads, "repeats": len(next(iter(times.values()))),
            "cpu_ms": {name: statistics.median(t) for name, t in times.items()},
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(),
                        "load": os.getloadavg()[0], "torch": torch.__version__}}


def options(about: str) -> argparse.ArgumentParser:
    """The options that every bench of a step has."""
    parser = argparse.ArgumentParser(description=about.splitlines()[0])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--skip", nargs="*", default=[])
    parser.add_argument("--json", type=Path)
    return parser


def write(path: Path | None, found: Mapping[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
