"""Speed of the quantiser: one cast of a large tensor, and a training step of DigitsNet, against float.

    python bench/quantiser.py [--values 8000000] [--steps 20] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.nn import functional as F

from hw.spec.fixed import Rounding
from sw.data.digits import INPUT_FORMAT, load_digits
from sw.models.shufflenet_digits import DigitsNet
from sw.quant import Recipe, fake_quantize, quantize_model


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median wall time of a call, after two to warm up."""
    times = []
    for i in range(repeats + 2):
        start = time.perf_counter()
        call()
        if i >= 2:
            times.append((time.perf_counter() - start) * 1e3)
    return sorted(times)[len(times) // 2]


def casts(count: int) -> dict[str, float]:
    """One pass over ``count`` values, without gradients."""
    values, bits = torch.randn(count), torch.tensor(3.0)
    found = {"relu": milliseconds(lambda: torch.relu(values), 7)}
    for rounding in (Rounding.TRN, Rounding.RND, Rounding.RND_CONV):
        found[rounding.name] = milliseconds(lambda r=rounding: fake_quantize(values, bits, width=8, rounding=r), 7)
    return found


def steps(count: int) -> dict[str, float]:
    """Forward and backward of one batch of 64 digits."""
    torch.manual_seed(0)
    data, net = load_digits(), DigitsNet()
    images, labels = data.train_images[:64], data.train_labels[:64]
    fixed = quantize_model(net, Recipe(input_format=INPUT_FORMAT))
    fixed.calibrate([images])

    def step(model: torch.nn.Module) -> None:
        model.train().zero_grad()
        F.cross_entropy(model(images), labels).backward()

    return {"float": milliseconds(lambda: step(net), count), "fixed": milliseconds(lambda: step(fixed), count)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=8_000_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    report = {"values": args.values, "cast_ms": casts(args.values), "step_ms": steps(args.steps)}
    report["step_ratio"] = report["step_ms"]["fixed"] / report["step_ms"]["float"]
    text = json.dumps(report, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
