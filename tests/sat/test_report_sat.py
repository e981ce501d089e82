"""The report of training steps: limits from multiply-accumulates alone, and what every row must satisfy."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hw.spec.sat import SatArch
from sw.flow.report_sat import RATIOS, Network, report_sat, step_macs, to_dict
from sw.flow.report_sat_page import write_page
from sw.models.resnet9 import ResNet9
from sw.sparse import export, sparsify
from tests.sat.small_graphs import residual_network

SMALL = SatArch(rows=16, columns=16, feed=2)

PUBLISHED_LIMITS = {"2:4": 1.50, "2:8": 1.99, "2:16": 2.39}
"""Ideal reduction of a training step's multiply-accumulates, ResNet9 on CIFAR: first layer and classifier dense."""


def small(batch: int, ratio: tuple[int, int] | None) -> list:
    return [(residual_network(ratio, width=16, batch=batch), 1.0, "")]


def test_rows_keep_within_their_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sw.flow.report_sat.networks", lambda: [Network(name="small", batch=4, graphs=small)])
    rows = report_sat(["small"], arch=SMALL)
    data = to_dict(rows, SMALL)
    assert [row.ratio for row in rows] == list(RATIOS) and data["ok"]
    for row in rows:
        assert row.cycles == row.array_cycles + row.transfer_cycles + row.vector_cycles + row.other_cycles
        assert 0 < row.dense_utilisation < 1 and row.element_bytes > 0
        assert 0 < row.speedup <= row.mac_limit and (row.mac_limit > 1) == (row.ratio != "dense")
    assert rows[0].speedup == 1 < rows[2].speedup
    write_page(tmp_path / "page.html", rows)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "timing model" in page and f"{rows[0].cycles:,}" in page


def test_limits_are_those_of_the_publication() -> None:
    example = torch.zeros(1).expand(2, 3, 32, 32)
    macs = {}
    for name, ratio in RATIOS.items():
        model = ResNet9(10) if ratio is None else sparsify(ResNet9(10), *ratio)
        macs[name] = step_macs(export(model, torch.optim.SGD(model.parameters(), lr=0.1), example))
    for name, limit in PUBLISHED_LIMITS.items():
        assert round(macs["dense"] / macs[name], 2) == limit, name


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="network must be one of ResNet9, VGG19"):
        report_sat(["alexnet"])


def test_macs_count_what_is_kept() -> None:
    dense, sparse = residual_network(), residual_network((2, 8))
    pruned = [n for n in sparse.nodes if getattr(n, "forward_pattern", None)]
    saved = sum(2 * sparse.batch * n.macs * 3 // 4 for n in pruned)  # type: ignore[union-attr]
    assert step_macs(dense) - step_macs(sparse) == saved > 0
