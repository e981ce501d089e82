"""The tables of `bench/sparse_accuracy.py`: means over seeds and paired differences to dense training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from accuracy_report import Interval, Run, Scores, interval, paired, scores

__all__ = ["PUBLISHED_LOSS", "Run", "numbers", "sections"]

PUBLISHED_LOSS = 0.56
"""Points that BDWP 2:8 lost to dense training on average in its publication."""

SUBJECT, BASE = "bdwp 2:8", "glyphs"
"""The method that was published, and the task of which tasks with longer names are variants."""


def against_published(difference: Interval) -> str:
    """Where the published loss lies in the interval of a difference to dense."""
    low, high = float(difference.mean) - difference.half, float(difference.mean) + difference.half
    if low <= -PUBLISHED_LOSS <= high:
        return "cannot be told from it"
    return "smaller" if low > -PUBLISHED_LOSS else "larger"


def change(runs: Sequence[Run], task: str) -> Interval | None:
    """What BDWP's difference to dense is above that of the task this one is a variant of, seed by seed; None for others."""
    if not task.startswith(f"{BASE}-"):
        return None
    found, base = scores(runs, task), scores(runs, BASE)
    gains = {name: {seed: of[SUBJECT][seed] - of["dense"][seed] for seed in of.get(SUBJECT, {}) if seed in of.get("dense", {})}
             for name, of in (("here", found), ("there", base))}
    return paired(gains, "here", "there")


def numbers(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything in the tables, ready for JSON."""
    result: dict[str, Any] = {"published_loss_bdwp_2_8": PUBLISHED_LOSS}
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        found, seen = scores(mine, task), _train_scores(mine)
        rows = {}
        for name, by_seed in found.items():
            mean = interval(list(by_seed.values()))
            rows[name] = {"mean": float(mean.mean), "half_interval": mean.half, "seeds": mean.count}
            if name in seen:
                of_train = interval(list(seen[name].values()))
                rows[name] |= {"train_mean": float(of_train.mean), "train_half_interval": of_train.half}
            for what, of in (("", found), ("train_", seen)):
                if name != "dense" and (gain := paired(of, name, "dense")) is not None:
                    rows[name] |= {f"{what}minus_dense": float(gain.mean), f"{what}minus_dense_half_interval": gain.half,
                                   f"{what}pairs": gain.count}
        result[task] = {"test_images": mine[0].images, "accuracy": rows, "seconds": round(sum(run.seconds for run in mine), 1)}
        if (gained := change(runs, task)) is not None:
            result[task]["change_of_loss"] = {"mean": float(gained.mean), "half_interval": gained.half, "pairs": gained.count}
    return result


def sections(runs: Sequence[Run]) -> dict[str, str]:
    """Markdown of each task: a row for each method."""
    parts = {}
    for task in dict.fromkeys(run.task for run in runs):
        mine = [run for run in runs if run.task == task]
        found, seen = scores(mine, task), _train_scores(mine)
        lines = [f"### {task}, {mine[0].images} test images", "",
                 "| method | accuracy, % | − dense, points | of training images, % | − dense, points | seeds "
                 "| its loss, against the published 0.56 |", "|---|---|---|---|---|---|---|",
                 *(_row(found, seen, name) for name in found), ""]
        if (gained := change(runs, task)) is not None:
            lines += [f"{SUBJECT} − dense is {gained.text('+')} points above that of {BASE} ({gained.count} pairs).", ""]
        parts[task] = "\n".join([*lines, f"{len(mine)} runs, {sum(run.seconds for run in mine) / 60:.0f} minutes by the clock."])
    return parts


def _train_scores(runs: Sequence[Run]) -> Scores:
    """Method to seed to accuracy on the training images in percent, where it was counted."""
    found: Scores = {}
    for run in runs:
        if (percent := run.train_percent) is not None:
            found.setdefault(run.method, {})[run.seed] = percent
    return found


def _row(found: Scores, seen: Scores, name: str) -> str:
    mean, gain = interval(list(found[name].values())), paired(found, name, "dense")
    of_train, other = interval(list(seen[name].values())).text() if name in seen else "-", paired(seen, name, "dense")
    if name == "dense" or gain is None:
        return f"| {name} | {mean.text()} | - | {of_train} | - | {mean.count} | - |"
    verdict = against_published(gain) if name == SUBJECT and gain.count > 1 else "-"
    behind = "-" if other is None else other.text("+")
    return f"| {name} | {mean.text()} | {gain.text('+')} | {of_train} | {behind} | {gain.count} | {verdict} |"
