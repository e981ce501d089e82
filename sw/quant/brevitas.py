"""Models quantised with Brevitas, read into integer graphs. The only file that knows Brevitas.

A model is traced in evaluation mode. Convolutions, linear layers and average pools become accumulators, whose quantiser
(`QuantReLU`, `QuantIdentity` or an output quantiser) becomes the requantise step; a BatchNorm between them goes into its
multiplier. Scales that are powers of two are exact. Any other scale is a 16-bit multiplier and a shift; over every value
that the accumulator can take it is compared with Brevitas' own rounding (`sw.quant.multiplier`), and what differs is told.
What has no integer counterpart is refused, all of it at once, each with its place.
"""

from __future__ import annotations

import copy
import math
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from hw.spec import ops
from hw.spec.fixed import FixedFormat, Rounding
from sw.graph import IntegerGraph, Node, TensorSpec
from sw.quant.lower import Problem
from sw.quant.multiplier import Deviation, Staircase, record

__all__ = ["BrevitasImport", "Difference", "ImportedScaleWarning", "UnsupportedBrevitasError", "examine_brevitas",
           "import_brevitas"]

_ROUNDINGS = {"ROUND": Rounding.RND_CONV, "FLOOR": Rounding.TRN}
_FLOAT32 = 2.0**-21
"""Relative error that a float32 sum of products and a division may have; only used to say where it could decide a code."""


