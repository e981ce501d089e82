"""Functions of one code by a table of all its values: hls4ml's UnaryLUT, which takes a code's bits as the index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sw.bridges.hls4ml.formats import spanning
from sw.bridges.hls4ml.layers import Layers, Value

__all__ = ["clipped", "looked_up"]


def looked_up(to: Layers, name: str, x: Value, frac: int, function: Callable[[np.ndarray], np.ndarray]) -> Value:
    """A function of integer codes, which gives codes at the binary point ``frac``."""
    bits = np.arange(1 << x.type.width)
    values = function(np.where(bits > x.type.high, bits - (1 << x.type.width), bits))
    result = spanning(int(values.min()), int(values.max()), frac)
    size = int(np.prod(x.shape))
    return to.add(name, "UnaryLUT", (x,), x.shape, result, {"table": result}, activation="unary_lut", n_in=size,
                  table_data=np.ldexp(values.astype(np.float64), -frac))


def clipped(to: Layers, name: str, x: Value, low: int, high: int) -> Value:
    """Codes limited to low..high, where no type's saturation does that."""
    return looked_up(to, name, x, x.type.frac, lambda codes: np.clip(codes, low, high))
