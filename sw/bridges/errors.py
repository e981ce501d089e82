"""What a bridge says when it cannot cross: one error in words, and the list of all obstacles behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["BridgeError", "Problem", "RefusedError", "refusal"]

_MOST_LINES = 200


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One obstacle: the name of its node or tensor, what it is, why it is in the way, and what to do."""

    place: str
    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place or '(model)'}: {self.kind} {self.reason}; {self.advice}"


class BridgeError(ValueError):
    """A model that cannot be exported or imported; ``problems`` lists every obstacle, the message tells them."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


class RefusedError(Exception):
    """One thing is refused: ``reason`` and ``advice``. Caught where the place is known, and told with it as a Problem."""

    def __init__(self, reason: str, advice: str) -> None:
        self.reason, self.advice = reason, advice
        super().__init__(reason, advice)

    def at(self, place: str, kind: str) -> Problem:
        return Problem(place=place, kind=kind, reason=self.reason, advice=self.advice)


def refusal(what: str, problems: Sequence[Problem]) -> BridgeError:
    """The error that tells all ``problems`` of ``what``, such as "the graph cannot be exported"."""
    lines = [f"  {problem}" for problem in problems[:_MOST_LINES]]
    if len(problems) > _MOST_LINES:
        lines.append(f"  and {len(problems) - _MOST_LINES} more")
    return BridgeError(f"{what}, {len(problems)} thing(s) are in the way:\n" + "\n".join(lines), problems)
