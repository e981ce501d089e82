"""Older Pythons and numpys, as a board's image has them: environments, the tests that can run there, and what is asked inside.

An environment holds numpy of one version, pytest, and what tests of number formats compare with (``tests.environments``).
"""

from __future__ import annotations

import ast
import builtins
import functools
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests import environments
from tests.environments import ROOT, NoEnvironment, clean, pinned

OURS = ("hw", "sw", "boards", "bench", "tests")
ROOMS = ("hw/spec", "sw/runtime")
FOLDERS = ("tests/spec", "tests/runtime")
INSIDE = "tests.runtime.old_python_inside"
BESIDE = ("pytest", "hypothesis", "apytypes", "z3-solver")
"""Installed beside numpy, as pyproject.toml has them: the test runner, and outside oracles that do without any numpy."""

OLDEST_NUMPY = {(3, 10): "1.21.6", (3, 11): "1.23.2", (3, 12): "1.26.0"}
"""The oldest numpy with a wheel for a Python; later Pythons have none below 2."""


@dataclass(frozen=True, kw_only=True)
class OldPython:
    """A numpy on a Python of the PATH; python "" is the one that runs the tests, numpy "" the oldest with a wheel for that."""

    python: str = ""
    numpy: str = ""

    @property
    def numpy_version(self) -> str:
        if not self.python and sys.version_info[:2] not in OLDEST_NUMPY:
            raise NoEnvironment(f"numpy below 2 has no wheel for Python {_running()}: run the tests with 3.11 or 3.12")
        return self.numpy or OLDEST_NUMPY[sys.version_info[:2]]

    @property
    def requirements(self) -> list[str]:
        return [f"numpy=={self.numpy_version}", *pinned(*BESIDE)]

    def __str__(self) -> str:
        return f"{self.python or f'python{_running()}'} with numpy {self.numpy or OLDEST_NUMPY.get(sys.version_info[:2], 'below 2')}"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Test modules that an environment can import, and those left out with the packages that each lacks there."""

    run: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class InnerRun:
    """What pytest found inside: names of tests by outcome, and the end of its output."""

    passed: tuple[str, ...]
    skipped: tuple[str, ...]
    failed: tuple[str, ...]
    output: str


# --- environments ---------------------------------------------------------------------------------------------------------


@functools.cache
def environment(old: OldPython) -> Path:
    """The Python of an environment, made if it is not there; NoEnvironment, in words, where that fails."""
    name = f"{old.python or f'python{_running()}'}-numpy-{old.numpy_version}"
    return environments.environment(name, old.python, old.requirements, wheels_only=True)


def _running() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


# --- which tests can run, and running them ----------------------------------------------------------------------------------


def select(python: Path) -> Selection:
    """Every test module of FOLDERS but the one that asks, run or left out by what its imports need."""
    modules = sorted(p for folder in FOLDERS for p in (ROOT / folder).glob("test_*.py") if p.name != "test_old_python.py")
    needs = {path.relative_to(ROOT).as_posix(): packages(path) for path in modules}
    missing = set(ask(python, "packages", sorted(set().union(*needs.values()))))
    left_out = {name: tuple(sorted(found & missing)) for name, found in needs.items() if found & missing}
    return Selection(run=tuple(name for name in needs if name not in left_out), left_out=left_out)


def run_tests(python: Path, modules: Iterable[str], folder: Path, *, slow: bool) -> InnerRun:
    """The tests of some modules, run inside; locks and temporary files lie in ``folder``."""
    (folder / "tmp").mkdir()
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-o",
        "filterwarnings=",
        f"--junitxml={folder / 'run.xml'}",
    ]
    done = subprocess.run(
        [*command, *([] if slow else ["-m", "not slow"]), *modules], cwd=ROOT, capture_output=True, text=True, check=False,
        env=_inside(folder),
    )  # fmt: skip
    assert done.returncode in (0, 1), f"pytest ended with {done.returncode}:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return _judged(folder / "run.xml", done.stdout[-8000:])


def _judged(report: Path, output: str) -> InnerRun:
    found: dict[str, list[str]] = {"passed": [], "skipped": [], "failed": []}
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        outcome = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        found[outcome].append(f"{case.get('classname')}::{case.get('name')}")
    return InnerRun(**{outcome: tuple(names) for outcome, names in found.items()}, output=output)


def selected_from(module: str) -> int:
    """Test functions in a module, its parameters not counted."""
    return sum(isinstance(n, ast.FunctionDef) and n.name.startswith("test_") for n in ast.walk(_tree(ROOT / module)))


def packages(path: Path) -> set[str]:
    """Top-level packages, not ours, that importing a file needs, through files of ours too; in tests, late imports count."""
    needed, seen, waiting = set(), {path}, [path]
    while waiting:
        current = waiting.pop()
        for module in imported(_tree(current), late=ROOT / "tests" in current.parents):
            if module.split(".")[0] in OURS:
                files = set(_files(module)) - seen
                seen |= files
                waiting += files
            else:
                needed.add(module.split(".")[0])
    return needed - {"__future__"}


def imported(tree: ast.AST, *, late: bool) -> Iterator[str]:
    """Modules that a file imports, ``from a import b`` as a and a.b, or asks importlib for; not what type checkers alone see.

    What stands inside functions counts only if ``late``.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))
        elif not _skipped(node, late):
            yield from _asked_for(node)
            yield from imported(node, late=late)


