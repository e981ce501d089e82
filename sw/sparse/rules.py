"""What a sparsified model does: the method, N:M and its options, in one validated value."""

from __future__ import annotations

import operator
from dataclasses import dataclass

__all__ = ["METHODS", "SRSTE_DECAY", "Rule"]

METHODS = ("bdwp", "srste", "sdgp", "sdwp", "dense")
SRSTE_DECAY = 2e-4
_UPDATES = ((1, 2), (2, 4), None)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The pruning of every sparse layer.

    Parameters
    ----------
    n, m : of each group of m values n stay, 1 <= n <= m <= 256
    method : "bdwp", "srste", "sdgp", "sdwp" or "dense"
    decay : factor of (1 - mask) * W that is added to the gradient of W, with the forward mask; at least 0, and 0 where the
        method has no forward mask
    wu : (1, 2) or (2, 4), the random pruning of dY for dW, or None
    seed : of that randomness, not negative
    """

    n: int
    m: int
    method: str = "bdwp"
    decay: float = 0.0
    wu: tuple[int, int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("n", "m", "seed"):
            object.__setattr__(self, name, operator.index(getattr(self, name)))
        if self.wu is not None:
            object.__setattr__(self, "wu", tuple(self.wu))
        if not 1 <= self.n <= self.m <= 256:
            raise ValueError(f"n and m must be 1 <= n <= m <= 256, not n = {self.n} and m = {self.m}")
        if self.method not in METHODS:
            raise ValueError(f"method must be one of {', '.join(METHODS)}, not {self.method!r}")
        if self.wu not in _UPDATES:
            raise ValueError(f"wu must be (1, 2), (2, 4) or None, not {self.wu!r}")
        if not 0 <= self.decay < float("inf"):
            raise ValueError(f"decay must be a number of at least 0, not {self.decay}")
        if self.decay and not self.forward_pruned:
            raise ValueError(f"decay needs a forward mask, and {self.method} has none: use bdwp or srste, or leave it out")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, not {self.seed}")
        if self.method == "dense" and self.wu is not None:
            raise ValueError("wu prunes a sparse layer's dY, and the method dense has no sparse layers: leave one of them out")

    @property
    def forward_pruned(self) -> bool:
        """Whether the forward product has N:M weights along the input channels."""
        return self.method in ("bdwp", "srste")

    @property
    def backward_pruned(self) -> bool:
        """Whether dX is made from N:M weights along the output channels."""
        return self.method in ("bdwp", "sdwp")

    @property
    def gradient_pruned(self) -> bool:
        """Whether dX is made from N:M dY along the output channels."""
        return self.method == "sdgp"

    @property
    def divides_inputs(self) -> bool:
        """Whether m must divide a layer's input channels."""
        return self.forward_pruned

    @property
    def divides_outputs(self) -> bool:
        """Whether m must divide a layer's output channels."""
        return self.backward_pruned or self.gradient_pruned
