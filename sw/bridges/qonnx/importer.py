"""From a QONNX model to an integer graph: check the file, walk its nodes in order, and tell every refusal at once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import onnx
from onnx import TensorProto

from sw.bridges.errors import BridgeError, refusal
from sw.bridges.qonnx.building import Building
from sw.bridges.qonnx.constants import FOLDS
from sw.bridges.qonnx.model import MAX_ELEMENTS, check_structure, checked_array, load_model
from sw.bridges.qonnx.read_layers import LAYERS
from sw.bridges.qonnx.read_moves import MOVES
from sw.bridges.qonnx.read_points import POINTS, QUANT_DOMAINS, quant
from sw.bridges.qonnx.values import Codes, Const, QonnxImport, Raw
from sw.bridges.qonnx.visit import Visit
from sw.tracing.problems import Problem, RefusedError

__all__ = ["read"]

_READERS: dict[str, Callable[[Visit], Any]] = {**LAYERS, **MOVES, **POINTS}
_WHAT = "the model cannot be imported"
_MOST_CONSTANT = 1 << 26
"""Elements of all constants of a model together, those that its nodes make of others included."""

_LEFT_OUT = object()
"""Value of an optional input that a node leaves out."""

_QCDQ = ("QuantizeLinear", "DequantizeLinear")
_MOST_NAMED = 3

_ADVICE = {
    "BipolarQuant": "use weights and activations of at least 2 bits",
    "Trunc": "use a plain average pool and a Quant node behind it",
    "Softmax": "leave it out: the largest score does not change",
    "Sigmoid": "give it as a table of its values (Gather) and a Quant node, or train it with sw.quant",
}
_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, UnicodeError)
"""What numpy and the operations raise for numbers that do not fit each other."""


def read(source: Any, *, nearest: bool = False) -> QonnxImport:
    """Import a model from a path, bytes or a ModelProto. Raises BridgeError with every problem; nothing is left half done."""
    model = load_model(source)
    try:
        if problems := check_structure(model):
            raise refusal(_WHAT, problems)
        return _Walk(model, Building(nearest=nearest)).run()
    except BridgeError:
        raise
    except _ERRORS as error:
        raise BridgeError(f"{_WHAT}: it does not hold together ({type(error).__name__}: {error}); export it again") from error


def _refused(problems: list[Problem]) -> BridgeError:
    """The error of all problems. The nodes of a QCDQ model have one cure, which is said once, before what else there is."""
    nodes = [problem.place for problem in problems if problem.kind in _QCDQ]
    if not nodes:
        return refusal(_WHAT, problems)
    names = ", ".join(nodes[:_MOST_NAMED]) + (f" and {len(nodes) - _MOST_NAMED} more" if len(nodes) > _MOST_NAMED else "")
    told = (f"{_WHAT}: it is a QCDQ model, quantised by QuantizeLinear and DequantizeLinear ({names}). Import its QONNX form, "
            "with Quant nodes: 'bitloom onnx' writes it without --form qcdq, and qonnx.transformation.qcdq_to_qonnx "
            "converts models of other tools")
    others = [problem for problem in problems if problem.kind not in _QCDQ]
    return BridgeError(f"{told}\n{refusal('besides', others)}" if others else told, problems)


class _Walk:
    """Follows the nodes of a checked model; ``values`` by name, None where a node was refused."""

    def __init__(self, model: onnx.ModelProto, building: Building) -> None:
        self.graph, self.building = model.graph, building
        self.values: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self.batch: int | None = None
        self.constant = 0

    def run(self) -> QonnxImport:
        for tensor in self.graph.initializer:
            self.values[tensor.name] = self._guarded(tensor.name, "initializer", partial(self._initializer, tensor))
        for entry in self.graph.input:
            if entry.name not in self.values:
                self.values[entry.name] = self._guarded(entry.name, "input", partial(self._input, entry))
        for index, node in enumerate(self.graph.node):
            self._node(node, node.name or f"{node.op_type}_{index}")
        outputs = tuple(self._output(entry.name) for entry in self.graph.output)
        unread = [e.name for e in self.graph.input if isinstance(self.values[e.name], Raw) and e.name not in self.building.inputs]
        for name in unread if not self.problems else []:
            self.problems.append(RefusedError("is never quantised", "put a Quant node behind it, or remove it").at(name, "input"))
        if self.problems:
            raise _refused(self.problems)
        return self.building.result(outputs)

    def _guarded(self, place: str, kind: str, make: Callable[[], Any]) -> Any:
        """What ``make`` gives; None for a refusal, which is kept."""
        try:
            return make()
        except RefusedError as refused:
            self.problems.append(refused.at(place, kind))
        except _ERRORS as error:
            self.problems.append(RefusedError(f"does not hold together ({error})", "export the model again").at(place, kind))
        return None

    def _initializer(self, tensor: onnx.TensorProto) -> Const:
        return self._counted(Const(value=checked_array(tensor)))

    # -- ends -----------------------------------------------------------------------------------------------------------

    def _input(self, entry: onnx.ValueInfoProto) -> Raw:
        kind = entry.type.tensor_type
        if not entry.type.HasField("tensor_type") or kind.elem_type != TensorProto.FLOAT or not kind.HasField("shape"):
            raise RefusedError("is no float32 tensor of a known shape", "give it as float32 (N, C, H, W) or (N, features)")
        first, *sizes = [int(d.dim_value) if d.HasField("dim_value") else None for d in kind.shape.dim] or [None]
        if len(sizes) not in (1, 3) or any(n is None or n < 1 for n in sizes) or (first is not None and first < 1):
            raise RefusedError(f"has the shape {[first, *sizes]}", "give it as (N, C, H, W) or (N, features), each size known but N")
        shape = tuple(n for n in sizes if n is not None)
        if math.prod(shape) > MAX_ELEMENTS:
            raise RefusedError(f"has the shape {shape}, beyond {MAX_ELEMENTS} elements", "use smaller images")
        self.batch = first if self.batch in (None, first) else None
        return Raw(name=entry.name, shape=shape)

    def _output(self, name: str) -> str:
        """The tensor behind an output; what is no tensor is kept as a problem."""
        value = self.values[name]
        if value is None:
            return ""
        found = self._guarded(name, "output", lambda: self._ending(value))
        return found.name if isinstance(found, Codes) else ""

    def _ending(self, value: Any) -> Codes:
        try:
            source = self.building.codes(value)
        except RefusedError as refused:
            raise RefusedError("is not quantised", "put a Quant node at the end of the model") from refused
        if source.order is not None:
            raise RefusedError("has its elements in another order than the tensor it is", "leave the last transpose out")
        return source

    # -- nodes ----------------------------------------------------------------------------------------------------------

    def _node(self, node: onnx.NodeProto, place: str) -> None:
        values = [self.values[name] if name else _LEFT_OUT for name in node.input]
        known = self._reader(node, values)
        if known is None:
            self.problems.append(self._unknown(node).at(place, node.op_type))
        refused = known is None or any(value is None for value in values)
        made = None
        if not refused and known is not None:
            made = self._guarded(place, node.op_type, lambda: self._read(known, self._visit(node, place, values)))
        results = made if isinstance(made, list) else [made]
        for index, name in enumerate(node.output):
            if name:
                self.values[name] = results[index] if index < len(results) else None

    def _read(self, known: Callable[[Visit], Any], visit: Visit) -> Any:
        if self.constant > _MOST_CONSTANT and visit.values and all(isinstance(v, Const) for v in visit.values):
            raise RefusedError("makes a constant where there are too many", "fold the model's constants")
        made = known(visit)
        return self._counted(made) if isinstance(made, Const) else made

    def _counted(self, made: Const) -> Const:
        """A constant, counted: a small file cannot fill memory with what its nodes make of each other."""
        self.constant += made.value.size
        if self.constant > _MOST_CONSTANT:
            raise RefusedError(f"brings all constants to {self.constant} elements, more than {_MOST_CONSTANT}",
                               "fold the model's constants")
        return made

    def _reader(self, node: onnx.NodeProto, values: list[Any]) -> Callable[[Visit], Any] | None:
        """How a node is read: as an operation on constants where all that it reads is constant."""
        if node.domain in QUANT_DOMAINS:
            return quant if node.op_type == "Quant" else None
        if node.domain not in ("", "ai.onnx"):
            return None
        fold = FOLDS.get(node.op_type)
        if fold is not None and all(isinstance(value, Const) for value in values if value is not _LEFT_OUT):
            return lambda visit: fold(visit.attributes, *(v for v in visit.values if v is not None))
        return _READERS.get(node.op_type)

    def _visit(self, node: onnx.NodeProto, place: str, values: list[Any]) -> Visit:
        if not node.output or not node.output[0]:
            raise RefusedError("has no output", "remove it")
        given = tuple(None if value is _LEFT_OUT else value for value in values)
        return Visit(building=self.building, node=node, place=place, values=given, batch=self.batch)

    @staticmethod
    def _unknown(node: onnx.NodeProto) -> RefusedError:
        advice = _ADVICE.get(node.op_type, "replace it by a supported operation, or leave it out of the model")
        where = f" of the domain {node.domain}" if node.domain else ""
        return RefusedError(f"is an operation{where} without an integer counterpart", advice)
