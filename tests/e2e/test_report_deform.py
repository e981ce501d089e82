"""The report of CoDeNet's configurations: what each row must satisfy, and its page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from sw.flow.report_deform import MODEL, PUBLISHED_FPS, report_deform, to_dict
from sw.flow.report_deform_page import show_rows, write_page


def test_a_row_adds_up_and_is_told(tmp_path: Path) -> None:
    (row,) = rows = report_deform(["a"])
    assert row.cycles == row.load + row.array + row.depthwise + row.store + row.fetch
    assert row.source == MODEL and row.compared == row.mismatches == 0 and row.macs == 279_844_352
    heads = 3 * 64 * 64 * 64 * 64  # before the upsampling they have a fourth of the pixels
    assert row.core_macs == row.macs - 3 * heads // 4
    assert row.array_limit == -(-row.core_macs // 512) < row.array and 0 < row.utilisation < 1
    assert all(layer.utilisation is None or 0 < layer.utilisation <= 1 for layer in row.layers)
    parts = {part: sum(getattr(layer, part) for layer in row.layers) for part in ("load", "compute", "store")}
    assert parts == {"load": row.load, "compute": row.array + row.depthwise, "store": row.store}
    assert sum(layer.macs for layer in row.layers) == row.core_macs
    assert row.fps > 3 * PUBLISHED_FPS["a"]
    console = Console(record=True, width=80)
    show_rows(console, rows)
    text = console.export_text()
    assert f"{row.cycles:,}" in text and f"{row.fps:.1f}" in text and "32.2" in text
    write_page(tmp_path / "page.html", rows)
    page = (tmp_path / "page.html").read_text()
    assert page.count("<svg") == 2 and "timing model" in page and "heat.1" in page
    assert "tells --levels" in text
    (plain,) = to_dict(rows)["rows"]
    promised = {"config", "cycles", "clock_mhz", "logic_levels", "fps", "mac_utilisation", "compared", "mismatches", "cached"}
    assert promised <= plain.keys() and (plain["config"], plain["fps"], plain["logic_levels"]) == ("a", row.fps, None)
    assert to_dict(rows)["ok"] and not to_dict([])["ok"]
    show_rows(console, [replace(row, logic_levels=6.24)])
    assert "has 6.2 logic levels (modelled" in console.export_text()


def test_an_unknown_configuration_is_refused() -> None:
    with pytest.raises(ValueError, match="configuration must be one of a, b, c, d, e, not f"):
        report_deform(["a", "f"])
