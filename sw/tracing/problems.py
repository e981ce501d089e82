"""What stands in the way of a model: one problem with its place and a way out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Problem"]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One obstacle: its dotted place in the model, what it is, why it is in the way, and what to do."""

    place: str
    kind: str
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{self.place or '(model)'}: {self.kind} {self.reason}; {self.advice}"
