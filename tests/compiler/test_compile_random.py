"""Random graphs of all operations: what the program stores on the machine is what the graph computes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from hw.spec.deform import DeformArch
from hw.spec.ops import OPERATIONS
from sw.compiler import compile_graph
from sw.runtime import open_device
from tests.compiler.graphs import compare, random_codes
from tests.compiler.random_graphs import ARCHITECTURES, Drawn, graphs, operations

RELAXED = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True, "database": None}
RTL = DeformArch(rows=2, feature_words=2048, row_words=256, weight_words=2048, parameter_words=512, tables=2)
KNOWN = list(OPERATIONS)


class _Seen:
    """What a run of examples has met; a run that never met an operation has not tested it."""

    def __init__(self) -> None:
        self.operations: Counter[str] = Counter()
        self.architectures: Counter[int] = Counter()
        self.codes = self.graphs = 0

    def check(self, drawn: Drawn) -> None:
        program, count = compare(drawn.graph, drawn.arch, drawn.seed, alive=False)
        assert count > 0 and program.instruction_count > 0
        self.codes, self.graphs = self.codes + count, self.graphs + 1
        self.operations.update(operations(drawn.graph))
        self.architectures[drawn.arch.arch_id] += 1


def run(examples: int) -> _Seen:
    seen = _Seen()

    @settings(max_examples=examples, **RELAXED)
    @given(graphs())
    def each(drawn: Drawn) -> None:
        seen.check(drawn)

    each()
    return seen


def test_random_graphs_are_exact() -> None:
    seen = run(25)
    assert seen.graphs >= 25 and seen.codes > 5_000
    assert len(seen.operations) >= 10 and len(seen.architectures) >= 3


@pytest.mark.slow
def test_many_random_graphs_are_exact() -> None:
    seen = run(1000)
    assert seen.graphs >= 1000 and seen.codes > 500_000
    assert not [name for name in KNOWN if seen.operations[name] < 50]
    assert all(seen.architectures[arch.arch_id] > 50 for arch in ARCHITECTURES)


@pytest.mark.slow
def test_random_graphs_are_exact_in_rtl() -> None:
    """A sample through the simulated core: every output code equals the graph's."""
    seen: Counter[str] = Counter()
    with open_device("sim", arch=RTL) as core:

        @settings(max_examples=100, **RELAXED)
        @given(graphs(architectures=(RTL,)))
        def each(drawn: Drawn) -> None:
            if drawn.arch != RTL:
                return
            codes = random_codes(drawn.graph, np.random.default_rng(drawn.seed))
            inputs = {name: array[None] for name, array in codes.items()}
            outputs, _ = core.run(compile_graph(drawn.graph, RTL), inputs)
            for name, wanted in drawn.graph(inputs).items():
                np.testing.assert_array_equal(outputs[name], wanted, err_msg=name)
                seen["codes"] += wanted.size
            seen.update(operations(drawn.graph))

        each()
    assert seen["codes"] > 20_000
    assert not [name for name in KNOWN if seen[name] < 3]
