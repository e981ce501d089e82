"""Older Pythons and numpys, as a board's image has them: environments, the tests that can run there, and what is asked inside.

An environment holds numpy of one version, pytest, and what tests of number formats compare with; it is made once, whole or not at all,
and kept in the user's cache. Run inside one as ``python -m tests.runtime.old_python QUESTION``, this module imports nothing but the
standard library until it is asked: the argument comes on stdin, the answer goes to stdout, both as JSON.
"""

from __future__ import annotations

import ast
import builtins
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from hw.sim.cache import cache_root, cached_folder

ROOT = Path(__file__).parents[2]
OURS = ("hw", "sw", "boards", "bench", "tests")
ROOMS = ("hw/spec", "sw/runtime")
FOLDERS = ("tests/spec", "tests/runtime")
BESIDE = ("pytest", "hypothesis", "apytypes", "z3-solver")
"""Installed beside numpy, as pyproject.toml has them: the test runner, and outside oracles that do without any numpy."""

OLDEST_NUMPY = {(3, 10): "1.21.6", (3, 11): "1.23.2", (3, 12): "1.26.0"}
"""The oldest numpy with a wheel for a Python; later Pythons have none below 2."""

STEPS = 2
HYPER: dict[str, Any] = {"learning_rate": 0.05, "weight_decay": 1e-4}
"""Of the training program that is run inside."""


class NoEnvironment(Exception):
    """It cannot be made here: no such Python, no such wheel, or no network."""


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
        return [f"numpy=={self.numpy_version}", *_pinned(BESIDE)]

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
    python, wanted = _interpreter(old.python), old.requirements
    key = hashlib.sha256(json.dumps([wanted, os.path.realpath(python)]).encode()).hexdigest()[:8]
    folder = cache_root() / "venvs" / f"{old.python or f'python{_running()}'}-numpy-{old.numpy_version}-{key}"
    cached_folder(folder, lambda target: _make(target, python, wanted))
    return folder / "bin" / "python"


def _make(folder: Path, python: str, wanted: list[str]) -> None:
    """Without a pip of its own: the one that installed the project fills it."""
    _run("make a virtual environment", [python, "-m", "venv", "--without-pip", str(folder)])
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "--disable-pip-version-check", "--no-input"]
    _run(f"install {' '.join(wanted)}", [*pip, "install", "--quiet", "--only-binary", ":all:", *wanted])


def _run(what: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_clean())
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        reasons = [line for line in lines if line.startswith("ERROR")] or lines
        raise NoEnvironment(f"could not {what} (no network?): {reasons[-1].strip() if reasons else f'exit {done.returncode}'}")


