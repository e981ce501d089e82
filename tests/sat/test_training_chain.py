"""The proof of training itself: equal where things are equal, red where they are not."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.sat import SatArch
from hw.spec.sat.machine import SatMachine
from hw.spec.training import Hyper
from sw.compiler.training import compile_training
from sw.flow.training_chain import verify_training
from sw.runtime import open_device
from tests.sat.small_graphs import random_batch, residual_network

HYPER = Hyper(learning_rate=0.05)
ARCH = SatArch(rows=4, columns=4)


def test_two_devices_are_compared_byte_by_byte() -> None:
    graph = residual_network((2, 8))
    program = compile_training(graph, ARCH)
    devices = [open_device("interpreter", arch=ARCH, seed=seed) for seed in (1, 2)]
    report = verify_training(graph, program, [random_batch(graph, s) for s in range(2)], HYPER, devices[0], core=devices[1])
    assert report.ok, report.first
    assert report.links["graph_machine"].compared > 2 * 4_000
    assert report.links["machine_rtl"].compared > 100_000 and report.links["memory"].compared > 100_000


def test_a_wrong_rounding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual_network()
    program = compile_training(graph, ARCH)
    machine, core = (open_device("interpreter", arch=ARCH, seed=1) for _ in range(2))
    faulty = core._machine  # type: ignore[attr-defined]
    assert isinstance(faulty, SatMachine)
    to_fp16 = faulty._to_fp16

    def truncated(values: np.ndarray) -> np.ndarray:
        return to_fp16((values.view(np.uint32) & np.uint32(0xFFFFE000)).view(np.float32))

    monkeypatch.setattr(faulty, "_to_fp16", truncated)
    report = verify_training(graph, program, [random_batch(graph)], HYPER, machine, core=core)
    assert not report.ok
    assert report.links["graph_machine"].ok
    assert report.links["machine_rtl"].mismatches > 100 and report.links["memory"].mismatches > 100
    assert any("machine_rtl: image 0: instruction" in words for words in report.first), report.first
