"""The proof gate on the training core: every check of a design, and every bin of its coverage, at each test architecture."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sw.flow.files import load_arch, load_inference_arch
from sw.flow.prove_design import prove_design
from tests.sim.sat_bench import ARCHES, SMALL


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHES)
def test_a_design_is_proven(name: str) -> None:
    record = prove_design(ARCHES[name], seeds=(1, 2, 3), programs=60)
    compared = {check.name: check.compared for check in record.checks}
    assert compared["random programs"]["programs"] > 180 and compared["stalls"]["programs"] > 180
    assert compared["error programs"]["refusals"] > 1400 and compared["timing"]["programs"] == 21
    assert min(record.coverage.values()) > 0 and record.arch_id == ARCHES[name].arch_id


def test_architectures_of_every_core_are_read(tmp_path: Path) -> None:
    path = tmp_path / "arch.json"
    path.write_text(json.dumps(SMALL.to_dict()))
    assert load_arch(str(path)) == SMALL
    with pytest.raises(ValueError, match=r"arch\.json must be an architecture of core 'deform', the inference core, not of 'sat'"):
        load_inference_arch(str(path))
