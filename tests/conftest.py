"""One torch thread in all tests, as they run beside others.

It is set before anything imports torch, so that fixtures of every scope and processes that tests start have it too; a test that sets
another number has it alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def own_threads() -> Iterator[None]:
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
