"""What a bridge says when it cannot cross: one error in words, and the list of all obstacles behind it."""

from __future__ import annotations

from collections.abc import Sequence

from sw.tracing.problems import Problem

__all__ = ["BridgeError", "refusal"]

_MOST_LINES = 200
_MOST_ALIKE = 8
"""Groups of one kind and advice that a problem is compared with."""


def _groups(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Problems of one kind with one advice, whose reasons have the same words but for less than half of them, in order."""
    found: dict[tuple[str, str, int], list[list[Problem]]] = {}
    order: list[list[Problem]] = []
    for problem in problems:
        alike = found.setdefault((problem.kind, problem.advice, len(problem.reason.split())), [])
        group = next((g for g in alike[:_MOST_ALIKE] if 2 * len(_other_words(problem, g[0])) < len(problem.reason.split())), None)
        if group is None:
            alike.append(group := [])
            order.append(group)
        group.append(problem)
    return order


def _other_words(problem: Problem, first: Problem) -> list[str]:
    pairs = zip(problem.reason.split(), first.reason.split(), strict=True)
    return [word.strip("(),;") for word, of_first in pairs if word != of_first]


def _line(group: Sequence[Problem]) -> str:
    """A problem; of several alike the first's reason and advice, then each one's place and its own words."""
    first = group[0]
    if len(group) == 1:
        return f"  {first}"
    places = [problem.place or "(model)" for problem in group]
    others = [", ".join(_other_words(problem, first)) for problem in group]
    named = ", ".join(f"{place} ({words})" if words else place for place, words in zip(places, others, strict=True))
    return f"  {len(group)} times {first.kind} {first.reason}; {first.advice}:\n    {named}"


class BridgeError(ValueError):
    """A model that cannot be exported or imported; ``problems`` lists every obstacle, the message tells them."""

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


def refusal(what: str, problems: Sequence[Problem]) -> BridgeError:
    """The error that tells all ``problems`` of ``what``, such as "the graph cannot be exported"; what is alike is told once."""
    groups = _groups(problems)
    lines = [_line(group) for group in groups[:_MOST_LINES]]
    if more := sum(len(group) for group in groups[_MOST_LINES:]):
        lines.append(f"  and {more} more")
    return BridgeError(f"{what}, {len(problems)} thing(s) are in the way:\n" + "\n".join(lines), problems)
