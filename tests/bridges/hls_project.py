"""Generated HLS projects: compiled with the vendor's open headers by their own Makefile, run, compared with the graph."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sw.bridges.hls import save_hls
from sw.graph import IntegerGraph
from tests.compiler.graphs import random_codes
from tests.spec.test_fixed_vendor import headers

Codes = Mapping[str, np.ndarray]


def images(graph: IntegerGraph, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Random codes (count, C, H, W) of every input."""
    rng = np.random.default_rng(seed)
    drawn = [random_codes(graph, rng) for _ in range(count)]
    return {name: np.stack([codes[name] for codes in drawn]) for name in graph.inputs}


def project(graph: IntegerGraph, inputs: Codes, folder: Path, **options: object) -> Path:
    """A project whose test bench runs ``inputs``."""
    return save_hls(graph, folder, inputs=inputs, **options)


def make(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """``make test`` with the vendor's headers; no warning of the generated files is forgiven."""
    command = ["make", "test", f"AP_INCLUDE={headers()}", "EXTRA=-Werror", *options]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def outputs(graph: IntegerGraph, folder: Path) -> dict[str, np.ndarray]:
    """Codes (N, C, H, W) that the program has written."""
    rows = np.loadtxt(folder / "output.txt", dtype=np.int64, ndmin=2)
    shapes = [graph.tensors[name].shape for name in graph.outputs]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    assert rows.shape[1] == ends[-1]
    parts = np.split(rows, ends[:-1], axis=1)
    return {name: part.reshape(-1, *shape) for name, part, shape in zip(graph.outputs, parts, shapes, strict=True)}


def compared(graph: IntegerGraph, inputs: Codes, folder: Path, *make_options: str, **options: object) -> int:
    """Compile, run and compare every code of every output; returns how many were equal, which is all of them."""
    project(graph, inputs, folder, **options)
    ran = make(folder, *make_options)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    expected, found, count = graph(inputs), outputs(graph, folder), 0
    assert set(found) == set(graph.outputs)
    for name, codes in expected.items():
        np.testing.assert_array_equal(found[name], codes, err_msg=name)
        count += codes.size
    assert count > 0 and f"{count} codes compared, 0 mismatches" in ran.stdout
    return count


def differing(graph: IntegerGraph, inputs: Codes, folder: Path, **options: object) -> int:
    """Codes of a faulty project that differ from the graph's: it must compile, run and be found out."""
    project(graph, inputs, folder, **options)
    ran = make(folder)
    assert ran.returncode != 0 and (said := re.search(r"([0-9]+) mismatches", ran.stdout)), ran.stdout[-1000:] + ran.stderr[-2000:]
    expected, found = graph(inputs), outputs(graph, folder)
    count = sum(int((found[name] != codes).sum()) for name, codes in expected.items())
    assert count == int(said[1])
    return count
