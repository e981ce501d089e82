"""What stands in the way of a model: one problem with its place and a way out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem", "RefusedError"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One obstacle: its place in the model, by a layer's dotted name or a node's, what it is, why it is in the way, and what to do."""

    place: str
    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place or '(model)'}: {self.kind} {self.reason}; {self.advice}"


class RefusedError(Exception):
    """One thing is refused: ``reason`` and ``advice``. Caught where the place is known, and told with it as a Problem."""

    def __init__(self, reason: str, advice: str) -> None:
        self.reason, self.advice = reason, advice
        super().__init__(reason, advice)

    def at(self, place: str, kind: str) -> Problem:
        return Problem(place=place, kind=kind, reason=self.reason, advice=self.advice)
