"""What keeps a model from being trained by the core: every problem with its place and a way out, in one error."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem", "UnsupportedTrainingError"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One obstacle: its dotted place in the model, what it is, why, and what to do."""

    place: str
    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place or '(model)'}: {self.kind} {self.reason}; {self.advice}"


class UnsupportedTrainingError(ValueError):
    """A model or optimiser that the training core has no operations for; ``problems`` lists every one."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"the training cannot be exported, {len(problems)} problem(s):\n{lines}")
