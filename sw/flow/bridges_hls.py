"""A graph's file as an HLS C++ project, as a plain function: arguments in, plain data out. ``sw.cli`` only parses and prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sw.bridges.hls import save_hls
from sw.bridges.hls.folder import MANIFEST
from sw.bridges.hls.names import DEFAULT_PART
from sw.flow.bridges_inputs import load_bench
from sw.graph import IntegerGraph

__all__ = ["export_hls"]


def export_hls(
    graph_path: Path, out: Path, *, name: str = "network", inputs: Path | None = None, part: str | None = None, period: float = 5.0,
    parallel: int = 16, overwrite: bool = False,
) -> dict[str, Any]:
    """Write the HLS C++ of a graph's file into the folder ``out``.

    ``inputs`` is a .npy or .npz file of codes that the test bench runs, random codes if left out; ``part`` is the
    Ultra96-V2's if left out; the rest is as in :func:`sw.bridges.hls.save_hls`. BridgeError, before anything is written, where a layer
    has no C++ or the folder is another's.
    """
    graph, part = IntegerGraph.load(graph_path), DEFAULT_PART if part is None else part
    codes = load_bench(inputs, graph)
    folder = save_hls(graph, out, name=name, overwrite=overwrite, inputs=codes, part=part, period=period, parallel=parallel)
    manifest = json.loads((folder / MANIFEST).read_text())
    return {
        "ok": True,
        "folder": str(folder),
        "top": name,
        "part": part,
        "period": period,
        "layers": len(graph.nodes),
        "macs": graph.macs(),
        "graph_sha256": manifest["graph_sha256"],
        "files": manifest["files"],
    }
