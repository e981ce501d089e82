"""The workshop of the builds with Vivado: an empty cache, quick looks at the stand-in, and its program alone on the PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

import boards.vivado.plan as planning
import boards.vivado.run as running
from tests.boards.fake_vivado import FakeVivado
from tests.boards.vivado_workshop import BOARD, Workshop
from tests.e2e.tiny import ARCH


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    shop = Workshop(folder=tmp_path, fake=FakeVivado(here=tmp_path / "fake", board=BOARD, arch=ARCH))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{shop.fake.program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(planning, "emit_core", shop.emit)
    monkeypatch.setattr(running, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(running, "GRACE_SECONDS", 0.5)
    shop.fake.put()
    return shop