def _asked_for(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and _chain(node.func)[-1:] in (["find_spec"], ["import_module"], ["importorskip"]):
        yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def _skipped(node: ast.AST, late: bool) -> bool:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
        return node.test.id == "TYPE_CHECKING"
    return not late and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))


def _files(module: str) -> Iterator[Path]:
    """The files that importing a module of ours runs, its packages' first; a name that is no module adds none."""
    parts = module.split(".")
    for depth in range(1, len(parts) + 1):
        place = ROOT.joinpath(*parts[:depth])
        yield from (path for path in (place / "__init__.py", place.with_suffix(".py")) if path.is_file())


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def sources() -> list[Path]:
    return sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


def names_used(tree: ast.AST) -> set[str]:
    """Dotted names, and built-in ones, that a file takes from modules that are not ours: "numpy.lib.format.magic", "zip"."""
    local: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            local |= {a.asname or a.name.split(".")[0]: a.name if a.asname else a.name.split(".")[0] for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            local |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    chains = (_chain(node) for node in ast.walk(tree) if isinstance(node, (ast.Attribute, ast.Name)))
    used = {".".join([local.get(c[0], c[0]), *c[1:]]) for c in chains if c and (c[0] in local or hasattr(builtins, c[0]))}
    return {name for name in used | set(local.values()) if name.split(".")[0] not in OURS}


def _chain(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Name):
        return [node.id]
    before = _chain(node.value) if isinstance(node, ast.Attribute) else []
    return [*before, node.attr] if before and isinstance(node, ast.Attribute) else []


# --- asking inside ------------------------------------------------------------------------------------------------------


def ask(python: Path, question: str, argument: Any = None, folder: Path | None = None) -> Any:
    """The answer of ``old_python_inside``, run inside."""
    done = subprocess.run(
        [str(python), "-m", INSIDE, question], cwd=ROOT, input=json.dumps(argument), capture_output=True, text=True, check=False,
        env=_inside(folder or ROOT),
    )  # fmt: skip
    assert done.returncode == 0, f"{question!r} ended with {done.returncode} inside {python}:\n{done.stderr[-4000:]}"
    return json.loads(done.stdout)


def _inside(folder: Path) -> dict[str, str]:
    more = {"TMPDIR": str(folder / "tmp")} if (folder / "tmp").is_dir() else {}
    return clean(PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", **more)
