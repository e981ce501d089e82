"""How a model says "quantised": QONNX by one ``Quant`` node, plain ONNX by QuantizeLinear, Clip and DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from onnx import TensorProto

from hw.spec.fixed import FixedFormat, Rounding
from sw.bridges.qonnx.writer import OnnxWriter
from sw.tracing.problems import RefusedError

__all__ = ["QCDQ", "QONNX", "QUANT_DOMAIN", "Dialect", "Target"]

QUANT_DOMAIN = "qonnx.custom_op.general"
_QUANT_VERSION = 2
_ROUNDINGS = {Rounding.RND_CONV: "ROUND", Rounding.TRN: "FLOOR"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a quantise step makes: codes of ``fmt`` within ``low``..``high``, rounded as the graph says."""

    fmt: FixedFormat
    low: int
    high: int
    rounding: Rounding = Rounding.RND_CONV

    def __post_init__(self) -> None:
        if self.low < self.fmt.min_code or self.high > self.fmt.max_code:
            raise RefusedError(f"has codes {self.low}..{self.high}, beyond its format {self.fmt}",
                               "give it limits within its format")

    def value(self, code: int) -> float:
        return float(np.ldexp(float(code), -self.fmt.frac))


class Dialect(Protocol):
    """One way to say it. ``whole_biases``: a layer's bias must be a whole sum, or stand in an Add of its own."""

    name: str
    domains: tuple[tuple[str, int], ...]
    whole_biases: bool

    def native(self, rounding: Rounding) -> Rounding:
        """The rounding of the quantiser that stands for ``rounding``; sums move where the two differ (see `roundings`)."""

    def check(self, target: Target) -> None:
        """Raise RefusedError for a target that this dialect has no words for."""

    def quantise(self, writer: OnnxWriter, value: str, shape: tuple[int, ...], target: Target, *, name: str, output: str) -> str:
        """``value`` quantised, as a value named ``output``."""

    def weights(self, writer: OnnxWriter, codes: np.ndarray, frac: np.ndarray, axis: int, *, name: str) -> str:
        """Weight codes with ``frac`` fraction bits along ``axis``, as a value."""


class _Qonnx:
    """``Quant`` of the QONNX domain: scale, zero point, width, sign, narrow range and the rounding's name.

    Its names for ties, but for half to even, are symmetric around zero. Half up is ROUND of moved sums and not FLOOR of others: FINN
    takes every ``Quant`` of an activation for one to the nearest.
    """

    name = "QONNX"
    whole_biases = False
    domains: tuple[tuple[str, int], ...] = ((QUANT_DOMAIN, _QUANT_VERSION),)

    def native(self, rounding: Rounding) -> Rounding:
        return rounding if rounding in _ROUNDINGS else Rounding.RND_CONV

    def check(self, target: Target) -> None:
        if target.fmt.signed and target.fmt.width == 1:
            raise RefusedError("has signed codes of one bit, which QONNX reads as -1 and 1", "use two bits")

    def quantise(self, writer: OnnxWriter, value: str, shape: tuple[int, ...], target: Target, *, name: str, output: str) -> str:
        self.check(target)
        fmt = target.fmt
        narrow = fmt.signed and target.high == fmt.max_code and target.low == fmt.min_code + 1
        if not narrow and (target.low, target.high) != (fmt.min_code, fmt.max_code):
            value = _limited(writer, value, shape, target, name)
        numbers = [writer.floats(f"{name}:{what}", number) for what, number in
                   (("scale", target.value(1)), ("zero", 0), ("bits", fmt.width))]
        native = self.native(target.rounding)
        return writer.node("Quant", [value, *numbers], shape, name=f"{name}:quant", output=output, domain=QUANT_DOMAIN,
                           signed=int(fmt.signed), narrow=int(narrow), rounding_mode=_ROUNDINGS[native],
                           hint=target.rounding.name if target.rounding is not native else "")

    def weights(self, writer: OnnxWriter, codes: np.ndarray, frac: np.ndarray, axis: int, *, name: str) -> str:
        view = tuple(-1 if i == axis else 1 for i in range(codes.ndim))
        scale = np.ldexp(1.0, -frac).reshape(view)
        width, narrow = _narrowest(codes)
        numbers = [writer.floats(f"{name}:{what}", number) for what, number in
                   (("values", codes * scale), ("scale", scale), ("zero", 0), ("bits", width))]
        return writer.fixed("Quant", numbers, codes.shape, name=name, domain=QUANT_DOMAIN, signed=1, narrow=narrow,
                            rounding_mode="ROUND")


