"""The sparse benches: pairs of runs, resuming, tables against numbers worked out by hand, and the cost of a step's report."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sw.sparse import choices

BENCH = Path(__file__).parents[2] / "bench"
NAMES = ("accuracy_report", "accuracy", "sparse_accuracy_report", "sparse_accuracy", "step_cost", "sparse_step")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The benches' modules, as the commands see them."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return {name: __import__(name) for name in NAMES}


def tiny(accuracy: Any, **training: Any) -> Any:
    task = accuracy.digits_task()
    part = {name: tuple(values[:96] for values in getattr(task, name)) for name in ("train", "held", "test")}
    return replace(task, training=replace(task.training, **{"epochs": 2, "batch": 32, **training}), methods=accuracy.PAIR, **part)


def runs_of(report: Any, rights: dict[str, list[int]], task: str = "t", train: float | None = None) -> list[Any]:
    return [report.Run(task=task, seed=seed, method=method, settings="s", right=right, images=1000, held_accuracy=0.5, seconds=60.0,
                       train_accuracy=train)
            for method, of_seeds in rights.items() for seed, right in enumerate(of_seeds)]


def test_tables_are_differences_of_pairs(bench: dict[str, Any]) -> None:
    """Differences to dense of -1.0 and -2.0 points: mean -1.5, half t(1) * 0.7071 / sqrt(2) = 12.706 * 0.5 = 6.35."""
    report = bench["sparse_accuracy_report"]
    runs = runs_of(report, {"dense": [900, 920], "bdwp 2:8": [890, 900], "sdgp 2:8": [910]})
    text = report.sections(runs)["t"]
    assert "| bdwp 2:8 | 89.50 ± 6.35 | -1.50 ± 6.35 | - | - | 2 | cannot be told from it |" in text
    assert "| sdgp 2:8 | 91.00 | +1.00 | - | - | 1 | - |" in text and "| dense | 91.00 ± 12.71 | - | - | - | 2 | - |" in text
    numbers = report.numbers(runs)["t"]["accuracy"]
    assert numbers["bdwp 2:8"]["minus_dense"] == -1.5 and numbers["sdgp 2:8"]["pairs"] == 1 and "train_mean" not in numbers["dense"]


def test_training_images_have_their_own_differences(bench: dict[str, Any]) -> None:
    report = bench["sparse_accuracy_report"]
    runs = runs_of(report, {"dense": [900, 900]}, train=0.75) + runs_of(report, {"bdwp 2:8": [900, 900]}, train=0.5)
    assert "| bdwp 2:8 | 90.00 ± 0.00 | +0.00 ± 0.00 | 50.00 ± 0.00 | -25.00 ± 0.00 | 2 | smaller |" in report.sections(runs)["t"]
    row = report.numbers(runs)["t"]["accuracy"]["bdwp 2:8"]
    assert row["minus_dense"] == 0 and row["train_minus_dense"] == -25 and row["train_mean"] == 50 and row["train_pairs"] == 2


def test_a_variant_is_compared_with_its_base_seed_by_seed(bench: dict[str, Any]) -> None:
    """Losses of 4, 3 and 9 points against 1 and 3 of the variant's first two seeds: 3 and 0 points less."""
    report = bench["sparse_accuracy_report"]
    base = runs_of(report, {"dense": [900, 900, 900], "bdwp 2:8": [860, 870, 810]}, "glyphs")
    variant = runs_of(report, {"dense": [950, 960], "bdwp 2:8": [940, 930]}, "glyphs-long")
    assert "bdwp 2:8 − dense is +1.50 ± 19.06 points above that of glyphs (2 pairs)." in report.sections(base + variant)["glyphs-long"]
    assert report.numbers(base + variant)["glyphs-long"]["change_of_loss"]["mean"] == 1.5
    assert report.change(variant, "glyphs-long") is None and report.change(base, "glyphs") is None


def test_tables_of_tasks_without_runs_stay(bench: dict[str, Any], tmp_path: Path) -> None:
    report, page = bench["accuracy_report"], tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nno section\n\n### a, 1\n\nold a\n\n### b, 2\n\nold b\n{report.END}\nafter\n")
    for _ in range(2):
        report.write_tables(page, {"b": "### b, 3\n\nnew b", "c": "### c, 4\n\nnew c"})
        sections = ["### a, 1\n\nold a", "### b, 3\n\nnew b", "### c, 4\n\nnew c"]
        assert page.read_text() == f"before\n{report.BEGIN}\n\n" + "\n\n".join(sections) + f"\n\n{report.END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        report.write_tables(page, {})


