"""Fuzzing: damaged programs in the interpreter and in the simulated core, damaged files, a disturbed bus.

    python bench/fuzz.py [--programs N] [--rtl N] [--files N] [--bus N] [--seed S] [--json [FILE]]

A failure names its seed and number; the same seed draws the same case again. At its end it prints how often each kind of case, each
outcome and each disturbance came up. Ends with status 1 if there is a failure, and if a kind that a campaign is for never came up: a
campaign that is too small proves nothing about it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the campaigns live beside the tests

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from tests.fuzz.bus_campaign import BusCampaign
from tests.fuzz.core_campaign import CoreCampaign
from tests.fuzz.file_campaign import FileCampaign
from tests.fuzz.machine_campaign import MachineCampaign
from tests.sim.core_bench import ARCH


def fuzz(
    *, programs: int = 0, rtl: int = 0, files: int = 0, bus: int = 0, seed: int = 1, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """The campaigns with that many cases each; a report per campaign that ran, and the numbers of failures and of empty counts."""
    say = progress or (lambda text: None)
    report: dict[str, Any] = {"seed": seed, "arch_id": f"{ARCH.arch_id:016x}", "failures": 0, "unexercised": 0}

    def built() -> SimulationBuild:
        build = build_core(ARCH, progress=say)
        report["verilog_sha256"] = build.verilog_sha256
        return build

    campaigns: dict[str, tuple[int, Callable[[], Any]]] = {
        "programs": (programs, lambda: MachineCampaign(seed)),
        "files": (files, lambda: FileCampaign(seed)),
        "rtl": (rtl, lambda: CoreCampaign(built(), seed)),
        "bus": (bus, lambda: BusCampaign(built(), seed)),
    }
    for name, (count, make) in campaigns.items():
        if count:
            report[name] = _run(name, make(), count, say)
            for kind in ("failures", "unexercised"):
                report[kind] += len(report[name][kind])
    return report


def _run(name: str, campaign: Any, count: int, say: Callable[[str], None]) -> dict[str, Any]:
    start = time.perf_counter()

    def step(done: int, total: int) -> None:
        if done == total or done % max(total // 20, 1) == 0:
            say(f"{name}: {done} of {total}, {len(campaign.report.failures)} failures, {time.perf_counter() - start:.0f} s")

    found = campaign.run(count, step)
    counts = {name: dict(value) if isinstance(value, Counter) else value for name, value in vars(found).items()}
    return {**counts, "unexercised": found.unexercised(), "seconds": round(time.perf_counter() - start, 1)}


def summary(report: Mapping[str, Any]) -> str:
    """Every count of every campaign, the failures, and what never came up."""
    lines = [f"seed {report['seed']}, arch_id {report['arch_id']}, Verilog {report.get('verilog_sha256', 'not simulated')}"]
    for name, found in report.items():
        if isinstance(found, dict):
            lines += [f"{name}:", *(f"  {line}" for line in _counts(found))]
    return "\n".join([*lines, f"{report['failures']} failures, {report['unexercised']} kinds never exercised"])


def _counts(found: Mapping[str, Any]) -> Iterator[str]:
    for name, value in found.items():
        words = name.replace("_", " ")
        if isinstance(value, dict):
            yield f"{words}: " + "; ".join(f"{key} {count:,}" for key, count in sorted(value.items()))
        elif isinstance(value, list):
            yield from (f"{'FAILURE' if name == 'failures' else 'NEVER EXERCISED, run more cases'}: {text}" for text in value)
        else:
            yield f"{words}: {round(value, 2):,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, count, text in (
        ("programs", 2000, "damaged programs in the interpreter"),
        ("rtl", 500, "damaged programs in the simulated core, each beside the interpreter"),
        ("files", 2000, "damaged graphs, programs, recipes and architectures"),
        ("bus", 300, "programs disturbed by bus errors, silences, aborts and watchdogs"),
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
        print(summary(report))
    return 1 if report["failures"] or report["unexercised"] else 0


if __name__ == "__main__":
    sys.exit(main())
