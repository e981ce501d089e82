"""The tables of `bench/detection.py`: AP50 as means over seeds, and paired differences with 95 % confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from accuracy_report import Scores, interval, paired

__all__ = ["Run", "numbers", "sections"]

DIFFERENCES = {
    "formats": (
        ("square_depthwise w4a8", "square_depthwise float"), ("square_depthwise w4a8 whole", "square_depthwise float"),
        ("square_depthwise w4a8 whole", "square_depthwise float longer"), ("square_depthwise w4a8 whole", "square_depthwise w4a8"),
        ("depthwise w4a8", "depthwise float"), ("square_depthwise float", "depthwise float"),
        ("square_depthwise w4a8 whole", "depthwise w4a8"),
    ),
    "operators": (
        *((f"{name} float", "plain float") for name in ("deformable", "bounded", "square", "depthwise", "square_depthwise", "rounded")),
        ("square_depthwise float", "depthwise float"), ("rounded float", "square_depthwise float"),
    ),
}
"""By task: which rows are compared, seed by seed."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measured detector: AP50 and AP on ``scenes`` test scenes, fractions; ``held_ap50`` is that of the validation scenes."""

    task: str
    seed: int
    method: str
    settings: str
    ap50: float
    ap: float
    held_ap50: float
    scenes: int
    seconds: float

    @property
    def percent(self) -> Fraction:
        return 100 * Fraction(self.ap50)


def scores(runs: Sequence[Run], of: str = "ap50") -> Scores:
    """Method to seed to percent."""
    found: Scores = {}
    for run in runs:
        found.setdefault(run.method, {})[run.seed] = 100 * Fraction(getattr(run, of))
    return found


def numbers(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything in the tables, ready for JSON."""
    result: dict[str, Any] = {}
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        rows = {}
        for what in ("ap50", "ap"):
            for name, by_seed in scores(mine, what).items():
                mean = interval(list(by_seed.values()))
                rows.setdefault(name, {"seeds": mean.count}).update({what: float(mean.mean), f"{what}_half_interval": mean.half})
        found = scores(mine)
        gains = [{"first": first, "second": second, "mean": float(gain.mean), "half_interval": gain.half, "pairs": gain.count}
                 for first, second in DIFFERENCES[task] if (gain := paired(found, first, second)) is not None]
        result[task] = {"scenes": mine[0].scenes, "rows": rows, "differences_ap50": gains,
                        "seconds": round(sum(run.seconds for run in mine), 1)}
    return result


def sections(runs: Sequence[Run]) -> dict[str, str]:
    """Markdown of each task: its rows, and the differences between them."""
    parts = {}
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        fifty, mean = scores(mine), scores(mine, "ap")
        lines = [f"### {task}, {mine[0].scenes} test scenes", ""]
        lines += ["| operator and form | AP50, % | AP, % | seeds |", "|---|---|---|---|"]
        lines += [f"| {name} | {interval(list(fifty[name].values())).text()} | {interval(list(mean[name].values())).text()} "
                  f"| {len(fifty[name])} |" for name in fifty]
        lines += ["", "| difference | AP50, points | pairs |", "|---|---|---|"]
        lines += [f"| {first} − {second} | {gain.text('+')} | {gain.count} |" for first, second in DIFFERENCES[task]
                  if (gain := paired(fifty, first, second)) is not None]
        parts[task] = "\n".join([*lines, "", f"{len(mine)} runs, {sum(run.seconds for run in mine) / 60:.0f} minutes by the clock."])
    return parts