def _limited(writer: OnnxWriter, value: str, shape: tuple[int, ...], target: Target, name: str) -> str:
    """A ReLU or a Clip in front of a quantiser whose own range is wider."""
    if target.low == 0 and target.high == target.fmt.max_code:
        return writer.node("Relu", [value], shape, name=f"{name}:relu")
    ends = [writer.floats(f"{name}:{what}", target.value(code)) for what, code in (("low", target.low), ("high", target.high))]
    return writer.node("Clip", [value, *ends], shape, name=f"{name}:clip")


def _narrowest(codes: np.ndarray) -> tuple[int, int]:
    """The fewest bits, 2..8, that hold signed codes, and whether the lowest code is spared."""
    low, high = int(codes.min(initial=0)), int(codes.max(initial=0))
    width = max(2, (max(high, -low - 1)).bit_length() + 1)
    return width, int(low > -(1 << (width - 1)))


class _Qcdq:
    """QuantizeLinear to a byte, Clip to the codes, DequantizeLinear: what ONNX Runtime executes. It rounds half to even only.

    Its optimiser makes a layer's bias a whole sum, and would round one that was moved by less.
    """

    name = "QCDQ"
    whole_biases = True
    domains: tuple[tuple[str, int], ...] = ()

    def native(self, rounding: Rounding) -> Rounding:
        return Rounding.RND_CONV

    def check(self, target: Target) -> None:
        if target.fmt.width > 8:
            raise RefusedError(f"has the format {target.fmt}, wider than the bytes of QuantizeLinear", "use at most 8 bits")

    def quantise(self, writer: OnnxWriter, value: str, shape: tuple[int, ...], target: Target, *, name: str, output: str) -> str:
        self.check(target)
        dtype, kind, ends = _byte(target.fmt.signed)
        scale = writer.floats(f"{name}:scale", target.value(1))
        zero = writer.constant(f"{name}:zero", np.zeros((), dtype))
        codes = writer.node("QuantizeLinear", [value, scale, zero], shape, name=f"{name}:quantize", dtype=kind)
        if (target.low, target.high) != ends:
            limits = [writer.constant(f"{name}:{what}", np.array(code, dtype)) for what, code in
                      (("low", target.low), ("high", target.high))]
            codes = writer.node("Clip", [codes, *limits], shape, name=f"{name}:clip", dtype=kind)
        return writer.node("DequantizeLinear", [codes, scale, zero], shape, name=f"{name}:dequantize", output=output)

    def weights(self, writer: OnnxWriter, codes: np.ndarray, frac: np.ndarray, axis: int, *, name: str) -> str:
        numbers = [writer.constant(f"{name}:codes", codes.astype(np.int8)), writer.floats(f"{name}:scale", np.ldexp(1.0, -frac)),
                   writer.constant(f"{name}:zero", np.zeros(frac.shape, np.int8))]
        return writer.fixed("DequantizeLinear", numbers, codes.shape, name=name, axis=axis)


def _byte(signed: bool) -> tuple[type[np.generic], int, tuple[int, int]]:
    return (np.int8, TensorProto.INT8, (-128, 127)) if signed else (np.uint8, TensorProto.UINT8, (0, 255))


QONNX: Dialect = _Qonnx()
QCDQ: Dialect = _Qcdq()
