"""hls4ml's layers of a network, as plain data: what its list of layers holds, and a type for everything that has one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sw.bridges.hls4ml.formats import ApFixed

__all__ = ["HlsLayer", "Layers", "Value"]

Shape = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, eq=False)
class HlsLayer:
    """One layer of hls4ml.

    Parameters
    ----------
    name, kind : its own name and the name of hls4ml's class
    inputs : names of the layers that it reads
    attributes : what the class asks for; weights are float64 arrays that hold codes times powers of two, exactly
    types : ``result`` and, by the class, ``accum``, ``weight``, ``bias``, ``scale``, ``table``
    inherited : the result's type is the input's, whatever the configuration says
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    types: Mapping[str, ApFixed]
    inherited: bool = False


@dataclass(frozen=True, kw_only=True)
class Value:
    """What a layer gives: a tensor (C, H, W) of a type. ``shape`` is hls4ml's: (H, W, C), (C,) or a layer's own."""

    layer: str
    type: ApFixed
    shape: tuple[int, ...]


@dataclass(kw_only=True)
class Layers:
    """Layers in execution order, as they are added."""

    made: list[HlsLayer] = field(default_factory=list)

    def input(self, name: str, shape: Shape, kind: ApFixed) -> Value:
        """An input port of a tensor (C, H, W)."""
        value = Value(layer=name, type=kind, shape=channels_last(shape))
        self.made.append(HlsLayer(name=name, kind="InputLayer", inputs=(), types={"result": kind},
                                  attributes={"input_shape": list(value.shape)}))
        return value

    def add(self, name: str, kind: str, inputs: tuple[Value, ...], shape: tuple[int, ...], result: ApFixed,
            types: Mapping[str, ApFixed] | None = None, *, inherited: bool = False, **attributes: Any) -> Value:
        """A layer whose output has a shape, channels last, and a type; the others of its types by name."""
        self.made.append(HlsLayer(name=name, kind=kind, inputs=tuple(v.layer for v in inputs), attributes=attributes,
                                  types={"result": result, **(types or {})}, inherited=inherited))
        return Value(layer=name, type=result, shape=shape)

    def reshaped(self, value: Value, shape: tuple[int, ...], name: str) -> Value:
        """The same elements in another shape; nothing moves, as all arrays are flat."""
        if value.shape == shape:
            return value
        return self.add(name, "Reshape", (value,), shape, value.type, target_shape=list(shape))

    def cast(self, value: Value, result: ApFixed, name: str) -> Value:
        """The same codes in another type, with its rounding and saturation."""
        if value.type == result:
            return value
        return self.add(name, "Activation", (value,), value.shape, result, activation="linear", n_in=_size(value.shape))

    def copied(self, value: Value, name: str) -> Value:
        """A layer of its own for what another gives: one bit wider, as hls4ml leaves out a layer that changes nothing."""
        return self.cast(value, replace(value.type, width=value.type.width + 1), name)


def channels_last(shape: Shape) -> tuple[int, int, int]:
    """(C, H, W) to (H, W, C)."""
    return shape[1], shape[2], shape[0]


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for extent in shape:
        size *= extent
    return size
