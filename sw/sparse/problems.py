"""What keeps a model from being trained by the core: every problem in one error."""

from __future__ import annotations

from sw.tracing.problems import Problem

__all__ = ["UnsupportedTrainingError"]


class UnsupportedTrainingError(ValueError):
    """A model or optimiser that the training core has no operations for; ``problems`` lists every one."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"the training cannot be exported, {len(problems)} problem(s):\n{lines}")
