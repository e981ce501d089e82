"""Cores without multipliers in their array: the same instructions and the same chain, and weights that they do not take refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from hw.sim.core import build_core, emit_core
from hw.spec.deform.digits import is_taken
from sw.compiler import CompileError, compile_graph
from sw.compiler.proof import digits
from sw.flow.prove_design import prove_design
from sw.flow.verify import Simulation, verify
from sw.graph import IntegerGraph
from tests.e2e.tiny import ARCH, Tiny


def with_taken_weights(graph: IntegerGraph, terms: int) -> IntegerGraph:
    """The graph with the weights of the array's layers replaced by the nearest that cells of one term take; others stay."""
    codes = np.arange(-127, 128)
    allowed = codes[np.logical_and.reduce([is_taken(part, terms) for part in digits(codes)])]
    small = allowed[np.abs(allowed) <= 7]

    def near(weight: np.ndarray) -> np.ndarray:
        known = allowed if np.abs(weight).max() > 7 else small
        return known[np.abs(weight[..., None] - known).argmin(-1)]

    nodes = [
        replace(node, operation=replace(node.operation, weight=near(node.operation.weight)))
        if node.operation.op in ("conv2d", "linear") else node for node in graph.nodes
    ]  # fmt: skip
    return replace(graph, nodes=tuple(nodes))


@pytest.mark.parametrize("terms", [1, 2])
def test_the_chain_is_green(tiny: Tiny, terms: int) -> None:
    arch = replace(ARCH, weight_terms=terms)
    graph = with_taken_weights(tiny.graph, terms)
    weights = np.concatenate([node.operation.weight.ravel() for node in graph.nodes if node.operation.op in ("conv2d", "linear")])
    assert len(np.unique(weights)) >= (15 if terms == 1 else 50)
    report = verify(graph, compile_graph(graph, arch), tiny.inputs, simulation=Simulation(build=build_core(arch)))
    assert report.first == [] and report.ok and report.links["machine_rtl"].compared > 50_000
    assert report.timing is not None and report.timing.compared > 50
    assert max(life.zero for life in report.alive) < 0.9


def test_a_design_of_two_terms_is_proven_on_random_programs() -> None:
    """Arbitrary bytes as weights: the Verilog takes each for what the machine does, also those of no program (one term)."""
    for terms in (1, 2):
        arch = replace(ARCH, weight_terms=terms)
        record = prove_design(arch, build=build_core(arch), seeds=(terms,), programs=20)
        assert all(check.mismatches == 0 and sum(check.compared.values()) > 0 for check in record.checks)


def test_weights_that_the_cells_do_not_take_are_refused(tiny: Tiny) -> None:
    with pytest.raises(CompileError) as error:
        compile_graph(tiny.graph, replace(ARCH, weight_terms=1))
    places = {problem.place for problem in error.value.problems}
    assert {"stem", "middle", "head"} <= places
    text = str(error.value)
    assert "need more than the 1 signed power of two for each 4-bit digit" in text and "weight_digits = 1" in text
    compile_graph(tiny.graph, replace(ARCH, weight_terms=2))


def test_the_array_has_no_multiplier() -> None:
    """In the emitted Verilog, which yosys has not mapped yet: a product of two signals stands in no cell."""
    texts = {terms: emit_core(replace(ARCH, weight_terms=terms)).text for terms in (0, 2)}
    cells = {terms: [part for part in text.split("endmodule") if "cell_0_0" in part.split(";")[0]] for terms, text in texts.items()}
    assert all(len(found) == 1 for found in cells.values())
    assert " * " in cells[0][0] and " * " not in cells[2][0]
