"""The tables of `bench/accuracy.py`: means over seeds, paired differences with 95 % confidence intervals, requirements."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

__all__ = ["Interval", "Run", "numbers", "paired", "sections", "write_tables"]

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
FEW_DIGITS = (1, 2, 3)
KINDS = {"k_hot": "K-hot", "signed": "signed digits"}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One measured network: ``right`` of ``images`` test images; ``held_accuracy`` is that of the validation images and
    ``train_accuracy`` that of the training images, where it was counted."""

    task: str
    seed: int
    method: str
    settings: str
    right: int
    images: int
    held_accuracy: float
    seconds: float
    train_accuracy: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.right <= self.images or self.images < 1:
            raise ValueError(f"right must be 0..images, not {self.right} of {self.images}")

    @property
    def key(self) -> tuple[str, int, str, str]:
        return self.task, self.seed, self.method, self.settings

    @property
    def percent(self) -> Fraction:
        return Fraction(100 * self.right, self.images)

    @property
    def train_percent(self) -> Fraction | None:
        return None if self.train_accuracy is None else 100 * Fraction(self.train_accuracy)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean of ``count`` values, exact, and half the width of its 95 % confidence interval (Student t); NaN for one value."""

    mean: Fraction
    half: float
    count: int

    def text(self, sign: str = "") -> str:
        half = "" if math.isnan(self.half) else f" ± {self.half:.2f}"
        return f"{float(self.mean):{sign}.2f}{half}"


def interval(values: Sequence[Fraction]) -> Interval:
    """ValueError if there are no values."""
    if not values:
        raise ValueError("an interval needs at least one value, and there are none")
    count, half = len(values), math.nan
    if count > 1:
        half = _student(count - 1) * statistics.stdev([float(v) for v in values]) / math.sqrt(count)
    return Interval(mean=sum(values, Fraction(0)) / count, half=half, count=count)


def _student(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t."""
    from scipy.stats import t

    return float(t.ppf(0.975, freedom))


Scores = dict[str, dict[int, Fraction]]
"""Method to seed to accuracy in percent, exact: a difference of -0.2 is not -0.2000001."""


def scores(runs: Iterable[Run], task: str) -> Scores:
    found: Scores = {}
    for run in runs:
        if run.task == task:
            found.setdefault(run.method, {})[run.seed] = run.percent
    return found


def paired(scores: Scores, first: str, *others: str) -> Interval | None:
    """``first`` minus the best of the others, seed by seed; None where no seed has all of them."""
    if any(name not in scores for name in (first, *others)):
        return None
    seeds = set.intersection(*(set(scores[name]) for name in (first, *others)))
    values = [scores[first][s] - max(scores[name][s] for name in others) for s in sorted(seeds)]
    return interval(values) if values else None


def bits_of(scores: Scores) -> list[int]:
    return sorted({int(name.split()[1]) for name in scores if name.startswith("minmax")}, reverse=True)


# --- requirements -----------------------------------------------------------------------------------------------------


def requirements(scores: Scores) -> list[dict[str, Any]]:
    """What the means must show, what they show, whether they do, and whether the whole confidence interval does."""
    rows = []
    for bits in bits_of(scores):
        least, strict = (Fraction(-1, 5), False) if bits >= 5 else (Fraction(0), True)
        gain = paired(scores, f"learned {bits}", f"minmax {bits}", f"mse {bits}")
        rows.append(_requirement(f"{bits} bits: learned − post-training", gain, least, strict))
    rows.append(_requirement("4 bits: learned − float", paired(scores, "learned 4", "float"), Fraction(-1), False))
    return [row for row in rows if row is not None]


def _requirement(what: str, found: Interval | None, least: Fraction, strict: bool) -> dict[str, Any] | None:
    if found is None:
        return None
    holds = found.mean > least if strict else found.mean >= least
    clear = not math.isnan(found.half) and float(found.mean) - found.half > least
    return {"what": what, "needed": f"{'above' if strict else 'at least'} {float(least):g}", "mean": float(found.mean),
            "half_interval": found.half, "pairs": found.count, "holds": holds, "interval_holds": clear}


