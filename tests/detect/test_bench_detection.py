"""The table of detectors: its numbers against ones worked out by hand, and one small real run that is kept and not repeated."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "bench"
NAMES = ("detection", "detection_report", "accuracy", "accuracy_report")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    """The modules `detection` and `detection_report`, as the command sees them."""
    monkeypatch.syspath_prepend(str(BENCH))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import detection
    import detection_report

    return detection, detection_report


def test_rows_and_differences(bench: tuple[Any, Any]) -> None:
    report = bench[1]
    rest = {"task": "formats", "settings": "s", "ap": 0.25, "held_ap50": 0.5, "scenes": 2000, "seconds": 60.0}
    runs = [report.Run(seed=seed, method=method, ap50=ap50, **rest) for method, values in {
        "square_depthwise float": (0.5, 0.75), "square_depthwise w4a8 whole": (0.25, 0.75), "depthwise float": (0.5,),
    }.items() for seed, ap50 in enumerate(values)]  # fmt: skip
    found = report.numbers(runs)["formats"]
    assert found["rows"]["square_depthwise float"]["ap50"] == 62.5 and found["rows"]["depthwise float"]["seeds"] == 1
    gains = {(gain["first"], gain["second"]): (gain["mean"], gain["pairs"]) for gain in found["differences_ap50"]}
    assert gains == {("square_depthwise w4a8 whole", "square_depthwise float"): (-12.5, 2),
                     ("square_depthwise float", "depthwise float"): (0.0, 1)}  # fmt: skip
    text = report.sections(runs)["formats"]
    assert "### formats, 2000 test scenes" in text and "| square_depthwise w4a8 whole − square_depthwise float | -12.50 ± " in text
    assert "5 runs, 5 minutes" in text


def test_every_row_that_is_compared_is_run(bench: tuple[Any, Any]) -> None:
    detection, report = bench
    for name, task in detection.TASKS.items():
        rows = {method.name for method in task.methods}
        assert {row for pair in report.DIFFERENCES[name] for row in pair} <= rows and len(rows) == {"formats": 6, "operators": 7}[name]
    assert len({task.settings for task in detection.TASKS.values()}) == 1


def test_a_small_run_is_kept_and_shares_its_float_network(
    bench: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few steps on a few scenes: whole and fractional offsets, frozen, from one float network."""
    detection, _ = bench
    monkeypatch.setattr(detection, "SCENES", {"train": 32, "validation": 16, "test": 16})
    monkeypatch.setattr(detection, "CALIBRATION", 16)
    detection.scenes.cache_clear()
    methods = tuple(method for method in detection.FORMATS if method.form in (detection.FIXED, detection.WHOLE))[:2]
    task = replace(detection.TASKS["formats"], methods=methods, training=detection.Training(float_steps=2, more_steps=2))
    trained: list[int] = []
    plain = detection.train
    monkeypatch.setattr(detection, "train", lambda net, training, steps, rate, seed: (trained.append(seed), plain(net, training, steps,
                                                                                                                 rate, seed)))

    def run(task: Any, seed: int, method: Any) -> Any:
        return detection.run(task, seed, method, tmp_path)

    jobs = list(detection.wanted([task], [3]))
    from accuracy import execute

    runs = execute(jobs, tmp_path, run, detection.Run)
    assert trained == [3, 1003, 1003] and [found.method for found in runs] == ["square_depthwise w4a8", "square_depthwise w4a8 whole"]
    assert all(found.scenes == 16 and 0 <= found.ap50 <= 1 for found in runs)
    assert execute(jobs, tmp_path, run, detection.Run) == runs and len(trained) == 3
    assert len(list(tmp_path.glob("*.json"))) == 2 and json.loads(next(tmp_path.glob("*.json")).read_text())["seed"] == 3
    detection.scenes.cache_clear()
