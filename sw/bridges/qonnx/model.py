"""From a file or bytes to a model that can be walked: bounded, in order, complete, without anything outside of itself.

Nothing is believed of a size before the bytes are there: no tensor is made that is larger than its data, no data is fetched from
another file, and protobuf's own parser bounds nesting. What remains is checked here once, so that the walk need not.
"""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, numpy_helper

from sw.bridges.errors import BridgeError
from sw.tracing.problems import Problem, RefusedError

__all__ = ["MAX_BYTES", "MAX_CHANNELS", "MAX_ELEMENTS", "MAX_NODES", "Attributes", "check_structure", "checked_array", "load_model"]

MAX_BYTES = 1 << 28
"""Most bytes of a model."""

MAX_ELEMENTS = 1 << 24
"""Most elements of one tensor, of the file or of an image that passes through the model."""

MAX_CHANNELS = 1 << 16
"""Most channels of one tensor: each may have a requantise record of its own, which takes time to find."""

MAX_NODES = 1 << 16
_OPSETS = range(7, 26)
_AGAIN = "export the model again"

_TYPES: dict[int, tuple[str, Any]] = {
    TensorProto.FLOAT: ("float_data", np.float32), TensorProto.DOUBLE: ("double_data", np.float64),
    TensorProto.INT64: ("int64_data", np.int64), TensorProto.INT32: ("int32_data", np.int32),
    TensorProto.INT8: ("int32_data", np.int8), TensorProto.UINT8: ("int32_data", np.uint8),
    TensorProto.BOOL: ("int32_data", np.bool_), TensorProto.FLOAT16: ("int32_data", np.float16),
}  # fmt: skip


def load_model(source: Any) -> onnx.ModelProto:
    """The model in a file, in bytes, or a ModelProto itself. Raises BridgeError for anything that is none."""
    if isinstance(source, onnx.ModelProto):
        if source.ByteSize() > MAX_BYTES:
            raise BridgeError(f"a model must be at most {MAX_BYTES} bytes, not {source.ByteSize()}")
        return source
    if isinstance(source, bytes):
        return _parse(source, "the model")
    if not isinstance(source, (str, Path)):
        raise BridgeError(f"a model must be a file's path, bytes or a ModelProto, not {type(source).__name__}")
    return _parse(_bytes(Path(source)), str(source))


def _bytes(path: Path) -> bytes:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_BYTES:
            raise BridgeError(f"{path} must be a file of at most {MAX_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise BridgeError(f"{path}: {error.strerror or error}") from error


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    if len(data) > MAX_BYTES:
        raise BridgeError(f"{where} must be at most {MAX_BYTES} bytes, not {len(data)}")
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, ValueError, RecursionError) as error:
        raise BridgeError(f"{where} is not an ONNX model, or a damaged one ({error}); {_AGAIN}") from error
    if not model.HasField("graph"):
        raise BridgeError(f"{where} is not an ONNX model: it has no graph; {_AGAIN}")
    return model  # type: ignore[no-any-return]


# -- structure ----------------------------------------------------------------------------------------------------------


def check_structure(model: onnx.ModelProto) -> list[Problem]:
    """What is wrong with a model as a whole, before any node is looked at; the walk relies on there being nothing."""
    graph, found = model.graph, list(_foreign(model))
    if len(graph.node) > MAX_NODES:
        found.append(_problem("", "model", f"has {len(graph.node)} nodes, more than {MAX_NODES}", "import a smaller model"))
        return found
    known = {"", *(t.name for t in graph.initializer), *(v.name for v in graph.input)}
    for index, node in enumerate(graph.node):
        place = node.name or f"{node.op_type}_{index}"
        missing = sorted({name for name in node.input if name not in known})
        if missing:
            found.append(_problem(place, node.op_type, f"reads {missing} before anything writes it", f"sort its nodes, or {_AGAIN}"))
        taken = sorted({name for name in node.output if name and name in known})
        if taken or len(set(node.output)) != len(node.output):
            found.append(_problem(place, node.op_type, f"writes {taken or list(node.output)} a second time", _AGAIN))
        known.update(node.output)
    missing = [v.name for v in graph.output if not v.name or v.name not in known]
    if missing or not graph.output:
        found.append(_problem("", "model", f"has outputs {missing} that nothing writes", _AGAIN))
    return found


