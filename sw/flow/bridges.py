"""Graphs to and from other tools' files, as plain functions: paths in, plain data out. ``sw.cli`` only parses and prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sw.bridges.qonnx import BridgeError, read_qonnx, save_qcdq, save_qonnx
from sw.flow.files import save_json
from sw.graph import IntegerGraph

__all__ = ["FORMS", "export_onnx", "import_onnx"]

FORMS: dict[str, Callable[..., None]] = {"qonnx": save_qonnx, "qcdq": save_qcdq}
"""Name of a form to what writes it."""


def export_onnx(graph_path: Path, out: Path, form: str = "qonnx") -> dict[str, Any]:
    """Write a graph's file as an ONNX model; ``form`` is qonnx (Quant nodes) or qcdq (plain ONNX, for ONNX Runtime).

    Raises BridgeError, which lists every layer that the form does not express exactly; nothing is written then.
    """
    from sw.flow.commands import file_sha256, versions

    if form not in FORMS:
        raise BridgeError(f"the form must be one of {', '.join(FORMS)}, not {form!r}")
    graph = IntegerGraph.load(graph_path)
    FORMS[form](graph, out)
    return {
        "ok": True,
        "model": str(out),
        "form": form,
        "sha256": file_sha256(out),
        "bytes": out.stat().st_size,
        "layers": len(graph.nodes),
        "macs": graph.macs(),
        "inputs": {name: str(graph.tensors[name].fmt) for name in graph.inputs},
        "outputs": {name: str(graph.tensors[name].fmt) for name in graph.outputs},
        "versions": versions() | _versions(),
    }


def import_onnx(model_path: Path, out: Path, *, nearest: bool = False) -> dict[str, Any]:
    """Read a QONNX model's file into a graph's file; a manifest beside it says scales and how exact it is.

    Raises BridgeError, which lists every node that no integer operation equals; nothing is written then. ``nearest`` takes the closest
    multiplier where none is exact.
    """
    from sw.flow.commands import file_sha256, versions

    found = read_qonnx(model_path, nearest=nearest)
    found.graph.save(out)
    result = {
        "ok": True,
        "graph": str(out),
        "sha256": file_sha256(out),
        "bytes": out.stat().st_size,
        "exact": found.exact,
        "differences": [str(difference) for difference in found.differences],
        "proven_sums": found.proven,
        "layers": len(found.graph.nodes),
        "macs": found.graph.macs(),
        "scales": {name: float(scale) for name, scale in found.scales.items()},
        "input_ranges": {name: list(ends) for name, ends in found.input_ranges.items()},
        "versions": versions() | _versions(),
    }
    save_json(out.with_name(f"{out.name}.json"), result)
    return result


def _versions() -> dict[str, str]:
    from importlib import metadata

    return {"onnx": metadata.version("onnx")}
