"""Proof of the token board, and the faults that it must find."""

from __future__ import annotations

import pytest

from hw.rtl.common import tokens
from hw.rtl.formal import cover, prove
from hw.spec.isa import TOKEN_MAX
from tests.formal.mutants import Fault, expect_counterexample, parameters
from tests.formal.tokens_proof import TokenProof

FAULTS = (
    Fault(name="wait on zero allowed", module=tokens, old="self.wait[i] & (count == 0)", new="0", fails="equal"),
    Fault(
        name="clear ignored",
        module=tokens,
        old="with m.If(self.clear):",
        new="with m.If(self.clear & ~self.take):",
        fails="equal",
    ),
    Fault(name="push at once", module=tokens, old="self.give & self.push[i]", new="self.take & self.push[i]", fails="equal"),
)
DEEP_FAULTS = (
    Fault(name="own token not counted", module=tokens, old="& ~self.wait[i]", new="", fails="blocked"),
    Fault(name="one more than fits", module=tokens, old="(count == TOKEN_MAX)", new="(count == TOKEN_MAX + 1)", fails="equal"),
)
FILLING = 2 * TOKEN_MAX + 4
"""Cycles in which a count becomes full and one more is pushed: every instruction takes two."""


def test_tokens() -> None:
    prove(TokenProof(tokens), 1)


def test_tokens_are_exercised() -> None:
    assert cover(TokenProof(tokens), 7) == ("waited",)


@pytest.mark.slow
def test_full_tokens_are_reached() -> None:
    assert cover(TokenProof(tokens, filling=True), FILLING) == ("blocked_by_push",)


@parameters(FAULTS)
def test_faulty_tokens(fault: Fault) -> None:
    expect_counterexample(fault, TokenProof, 6)


@pytest.mark.slow
@parameters(DEEP_FAULTS)
def test_overfull_tokens(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: TokenProof(module, filling=True), FILLING)