def _problem(place: str, kind: str, reason: str, advice: str) -> Problem:
    return Problem(place=place, kind=kind, reason=reason, advice=advice)


def _foreign(model: onnx.ModelProto) -> Iterator[Problem]:
    """Parts of a model that an import would pass over in silence."""
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if len(versions) != 1 or versions[0] not in _OPSETS:
        yield _problem("", "model", f"uses the operator sets {versions} of ONNX", f"use one of {_OPSETS[0]}..{_OPSETS[-1]}")
    for what, entries in (("local functions", model.functions), ("training steps", model.training_info),
                          ("sparse initializers", model.graph.sparse_initializer)):
        if len(entries):
            yield _problem("", "model", f"has {what}", "inline or remove them")
    names = [t.name for t in model.graph.initializer]
    if len(set(names)) != len(names) or "" in names:
        yield _problem("", "model", "has initializers without a name, or two of one name", _AGAIN)


# -- tensors and attributes ---------------------------------------------------------------------------------------------


def checked_array(tensor: onnx.TensorProto) -> np.ndarray:
    """The array of a tensor: float32, float64 or integers. Raises RefusedError before anything is made for a size that is not there."""
    if tensor.data_location == TensorProto.EXTERNAL or len(tensor.external_data) or tensor.HasField("segment"):
        raise RefusedError("keeps its data in another file", "save the model with its data inside")
    if tensor.data_type not in _TYPES:
        raise RefusedError(f"has elements of the type {_type_name(tensor.data_type)}", "use float32 or integers")
    field, dtype = _TYPES[tensor.data_type]
    shape = tuple(tensor.dims)
    if min(shape, default=0) < 0 or len(shape) > 8 or math.prod(shape) > MAX_ELEMENTS:
        raise RefusedError(f"has the shape {shape}, beyond {MAX_ELEMENTS} elements", "use smaller tensors")
    count = len(tensor.raw_data) / np.dtype(dtype).itemsize if tensor.HasField("raw_data") else len(getattr(tensor, field))
    if count != math.prod(shape):
        raise RefusedError(f"has data for {count:g} elements of its shape {shape}", _AGAIN)
    return np.asarray(numpy_helper.to_array(tensor))


def _type_name(kind: int) -> str:
    return TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else str(kind)


@dataclass(frozen=True)
class Attributes:
    """A node's attributes, each read with its type; RefusedError for one of another type."""

    node: onnx.NodeProto

    def _find(self, name: str, kind: int) -> onnx.AttributeProto | None:
        found = [entry for entry in self.node.attribute if entry.name == name]
        if not found:
            return None
        if len(found) > 1 or found[0].type != kind or found[0].ref_attr_name:
            raise RefusedError(f"has an attribute {name} of the wrong type, or twice", _AGAIN)
        return found[0]  # type: ignore[no-any-return]

    def has(self, name: str) -> bool:
        return any(entry.name == name for entry in self.node.attribute)

    def integer(self, name: str, default: int) -> int:
        found = self._find(name, AttributeProto.INT)
        return default if found is None else int(found.i)

    def number(self, name: str, default: float) -> float:
        found = self._find(name, AttributeProto.FLOAT)
        return default if found is None else float(found.f)

    def text(self, name: str, default: str) -> str:
        found = self._find(name, AttributeProto.STRING)
        return default if found is None else found.s.decode("utf-8", "replace")

    def integers(self, name: str, default: list[int]) -> list[int]:
        found = self._find(name, AttributeProto.INTS)
        return list(default) if found is None else [int(i) for i in found.ints]

    def numbers(self, name: str, default: list[float]) -> list[float]:
        found = self._find(name, AttributeProto.FLOATS)
        return list(default) if found is None else [float(f) for f in found.floats]

    def tensor(self, name: str) -> np.ndarray | None:
        found = self._find(name, AttributeProto.TENSOR)
        return None if found is None else checked_array(found.t)
