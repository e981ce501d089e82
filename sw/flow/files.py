"""Reading what users name on the command line: architectures, inputs, models. Every refusal says what to do."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.program import write_atomically

DEFAULT_ARCH = "default"


def load_arch(name: str) -> DeformArch:
    """An architecture from a JSON or TOML file, or the default inference core."""
    if name == DEFAULT_ARCH:
        return DeformArch()
    path = Path(name)
    text = path.read_text(encoding="utf-8")
    data = _toml(text, path) if path.suffix == ".toml" else _json(text, path)
    try:
        arch = Arch.from_dict({"core": "deform", **data})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    assert isinstance(arch, DeformArch)
    return arch


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not an architecture in JSON ({error})") from error
    return _table(data, path)


def _toml(text: str, path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError as error:
        raise ValueError(f"reading {path} needs Python 3.11 or newer: write the architecture as JSON") from error
    try:
        return _table(tomllib.loads(text), path)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is not an architecture in TOML ({error})") from error


def _table(data: Any, path: Path) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold a table of architecture parameters, not {type(data).__name__}")
    return data


def load_inputs(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Integer codes by input name: a .npy file for one input, a .npz file with one array per input."""
    try:
        loaded = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a .npy or .npz file of integer codes ({error})") from error
    if isinstance(loaded, np.ndarray):
        if len(names) != 1:
            raise ValueError(f"{path} holds one array, and the inputs are {list(names)}: use a .npz file with one array each")
        return {names[0]: loaded}
    return {name: loaded[name] for name in loaded.files}


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


def load_model(spec: str) -> Any:
    """The torch model that ``FILE.py:NAME`` names: a module, or a function or class that makes one."""
    file, _, name = spec.rpartition(":")
    path = Path(file)
    if not name or path.suffix != ".py":
        raise ValueError(f"a model is named FILE.py:NAME, a function that makes it, not {spec!r}")
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        made = _attribute(path, name)
        from torch import nn

        model = made if isinstance(made, nn.Module) or not callable(made) else made()
    except ImportError as error:
        raise ValueError(f"{path} cannot be imported ({error}); torch comes with: pip install 'bitloom[train]'") from error
    except ValueError:
        raise
    except Exception as error:  # whatever the user's own file raises
        raise ValueError(f"{spec} raised {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{spec} must give a torch.nn.Module, not {type(model).__name__}")
    return model


def _attribute(path: Path, name: str) -> Any:
    """A name of a Python file, with the file's folder importable as if it were run."""
    where = importlib.util.spec_from_file_location(path.stem, path)
    assert where is not None and where.loader is not None
    module = importlib.util.module_from_spec(where)
    sys.path.insert(0, str(path.resolve().parent))
    try:
        where.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    if not hasattr(module, name):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise ValueError(f"{path} has no {name!r}; it has {', '.join(public)}")
    return getattr(module, name)
