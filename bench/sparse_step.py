"""Cost of an N:M sparse training step of ResNet-20 against a dense one, on the CPU.

    python bench/sparse_step.py [--batch 32] [--repeats 15] [--threads 1] [--compiled] [--skip NAME ...] [--json FILE]

A step is forward, cross entropy, backward and one update by SGD with momentum on (batch, 3, 32, 32); it makes both sparse
copies of every weight anew, since the update changed them. The candidates take turns, so that a busy machine slows all of
them. Times are CPU times of the process; each ratio is the median over the turns of the ratio to dense within a turn. Sparse
products are dense ones with zeros here: the ratio is what training in torch costs, not what hardware would gain.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from step_cost import Step, measure, options, ratio, stepper, summary, write

from sw.kernels import nm_select
from sw.models.resnet import resnet20
from sw.sparse import sparsify

LIMIT = 1.3
"""What a sparse step may cost, in dense steps; runs with ``wu`` are measured beside it."""

SPARSE: dict[str, dict[str, Any]] = {
    "bdwp 2:4": {"n": 2, "m": 4}, "bdwp 2:8": {"n": 2, "m": 8}, "bdwp 2:16": {"n": 2, "m": 16},
    "srste 2:8": {"n": 2, "m": 8, "method": "srste"}, "sdgp 2:8": {"n": 2, "m": 8, "method": "sdgp"},
    "sdwp 2:8": {"n": 2, "m": 8, "method": "sdwp"},
    "bdwp 2:8 + wu 1:2": {"n": 2, "m": 8, "wu": (1, 2)}, "bdwp 2:8 + wu 2:4": {"n": 2, "m": 8, "wu": (2, 4)},
}


def candidates(batch: int, skip: list[str], compiled: bool) -> dict[str, Step]:
    """Every network's step by name; all start from one dense network."""
    torch.manual_seed(0)
    dense = resnet20().train()
    random = torch.Generator().manual_seed(1)
    images, labels = torch.randn(batch, 3, 32, 32, generator=random), torch.randint(0, 10, (batch,), generator=random)
    networks = {name: copy.deepcopy(dense) if name == "dense" else sparsify(dense, **SPARSE[name])
                for name in ("dense", *SPARSE) if name not in skip}
    return {name: stepper(network, images, labels, 1e-2, compiled) for name, network in networks.items()}


def report(times: dict[str, list[float]], batch: int, threads: int, compiled: bool) -> dict[str, Any]:
    """The summary, ratios to dense, and which of them keep the limit."""
    ratios = {name: ratio(times, name, "dense") for name in times if name != "dense"}
    return {**summary(times, batch, threads), "compiled": compiled, "limit": LIMIT, "kernel": nm_select.usable(torch.zeros(1)),
            "ratios": ratios, "within_limit": {name: found <= LIMIT for name, found in ratios.items()}}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--compiled", action="store_true", help="all candidates through torch.compile")
    args = parser.parse_args()
    if "dense" in args.skip:
        parser.error("dense is what the others are compared with: it cannot be skipped")
    torch.set_num_threads(args.threads)
    found = report(measure(candidates(args.batch, args.skip, args.compiled), args.repeats), args.batch, args.threads, args.compiled)
    for name, times in found["ratios"].items():
        print(f"{name:20} {found['cpu_ms'][name]:8.1f} ms  {times:.3f} x dense"
              f"{'' if found['within_limit'][name] else f'  above the limit of {LIMIT}'}")
    print(f"{'dense':20} {found['cpu_ms']['dense']:8.1f} ms; one-minute load {found['machine']['load']:.1f}")
    write(args.json, found)


if __name__ == "__main__":
    main()
