"""The C++ function of a layer: what it consists of, and how it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hw.spec.fixed import Rounding
from sw.bridges.hls.cpp import Constant, loop
from sw.bridges.hls.plan import Layer

__all__ = ["Function", "Reads", "inputs_at_once", "pixels", "written"]

Reads = Mapping[int, tuple[int, int, int]]
"""By the number of an input: channels, rows and columns that are read at once, so many banks it should have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Function:
    """A layer's function.

    Parameters
    ----------
    layer : what it computes
    body : its lines
    typedefs, constants : what it needs besides
    pragmas : at its start, besides INLINE
    reads : banks of the inputs
    rounding : of assignments to the output's type, which then saturate too; None where every assignment is exact
    """

    layer: Layer
    body: tuple[str, ...]
    typedefs: tuple[str, ...] = ()
    constants: tuple[Constant, ...] = ()
    pragmas: tuple[str, ...] = ()
    reads: Reads = field(default_factory=dict)
    rounding: Rounding | None = None

    @property
    def name(self) -> str:
        return f"{self.layer.output.identifier}_layer"


def written(function: Function) -> list[str]:
    """The function's text."""
    layer, single = function.layer, len(function.layer.inputs) == 1
    given = [(t, "in" if single else f"in{k}") for k, t in enumerate(layer.inputs)]
    arguments = [f"const {t.type} {name}{t.dimensions}" for t, name in given]
    arguments.append(f"{layer.output.type} out{layer.output.dimensions}")
    pragmas = [f"#pragma HLS {pragma}" for pragma in ("INLINE off", *function.pragmas)]
    head = f"static void {function.name}({', '.join(arguments)}) {{"
    return [f"// {layer.title}", head, *pragmas, *_indented(function.body), "}"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [line if line.startswith("#") else f"  {line}" for line in lines]


def pixels(layer: Layer, body: Iterable[str], *pragmas: str, channels_first: bool = True) -> list[str]:
    """Loops over the output's channels c, rows y and columns x; the pragmas belong to the innermost."""
    sizes = dict(zip(("c", "y", "x"), layer.output.shape, strict=True))
    labels = {"c": "channels", "y": "rows", "x": "columns"}
    inner, *outer = ("x", "y", "c") if channels_first else ("c", "x", "y")
    lines = loop(labels[inner], inner, sizes[inner], body, *pragmas)
    for variable in outer:
        lines = loop(labels[variable], variable, sizes[variable], lines)
    return lines


def inputs_at_once(inputs: int, taps: int, parallel: int) -> int:
    """Input channels whose products are made at once: the most that divide all and keep to ``parallel`` products, at least one."""
    return max(count for count in range(1, inputs + 1) if inputs % count == 0 and (count == 1 or count * taps <= parallel))
