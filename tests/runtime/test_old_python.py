"""`hw.spec` and `sw.runtime` on a board's image: Python 3.10, numpy from 1.21, and neither torch nor typer nor rich.

Their own tests run in environments that are made for it (`old_python`), with the modules left out that need a package which such an
environment lacks; what is left out is printed as a warning. A Python that is not here is a skip that says how to get it.
"""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw.spec.sat import SatArch
from hw.spec.training import Hyper
from sw.compiler.training import compile_training
from tests.e2e.tiny import make_tiny
from tests.environments import ROOT, NoEnvironment
from tests.runtime.old_python import (
    ROOMS,
    OldPython,
    Selection,
    ask,
    environment,
    imported,
    names_used,
    packages,
    run_tests,
    select,
    selected_from,
    sources,
)
from tests.runtime.old_python_inside import HYPER, STEPS
from tests.sat.small_graphs import random_batch, residual_network

ORDINARY = OldPython()
SLOW = (
    OldPython(numpy="1.26.4"),
    OldPython(python="python3.10", numpy="1.21.6"),
    OldPython(python="python3.10", numpy="1.26.4"),
)
OLD = [pytest.param(ORDINARY, id="oldest"), *(pytest.param(old, id=str(old), marks=pytest.mark.slow) for old in SLOW)]
LEAST_TESTS = 400
BOARD_ONLY = {"pynq"}
"""Imported when a board is opened, on the board."""

ARCH = SatArch(rows=4, columns=4, vec_words=256, act_words=256, wgt_words=256, acc_words=128, tbl_words=64, chn_words=80)

NEWER = {
    "tomllib", "ExceptionGroup", "BaseExceptionGroup", "asyncio.Runner", "asyncio.TaskGroup", "asyncio.timeout",
    "contextlib.chdir", "datetime.UTC", "enum.EnumCheck", "enum.ReprEnum", "enum.StrEnum", "enum.verify",
    "hashlib.file_digest", "inspect.getmembers_static", "itertools.batched", "logging.getLevelNamesMapping", "math.cbrt",
    "math.exp2", "math.sumprod", "operator.call", "typing.LiteralString", "typing.Never", "typing.NotRequired",
    "typing.Required", "typing.Self", "typing.TypeVarTuple", "typing.Unpack", "typing.assert_never", "typing.assert_type",
    "typing.dataclass_transform", "typing.override", "typing.reveal_type", "collections.abc.Buffer",
    "warnings.deprecated", "numpy.astype", "numpy.bool", "numpy.bitwise_count", "numpy.concat", "numpy.isdtype",
    "numpy.permute_dims", "numpy.pow", "numpy.vecdot", "numpy.cumulative_sum", "numpy.exceptions", "numpy.from_dlpack",
    "numpy.matrix_transpose", "numpy.trapezoid", "numpy.unique_values",
}  # fmt: skip
"""Names that Python 3.10 or numpy 1.21 lacks and that come easily to hand; an environment inside checks every name."""


@pytest.fixture(scope="module", params=OLD)
def old(request: pytest.FixtureRequest) -> OldPython:
    try:
        environment(request.param)
    except NoEnvironment as reason:
        pytest.skip(f"NOT TESTED on {request.param}: {reason}")
    assert isinstance(request.param, OldPython)
    return request.param


def told(old: OldPython, ran: int, selection: Selection) -> str:
    lines = [f"{name} ({selected_from(name)} tests) needs {', '.join(lacks)}" for name, lacks in selection.left_out.items()]
    return f"{old}: {ran} tests passed, {len(lines)} modules left out" + "".join(f"\n  {line}" for line in lines)


def test_their_own_tests(old: OldPython, tmp_path: Path) -> None:
    python = environment(old)
    selection = select(python)
    found = run_tests(python, selection.run, tmp_path, slow=old is not ORDINARY)
    assert not found.failed, f"{old}: {len(found.failed)} failed: {', '.join(found.failed)}\n{found.output}"
    assert len(found.passed) >= LEAST_TESTS and {name.split(".")[1] for name in found.passed} == {"spec", "runtime"}
    warnings.warn(
        told(old, len(found.passed), selection) + "".join(f"\n  skipped {name}" for name in found.skipped), stacklevel=1
    )


def test_every_module_is_imported_with_numpy_only(old: OldPython) -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in sources()]
    found = ask(environment(old), "modules", modules)
    assert len(modules) > 75 and found["errors"] == {} and found["foreign"] == []
    assert (
        found["numpy"] == old.numpy_version
        and found["python"] == (old.python or f"python{sys.version_info[0]}.{sys.version_info[1]}")[6:]
    )


def test_every_name_is_there(old: OldPython) -> None:
    """What they take from numpy and the standard library, whether a test comes by or not."""
    names = {name for path in sources() for name in names_used(ast.parse(path.read_text()))}
    names = {name for name in names if name.split(".")[0] not in BOARD_ONLY}
    assert len(names) > 250 and sum(name.startswith("numpy.") for name in names) > 70
    assert ask(environment(old), "names", sorted(names)) == []
    planted = ["tomllib", "typing.Self", "numpy.bitwise_count", "numpy.lib.nothing", "ExceptionGroup"]
    missing = planted if old.python == "python3.10" else planted[2:4]
    assert ask(environment(old), "names", planted) == missing