class UnsupportedBrevitasError(ValueError):
    """A Brevitas model that has no equal integer graph; ``problems`` lists every layer with its reason."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(f"the Brevitas model cannot be imported, {len(problems)} thing(s) are not supported:\n{lines}")


class ImportedScaleWarning(UserWarning):
    """Some codes of the imported graph differ from Brevitas' own."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One layer's requantise step against Brevitas: of ``accumulators`` possible values of all its channels, ``differing``
    give another code, at most ``largest`` codes away."""

    place: str
    channels: int
    accumulators: int
    differing: int
    largest: int

    def __str__(self) -> str:
        return (f"{self.place}: {self.differing} of {self.accumulators} accumulator values of {self.channels} channels give "
                f"another code, at most {self.largest} away: the scale needs more than a 16-bit multiplier")


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


def import_brevitas(model: nn.Module, example_input: Tensor) -> IntegerGraph:
    """The integer graph of a Brevitas model; `examine_brevitas` gives scales and differences too.

    Raises UnsupportedBrevitasError; warns with ImportedScaleWarning, one line per layer, where codes can differ.
    """
    found = examine_brevitas(model, example_input)
    if found.differences:
        lines = "\n".join(f"  {difference}" for difference in found.differences)
        warnings.warn(f"the imported graph is not equal to the Brevitas model everywhere:\n{lines}", ImportedScaleWarning,
                      stacklevel=2)
    return found.graph


def examine_brevitas(model: nn.Module, example_input: Tensor) -> BrevitasImport:
    """Import a model and say how equal it is. ``example_input`` (N, C, H, W) or (N, features) gives the shapes."""
    model = copy.deepcopy(model).eval()
    reader = _Reader(model)
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # whatever the model's own forward method raises under tracing
        raise _whole(model, f"cannot be traced ({error})",
                     "write a forward method without control flow that depends on values or shapes") from error
    with torch.no_grad():
        try:
            shapes = _shapes(fx.GraphModule(model, graph), example_input)
        except Exception as error:  # Brevitas' own checks too, such as a sum of tensors of two scales
            raise _whole(model, f"does not run on the example input ({str(error).splitlines()[0]})",
                         "make it run in evaluation mode first") from error
        reader.read(graph, shapes)
    if reader.problems:
        raise UnsupportedBrevitasError(reader.problems)
    return reader.result()


def _whole(model: nn.Module, reason: str, advice: str) -> UnsupportedBrevitasError:
    return UnsupportedBrevitasError([Problem(place="", kind=type(model).__name__, reason=reason, advice=advice)])


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("brevitas.") or super().is_leaf_module(m, module_qualified_name)


def _shapes(module: fx.GraphModule, example: Tensor) -> dict[str, tuple[int, int, int]]:
    """(C, H, W) of every traced value, by the name of its node."""
    found: dict[str, tuple[int, int, int]] = {}

    class Run(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            shape = tuple(getattr(value, "shape", ()))
            if 2 <= len(shape) <= 4:
                found[n.name] = (*shape[1:], *(1,) * (4 - len(shape)))
            return value

    Run(module).run(example)
    return found


# -- what Brevitas says of a quantiser and of a layer -------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Quantiser:
    """A per-tensor activation quantiser: scale, codes, rounding, and whether a ReLU comes first."""

    scale: Fraction
    low: int
    high: int
    signed: bool
    width: int
    rounding: Rounding
    relu: bool

    @property
    def fmt(self) -> FixedFormat:
        return FixedFormat(self.width, _binary_point(self.scale) or 0, self.signed)


class _RefusedError(Exception):
    """Why something is refused, and what to do."""


def _binary_point(scale: Fraction) -> int | None:
    """F where the scale is 2**-F, else None."""
    numerator, denominator = scale.numerator, scale.denominator
    if numerator & (numerator - 1) or denominator & (denominator - 1):
        return None
    return denominator.bit_length() - numerator.bit_length()


def _single(name: str, value: Any) -> float:
    tensor = torch.as_tensor(value)
    if tensor.numel() != 1:
        raise _RefusedError(f"has {tensor.numel()} {name}s (per channel or per group)", f"quantise with one {name} per tensor")
    return float(tensor)


def _quantiser(proxy: Any, relu: bool) -> _Quantiser:
    """The facts of an activation quantiser, or _RefusedError."""
    _check_statistics(proxy)
    if getattr(proxy, "is_groupwise", False):
        raise _RefusedError("is quantised in groups", "use one scale per tensor")
    scale, zero = _single("scale", proxy.scale()), _single("zero point", proxy.zero_point())
    width = _single("bit width", proxy.bit_width())
    _check_grid(scale, zero, width)
    if proxy.rounding_mode not in _ROUNDINGS:
        raise _RefusedError(f"rounds by {proxy.rounding_mode}", "use ROUND or FLOOR: the core rounds half to even, or down")
    signed, narrow = bool(proxy.is_signed), bool(proxy.is_narrow_range)
    high = 2 ** (int(width) - signed) - 1 - (narrow and not signed)
    low = (narrow - 2 ** (int(width) - 1)) if signed else 0
    return _Quantiser(scale=Fraction(scale), low=max(low, 0) if relu else low, high=high, signed=signed, width=int(width),
                      rounding=_ROUNDINGS[proxy.rounding_mode], relu=relu)


def _check_statistics(proxy: Any) -> None:
    for module in proxy.modules():
        steps = getattr(module, "collect_stats_steps", None)
        if steps is not None and int(module.counter) <= int(steps):
            raise _RefusedError(f"still collects statistics (step {int(module.counter)} of {int(steps)}): its scale is not the "
                                "one that training will use",
                                "train or calibrate further, or set collect_stats_steps lower")


def _check_grid(scale: float, zero: float, width: float) -> None:
    if zero:
        raise _RefusedError(f"has zero point {zero:g}", "use a symmetric quantiser: the core's zero point is 0")
    if not math.isfinite(scale) or scale <= 0:
        raise _RefusedError(f"has scale {scale:g}", "train or calibrate it")
    if width != int(width) or not 1 <= width <= 8:
        raise _RefusedError(f"has {width:g} bits", "use 8 bits or fewer")


def _weights(layer: Any, unit: Fraction) -> tuple[np.ndarray, list[Fraction], list[Fraction]]:
    """Weight codes, and per output channel the weight's scale and the bias as a value; ``unit`` is the input's scale."""
    if not layer.weight_quant.is_quant_enabled:
        raise _RefusedError("has float weights", "give it a weight quantiser")
    quant = layer.quant_weight()
    if torch.as_tensor(quant.zero_point).abs().max() != 0:
        raise _RefusedError("has weights with a zero point", "use a symmetric weight quantiser")
    if float(torch.as_tensor(quant.bit_width).max()) > 8:
        raise _RefusedError(f"has weights of {float(quant.bit_width):g} bits", "use 8 bits or fewer")
    codes, channels = quant.int().to(torch.int64), int(quant.value.shape[0])
    scale = torch.as_tensor(quant.scale).detach()
    if scale.numel() not in (1, channels) or (scale.numel() > 1 and scale.shape[0] != channels):
        raise _RefusedError(f"has weight scales of shape {tuple(scale.shape)}", "use one per tensor or per output channel")
    values = [Fraction(float(s)) for s in scale.reshape(-1).expand(channels)]
    return codes.numpy(), values, _bias(layer, quant, unit, channels)


def _bias(layer: Any, weight: Any, unit: Fraction, channels: int) -> list[Fraction]:
    """The bias per channel as a value, quantised where the layer does so."""
    from brevitas.quant_tensor import IntQuantTensor

    if layer.bias is None:
        return [Fraction(0)] * channels
    bias = layer.bias
    if layer.bias_quant.is_quant_enabled:
        source = IntQuantTensor(torch.zeros(1, 1), scale=torch.tensor(float(unit)), zero_point=torch.tensor(0.0),
                                bit_width=torch.tensor(8.0), signed=True, training=False)
        bias = layer.bias_quant(bias, source, weight)
    value = getattr(bias, "value", bias)
    return [Fraction(float(b)) for b in value.detach().reshape(-1)]


# -- the walk over the traced model -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Raw:
    """The model's input before its quantiser."""

    name: str


