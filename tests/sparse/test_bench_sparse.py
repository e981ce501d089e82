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
NAMES = ("sparse_accuracy", "sparse_accuracy_report", "accuracy_report", "sparse_step")


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
    setting = replace(task.training, **{"epochs": 2, "batch": 32, **training})
    return accuracy.Task(name="digits", net=task.net, augment=task.augment, training=setting, **part)


def runs_of(report: Any, rights: dict[str, list[int]]) -> list[Any]:
    return [report.Run(task="t", seed=seed, method=method, settings="s", right=right, images=1000, held_accuracy=0.5, seconds=60.0)
            for method, of_seeds in rights.items() for seed, right in enumerate(of_seeds)]


def test_tables_are_differences_of_pairs(bench: dict[str, Any], tmp_path: Path) -> None:
    """Differences to dense of -1.0 and -2.0 points: mean -1.5, half t(1) * 0.7071 / sqrt(2) = 12.706 * 0.5 = 6.35."""
    report = bench["sparse_accuracy_report"]
    runs = runs_of(report, {"dense": [900, 920], "bdwp 2:8": [890, 900], "sdgp 2:8": [910]})
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nformer\n{report.END}\nafter\n")
    report.write_tables(page, runs)
    text = page.read_text()
    assert "| bdwp 2:8 | 89.50 ± 6.35 | -1.50 ± 6.35 | 2 | cannot be told from it |" in text
    assert "| sdgp 2:8 | 91.00 | +1.00 | 1 | - |" in text and "| dense | 91.00 ± 12.71 | - | 2 | - |" in text and "former" not in text
    numbers = report.numbers(runs)["t"]["accuracy"]
    assert numbers["bdwp 2:8"]["minus_dense"] == -1.5 and numbers["sdgp 2:8"]["pairs"] == 1
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        report.write_tables(page, runs)


@pytest.mark.parametrize(("losses", "verdict"), [([10, 11, 10, 11], "larger"), ([1, 2, 1, 2], "smaller"), ([0, 20, 0, 2], "cannot")])
def test_the_published_loss_is_compared_with_the_whole_interval(bench: dict[str, Any], losses: list[int], verdict: str) -> None:
    report = bench["sparse_accuracy_report"]
    found = report.scores(runs_of(report, {"dense": [900] * 4, "bdwp 2:8": [900 - loss for loss in losses]}), "t")
    assert report.against_published(report.paired(found, "bdwp 2:8", "dense")).startswith(verdict)


def test_a_stopped_table_goes_on_and_repeats_nothing(
    bench: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracy = bench["sparse_accuracy"]
    few = [accuracy.Method(kind="dense"), accuracy.Method(kind="bdwp", n=2, m=8)]
    monkeypatch.setattr(accuracy, "methods", lambda: few)
    task, real, count = tiny(accuracy), accuracy.run, 0

    def counting(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(accuracy, "run", counting)
    with pytest.raises(KeyboardInterrupt):
        accuracy.execute([task], range(2), tmp_path)
    (tmp_path / "digits-torn.part").write_text("{")
    found = accuracy.execute([task], range(2), tmp_path)
    assert count == 5 and len(found) == 4 and len(list(tmp_path.glob("*.json"))) == 4
    again = accuracy.execute([task], range(2), tmp_path)
    assert count == 5 and again == found
    whole = [real(task, method, seed) for seed in range(2) for method in few]
    assert [(run.seed, run.method, run.right) for run in whole] == [(run.seed, run.method, run.right) for run in found]
    accuracy.execute([tiny(accuracy, rate=0.01)], range(2), tmp_path)
    assert count == 9  # other settings are other runs


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
    assert [m.name for m in accuracy.methods()][:3] == ["dense", "bdwp 2:4", "bdwp 2:8"] and len(accuracy.methods()) == 9
    for net, count in ((accuracy.PlainNet, 2), (accuracy.ResidualNet, 7)):
        for method in accuracy.methods()[1:]:
            assert sum(choice.sparse for choice in choices(method.of(net()))) == count


def test_the_cost_of_a_step_is_the_median_of_ratios_within_turns(bench: dict[str, Any]) -> None:
    step = bench["sparse_step"]
    found = step.report({"dense": [1.0, 2.0, 4.0], "bdwp 2:8": [1.2, 2.2, 6.0]}, 32, 1, False)
    assert found["ratios"] == {"bdwp 2:8": 1.2} and found["within_limit"] == {"bdwp 2:8": True} and found["kernel"]
    assert step.report({"dense": [1.0], "x": [1.31]}, 32, 1, False)["within_limit"] == {"x": False}
    names = step.candidates(2, [name for name in step.SPARSE if name != "bdwp 2:8"], False)
    times = step.measure(names, 1)
    assert set(times) == {"dense", "bdwp 2:8"} and all(t[0] > 0 for t in times.values())
