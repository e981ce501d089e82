"""A graph's file as a project of hls4ml, as a plain function: arguments in, plain data out. ``sw.cli`` only parses and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sw.bridges.hls.names import DEFAULT_PART
from sw.bridges.hls4ml import save_hls4ml
from sw.bridges.hls4ml.project import MANIFEST
from sw.flow.bridges_inputs import load_bench
from sw.graph import IntegerGraph

__all__ = ["export_hls4ml"]


def export_hls4ml(
    graph_path: Path, out: Path, *, name: str = "network", inputs: Path | None = None, part: str | None = None, period: float = 5.0,
    reuse: int = 1, overwrite: bool = False,
) -> dict[str, Any]:
    """Write hls4ml's project of a graph's file into the folder ``out``.

    ``inputs`` is a .npy or .npz file of codes that hls4ml's test bench runs, random codes if left out; ``part`` is the
    Ultra96-V2's if left out; the rest is as in :func:`sw.bridges.hls4ml.save_hls4ml`. BridgeError, before anything is written, where a
    layer is not computed exactly by hls4ml, hls4ml is not installed or the folder is not free.
    """
    graph, part = IntegerGraph.load(graph_path), DEFAULT_PART if part is None else part
    codes = load_bench(inputs, graph)
    folder = save_hls4ml(graph, out, name=name, inputs=codes, part=part, period=period, reuse=reuse, overwrite=overwrite)
    manifest = json.loads((folder / MANIFEST).read_text())
    given = {"ok": True, "folder": str(folder), "part": part, "period": period, "layers": len(graph.nodes), "macs": graph.macs()}
    return given | {key: manifest[key] for key in ("top", "graph_sha256", "hls4ml", "backend", "inputs", "outputs")}
