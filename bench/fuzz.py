"""Fuzzing: damaged programs in the interpreter and in the simulated core, damaged files, a disturbed bus.

    python bench/fuzz.py [--programs N] [--rtl N] [--files N] [--bus N] [--seed S] [--json [FILE]]

A failure names its seed and number; the same seed draws the same case again. Ends with status 1 if there is a failure.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the campaigns live beside the tests

from hw.sim.core import build_core
from hw.sim.loop import Stalls
from tests.fuzz.bus_campaign import BusCampaign
from tests.fuzz.core_campaign import CoreCampaign
from tests.fuzz.file_campaign import FileCampaign
from tests.fuzz.machine_campaign import MachineCampaign
from tests.sim.core_bench import ARCH

STALLS = 40
"""Random stalls on every channel under the damaged programs, in 1/256 per cycle."""


def fuzz(
    *, programs: int = 0, rtl: int = 0, files: int = 0, bus: int = 0, seed: int = 1, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """The campaigns with that many cases each; a report per campaign that ran, and the number of all failures."""
    say = progress or (lambda text: None)
    report: dict[str, Any] = {"seed": seed, "arch_id": f"{ARCH.arch_id:016x}", "failures": 0}
    campaigns = {
        "programs": (programs, lambda: MachineCampaign(seed)),
        "files": (files, lambda: FileCampaign(seed)),
        "rtl": (rtl, lambda: CoreCampaign(build_core(ARCH, progress=say), seed, Stalls.everywhere(STALLS, seed))),
        "bus": (bus, lambda: BusCampaign(build_core(ARCH, progress=say), seed)),
    }
    for name, (count, make) in campaigns.items():
        if count:
            report[name] = _run(name, make(), count, say)
            report["failures"] += len(report[name]["failures"])
    return report


def _run(name: str, campaign: Any, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    start = time.perf_counter()

    def step(done: int, total: int) -> None:
        if done == total or done % max(total // 20, 1) == 0:
            say(f"{name}: {done} of {total}, {len(campaign.report.failures)} failures, {time.perf_counter() - start:.0f} s")

    found = campaign.run(count, step)
    counts = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(found).items()}
    return {**counts, "seconds": round(time.perf_counter() - start, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, count, text in (
        ("programs", 2000, "damaged programs in the interpreter"),
        ("rtl", 100, "damaged programs in the simulated core, each beside the interpreter"),
        ("files", 2000, "damaged graphs, programs, recipes and architectures"),
        ("bus", 90, "programs disturbed by bus errors, silences, aborts and watchdogs"),
    ):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N", help=f"{text} (default {count})")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write the report as JSON, to a file or to the output")
    args = parser.parse_args()
    options = {name: getattr(args, name) for name in ("programs", "rtl", "files", "bus", "seed")}
    report = fuzz(**options, progress=lambda text: print(text, file=sys.stderr, flush=True))
    text = json.dumps(report, indent=1)
    if args.json not in (None, "-"):
        Path(args.json).write_text(text + "\n", encoding="utf-8")
    if args.json == "-":
        print(text)
    else:
        print(f"{report['failures']} failures")
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
