"""What stands in the way of compiling a graph: found for all nodes at once, each with its place and a way out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One obstacle: ``place`` is the node's (or tensor's) name, ``reason`` what is wrong, ``advice`` what to do."""

    place: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}; {self.advice}"


class CompileError(ValueError):
    """A graph that this architecture cannot run; ``problems`` are all of them, and so says the message."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n  ".join([f"the graph cannot be compiled, {count}:", *map(str, self.problems)]))
