"""What is asked in an environment of an older Python or numpy: ``python -m tests.runtime.old_python_inside QUESTION``.

The argument comes on stdin, the answer goes to stdout, both as JSON. Nothing but the standard library is imported until it is asked.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.util
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

STEPS = 2
HYPER: dict[str, Any] = {"learning_rate": 0.05, "weight_decay": 1e-4}
"""Of the training program that is run inside."""


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
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
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
