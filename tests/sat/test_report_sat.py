"""The report of training steps: limits from multiply-accumulates alone, and what every row must satisfy."""

from __future__ import annotations

import pytest

from hw.spec.sat import SatArch
from sw.flow.report_sat import RATIOS, report_sat, step_macs, to_dict
from sw.flow.report_sat_page import write_page

SMALL = SatArch(
    rows=16, columns=16, feed=2, act_words=1 << 14, wgt_words=1 << 13, acc_words=1 << 13, vec_words=1 << 12, tbl_words=1 << 11
)  # fmt: skip

PUBLISHED_LIMITS = {"2:4": 1.50, "2:8": 1.99, "2:16": 2.39}
"""Ideal reduction of a training step's multiply-accumulates, ResNet9 on CIFAR: first layer and classifier dense."""


def test_rows_keep_within_their_limits(tmp_path) -> None:
    rows = report_sat(["resnet9"], batch=4, arch=SMALL)
    data = to_dict(rows, SMALL)
    assert [row.ratio for row in rows] == list(RATIOS) and data["ok"]
    for row in rows:
        assert row.cycles == row.array_cycles + row.transfer_cycles + row.vector_cycles + row.other_cycles
        assert 0 < row.dense_utilisation < 1 and row.element_bytes > 0
        if row.ratio == "dense":
            assert row.speedup == row.mac_limit == 1
        else:
            assert 1 < row.speedup <= row.mac_limit
            assert row.mac_limit == pytest.approx(PUBLISHED_LIMITS[row.ratio], abs=0.006)
    write_page(tmp_path / "page.html", rows)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "timing model" in page and f"{rows[0].cycles:,}" in page


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(ValueError, match="network must be one of ResNet9, VGG19"):
        report_sat(["alexnet"])


def test_macs_count_what_is_kept() -> None:
    from tests.sat.small_graphs import residual_network

    dense, sparse = residual_network(), residual_network((2, 8))
    pruned = [n for n in sparse.nodes if getattr(n, "forward_pattern", None)]
    saved = sum(2 * sparse.batch * n.macs * 3 // 4 for n in pruned)  # type: ignore[union-attr]
    assert step_macs(dense) - step_macs(sparse) == saved > 0
