"""Pieces of C++ text: types of formats and of ranges, loops with labels and pragmas, constant arrays."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hw.spec.fixed import FixedFormat, Rounding

__all__ = ["Constant", "bits", "fixed", "integer", "loop", "of_format", "position"]

_WIDTH = 110


def bits(low: int, high: int) -> int:
    """Bits of the narrowest signed integer that holds low..high."""
    return max(_magnitude(int(low)), _magnitude(int(high))) + 1


def _magnitude(value: int) -> int:
    return (value if value >= 0 else ~value).bit_length()


def integer(values: np.ndarray) -> str:
    """The smallest integer type of C++ that holds an array's values. A compiler reads thousands of them at once, as it does not with
    ``ap_int``; and as only the bits of the type that they become are read, a ROM has no others."""
    width, signed = bits(int(values.min()), int(values.max())), bool(values.min() < 0)
    name = next(name for most, name in ((8, "char"), (16, "short"), (32, "int"), (64, "long long")) if width <= most + (not signed))
    return f"{'signed' if signed else 'unsigned'} {name}"


def fixed(width: int, frac: int, *, signed: bool = True, rounding: Rounding | None = None) -> str:
    """A fixed-point type. With a rounding, assignments to it round so and saturate."""
    modes = f", AP_{rounding.name}, AP_SAT" if rounding else ""
    return f"ap_{'' if signed else 'u'}fixed<{width}, {width - frac}{modes}>"


def of_format(fmt: FixedFormat, rounding: Rounding | None = None) -> str:
    return fixed(fmt.width, fmt.frac, signed=fmt.signed, rounding=rounding)


def loop(label: str, variable: str, count: int, body: Iterable[str], *pragmas: str) -> list[str]:
    """A loop over 0..count-1 with a label; the pragmas stand where the loop's body begins."""
    lines = [*(f"#pragma HLS {pragma}" for pragma in pragmas), *body]
    head = f"{label}: for (int {variable} = 0; {variable} < {count}; {variable}++) {{"
    return [head, *(line if line.startswith("#") else f"  {line}" for line in lines), "}"]


def position(start: str, stride: int, tap: str, padding: int, dilation: int = 1) -> str:
    """The input position of a window's tap: ``start * stride + tap * dilation - padding``, without terms that are 0."""
    terms = [start if stride == 1 else f"{start} * {stride}"]
    terms += [tap if dilation == 1 else f"{tap} * {dilation}"] if tap != "0" else []
    return " + ".join(terms) + (f" - {padding}" if padding else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Constant:
    """A constant array of integer codes, in the narrowest type that holds them."""

    name: str
    values: np.ndarray

    def lines(self) -> list[str]:
        """Its definition."""
        shape = "".join(f"[{size}]" for size in self.values.shape)
        return [f"static const {integer(self.values)} {self.name}{shape} = {{", *_rows(self.values), "};"]


def _rows(values: np.ndarray) -> list[str]:
    """What stands between the braces of an array: a part on one line where it fits."""
    if values.ndim == 1:
        return textwrap.wrap(", ".join(map(str, values.tolist())), _WIDTH, initial_indent="  ", subsequent_indent="  ")
    lines: list[str] = []
    for part in values:
        text = _nested(part.tolist())
        lines += [f"  {text},"] if len(text) <= _WIDTH else ["  {", *(f"  {line}" for line in _rows(part)), "  },"]
    return lines


def _nested(values: list[Any]) -> str:
    return "{" + ", ".join(_nested(value) if isinstance(value, list) else str(value) for value in values) + "}"
