"""What an import gives and tells: the graph with its scales, where it differs from Brevitas, what it refuses and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hw.spec.scales import Difference
from sw.graph import IntegerGraph
from sw.tracing.problems import Problem

__all__ = ["BrevitasImport", "ImportedScaleWarning", "UnsupportedBrevitasError"]


class UnsupportedBrevitasError(ValueError):
    """A Brevitas model that has no equal integer graph; ``problems`` lists every layer with its reason."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"the Brevitas model cannot be imported, {len(problems)} thing(s) are not supported:\n{lines}")


class ImportedScaleWarning(UserWarning):
    """Some codes of the imported graph differ from Brevitas' own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BrevitasImport:
    """An imported model.

    Parameters
    ----------
    graph : the integer graph; where a scale is no power of two, a tensor's format has no fraction bits
    scales : each tensor's scale: value = code * scale
    input_range : smallest and largest code of the input
    differences : the layers that differ from Brevitas; empty where every step was proven equal
    proven : accumulator values that were compared, over all channels
    close : of those, how many lie so near to a rounding edge that the order of Brevitas' own float32 sums could decide
    """

    graph: IntegerGraph
    scales: dict[str, float]
    input_range: tuple[int, int]
    differences: tuple[Difference, ...]
    proven: int
    close: int

    def input_codes(self, x: Tensor) -> dict[str, np.ndarray]:
        """The graph's input for values (N, C, H, W) or (N, features), by Brevitas' own arithmetic."""
        (name,) = self.graph.inputs
        codes = torch.round(x.detach() / torch.tensor(self.scales[name], dtype=x.dtype)).clamp(*self.input_range)
        image = codes[:, :, None, None] if codes.ndim == 2 else codes
        return {name: image.to(torch.int64).numpy()}