@dataclass(frozen=True, kw_only=True)
class _Codes:
    """A tensor of the integer graph."""

    name: str
    quantiser: _Quantiser


Make = Callable[[np.ndarray, ops.Requant], Any]
"""From the signs of the channels (1 or -1) and the record to an operation."""


@dataclass(frozen=True, kw_only=True)
class _Sums:
    """Accumulators that await their quantiser: value = acc * unit + offset, per channel.

    ``least`` and ``most`` are what the weights and the input's codes can make.
    """

    place: str
    shape: tuple[int, int, int]
    inputs: tuple[str, ...]
    make: Make
    unit: list[Fraction]
    offset: list[Fraction]
    least: list[int]
    most: list[int]
    relu: bool = False


@dataclass(frozen=True, kw_only=True)
class _Total:
    """A sum of two tensors of one quantiser's scale, before it is quantised again."""

    place: str
    shape: tuple[int, int, int]
    inputs: tuple[str, str]
    scale: Fraction
    relu: bool = False


Value = _Raw | _Codes | _Sums | _Total | None
_ALIASES = (nn.Identity, nn.Dropout, nn.Dropout2d)


@dataclass(eq=False)
class _Reader:
    model: nn.Module
    problems: list[Problem] = field(default_factory=list)
    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    scales: dict[str, float] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    input_range: tuple[int, int] = (0, 0)
    outputs: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    proven: int = 0
    close: int = 0

    def result(self) -> BrevitasImport:
        graph = IntegerGraph(tensors=self.tensors, inputs=tuple(self.inputs), outputs=tuple(self.outputs),
                             nodes=tuple(self.nodes))
        return BrevitasImport(graph=graph, scales=self.scales, input_range=self.input_range, proven=self.proven,
                              differences=tuple(self.differences), close=self.close)

    def read(self, graph: fx.Graph, shapes: dict[str, tuple[int, int, int]]) -> None:
        """Walk the nodes; every refusal is collected with its place."""
        self.shapes, self.values = shapes, dict[fx.Node, Value]()
        for node in graph.nodes:
            place = str(node.target) if node.op == "call_module" else node.name
            try:
                self.values[node] = self._node(node, place)
            except _RefusedError as refusal:
                kind = type(self.model.get_submodule(place)).__name__ if node.op == "call_module" else str(node.op)
                self.problems.append(Problem(place=place, kind=kind, reason=refusal.args[0], advice=refusal.args[1]))
                self.values[node] = None

    def _node(self, node: fx.Node, place: str) -> Value:
        if node.op == "placeholder":
            return _Raw(name=node.name)
        values = [self.values[a] for a in node.args if isinstance(a, fx.Node)]
        if node.op == "output":
            self._output(node)
            return None
        if not values or any(value is None for value in values):
            if node.op == "get_attr":
                raise _RefusedError("is a parameter used outside a layer", "move it into a quantised layer")
            if node.op == "call_module":
                _alone(self.model.get_submodule(place))
            return None  # the problem of its input is already told
        if node.op == "call_module":
            return self._module(self.model.get_submodule(place), place, values, self.shapes.get(node.name, (0, 0, 0)))
        return self._function(node, place, values)

    def _output(self, node: fx.Node) -> None:
        found = node.args[0]
        for item in found if isinstance(found, (tuple, list)) else [found]:
            value = self.values.get(item) if isinstance(item, fx.Node) else None
            if isinstance(value, _Codes):
                self.outputs.append(value.name)
            elif value is not None:
                raise _RefusedError("is not quantised", "put a QuantIdentity at the end, or an output_quant on the last layer")

    def _function(self, node: fx.Node, place: str, values: list[Value]) -> Value:
        if node.target in (operator.add, torch.add, "add") and len(values) == 2:
            return self._add(place, values[0], values[1], self.shapes[node.name])
        if node.target in (torch.flatten, "flatten") and (*node.args[1:], *node.kwargs.values())[:1] == (1,):
            return values[0]
        if node.target in (torch.relu, torch.nn.functional.relu, "relu"):
            return self._relu(place, values[0])
        raise _RefusedError(f"({node.target}) has no integer operation", "use a layer of brevitas.nn or torch.nn instead")

    def _module(self, layer: Any, place: str, values: list[Value], shape: tuple[int, int, int]) -> Value:
        value, kind = values[0], type(layer).__name__
        if isinstance(layer, _ALIASES) or (isinstance(layer, nn.Flatten) and layer.start_dim == 1):
            return value
        if kind in ("QuantIdentity", "QuantReLU"):
            return self._activation(layer, place, value, relu=kind == "QuantReLU")
        if kind in ("QuantConv2d", "QuantLinear"):
            sums = self._linear(layer, place, self._quantised_input(layer, place, value), shape)
            return self._quantised_output(layer, place, sums)
        if kind == "QuantEltwiseAdd":
            left, right = (self._quantised_input(layer, f"{place}.{side}", v) for side, v in zip("ab", values, strict=True))
            return self._quantised_output(layer, place, self._add(place, left, right, shape))
        if isinstance(layer, nn.BatchNorm2d):
            return self._norm(layer, value)
        if isinstance(layer, nn.ReLU):
            return self._relu(place, value)
        if isinstance(layer, nn.MaxPool2d):
            return self._max_pool(layer, place, value, shape)
        if isinstance(layer, (nn.AvgPool2d, nn.AdaptiveAvgPool2d)):
            return self._avg_pool(layer, place, value, shape)
        raise _RefusedError("has no integer operation", "replace it by a supported layer")

    # -- quantisers ---------------------------------------------------------------------------------------------

    def _activation(self, layer: Any, place: str, value: Value, *, relu: bool) -> Value:
        if layer.input_quant.is_quant_enabled:
            raise _RefusedError("has an input quantiser of its own", "leave input_quant out")
        if not layer.act_quant.is_quant_enabled:
            return self._relu(place, value) if relu else value
        return self._quantise(place, value, _quantiser(layer.act_quant, relu))

    def _quantised_input(self, layer: Any, place: str, value: Value) -> Value:
        if not layer.input_quant.is_quant_enabled:
            return value
        return self._quantise(f"{place}.input_quant", value, _quantiser(layer.input_quant, relu=False))

    def _quantised_output(self, layer: Any, place: str, value: Value) -> Value:
        if not layer.output_quant.is_quant_enabled:
            return value
        return self._quantise(f"{place}.output_quant", value, _quantiser(layer.output_quant, relu=False))

    def _quantise(self, place: str, value: Value, quantiser: _Quantiser) -> _Codes:
        if isinstance(value, _Raw):
            if quantiser.relu or quantiser.rounding is not Rounding.RND_CONV or self.inputs:
                raise _RefusedError("quantises the model's input with a ReLU, by FLOOR, or a second time",
                                    "put one QuantIdentity with ROUND at the start")
            self.inputs.append(value.name)
            self.input_range = quantiser.low, quantiser.high
            return self._tensor(value.name, self.shapes[value.name], quantiser)
        if isinstance(value, _Codes):
            theirs = value.quantiser
            if theirs.scale == quantiser.scale and theirs.low >= quantiser.low and theirs.high <= quantiser.high:
                return value  # every code stays as it is
            value = self._passing(place, value)
        if isinstance(value, _Total):
            return self._store_total(value, quantiser)
        assert isinstance(value, _Sums)
        return self._store(value, quantiser)

    def _passing(self, place: str, value: _Codes) -> _Sums:
        """The codes as accumulators of their own, to be requantised."""
        shape, quantiser = self.tensors[value.name].shape, value.quantiser
        channels = shape[0]
        return _Sums(place=place, shape=shape, inputs=(value.name,), unit=[quantiser.scale] * channels,
                     make=lambda signs, requant: ops.Scale(weight=signs, requant=requant), offset=[Fraction(0)] * channels,
                     least=[quantiser.low] * channels, most=[quantiser.high] * channels)

    def _tensor(self, name: str, shape: tuple[int, int, int], quantiser: _Quantiser) -> _Codes:
        self.tensors[name] = TensorSpec(shape=shape, fmt=quantiser.fmt)
        self.scales[name] = float(quantiser.scale)
        return _Codes(name=name, quantiser=quantiser)

    def _node_at(self, place: str, shape: tuple[int, int, int], operation: Any, inputs: tuple[str, ...],
                 quantiser: _Quantiser) -> _Codes:
        name, count = place, 1
        while name in self.tensors:
            count += 1
            name = f"{place}_{count}"
        self.nodes.append(Node(name=name, operation=operation, inputs=inputs, output=name))
        return self._tensor(name, shape, quantiser)

    def _store(self, sums: _Sums, quantiser: _Quantiser) -> _Codes:
        """Accumulators and their quantiser as one operation."""
        signs = np.array([-1 if unit < 0 else 1 for unit in sums.unit], np.int64)
        low = max(0, quantiser.low) if sums.relu else quantiser.low
        wanted = [
            Staircase(ratio=abs(unit) / quantiser.scale, offset=offset / quantiser.scale, rounding=quantiser.rounding, low=low,
                      high=quantiser.high, least=least if sign > 0 else -most, most=most if sign > 0 else -least)
            for unit, offset, least, most, sign in zip(sums.unit, sums.offset, sums.least, sums.most, signs, strict=True)]
        try:
            requant, deviations = record(wanted)
            operation = sums.make(signs, requant)
        except ValueError as error:
            raise _RefusedError(f"does not fit a core: {error}", "change its scales") from error
        self._tell(sums.place, wanted, deviations)
        return self._node_at(sums.place, sums.shape, operation, sums.inputs, quantiser)

    def _tell(self, place: str, wanted: list[Staircase], deviations: list[Deviation]) -> None:
        total = sum(d.accumulators for d in deviations)
        self.proven += total
        exact = all(_binary_point(w.ratio) is not None or not w.ratio for w in wanted)
        self.close += 0 if exact else sum(w.close(_FLOAT32) for w in wanted)
        if any(d.differing for d in deviations):
            self.differences.append(Difference(
                place=place, channels=sum(d.differing > 0 for d in deviations), accumulators=total,
                differing=sum(d.differing for d in deviations), largest=max(d.largest for d in deviations)))

    # -- layers -------------------------------------------------------------------------------------------------

    def _codes(self, value: Value) -> _Codes:
        if not isinstance(value, _Codes):
            raise _RefusedError("reads a tensor that is not quantised",
                                "put a QuantIdentity or QuantReLU before it, or give it an input_quant")
        return value

    def _linear(self, layer: Any, place: str, value: Value, shape: tuple[int, int, int]) -> _Sums:
        source = self._codes(value)
        weight, scale, bias = _weights(layer, source.quantiser.scale)
        make, weight = _operation(layer, weight, self.tensors[source.name].shape)
        flat = weight.reshape(weight.shape[0], -1)
        positive, negative = np.maximum(flat, 0).sum(1), np.minimum(flat, 0).sum(1)
        low, high = min(source.quantiser.low, 0), max(source.quantiser.high, 0)  # padding is 0
        return _Sums(place=place, shape=shape, inputs=(source.name,), make=make, offset=bias,
                     unit=[s * source.quantiser.scale for s in scale],
                     least=[int(v) for v in positive * low + negative * high],
                     most=[int(v) for v in positive * high + negative * low])

    def _norm(self, norm: nn.BatchNorm2d, value: Value) -> _Sums:
        if not isinstance(value, _Sums) or value.relu:
            raise _RefusedError("does not follow a convolution straight", "merge it into the convolution before it")
        if norm.running_mean is None or norm.running_var is None:
            raise _RefusedError("keeps no running statistics", "set track_running_stats=True")
        ones, zeros = torch.ones_like(norm.running_mean), torch.zeros_like(norm.running_mean)
        gamma, beta = (ones if norm.weight is None else norm.weight), (zeros if norm.bias is None else norm.bias)
        factor = gamma.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        shift = beta.double() - norm.running_mean.double() * factor
        factors, shifts = ([Fraction(float(v)) for v in t] for t in (factor, shift))
        return replace(value, unit=[u * f for u, f in zip(value.unit, factors, strict=True)],
                       offset=[o * f + s for o, f, s in zip(value.offset, factors, shifts, strict=True)])

    def _relu(self, place: str, value: Value) -> Value:
        if isinstance(value, (_Sums, _Total)):
            return replace(value, relu=True)
        source = self._codes(value)
        if source.quantiser.low >= 0:
            return source
        operation = ops.Clip(lo=0, hi=source.quantiser.high)
        return self._node_at(place, self.tensors[source.name].shape, operation, (source.name,),
                             replace(source.quantiser, low=0))

    def _add(self, place: str, left: Value, right: Value, shape: tuple[int, int, int]) -> _Total:
        a, b = self._codes(left), self._codes(right)
        if a.quantiser.scale != b.quantiser.scale:
            raise _RefusedError(f"adds tensors of scales {float(a.quantiser.scale):.6g} and {float(b.quantiser.scale):.6g}",
                                "share one quantiser between both sides")
        return _Total(place=place, shape=shape, inputs=(a.name, b.name), scale=a.quantiser.scale)

    def _store_total(self, total: _Total, quantiser: _Quantiser) -> _Codes:
        if quantiser.scale != total.scale:
            raise _RefusedError(f"requantises a sum of scale {float(total.scale):.6g} to {float(quantiser.scale):.6g}",
                                "let the sum share the quantiser of its two sides")
        operation = ops.Add(lo=max(0, quantiser.low) if total.relu else quantiser.low, hi=quantiser.high)
        return self._node_at(total.place, total.shape, operation, total.inputs, quantiser)

    def _max_pool(self, pool: nn.MaxPool2d, place: str, value: Value, shape: tuple[int, int, int]) -> _Codes:
        source = self._codes(value)
        if pool.ceil_mode or pool.return_indices or _one("dilation", pool.dilation) != 1:
            raise _RefusedError("uses ceil_mode, indices or dilation", "use the plain form")
        kernel = _one("window", pool.kernel_size)
        stride = kernel if pool.stride is None else _one("stride", pool.stride)
        operation = ops.MaxPool2d(kernel=kernel, stride=stride, padding=_one("padding", pool.padding))
        return self._node_at(place, shape, operation, (source.name,), source.quantiser)

    def _avg_pool(self, pool: Any, place: str, value: Value, shape: tuple[int, int, int]) -> _Sums:
        source = self._codes(value)
        if type(pool).__module__.startswith("brevitas."):
            raise _RefusedError("truncates the mean to a bit width", "use the pool of torch.nn and a QuantIdentity behind it")
        window, stride, padding = _window(pool, self.tensors[source.name].shape)
        count, channels, grid = window[0] * window[1], shape[0], source.quantiser
        return _Sums(place=place, shape=shape, inputs=(source.name,), unit=[grid.scale / count] * channels,
                     make=lambda signs, requant: ops.AvgPool2d(kernel=window, requant=requant, stride=stride, padding=padding),
                     offset=[Fraction(0)] * channels, least=[min(grid.low, 0) * count] * channels,
                     most=[grid.high * count] * channels)


