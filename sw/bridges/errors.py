"""What a bridge says when it cannot cross: one error in words, and the list of all obstacles behind it."""

from __future__ import annotations

from collections.abc import Sequence

from sw.tracing.problems import Problem

__all__ = ["BridgeError", "refusal"]

_MOST_LINES = 200


class BridgeError(ValueError):
    """A model that cannot be exported or imported; ``problems`` lists every obstacle, the message tells them."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


def refusal(what: str, problems: Sequence[Problem]) -> BridgeError:
    """The error that tells all ``problems`` of ``what``, such as "the graph cannot be exported"."""
    lines = [f"  {problem}" for problem in problems[:_MOST_LINES]]
    if len(problems) > _MOST_LINES:
        lines.append(f"  and {len(problems) - _MOST_LINES} more")
    return BridgeError(f"{what}, {len(problems)} thing(s) are in the way:\n" + "\n".join(lines), problems)