# --- writing ----------------------------------------------------------------------------------------------------------


def numbers(runs: Sequence[Run]) -> dict[str, Any]:
    """Everything in the tables, ready for JSON."""
    result: dict[str, Any] = {}
    for task in dict.fromkeys(run.task for run in runs):
        found = scores(runs, task)
        result[task] = {
            "accuracy": {name: {"mean": float(i.mean), "half_interval": i.half, "seeds": i.count}
                         for name, i in ((name, interval(list(by_seed.values()))) for name, by_seed in found.items())},
            "requirements": requirements(found),
            "seconds": sum(run.seconds for run in runs if run.task == task),
        }
    return result


def sections(runs: Sequence[Run]) -> dict[str, str]:
    """Markdown of each task: the table of bits, the table of digits and the requirements."""
    parts = {}
    for task in dict.fromkeys(run.task for run in runs):
        found = scores(runs, task)
        images = next(run.images for run in runs if run.task == task)
        seeds = len(found.get("float", {}))
        parts[task] = "\n".join([
            f"### {task}, {images} test images, {seeds} seeds", "", f"Float: {_cell(found, 'float')} %.", "",
            *_bits_table(found), "", *_digits_table(found), "", *_requirements_table(found)])
    return parts


def _cell(scores: Scores, name: str) -> str:
    return interval(list(scores[name].values())).text() if name in scores else "not run"


def _difference(scores: Scores, first: str, *others: str) -> str:
    found = paired(scores, first, *others)
    return "not run" if found is None else found.text("+")


def _bits_table(found: Scores) -> list[str]:
    lines = ["| bits | min-max | MSE | learned | learned − better post-training | learned − float |",
             "|---|---|---|---|---|---|"]
    for bits in bits_of(found):
        names = [f"{kind} {bits}" for kind in ("minmax", "mse", "learned")]
        cells = [_cell(found, name) for name in names]
        cells += [_difference(found, names[2], *names[:2]), _difference(found, names[2], "float")]
        lines.append(f"| {bits} | {' | '.join(cells)} |")
    return lines


def _digits_table(found: Scores) -> list[str]:
    lines = ["| digits of an 8-bit weight | accuracy | − learned 8 bits | − float |", "|---|---|---|---|"]
    for kind, title in KINDS.items():
        for k in FEW_DIGITS:
            name = f"learned 8 {kind} {k}"
            cells = [_cell(found, name), _difference(found, name, "learned 8"), _difference(found, name, "float")]
            lines.append(f"| {title}, K = {k} | {' | '.join(cells)} |")
    return lines


def _requirements_table(found: Scores) -> list[str]:
    lines = ["| requirement (points) | needed | measured | mean holds | whole interval holds |", "|---|---|---|---|---|"]
    for row in requirements(found):
        value = Interval(mean=Fraction(row["mean"]), half=row["half_interval"], count=row["pairs"])
        lines.append(f"| {row['what']} | {row['needed']} | {value.text('+')} | {_yes(row['holds'])} | "
                     f"{_yes(row['interval_holds'])} |")
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def write_tables(docs: Path, sections: Mapping[str, str]) -> None:
    """Replace the sections of these tasks between the markers of the page, and keep those of other tasks.

    A section begins with the line ``### task, ...``. ValueError if the page has no markers.
    """
    text = docs.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    former, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{docs} must have the lines {BEGIN} and {END}, between which the tables stand")
    kept = {part.split(",")[0]: f"### {part.rstrip()}" for part in re.split(r"^### ", former, flags=re.MULTILINE)[1:]}
    every = "\n\n".join({**kept, **sections}.values())
    docs.write_text(f"{before}{BEGIN}\n\n{every}\n\n{END}{after}", encoding="utf-8")