def _alone(layer: Any) -> None:
    """Refuse what is wrong with a layer whatever its input is, which itself was refused."""
    for name in ("input_quant", "act_quant", "output_quant"):
        proxy = getattr(layer, name, None)
        if proxy is not None and proxy.is_quant_enabled:
            _quantiser(proxy, relu=False)
    if type(layer).__name__ in ("QuantConv2d", "QuantLinear"):
        weight, _, _ = _weights(layer, Fraction(1))
        _operation(layer, weight, (1, 1, 1))


def _one(name: str, value: Any) -> int:
    if isinstance(value, (tuple, list)):
        if len(set(value)) != 1:
            raise _RefusedError(f"has {name} {tuple(value)}", "use the same for rows and columns")
        value = value[0]
    if isinstance(value, str):
        raise _RefusedError(f"has {name} {value!r}", "give a number")
    return int(value)


def _window(pool: Any, shape: tuple[int, int, int]) -> tuple[tuple[int, int], int, int]:
    """Window, stride and padding of an average pool on a tensor (C, H, W)."""
    if isinstance(pool, nn.AdaptiveAvgPool2d):
        if pool.output_size not in (1, (1, 1)):
            raise _RefusedError(f"has output size {pool.output_size}", "use output size 1, or AvgPool2d with a fixed window")
        return (shape[1], shape[2]), 1, 0
    padding = _one("padding", pool.padding)
    if pool.ceil_mode or pool.divisor_override is not None or (padding and not pool.count_include_pad):
        raise _RefusedError("uses ceil_mode, divisor_override or count_include_pad=False", "use the plain form")
    size = pool.kernel_size
    window = (int(size[0]), int(size[1])) if isinstance(size, (tuple, list)) else (int(size), int(size))
    return window, _one("stride", size if pool.stride is None else pool.stride), padding


