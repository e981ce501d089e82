"""The files of a network's HLS project, as texts or as a folder that is whole or not there."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.program import write_atomically
from sw.bridges.errors import BridgeError
from sw.bridges.hls.bench import bench, code_lines, random_inputs
from sw.bridges.hls.names import DEFAULT_PART, check_part, check_period, check_top
from sw.bridges.hls.plan import plan
from sw.bridges.hls.project import makefile, readme, script
from sw.bridges.hls.source import functions, header, source, weights
from sw.graph import IntegerGraph

__all__ = ["MANIFEST", "hls_files", "save_hls"]

MANIFEST = "manifest.json"

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
    parallel : most products that a layer makes in one cycle, where one tap of all kernel positions does not need more

    Raises BridgeError, with a list of all layers that have no C++ where there are any.
    """
    check_top(name), check_part(part), check_period(period)
    if not isinstance(parallel, int) or parallel < 1:
        raise BridgeError(f"parallel must be at least 1 product, not {parallel}")
    network = plan(graph)
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


def _manifest(graph: IntegerGraph, name: str, files: Mapping[str, str]) -> str:
    content = {
        "bitloom_hls": 1,
        "top": name,
        "graph_sha256": hashlib.sha256(graph.to_bytes()).hexdigest(),
        "files": {file: _sha256(text.encode()) for file, text in files.items()},
    }
    return json.dumps(content, indent=1) + "\n"


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save_hls(graph: IntegerGraph, folder: str | Path, *, name: str = "network", overwrite: bool = False, **options: Any) -> Path:
    """Write the files of `hls_files` (``options`` are its own) into a folder; returns the folder.

    A folder that is there must be empty or an earlier result whose files are unchanged, unless ``overwrite``; other files stay.
    BridgeError, before anything is written, where that is not so or the graph has no C++.
    """
    target = Path(folder)
    files = hls_files(graph, name=name, **options)
    if target.is_dir() and any(target.iterdir()):
        old = _written_before(target)
        if not overwrite:
            _check_ours(target, old)
        _replace(target, files, set(old or ()))
    elif target.exists() and not target.is_dir():
        raise BridgeError(f"{target} must be a folder, and it is a file: name another")
    else:
        _create(target, files)
    return target


def _written_before(target: Path) -> dict[str, str] | None:
    """Files and hashes of an earlier result, None where there is none."""
    try:
        content = json.loads((target / MANIFEST).read_text())
        if content["bitloom_hls"] != 1:
            return None
        return {str(file): str(digest) for file, digest in content["files"].items() if Path(file).name == file}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def _check_ours(target: Path, old: Mapping[str, str] | None) -> None:
    if old is None:
        raise BridgeError(f"{target} holds other files: name an empty folder, or say that its files may be overwritten")
    changed = [file for file, digest in old.items() if (target / file).is_file() and _sha256((target / file).read_bytes()) != digest]
    if changed:
        raise BridgeError(f"{target} holds files that were changed since they were written, {changed}: name another folder, or say "
                       "that they may be overwritten")


def _create(target: Path, files: Mapping[str, str]) -> None:
    """A folder with all files appears at once."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        for file, text in files.items():
            (temporary / file).write_text(text)
        temporary.chmod(0o755)
        os.replace(temporary, target)  # also onto an empty folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(target: Path, files: Mapping[str, str], old: set[str]) -> None:
    """File by file. The manifest goes first and comes last: a folder without one is no result."""
    (target / MANIFEST).unlink(missing_ok=True)
    for file in sorted(old - set(files)):
        (target / file).unlink(missing_ok=True)
    for file, text in sorted(files.items(), key=lambda entry: entry[0] == MANIFEST):
        write_atomically(target / file, text.encode())
