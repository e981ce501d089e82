"""Planted faults: the real module with one edit of its source text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import pytest

from hw.rtl.formal import Harness, ProofFailed, bounded


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``old``, which ``module`` must hold exactly once, becomes ``new``; the check that must then fail is ``fails``."""

    name: str
    module: ModuleType
    old: str
    new: str
    fails: str

    def plant(self) -> ModuleType:
        """A copy of the module with the fault. Raises ValueError where the place is not there exactly once."""
        source = inspect.getsource(self.module)
        if (count := source.count(self.old)) != 1:
            raise ValueError(f"{self.old!r} must be found once in {self.module.__name__}, not {count} times")
        copy = ModuleType(self.module.__name__)
        copy.__file__, copy.__package__ = self.module.__file__, self.module.__package__
        code = compile(
            source.replace(self.old, self.new), f"{self.module.__name__} with {self.name}", "exec", dont_inherit=True
        )
        exec(code, copy.__dict__)
        return copy


def parameters(faults: tuple[Fault, ...]) -> pytest.MarkDecorator:
    """The parameter ``fault`` of a test. Of each unit the first fault is planted in every run of the tests, the others in slow ones."""
    first, *others = (pytest.param(fault, id=fault.name.replace(" ", "_")) for fault in faults)
    return pytest.mark.parametrize(
        "fault", [first, *(pytest.param(*p.values, id=p.id, marks=pytest.mark.slow) for p in others)]
    )


def expect_counterexample(fault: Fault, harness: Callable[[ModuleType], Harness], depth: int) -> None:
    """The proof of the faulty unit, with the check ``fault.fails`` alone, must end with a run from reset that breaks it."""
    faulty = harness(fault.plant())
    faulty.only = fault.fails
    with pytest.raises(ProofFailed) as failure:
        bounded(faulty, depth)
    assert failure.value.from_reset and failure.value.checks == (fault.fails,), str(failure.value)
    assert 0 in failure.value.trace.values[f"check_{fault.fails}"]