@functools.cache
def _interpreter(name: str) -> str:
    """The path of a Python that starts: a name on the PATH may be a shim that has nothing behind it."""
    if not name:
        return sys.executable
    version = name.removeprefix("python")
    for path in filter(
        None, [shutil.which(name), *map(str, sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python")))]
    ):
        if subprocess.run([path, "-c", "import venv"], capture_output=True, check=False).returncode == 0:
            return path
    raise NoEnvironment(
        f"there is no {name} on the PATH: install Python {version}; in CI, actions/setup-python lists it before 3.11"
    )


def _running() -> str:
    return f"{sys.version_info[0]}.{sys.version_info[1]}"


def _pinned(names: Iterable[str]) -> list[str]:
    """Requirements by name, with the versions of pyproject.toml's extras."""
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].values()
    found = {line.split(">=")[0].split("==")[0]: line for lines in extras for line in lines}
    return [found[name] for name in names]


def _clean(**more: str) -> dict[str, str]:
    """This process's environment without what would let its own packages be seen."""
    return {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONNOUSERSITE": "1", **more}


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


# --- asked inside -----------------------------------------------------------------------------------------------------------


def ask(python: Path, question: str, argument: Any = None, folder: Path | None = None) -> Any:
    """The answer of this module, run inside."""
    done = subprocess.run(
        [str(python), "-m", __name__, question], cwd=ROOT, input=json.dumps(argument), capture_output=True, text=True, check=False,
        env=_inside(folder or ROOT),
    )  # fmt: skip
    assert done.returncode == 0, f"{question!r} ended with {done.returncode} inside {python}:\n{done.stderr[-4000:]}"
    return json.loads(done.stdout)


def _inside(folder: Path) -> dict[str, str]:
    more = {"TMPDIR": str(folder / "tmp")} if (folder / "tmp").is_dir() else {}
    return _clean(PYTHONPATH=str(ROOT), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1", **more)


def missing_packages(names: list[str]) -> list[str]:
    return [name for name in names if importlib.util.find_spec(name) is None]


def missing_names(names: list[str]) -> list[str]:
    return [name for name in names if not _is_there(name)]


def _is_there(name: str) -> bool:
    """Whether a dotted name can be reached from the built-in name, or the module, that it begins with."""
    first, *rest = name.split(".")
    if not hasattr(builtins, first) and importlib.util.find_spec(first) is None:
        return False
    found = getattr(builtins, first) if hasattr(builtins, first) else importlib.import_module(first)
    for depth, part in enumerate(rest, 1):
        if not hasattr(found, part) and hasattr(found, "__path__") and importlib.util.find_spec(f"{found.__name__}.{part}"):
            importlib.import_module(".".join([first, *rest[:depth]]))
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def imported_modules(names: list[str]) -> dict[str, Any]:
    """Errors by module, and the installed packages, beside numpy, that importing them has brought in."""
    import numpy

    before, errors = set(sys.modules), {}
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            errors[name] = f"{type(error).__name__}: {error}"
    return {
        "numpy": numpy.__version__,
        "python": _running(),
        "errors": errors,
        "foreign": _installed(set(sys.modules) - before),
    }


def _installed(modules: Iterable[str]) -> list[str]:
    files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in modules}
    return sorted({name.split(".")[0] for name, file in files.items() if "site-packages" in file} - {"numpy"})


def run_programs(folder: str) -> dict[str, dict[str, int]]:
    """The files that ``save_programs`` left, run by the interpreter device: values compared and mismatches of each."""
    return {"inference": _inference(Path(folder)), "training": _training(Path(folder))}


def _inference(folder: Path) -> dict[str, int]:
    from hw.spec.program import Program
    from sw.graph import IntegerGraph
    from sw.runtime import open_device

    inputs, outputs = _arrays(folder / "inputs.npz"), _arrays(folder / "outputs.npz")
    with open_device("interpreter", seed=1) as device:
        found, _ = device.run(Program.load(folder / "program"), inputs)
    return _compared([(found, outputs), (IntegerGraph.load(folder / "graph")(inputs), outputs)])


def _training(folder: Path) -> dict[str, int]:
    from hw.spec.training import Hyper
    from hw.spec.training_program import TrainingProgram
    from sw.runtime import open_device

    pairs = []
    with open_device("interpreter", seed=1) as device:
        session = device.open_session(TrainingProgram.load(folder / "training"), _arrays(folder / "state0.npz"))
        for number in range(1, STEPS + 1):
            batch = _arrays(folder / f"batch{number}.npz")
            session.step((batch["images"], batch["labels"]), Hyper(**HYPER))
            pairs.append((session.state(), _arrays(folder / f"state{number}.npz")))
    return _compared(pairs)


def _arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def _compared(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, int]:
    """By bits: types, shapes and names must be the same, or all values of the expected count as mismatches."""
    compared = mismatches = 0
    for found, expected in pairs:
        compared += sum(array.size for array in expected.values())
        mismatches += sum(_differing(found.get(name), array) for name, array in expected.items())
    return {"compared": compared, "mismatches": mismatches}


def _differing(found: Any, expected: Any) -> int:
    if found is None or (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return int(expected.size)
    words = f"u{expected.itemsize}"
    return int((found.view(words) != expected.view(words)).sum())


QUESTIONS: dict[str, Any] = {
    "packages": missing_packages,
    "names": missing_names,
    "modules": imported_modules,
    "programs": run_programs,
}

if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]](json.loads(sys.stdin.read()))))
