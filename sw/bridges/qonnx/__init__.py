"""The bridge to ONNX: integer graphs as QONNX or QCDQ models, and QONNX models as integer graphs. Needs onnx, nothing else.

Exported models compute exactly in float32 what the graph computes in integers; each layer's bound is proven before anything is
written, and what cannot be said exactly is refused. Imported models mean what their numbers say: the codes of real arithmetic.

In the order of their imports: `roundings`, `proofs` and `equality`; `writer`, `dialects` and `export` (graph to model); `model`
(bytes to a checked model), `values`, `constants`, `building`, one `read_*` per kind of node, and `importer`.

``qonnx`` itself is not needed: its domain's one operation that matters, ``Quant``, is written and read here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sw.bridges.errors import BridgeError
from sw.bridges.qonnx.equality import differences, same_graph
from sw.graph import IntegerGraph

if TYPE_CHECKING:
    import onnx

    from sw.bridges.qonnx.values import QonnxImport

__all__ = ["BridgeError", "differences", "from_qonnx", "read_qonnx", "same_graph", "save_qcdq", "save_qonnx", "to_qcdq", "to_qonnx"]


def to_qonnx(graph: IntegerGraph, *, batch: int | None = 1) -> onnx.ModelProto:
    """The graph as a QONNX model: float32 operations with ``Quant`` nodes. ``batch`` is the size N, None leaves it open.

    Inputs and outputs are values (N, C, H, W), code * 2**-frac. Raises BridgeError, which lists every layer that the format
    does not express exactly.
    """
    _need_onnx()
    from sw.bridges.qonnx.export import QONNX, export

    return export(graph, QONNX, batch)


def to_qcdq(graph: IntegerGraph, *, batch: int | None = None) -> onnx.ModelProto:
    """The graph in plain ONNX: QuantizeLinear, Clip and DequantizeLinear instead of ``Quant``; otherwise as `to_qonnx`."""
    _need_onnx()
    from sw.bridges.qonnx.export import QCDQ, export

    return export(graph, QCDQ, batch)


def save_qonnx(graph: IntegerGraph, path: str | Path, *, batch: int | None = 1) -> None:
    """`to_qonnx` into a file, written whole or not at all."""
    _save(to_qonnx(graph, batch=batch), path)


def save_qcdq(graph: IntegerGraph, path: str | Path, *, batch: int | None = None) -> None:
    """`to_qcdq` into a file, written whole or not at all."""
    _save(to_qcdq(graph, batch=batch), path)


def from_qonnx(model_or_path: Any, *, nearest: bool = False) -> IntegerGraph:
    """The integer graph of a QONNX model, a file or a ModelProto; `read_qonnx` gives scales and differences too.

    Raises BridgeError, which lists every node that no integer operation equals. With ``nearest`` a scale that no 16-bit multiplier
    expresses exactly is replaced by the closest; a warning (InexactImportWarning) then says where codes can differ.
    """
    import warnings

    from sw.bridges.qonnx.values import InexactImportWarning

    found = read_qonnx(model_or_path, nearest=nearest)
    if not found.exact:
        lines = "\n".join(f"  {difference}" for difference in found.differences)
        warnings.warn(f"the imported graph is not equal to the model everywhere:\n{lines}", InexactImportWarning, stacklevel=2)
    return found.graph


def read_qonnx(model_or_path: Any, *, nearest: bool = False) -> QonnxImport:
    """Import a QONNX model and say how exact it is; arguments and errors as `from_qonnx`, which see."""
    _need_onnx()
    from sw.bridges.qonnx.importer import read

    return read(model_or_path, nearest=nearest)


def _need_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise BridgeError(f"ONNX models need the package onnx: pip install 'onnx==1.22.0' ({error})") from error


def _save(model: onnx.ModelProto, path: str | Path) -> None:
    from hw.spec.program import write_atomically

    write_atomically(path, model.SerializeToString(deterministic=True))
