"""The real thing: a bitstream, routed at the board's clock. Half an hour on one core the first time, then from the cache."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from boards.board import load_board
from sw.flow.build_board import build_board


@pytest.mark.slow
def test_bitstream_at_the_board_clock(tmp_path: Path) -> None:
    board = load_board("ulx3s")
    result = build_board("ulx3s", tmp_path, without_proof=True)
    bits = (tmp_path / "ulx3s.bit").read_bytes()
    assert len(bits) >= 100_000 and b"LFE5U-85F" in bits[:200]
    assert result["routed_mhz"] >= board.clock_hz / 1e6 == result["clock_mhz"]
    assert result["bitstream"] == {"file": "ulx3s.bit", "bytes": len(bits), "sha256": hashlib.sha256(bits).hexdigest()}
    assert result["proven"] is False and result["utilisation"]["MULT18X18D"]["used"] <= 156
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    again = build_board("ulx3s", tmp_path / "again", without_proof=True)
    assert again["cached"] and again["bitstream"] == result["bitstream"]
