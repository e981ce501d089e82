"""Reading what users name on the command line: architectures, inputs, models. Every refusal says what to do."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.program import write_atomically

DEFAULT_ARCH = "default"


def load_arch(name: str) -> Arch:
    """An architecture from a JSON or TOML file, of the inference core where it does not name one, or the default inference core."""
    if name == DEFAULT_ARCH:
        return DeformArch()
    path = Path(name)
    what = "a table of architecture parameters"
    data = read_toml(path, what) if path.suffix == ".toml" else _table(_json(path), path, what)
    try:
        return Arch.from_dict({"core": "deform", **data})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def load_inference_arch(name: str) -> DeformArch:
    """Likewise, of the inference core; ValueError where it is another's."""
    arch = load_arch(name)
    if not isinstance(arch, DeformArch):
        raise ValueError(f"{name} must be an architecture of core 'deform', the inference core, not of {arch.core!r}")
    return arch


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8 or not JSON
        raise ValueError(f"{path} is not an architecture in JSON ({error})") from error


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The table of a TOML file; ``what`` it should be, for the message where it is none."""
    try:
        import tomllib
    except ImportError as error:
        raise ValueError(f"reading {path} needs Python 3.11 or newer") from error
    try:
        return _table(tomllib.loads(path.read_text(encoding="utf-8")), path, what)
    except ValueError as error:  # not UTF-8 or not TOML
        raise ValueError(f"{path} is not {what} in TOML ({error})") from error


def _table(data: Any, path: Path, what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold {what}, not {type(data).__name__}")
    return data


def load_inputs(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Integer codes by input name: a .npy file for one input, a .npz file with one array per input."""
    arrays = load_arrays(path)
    if set(arrays) != {""}:
        return arrays
    if len(names) != 1:
        raise ValueError(f"{path} holds one array, and the inputs are {list(names)}: use a .npz file with one array each")
    return {names[0]: arrays[""]}


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz file by name, or that of a .npy file with the name ""."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {"": loaded}
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        words = "of another kind or damaged" if "pickle" in str(error) else str(error)
        raise ValueError(f"{path} is not a .npy or .npz file of numbers ({words})") from error


def save_outputs(path: Path, outputs: dict[str, np.ndarray]) -> None:
    """One output to .npy; a path that ends in .npz takes any number, by name."""
    if path.suffix != ".npz" and len(outputs) != 1:
        raise ValueError(f"{path} cannot hold the outputs {sorted(outputs)}: give a path that ends in .npz")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        if path.suffix == ".npz":
            np.savez(file, **outputs)  # type: ignore[arg-type]
        else:
            np.save(file, next(iter(outputs.values())))


def save_json(path: Path, data: Any) -> None:
    """Indented JSON, whole or not at all."""
    write_atomically(path, (json.dumps(data, indent=1) + "\n").encode())


def source_file(spec: str) -> Path:
    """The file of ``FILE.py:NAME``."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not name or path.suffix != ".py":
        raise ValueError(f"models and data are named FILE.py:NAME, a function that makes them, not {spec!r}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    return path


def load_function(spec: str) -> Callable[..., Any]:
    """The function or class that ``FILE.py:NAME`` names; whatever the file raises becomes a ValueError that names it."""
    path, name = source_file(spec), spec.rpartition(":")[2]
    found: Any = _guarded(spec, lambda: _attribute(path, name))
    if not callable(found):
        raise ValueError(f"{spec} must be a function or class, not {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def user_files(spec: str) -> list[Path]:
    """The file of ``FILE.py:NAME`` and the files of its folder that it imports, and they in turn."""
    first = source_file(spec).resolve()
    found, todo = {first}, [first]
    while todo:
        for file in _imported(todo.pop(), first.parent) - found:
            found.add(file)
            todo.append(file)
    return [first, *sorted(found - {first})]


def _imported(path: Path, folder: Path) -> set[Path]:
    """Files of a folder that a file's import statements name; none of a file that does not parse."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update([node.module, *(f"{node.module}.{alias.name}" for alias in node.names)])
    places = [folder.joinpath(*name.split(".")) for name in names]
    return {file for place in places for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()}


def guarded_function(spec: str) -> Callable[..., Any]:
    """A user's function whose errors name it."""
    found = load_function(spec)
    return lambda *arguments: _guarded(spec, lambda: found(*arguments))


def load_maker(spec: str) -> Callable[[], Any]:
    """The same, of something that is called without arguments; what the call raises becomes a ValueError too."""
    found = load_function(spec)
    return lambda: _guarded(spec, found)


def _guarded(spec: str, call: Callable[[], Any]) -> Any:
    """What a user's own code gives; its errors with the place they come from."""
    try:
        return call()
    except ImportError as error:
        raise ValueError(f"{spec} cannot be imported ({error}); torch comes with: pip install 'bitloom[train]'") from error
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{spec} raised {type(error).__name__}: {error}") from error


def load_model(spec: str) -> Any:
    """The torch model that ``FILE.py:NAME`` names: a module, or a function or class that makes one."""
    path = source_file(spec)
    made = _guarded(spec, lambda: _attribute(path, spec.rpartition(":")[2]))
    try:
        from torch import nn
    except ImportError as error:
        raise ValueError(f"{spec} needs torch: pip install 'bitloom[train]' ({error})") from error
    model = made if isinstance(made, nn.Module) or not callable(made) else _guarded(spec, made)
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} must give a torch.nn.Module, not {type(model).__name__}")
    return model


def _attribute(path: Path, name: str) -> Any:
    """A name of a Python file, with the file's folder importable as if it were run."""
    where = importlib.util.spec_from_file_location(path.stem, path)
    assert where is not None and where.loader is not None
    module = importlib.util.module_from_spec(where)
    sys.path.insert(0, str(path.resolve().parent))
    # Worker processes of a DataLoader, and pickling, find the module by its name.
    sys.modules.setdefault(path.stem, module)
    try:
        where.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ValueError(f"{path} has no {name!r}; it has {', '.join(public)}")
    return getattr(module, name)