def _operation(layer: Any, weight: np.ndarray, shape: tuple[int, int, int]) -> tuple[Make, np.ndarray]:
    """How to make a layer's operation on a tensor (C, H, W), and its weight codes as the operation lays them out."""
    if weight.ndim == 2:
        if shape[1:] == (1, 1):
            return lambda signs, requant: ops.Linear(weight=weight * signs[:, None], requant=requant), weight
        window = weight.reshape(-1, *shape)
        return lambda signs, requant: ops.Conv2d(weight=window * signs[:, None, None, None], requant=requant), window
    if _one("dilation", layer.dilation) != 1 or layer.padding_mode != "zeros":
        raise _RefusedError(f"has dilation {layer.dilation} or pads with {layer.padding_mode}", "use dilation 1 and zeros")
    stride, padding = _one("stride", layer.stride), _one("padding", layer.padding)
    if layer.groups == weight.shape[0] == layer.in_channels and weight.shape[1:] == (1, 3, 3):
        return lambda signs, requant: ops.DepthwiseConv2d(weight=weight[:, 0] * signs[:, None, None], requant=requant,
                                                          stride=stride, padding=padding), weight
    return lambda signs, requant: ops.Conv2d(weight=weight * signs[:, None, None, None], requant=requant, stride=stride,
                                             padding=padding, groups=int(layer.groups)), weight
