"""The files of a network's HLS project, as texts or as a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sw.bridges.errors import BridgeError
from sw.bridges.hls.bench import bench, code_lines, random_inputs
from sw.bridges.hls.names import DEFAULT_PART, check_part, check_period, check_top
from sw.bridges.hls.plan import Network, plan
from sw.bridges.hls.project import makefile, readme, script
from sw.bridges.hls.ranges import products
from sw.bridges.hls.source import functions, header, source, weights
from sw.bridges.results import Kind, check_free, manifest, sha256, write_folder
from sw.graph import IntegerGraph

__all__ = ["MANIFEST", "hls_files", "save_hls"]

MANIFEST = "manifest.json"
KIND = Kind(command="bitloom hls", mark="bitloom_hls", manifest=MANIFEST)

PARALLEL, PERIOD = 16, 5.0


def hls_files(
    graph: IntegerGraph, *, name: str = "network", inputs: Mapping[str, np.ndarray] | None = None, part: str = DEFAULT_PART,
    period: float = PERIOD, parallel: int = PARALLEL,
) -> dict[str, str]:
    """File names to texts: C++ that computes the graph's codes, a test bench with codes to run it on, and scripts.

    Parameters
    ----------
    name : of the top function, and the files' names begin with it
    inputs : codes (N, C, H, W) of every input that the test bench runs; a few random images if left out
    part, period : device and clock period in ns, in the script for Vitis HLS
    parallel : most products that a layer makes in one cycle, where one tap of all kernel positions does not need more; at most those of
        the largest sum, or 16

    Raises BridgeError, with a list of all layers that have no C++ where there are any.
    """
    check_top(name), check_part(part), check_period(period)
    if isinstance(parallel, bool) or not isinstance(parallel, int) or parallel < 1:
        raise BridgeError(f"parallel must be an integer of at least 1 product, not {parallel!r}")
    network = plan(graph)
    _check_parallel(network, parallel)
    made = functions(network, parallel)
    codes = random_inputs(graph) if inputs is None else inputs
    given, expected = code_lines(network.inputs, codes), code_lines(network.outputs, graph(codes))
    files = {
        f"{name}.h": header(network, made, name),
        f"{name}_weights.h": weights(made, name),
        f"{name}.cpp": source(network, made, name),
        f"{name}_test.cpp": bench(network, name),
        "input.txt": given,
        "expected.txt": expected,
        "Makefile": makefile(name),
        "project.tcl": script(name, part, period),
        "README.md": readme(network, made, name),
    }
    return files | {MANIFEST: _manifest(graph, name, files)}


def _check_parallel(network: Network, parallel: int) -> None:
    """No layer makes more products at once than one of its sums has; the default is always taken."""
    counts = {layer.node.name: products(layer.operation) for layer in network.layers}
    most = max(counts.values(), default=0)
    if parallel > max(most, PARALLEL):
        name = next((name for name, count in counts.items() if count == most), "")
        largest = f"the largest sum of any layer, of {name!r}, has {most}" if most else "no layer has a sum of products"
        raise BridgeError(f"parallel, products made at once, must be at most {max(most, PARALLEL)}, not {parallel}: {largest}")


def _manifest(graph: IntegerGraph, name: str, files: Mapping[str, str]) -> str:
    facts = {"top": name, "graph_sha256": sha256(graph.to_bytes())}
    built = [f"{name}_test", f"{name}_test_sanitized", "output.txt"]
    return manifest(KIND, facts, {file: sha256(text.encode()) for file, text in files.items()}, built)


def save_hls(graph: IntegerGraph, folder: str | Path, *, name: str = "network", overwrite: bool = False, **options: Any) -> Path:
    """Write the files of `hls_files` (``options`` are its own) into a folder by the rule of `sw.bridges.results`; returns the folder.

    BridgeError, before anything is written, where that rule refuses the folder or the graph has no C++.
    """
    check_free(folder, KIND, overwrite=overwrite)
    files = hls_files(graph, name=name, **options)

    def make(new: Path) -> None:
        for file, text in files.items():
            (new / file).write_text(text, encoding="utf-8")

    write_folder(folder, KIND, make, overwrite=overwrite)
    return Path(folder)