def test_programs_run(old: OldPython, programs: Path) -> None:
    """Compiled and computed outside; run inside by the interpreter device."""
    found = ask(environment(old), "programs", str(programs))
    assert found["inference"] == {"compared": 2 * 4 * 10, "mismatches": 0}
    assert found["training"]["compared"] > 2 * 5000 and found["training"]["mismatches"] == 0


def test_a_wrong_number_is_seen(programs: Path, tmp_path: Path) -> None:
    """One code and one bit of a weight, changed in what is expected."""
    folder = Path(shutil.copytree(programs, tmp_path / "wrong"))
    change(folder / "outputs.npz", "u8")
    change(folder / f"state{STEPS}.npz", "u4")
    found = ask(Path(sys.executable), "programs", str(folder))
    assert [found[kind]["mismatches"] for kind in ("inference", "training")] == [2, 1]


def change(path: Path, words: str) -> None:
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    next(iter(arrays.values())).reshape(-1).view(words)[0] ^= 1
    save(path, arrays)


def save(path: Path, arrays: Mapping[str, Any]) -> None:
    np.savez(path, **arrays)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inference and a training program, with what their graphs give here."""
    folder, tiny, graph = tmp_path_factory.mktemp("programs"), make_tiny(), residual_network((2, 8), size=4)
    tiny.program.save(folder / "program")
    tiny.graph.save(folder / "graph")
    save(folder / "inputs.npz", tiny.inputs)
    save(folder / "outputs.npz", tiny.graph(tiny.inputs))
    compile_training(graph, ARCH).save(folder / "training")
    state = graph.state
    save(folder / "state0.npz", state.arrays())
    for number in range(1, STEPS + 1):
        images, labels = random_batch(graph, number)
        state = graph.step(state, images, labels, Hyper(**HYPER)).state
        save(folder / f"batch{number}.npz", {"images": images, "labels": labels})
        save(folder / f"state{number}.npz", state.arrays())
    return folder


# --- without an older Python ------------------------------------------------------------------------------------------------


def test_syntax_and_names_are_of_python_3_10() -> None:
    looked, found = 0, {}
    for path in sources():
        if newer := newer_than_3_10(path.read_text()):
            found[path.relative_to(ROOT).as_posix()] = newer
        looked += 1
    assert looked > 75 and found == {}


def newer_than_3_10(text: str) -> set[str]:
    try:
        tree = ast.parse(text, feature_version=(3, 10))
    except SyntaxError as error:
        return {f"line {error.lineno}: {error.msg}"}
    used = names_used(tree)
    return used & NEWER | {"add_note" for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "add_note"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("try:\n    pass\nexcept* ValueError:\n    pass", "line "),
        ("import tomllib", "tomllib"),
        ("from enum import StrEnum", "enum.StrEnum"),
        ("import enum as e\nclass A(e.StrEnum): pass", "enum.StrEnum"),
        ("def f():\n    raise ExceptionGroup('', [])", "ExceptionGroup"),
        ("import numpy as np\nx = np.bool(1)", "numpy.bool"),
        ("try:\n    f()\nexcept ValueError as e:\n    e.add_note('x')", "add_note"),
    ],
)
def test_what_is_newer_is_seen(text: str, words: str) -> None:
    assert [name for name in newer_than_3_10(text) if name.startswith(words)]


def test_ruff_takes_it_for_python_3_10(tmp_path: Path) -> None:
    def ruff(*paths: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--target-version", "py310", *paths]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    (tmp_path / "newer.py").write_text("try:\n    pass\nexcept* ValueError:\n    pass\n")
    assert "on Python 3.10" in ruff(str(tmp_path / "newer.py")).stdout
    done = ruff(*ROOMS)
    assert done.returncode == 0, done.stdout + done.stderr


# --- the selection ----------------------------------------------------------------------------------------------------------


def test_packages_are_found_through_files_of_ours() -> None:
    needs = {
        path: packages(ROOT / path) for path in ("tests/spec/test_sparsity.py", "tests/spec/test_isa.py", "sw/runtime/sim.py")
    }
    assert "torch" in needs["tests/spec/test_sparsity.py"]  # by tests.sparse.reference
    assert {"numpy", "pytest", "zlib"} <= needs["tests/spec/test_isa.py"]
    assert "amaranth" not in needs["sw/runtime/sim.py"]  # late, so only where it is called
    assert "amaranth" in packages(ROOT / "tests/runtime/test_xdma_device.py")


def test_late_imports_count_in_tests_only() -> None:
    tree = ast.parse(
        "if TYPE_CHECKING:\n    import a\ndef f():\n  import b\nfrom c import d\nwith e:\n  import f.g\nimportlib.util.find_spec('h')"
    )
    assert list(imported(tree, late=True)) == ["b", "c", "c.d", "f.g", "h"]
    assert list(imported(tree, late=False)) == ["c", "c.d", "f.g", "h"]


def test_a_python_that_is_not_there_is_told_in_words() -> None:
    with pytest.raises(NoEnvironment, match=r"no python3\.99 on the PATH.*setup-python"):
        environment(OldPython(python="python3.99", numpy="1.21.6"))
