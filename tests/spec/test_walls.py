"""The walls between the rooms: who may import whom. Checked on the syntax tree, late imports included."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("hw", "sw", "boards")

MAY_SEE = {
    "hw/spec": {"hw.spec"},
    "hw/rtl": {"hw.spec", "hw.rtl"},
    "hw/sim": {"hw.spec", "hw.rtl", "hw.sim"},
    "sw/archive.py": {"hw.spec"},
    "sw/graph.py": {"hw.spec", "sw.archive"},
    "sw/training_graph.py": {"hw.spec", "sw.training_graph_file"},
    "sw/training_graph_file.py": {"hw.spec", "sw.archive", "sw.training_graph"},
    "sw/kernels": {"hw.spec", "sw.kernels"},
    "sw/data": {"hw.spec", "sw.data"},
    "sw/tracing": {"sw.tracing"},
    "sw/quant": {"hw.spec", "sw.graph", "sw.kernels", "sw.quant", "sw.models", "sw.tracing"},
    "sw/sparse": {"hw.spec", "sw.training_graph", "sw.kernels", "sw.sparse", "sw.tracing"},
    "sw/detect": {"sw.data", "sw.quant", "sw.detect"},
    "sw/models": {"hw.spec", "sw.models", "sw.quant", "sw.sparse"},
    "sw/bridges": {"hw.spec", "sw.graph", "sw.tracing", "sw.bridges"},
    "sw/compiler": {"hw.spec", "sw.graph", "sw.training_graph", "sw.compiler"},
    "sw/runtime": {"hw.spec", "sw.runtime", "hw.sim"},
    "sw/flow": {"hw", "sw", "boards"},
    "sw/cli.py": {"hw", "sw", "boards"},
    "sw/cli_bridges.py": {"sw.flow"},
    "sw/cli_showcase.py": {"hw", "sw", "boards"},
    "boards": {"hw", "boards"},
}
"""Folder or file to the packages of ours that it may import."""

ONLY_UNDER = {
    "torch": (*(f"sw/{room}/" for room in ("data", "detect", "flow", "kernels", "models", "quant", "sparse", "tracing")), "tests/",
              "bench/"),
    "onnx": ("sw/bridges/qonnx/", "sw/flow/", "tests/", "bench/"),
    "hls4ml": ("sw/bridges/hls4ml/", "tests/", "bench/"),
    "amaranth": ("hw/rtl/", "hw/sim/", "boards/", "tests/", "bench/"),
    "brevitas": ("sw/quant/brevitas/", "tests/", "bench/"),
}
"""Third-party package to the only places that may import it."""

BASE = {"numpy", "rich", "typer"}
SPEC_ALLOWED = {"numpy"}
LATE_ONLY = {"sw/runtime": ("hw.sim", "pynq")}
"""Packages that a room may import only inside a function."""


def sources() -> list[Path]:
    files = [p for folder in OURS for p in (ROOT / folder).rglob("*.py")]
    return [p for p in files if "__pycache__" not in p.parts]


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at top level?) of every import statement of a file."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the module in full"
            found.append((node.module or "", id(node) in top))
    return found


def under(module: str, packages: set[str] | tuple[str, ...]) -> bool:
    return any(module == p or module.startswith(p + ".") for p in packages)


def breaches(files: list[Path], root: Path = ROOT) -> tuple[list[str], int]:
    """Every import that goes through a wall, and how many imports were looked at."""
    found, looked = [], 0
    for path in files:
        place = path.relative_to(root).as_posix()
        room = next((r for r in MAY_SEE if place == r or place.startswith(r + "/")), None)
        if room is None and path.name != "__init__.py":
            found.append(f"{place} is in no room")
        for module, at_top in imports(path):
            looked += 1
            if module.split(".")[0] in OURS and room and not under(module, MAY_SEE[room]):
                found.append(f"{place} imports {module}")
            for package, places in ONLY_UNDER.items():
                if under(module, (package,)) and not place.startswith(places):
                    found.append(f"{place} imports {module}")
            for late_room, packages in LATE_ONLY.items():
                if place.startswith(late_room) and at_top and under(module, packages):
                    found.append(f"{place} imports {module} at the top")
    return found, looked


def test_no_import_goes_through_a_wall() -> None:
    found, looked = breaches(sources())
    assert looked > 50
    assert not found


def test_spec_imports_numpy_and_the_standard_library_only() -> None:
    import sys

    looked = 0
    for path in (ROOT / "hw" / "spec").rglob("*.py"):
        for module, _ in imports(path):
            top = module.split(".")[0]
            assert top in sys.stdlib_module_names | SPEC_ALLOWED | {"hw"}, f"{path} imports {module}"
            looked += 1
    assert looked > 20


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("hw/spec/a.py", "from sw.graph import Node"),
        ("hw/rtl/a.py", "import hw.sim.loop"),
        ("sw/compiler/a.py", "def f():\n    from sw.quant import export"),
        ("sw/runtime/a.py", "import hw.sim.loop"),
        ("hw/rtl/a.py", "import torch"),
        ("sw/flow/a.py", "from amaranth import Module"),
        ("sw/quant/a.py", "import brevitas.nn"),
        ("sw/bridges/a.py", "from sw.quant import export"),
        ("sw/bridges/a.py", "import torch.nn.functional"),
        ("sw/bridges/hls/a.py", "import hls4ml"),
        ("boards/a.py", "from sw.flow import gate"),
        ("sw/new/a.py", "import numpy"),
    ],
)
def test_a_breach_is_seen(tmp_path: Path, place: str, line: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    found, looked = breaches([path], tmp_path)
    assert looked == 1
    assert len(found) == 1
