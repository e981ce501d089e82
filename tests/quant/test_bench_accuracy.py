"""The accuracy table: its statistics against numbers worked out by hand, requirements, resuming, and one small real run."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from sw.quant import codes_of, export

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The modules `accuracy` and `accuracy_report`, as the command sees them."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in ("accuracy", "accuracy_report"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import accuracy
    import accuracy_report

    return accuracy, accuracy_report


def runs_of(report: Any, scores: dict[str, list[int]], task: str = "t") -> list[Any]:
    """Runs of 1000 images: method to right ones for each seed."""
    rest = {"task": task, "settings": "s", "images": 1000, "held_accuracy": 0.5, "seconds": 1.0}
    return [report.Run(seed=seed, method=method, right=right, **rest)
            for method, rights in scores.items() for seed, right in enumerate(rights)]


def test_intervals_are_students(bench: tuple[Any, Any]) -> None:
    """Values 1..5: deviation sqrt(2.5), t(4) = 2.7764, half = 2.7764 * sqrt(2.5 / 5)."""
    report = bench[1]
    found = report.interval([Fraction(v) for v in (1, 2, 3, 4, 5)])
    assert found.mean == 3 and found.count == 5 and found.half == pytest.approx(2.7764451 * math.sqrt(0.5), rel=1e-6)
    assert report.interval([Fraction(7)]).text() == "7.00" and found.text("+") == "+3.00 ± 1.96"
    with pytest.raises(ValueError, match="at least one value"):
        report.interval([])


def test_differences_are_taken_seed_by_seed_from_the_better_one(bench: tuple[Any, Any]) -> None:
    report = bench[1]
    scores = report.scores(runs_of(report, {"learned 4": [900, 910], "minmax 4": [890, 800], "mse 4": [880, 905]}), "t")
    found = report.paired(scores, "learned 4", "minmax 4", "mse 4")
    assert found.mean == Fraction(3, 4) and found.count == 2
    assert report.paired(scores, "learned 4", "float") is None


def test_requirements_hold_or_not_by_the_mean(bench: tuple[Any, Any]) -> None:
    report = bench[1]
    scores = {"float": [950, 950], "learned 8": [949, 949], "minmax 8": [950, 952], "mse 8": [940, 940],
              "learned 4": [939, 941], "minmax 4": [941, 938], "mse 4": [930, 940],
              "learned 3": [900, 900], "minmax 3": [900, 900], "mse 3": [100, 100]}
    rows = {row["what"]: row for row in report.requirements(report.scores(runs_of(report, scores), "t"))}
    assert {what: row["holds"] for what, row in rows.items()} == {
        "8 bits: learned − post-training": True,   # -0.1 and -0.3: exactly -0.2 on average
        "4 bits: learned − post-training": False,  # -0.2 and +0.1
        "3 bits: learned − post-training": False,  # 0 is not above 0
        "4 bits: learned − float": True,           # -1.1 and -0.9
    }
    assert rows["4 bits: learned − float"]["mean"] == -1
    assert not any(row["interval_holds"] for row in rows.values())
    sure = {"float": [950, 950], "learned 4": [948, 949], "minmax 4": [900, 901], "mse 4": [890, 899]}
    assert [row["interval_holds"] for row in report.requirements(report.scores(runs_of(report, sure), "t"))] == [True, True]


def test_the_tables_stand_between_the_markers(bench: tuple[Any, Any], tmp_path: Path) -> None:
    report = bench[1]
    runs = runs_of(report, {"float": [950, 960], "minmax 4": [900, 910], "mse 4": [905, 905], "learned 4": [948, 950],
                            "learned 8 signed 2": [940, 950], "learned 8": [950, 960]})
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nformer\n{report.END}\nafter\n")
    for _ in range(2):
        report.write_tables(page, report.sections(runs))
        text = page.read_text()
        assert text.startswith(f"before\n{report.BEGIN}\n") and text.endswith(f"{report.END}\nafter\n") and "former" not in text
    assert "| 4 | 90.50 ± 6.35 | 90.50 ± 0.00 | 94.90 ± 1.27 | +4.15 ± 1.91 | -0.60 ± 5.08 |" in text
    assert "| signed digits, K = 2 | 94.50 ± 6.35 | -1.00 ± 0.00 | -1.00 ± 0.00 |" in text
    assert "| K-hot, K = 1 | not run | not run | not run |" in text


def test_every_layer_has_the_width_of_the_row(bench: tuple[Any, Any]) -> None:
    accuracy = bench[0]
    task = accuracy.digits_task()
    for method in accuracy.methods():
        if not method.bits:
            continue
        model = accuracy.quantize_model(task.net(), method.recipe(task.input_format))
        widths = {layer.point.width for _, layer in model.quant_layers()}
        outputs = {name: fmt.width for name, fmt in model.formats().items()}
        assert widths == {method.bits} and outputs.pop("head") == 8 and outputs.pop("input") == 8
        assert set(outputs.values()) == {method.bits} and len(outputs) >= 4
        digits = [layer.point.digits for _, layer in model.quant_layers()]
        assert all((d.digits, d.kind) == (method.digits, method.digit_kind) if method.digits else d is None for d in digits)


def tiny(accuracy: Any) -> Any:
    task = accuracy.digits_task()
    part = {name: tuple(values[:96] for values in getattr(task, name)) for name in ("train", "held", "test")}
    return replace(task, training={"float_epochs": 1, "fixed_epochs": 1, "batch": 32}, **part)


def test_a_stopped_table_goes_on_and_repeats_nothing(
    bench: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy, _ = bench
    few = [accuracy.Method(kind="float"), *(accuracy.Method(kind=k, bits=4) for k in ("minmax", "learned")),
           accuracy.Method(kind="learned", bits=8, digits=2)]
    monkeypatch.setattr(accuracy, "methods", lambda: few)
    task, whole, stopped = tiny(accuracy), tmp_path / "whole", tmp_path / "stopped"
    jobs = list(accuracy.wanted([task], range(2)))
    expected = accuracy.execute(jobs, whole, accuracy.runner(whole))
    assert len(expected) == 8 and len({run.key for run in expected}) == 8
    real, count = accuracy.runner(stopped), 0

    def failing(*job: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*job)

    with pytest.raises(KeyboardInterrupt):
        accuracy.execute(jobs, stopped, failing)
    found = accuracy.execute(jobs, stopped, failing)
    assert count == 3 + 6  # two were done, the third had failed
    accuracy.execute(jobs, stopped, failing)
    assert count == 9
    assert [(r.key, r.right) for r in found] == [(r.key, r.right) for r in expected]
    assert {json.loads(path.read_text())["settings"] for path in whole.glob("*.json")} == {task.settings}
    assert len(list(whole.glob("*.json"))) == 8 and len(list(whole.glob("*.float"))) == 2


def test_other_settings_are_other_runs(bench: tuple[Any, Any], tmp_path: Path) -> None:
    accuracy, _ = bench
    task = tiny(accuracy)
    longer = replace(task, training={"float_epochs": 2})
    method = accuracy.Method(kind="minmax", bits=4)
    assert task.settings != longer.settings
    accuracy.execute([(task, 0, method)], tmp_path, accuracy.runner(tmp_path))
    assert accuracy.stored([(longer, 0, method)], tmp_path) == [] and len(accuracy.stored([(task, 0, method)], tmp_path)) == 1


def test_a_learned_row_starts_from_the_float_network_of_its_seed(bench: tuple[Any, Any], tmp_path: Path) -> None:
    accuracy, _ = bench
    task = tiny(accuracy)
    start = accuracy.float_network(task, 3, tmp_path / "float.pt")
    again = accuracy.float_network(task, 3, tmp_path / "float.pt")
    assert all(torch.equal(values, again.state_dict()[name]) for name, values in start.state_dict().items())
    before = {name: values.clone() for name, values in start.state_dict().items()}
    frozen = replace(task, training={"float_epochs": 1, "fixed_epochs": 0})
    learned = accuracy.network_of(frozen, accuracy.Method(kind="learned", bits=4), 3, start)
    plain = accuracy.network_of(frozen, accuracy.Method(kind="mse", bits=4), 3, start)
    x = task.test[0]
    assert torch.equal(learned(x), plain(x))  # without training the two are one network
    trained = accuracy.network_of(task, accuracy.Method(kind="learned", bits=4), 3, start)
    assert not torch.equal(trained(x), plain(x))
    ours, graph = trained.trace(x), export(trained, x).trace({"input": codes_of(trained, x)})
    assert sum(int((ours[name].numpy() != codes).sum()) for name, codes in graph.items()) == 0 and len(graph) > 4
    assert all(torch.equal(values, before[name]) for name, values in start.state_dict().items())
