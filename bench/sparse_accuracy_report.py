"""The tables of `bench/sparse_accuracy.py`: means over seeds and paired differences to dense training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accuracy_report import BEGIN, END, Run, interval, paired, scores

__all__ = ["PUBLISHED_LOSS", "Run", "numbers", "tables", "write_tables"]

PUBLISHED_LOSS = 0.56
"""Points that BDWP 2:8 lost to dense training on average in its publication."""


def against_published(difference: Any) -> str:
    """Where the published loss lies in the interval of a difference to dense."""
    low, high = float(difference.mean) - difference.half, float(difference.mean) + difference.half
    if low <= -PUBLISHED_LOSS <= high:
        return "cannot be told from it"
    return "smaller" if low > -PUBLISHED_LOSS else "larger"


def numbers(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything in the tables, ready for JSON."""
    result: dict[str, Any] = {"published_loss_bdwp_2_8": PUBLISHED_LOSS}
    for task in dict.fromkeys(run.task for run in runs):
        found = scores(runs, task)
        rows = {}
        for name, by_seed in found.items():
            mean, gain = interval(list(by_seed.values())), paired(found, name, "dense")
            rows[name] = {"mean": float(mean.mean), "half_interval": mean.half, "seeds": mean.count}
            if name != "dense" and gain is not None:
                rows[name] |= {"minus_dense": float(gain.mean), "minus_dense_half_interval": gain.half, "pairs": gain.count}
        mine = [run for run in runs if run.task == task]
        result[task] = {"test_images": mine[0].images, "accuracy": rows, "seconds": round(sum(run.seconds for run in mine), 1)}
    return result


def tables(runs: Sequence[Run]) -> str:
    """Markdown: for each task a row for each method."""
    parts: list[str] = []
    for task in dict.fromkeys(run.task for run in runs):
        found = scores(runs, task)
        mine = [run for run in runs if run.task == task]
        parts += [f"### {task}, {mine[0].images} test images", "",
                  "| method | accuracy, % | − dense, points | seeds | its loss, against the published 0.56 |", "|---|---|---|---|---|"]
        parts += [_row(found, name) for name in found]
        parts += ["", f"{len(mine)} runs, {sum(run.seconds for run in mine) / 60:.0f} minutes by the clock.", ""]
    return "\n".join(parts)


def _row(found: Any, name: str) -> str:
    mean, gain = interval(list(found[name].values())), paired(found, name, "dense")
    if name == "dense" or gain is None:
        return f"| {name} | {mean.text()} | - | {mean.count} | - |"
    verdict = against_published(gain) if name == "bdwp 2:8" and gain.count > 1 else "-"
    return f"| {name} | {mean.text()} | {gain.text('+')} | {gain.count} | {verdict} |"


def write_tables(docs: Path, runs: Sequence[Run]) -> None:
    """Replace what stands between the markers of the page; ValueError if it has none."""
    text = docs.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{docs} must have the lines {BEGIN} and {END}, between which the tables stand")
    docs.write_text(f"{before}{BEGIN}\n\n{tables(runs)}\n{END}{after}", encoding="utf-8")
