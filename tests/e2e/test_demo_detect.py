"""The detection demo with a short training: every link equal, boxes from the core's scores, pictures in the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hw.spec.deform import DeformArch
from sw.detect.decode import decode
from sw.flow import demo_detect
from sw.flow.demo_detect import DetectConfig, Tell

SHORT = DetectConfig(train=64, test=6, float_steps=4, fixed_steps=3, core_scenes=2)


def test_the_demo_runs_whole(core_arch: DeformArch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_detect, "ARCH", core_arch)
    phases: list[tuple[str, int]] = []
    tell = Tell(steps=lambda phase, losses, total: phases.append((phase, total)))
    result = demo_detect.demo_detect(tmp_path, config=SHORT, tell=tell)
    assert result.ok and result.report.first == [] and result.report.links["machine_rtl"].compared > 500_000
    assert phases == [("float", 4), ("fixed", 3)]
    scales = [2.0 ** -result.graph.tensors[name].fmt.frac for name in result.graph.outputs]
    wanted = decode([result.trace[name] for name in result.graph.outputs], scales=scales)
    assert len(result.boxes) == len(wanted) == 2
    for mine, theirs in zip(result.boxes, wanted, strict=True):
        assert torch.equal(mine.boxes, theirs.boxes) and torch.equal(mine.scores, theirs.scores) and len(mine.scores) > 0
    page = (tmp_path / "report.html").read_text()
    assert page.count("<img") == 2 and page.count("<svg") == 2 and "equal at every link" in page
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["result"]["ok"] and set(manifest["files"]) == {"detect.graph", "detect.program", "inputs.npy", "report.html"}
    assert np.load(tmp_path / "inputs.npy").shape == (2, 3, 96, 96)


@pytest.mark.parametrize("wrong, words", [({"train": 3}, "train must be at least 16, not 3"),
                                          ({"test": 2, "core_scenes": 3}, "core_scenes must be at most the 2 scenes")])
def test_wrong_settings_are_refused(wrong: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        DetectConfig(**wrong)
