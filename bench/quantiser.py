"""Speed of the quantiser: one cast of a large tensor, and a training step of DigitsNet, against float.

    python bench/quantiser.py [--values 8000000] [--steps 20] [--json FILE]

Casts are timed without gradients ("cast") and with them, forward and backward ("train"), by the compiled kernel and by the
torch code that stands in for it ("torch"), beside a ReLU.
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
from sw.kernels import build
from sw.models.shufflenet_digits import DigitsNet
from sw.quant import Recipe, fake_quantize, quantize_model


def milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU time of a call, after two to warm up; a busy machine disturbs it less than wall time."""
    times = []
    for i in range(repeats + 2):
        start = time.process_time()
        call()
        if i >= 2:
            times.append((time.process_time() - start) * 1e3)
    return sorted(times)[len(times) // 2]


def forward_backward(call: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor, grad: torch.Tensor) -> None:
    leaf = values.detach().requires_grad_()
    torch.autograd.grad(call(leaf), leaf, grad)


def casts(count: int) -> dict[str, dict[str, float]]:
    """One pass over ``count`` values, and one forward and one back."""
    values, grad, bits = torch.randn(count), torch.randn(count), torch.tensor(3.0, requires_grad=True)
    calls: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"relu": torch.relu}
    for rounding in (Rounding.TRN, Rounding.RND, Rounding.RND_CONV):
        calls[rounding.name] = lambda v, r=rounding: fake_quantize(v, bits, width=8, rounding=r)
    found = {}
    for name, call in calls.items():
        with torch.no_grad():
            cast = milliseconds(lambda c=call: c(values), 7)
        found[name] = {"cast": cast, "train": milliseconds(lambda c=call: forward_backward(c, values, grad), 7)}
    return found


def without_kernels(count: int) -> dict[str, dict[str, float]]:
    """`casts` by the torch definition."""
    build.ENABLED, before = False, build.ENABLED
    try:
        return casts(count)
    finally:
        build.ENABLED = before


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
    report = {"values": args.values, "kernel_ms": casts(args.values), "torch_ms": without_kernels(args.values),
              "step_ms": steps(args.steps)}
    report["step_ratio"] = report["step_ms"]["fixed"] / report["step_ms"]["float"]
    text = json.dumps(report, indent=1)
    print(text)
    if args.json is not None:
        args.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