@pytest.mark.parametrize(("losses", "verdict"), [([10, 11, 10, 11], "larger"), ([1, 2, 1, 2], "smaller"), ([0, 20, 0, 2], "cannot")])
def test_the_published_loss_is_compared_with_the_whole_interval(bench: dict[str, Any], losses: list[int], verdict: str) -> None:
    report = bench["sparse_accuracy_report"]
    found = report.scores(runs_of(report, {"dense": [900] * 4, "bdwp 2:8": [900 - loss for loss in losses]}), "t")
    assert report.against_published(report.paired(found, "bdwp 2:8", "dense")).startswith(verdict)


def test_a_stopped_table_goes_on_and_repeats_nothing(bench: dict[str, Any], tmp_path: Path) -> None:
    accuracy, execute, count = bench["sparse_accuracy"], bench["accuracy"].execute, 0
    jobs = list(accuracy.wanted([tiny(accuracy)], range(2)))

    def counting(*job: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return accuracy.run(*job)

    with pytest.raises(KeyboardInterrupt):
        execute(jobs, tmp_path, counting)
    (tmp_path / ".digits-torn.json.1.part").write_text("{")
    assert len(bench["accuracy"].stored(jobs, tmp_path)) == 2
    found = execute(jobs, tmp_path, counting)
    assert count == 5 and len(found) == 4 and len([path for path in tmp_path.iterdir() if path.suffix == ".json"]) == 4
    again = execute(jobs, tmp_path, counting)
    assert count == 5 and again == found
    whole = [accuracy.run(*job) for job in jobs]
    parts = [[(run.seed, run.method, run.right, run.train_accuracy) for run in runs] for runs in (whole, found)]
    assert parts[0] == parts[1] and all(0 < run.train_accuracy <= 1 for run in found)
    execute(list(accuracy.wanted([tiny(accuracy, rate=0.01)], range(2))), tmp_path, counting)
    assert count == 9  # other settings are other runs


def test_a_task_names_its_methods_and_seeds(bench: dict[str, Any]) -> None:
    accuracy = bench["sparse_accuracy"]
    one, two = replace(tiny(accuracy), seeds=1), replace(tiny(accuracy), name="two", methods=accuracy.FEW, seeds=2)
    jobs = [(task.name, seed, method.name) for task, seed, method in accuracy.wanted([one, two])]
    names = ["dense", "bdwp 2:8", "srste 2:8"]
    assert jobs == [("digits", 0, name) for name in names[:2]] + [("two", seed, name) for seed in (0, 1) for name in names]
    assert {seed for _, seed, _ in accuracy.wanted([one, two], [7])} == {7}


def test_a_seed_is_the_same_start_and_the_same_batches_for_every_method(bench: dict[str, Any]) -> None:
    """With N = M training is dense training: equal to the last bit only if weights, batches and schedule are."""
    accuracy = bench["sparse_accuracy"]
    task = tiny(accuracy)
    dense, same, other = (accuracy.train(task, accuracy.Method(kind=kind, n=n, m=8), 3)
                          for kind, n in (("dense", 0), ("bdwp", 8), ("bdwp", 2)))
    states = [list(model.state_dict().values()) for model in (dense, same, other)]
    assert all(torch.equal(a, b) for a, b in zip(states[0], states[1], strict=True)) and len(states[0]) > 10
    assert not all(torch.equal(a, b) for a, b in zip(states[0], states[2], strict=True))
    assert sum(choice.sparse for choice in choices(other)) == 2


def test_every_method_of_the_tables_has_the_same_sparse_layers(bench: dict[str, Any]) -> None:
    accuracy = bench["sparse_accuracy"]
    assert [m.name for m in accuracy.ALL][:3] == ["dense", "bdwp 2:4", "bdwp 2:8"] and len(accuracy.ALL) == 9
    for net, count in ((accuracy.PlainNet, 2), (accuracy.ResidualNet, 7), (accuracy.residual_net_2x, 7)):
        for method in accuracy.ALL[1:]:
            assert sum(choice.sparse for choice in choices(method.of(net()))) == count


def test_the_cost_of_a_step_is_the_median_of_ratios_within_turns(bench: dict[str, Any]) -> None:
    step = bench["sparse_step"]
    found = step.report({"dense": [1.0, 2.0, 4.0], "bdwp 2:8": [1.2, 2.2, 6.0]}, 32, 1, False)
    assert found["ratios"] == {"bdwp 2:8": 1.2} and found["within_limit"] == {"bdwp 2:8": True} and found["kernel"]
    assert step.report({"dense": [1.0], "x": [1.31]}, 32, 1, False)["within_limit"] == {"x": False}
    names = step.candidates(2, [name for name in step.SPARSE if name != "bdwp 2:8"], False)
    times = step.measure(names, 1)
    assert set(times) == {"dense", "bdwp 2:8"} and all(t[0] > 0 for t in times.values())
