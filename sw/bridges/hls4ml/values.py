"""Between the graph's codes and the values that hls4ml's compiled projects take and give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sw.bridges.errors import BridgeError
from sw.bridges.hls4ml.lower import HlsNetwork, Port

__all__ = ["codes_of", "predict", "values_of"]


def values_of(port: Port, codes: np.ndarray) -> np.ndarray:
    """Codes (N, C, H, W) as float64 values (N, H, W, C): codes times a power of two, exact."""
    return np.ascontiguousarray(np.ldexp(np.asarray(codes).transpose(0, 2, 3, 1).astype(np.float64), -port.type.frac))


def codes_of(port: Port, values: np.ndarray) -> np.ndarray:
    """Values of any shape of N x H x W x C elements as codes (N, C, H, W); BridgeError for one that is no code."""
    channels, height, width = port.shape
    scaled = np.ldexp(np.asarray(values, np.float64), port.type.frac).reshape(-1, height, width, channels)
    codes = np.rint(scaled)
    if not (codes == scaled).all():
        count = int((codes != scaled).sum())
        raise BridgeError(f"{port.tensor}: values of hls4ml must be multiples of 2**-{port.type.frac}, and {count} are not")
    return codes.transpose(0, 3, 1, 2).astype(np.int64)


def predict(network: HlsNetwork, model: Any, codes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What a compiled model of hls4ml gives for codes (N, C, H, W) of every input: codes of every output."""
    given = [values_of(port, codes[port.tensor]) for port in network.inputs]
    found = model.predict(given[0] if len(given) == 1 else given)
    each = [found] if len(network.outputs) == 1 else found
    return {port.tensor: codes_of(port, values) for port, values in zip(network.outputs, each, strict=True)}
