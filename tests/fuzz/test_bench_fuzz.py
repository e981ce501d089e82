"""The command over all campaigns: what it prints, and that it fails for what it never exercised."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def _bench(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "bench/fuzz.py", "--rtl", "0", "--bus", "0", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_campaign_that_is_too_small_fails_and_says_of_what(tmp_path: Path) -> None:
    done = _bench("--programs", "10", "--files", "0", "--json", str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert done.returncode == 1 and report["failures"] == 0 and report["unexercised"] > 10
    assert "kind many tokens" in report["programs"]["unexercised"]
    assert "NEVER EXERCISED, run more cases: kind many tokens" in done.stdout
    assert done.stdout.endswith(f"0 failures, {report['unexercised']} kinds never exercised\n")


def test_a_campaign_that_is_large_enough_counts_every_kind() -> None:
    done = _bench("--programs", "700", "--files", "0", "--seed", "1", "--json")
    report = json.loads(done.stdout)
    assert done.returncode == 0, report["programs"]["unexercised"] + report["programs"]["failures"]
    assert sum(report["programs"]["kinds"].values()) == 700 and min(report["programs"]["kinds"].values()) >= 24
