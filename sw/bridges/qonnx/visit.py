"""One node of a model as its reader sees it: attributes, the values that it reads, and shapes worked out without the batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from sw.bridges.qonnx.building import Building
from sw.bridges.qonnx.model import MAX_ELEMENTS, Attributes
from sw.bridges.qonnx.values import Codes, Const
from sw.bridges.qonnx.writer import HINT
from sw.tracing.problems import RefusedError

__all__ = ["Visit", "window", "windows_shape"]

_MOST_MOVED = 1 << 25
"""Elements that transposed views of a whole model may have together: they are the only arrays as large as images."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A node; ``values`` are what it reads, None where an input is left out. ``batch`` is the inputs' N, None if open."""

    building: Building
    node: onnx.NodeProto
    place: str
    values: tuple[Any, ...]
    batch: int | None

    @property
    def attributes(self) -> Attributes:
        return Attributes(self.node)

    @property
    def output(self) -> str:
        return str(self.node.output[0])

    @property
    def hint(self) -> str:
        """What this project's own export says a node stands for; to choose between equal operations only."""
        return next((entry.value for entry in self.node.metadata_props if entry.key == HINT), "")

    def value(self, index: int) -> Any:
        """An input's value, None where it is left out."""
        return self.values[index] if index < len(self.values) else None

    def const(self, index: int, what: str) -> Const:
        """An input that must be a constant."""
        value = self.value(index)
        if not isinstance(value, Const):
            raise RefusedError(f"has {what} that {'are missing' if value is None else 'depend on the input'}", f"make {what} constant")
        return value

    def whole_numbers(self, index: int, name: str, default: list[int] | None = None) -> list[int]:
        """Integers that are an input in newer operator sets and an attribute in older ones."""
        if self.value(index) is not None:
            array = self.const(index, name).value
            if array.dtype.kind not in "iu" or array.size > 64:
                raise RefusedError(f"has {name} of type {array.dtype} and size {array.size}", "give a few integers")
            return [int(n) for n in array.reshape(-1)]
        if default is None and not self.attributes.has(name):
            raise RefusedError(f"has no {name}", "give them")
        return self.attributes.integers(name, default or [])

    def image(self, index: int = 0) -> Codes:
        """An input of codes (C, H, W)."""
        source = self.building.image(self.value(index))
        if len(source.shape) != 3:
            raise RefusedError(f"reads a flat tensor of shape {source.shape}", "give it an image (N, C, H, W)")
        return source

    def moved(self, elements: int) -> None:
        """Count elements of a transposed view; refuse a model that moves more than memory should hold."""
        self.building.moved += elements
        if elements > MAX_ELEMENTS or self.building.moved > _MOST_MOVED:
            raise RefusedError(f"moves more than {_MOST_MOVED} elements together with the nodes before it",
                               "transpose less, or smaller images")


def window(visit: Visit, kernel: Sequence[int]) -> tuple[int, int]:
    """Stride and padding of a window on images, each the same in both directions. Raises RefusedError for others."""
    attributes = visit.attributes
    if len(kernel) != 2:
        raise RefusedError(f"has a window of {len(kernel)} dimensions", "use layers for images (N, C, H, W)")
    for name, length, default in (("strides", 2, 1), ("dilations", 2, 1), ("pads", 4, 0)):
        if len(attributes.integers(name, [default] * length)) != length:
            raise RefusedError(f"has {name} of another length than {length}", "export the model again")
    strides, pads = attributes.integers("strides", [1, 1]), attributes.integers("pads", [0] * 4)
    automatic = attributes.text("auto_pad", "NOTSET")
    if automatic.startswith("SAME") and strides == [1, 1] and all(k % 2 for k in kernel):
        pads = [k // 2 for k in kernel] * 2
    elif automatic not in ("NOTSET", "VALID", ""):
        raise RefusedError(f"pads by {automatic}", "give explicit pads")
    if len(set(strides)) != 1 or len(set(pads)) != 1:
        raise RefusedError(f"has strides {strides} and pads {pads}", "use the same in both directions and on all sides")
    return strides[0], 0 if automatic == "VALID" else pads[0]


def windows_shape(shape: tuple[int, ...], channels: int, kernel: Sequence[int], stride: int, padding: int) -> tuple[int, int, int]:
    """(C, H, W) that windows of a (C, H, W) image make."""
    if stride < 1 or padding < 0 or min(kernel) < 1:
        raise RefusedError(f"has window {list(kernel)}, stride {stride}, padding {padding}", "use a window and stride of at least 1")
    if shape[0] * math.prod(size + 2 * padding for size in shape[1:]) > 4 * MAX_ELEMENTS:
        raise RefusedError(f"pads an image of {shape[1]} x {shape[2]} by {padding}", "pad by less than the window reaches")
    height, width = ((size + 2 * padding - k) // stride + 1 for size, k in zip(shape[1:], kernel, strict=True))
    if min(height, width) < 1:
        raise RefusedError(f"has a window {list(kernel)} that does not fit an image of {shape[1]} x {shape[2]}", "use a larger image")
    return channels, height, width


