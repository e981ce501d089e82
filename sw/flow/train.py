"""`bitloom train` and `bitloom export`: a user's model and data, trained in fixed point into a folder that can be resumed.

The folder holds ``checkpoint.pt`` after every epoch, ``recipe.toml`` as it was given, ``history.json``, ``curves.png`` and, last,
``manifest.json``, which names the user's files with their hashes: a checkpoint is only continued or exported with the very
files that it was made with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.program import write_atomically
from sw.flow.commands import file_sha256, versions
from sw.flow.files import guarded_function, load_maker, read_toml, save_json, user_files

if TYPE_CHECKING:
    from sw.quant.train import Progress, TrainConfig, Trained, Trainer

CHECKPOINT, RECIPE, HISTORY, CURVES, MANIFEST = "checkpoint.pt", "recipe.toml", "history.json", "curves.png", "manifest.json"
_ARTEFACT = "training run"

Tell = Callable[["Progress"], None]


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What a run is made of: ``model``, ``data``, ``loss`` and ``metric`` as FILE.py:NAME, the recipe's text, the configuration.

    ``loss`` and ``metric``, functions of outputs and targets, are the trainer's own where they are None.
    """

    model: str
    data: str
    recipe: str
    config: TrainConfig
    loss: str | None = None
    metric: str | None = None
    recipe_name: str = RECIPE

    @property
    def specs(self) -> dict[str, str]:
        """Each FILE.py:NAME that there is, by its part."""
        found = {name: getattr(self, name) for name in ("model", "data", "loss", "metric")}
        return {name: spec for name, spec in found.items() if spec is not None}

    def trainer(self, tell: Tell = lambda progress: None) -> Trainer:
        """A trainer at its start. Whatever is wrong with the user's files raises ValueError with their names."""
        from sw.quant import Recipe
        from sw.quant.train import Batches, Trainer

        made = load_maker(self.data)()
        if not isinstance(made, (tuple, list)) or len(made) != 2:
            raise ValueError(f"{self.data} must return (training batches, held-out batches), not {type(made).__name__}")
        own = {name: guarded_function(spec) for name, spec in self.specs.items() if name in ("loss", "metric")}
        data, recipe = Batches(train=made[0], test=made[1]), Recipe.from_toml_text(self.recipe, self.recipe_name)
        return Trainer(load_maker(self.model), data, recipe, self.config, progress=tell, **own)

    def to_dict(self) -> dict[str, Any]:
        files = {name: _digest(user_files(spec)) for name, spec in self.specs.items()}
        return {"sources": self.specs, "config": asdict(self.config), "files": files}


def _digest(files: Sequence[Path]) -> str:
    """SHA-256 (hex) over the files' contents and their names, the folder's name left out."""
    names = [path.relative_to(files[0].parent).as_posix() for path in files]
    return hashlib.sha256(json.dumps([names, [file_sha256(path) for path in files]]).encode()).hexdigest()


def load_config(path: Path | None, given: Mapping[str, Any]) -> TrainConfig:
    """The trainer's configuration from a TOML file; what is given (not None) wins. ValueError names an unknown key."""
    from sw.quant.train import TrainConfig

    values = {} if path is None else read_toml(path, "a table of the trainer's configuration")
    values |= {name: value for name, value in given.items() if value is not None}
    known = {entry.name for entry in fields(TrainConfig)}
    if unknown := sorted(set(values) - known):
        raise ValueError(f"{path or 'the configuration'} has unknown keys {unknown}; known are {sorted(known)}")
    return TrainConfig(**values)


def train_run(sources: Sources, out: Path, tell: Tell = lambda progress: None) -> dict[str, Any]:
    """Train, or go on with what ``out`` holds; returns accuracies and the folder's files.

    ValueError where ``out`` holds a run of other files, another recipe or configuration: nothing of it is touched then.
    """
    about = {"artefact": _ARTEFACT, **sources.to_dict(), "versions": versions()}
    _check_same(out, about, sources.recipe)
    trainer = sources.trainer(tell)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / RECIPE, sources.recipe.encode())
    save_json(out / MANIFEST, {**about, "finished": False})
    resumed = _resume(trainer, out / CHECKPOINT)
    trained = trainer.run(out / CHECKPOINT)
    if not (out / CHECKPOINT).is_file():  # no epoch was wanted
        trainer.save(out / CHECKPOINT)
    assert trained is not None, "a training that is not told to stop runs to its end"
    save_json(out / HISTORY, [asdict(epoch) for epoch in trained.history])
    _draw(trained, out / CURVES)
    result = {"float_accuracy": trained.float_accuracy, "fixed_accuracy": trained.fixed_accuracy, "epochs": len(trained.history)}
    save_json(out / MANIFEST, {**about, "finished": True, **result})
    return {"ok": True, "out": str(out), "resumed_at_epoch": resumed, **result}


def _resume(trainer: Trainer, checkpoint: Path) -> int:
    """Load the checkpoint if there is one; the epochs that it had done."""
    if checkpoint.is_file():
        trainer.load(checkpoint)
    return trainer.epoch


def _check_same(out: Path, about: Mapping[str, Any], recipe: str) -> None:
    """ValueError where the folder's run differs from the one that is asked for."""
    if not (out / CHECKPOINT).is_file():
        return
    before = _manifest(out)
    changed = [f"the file of the {name}" for name, digest in about["files"].items() if before["files"].get(name, digest) != digest]
    for name in ("sources", "config"):
        keys = sorted(before[name].keys() | about[name].keys())
        changed += [f"{key} of the {name}" for key in keys if before[name].get(key) != about[name].get(key)]
    if (out / RECIPE).read_text(encoding="utf-8") != recipe:
        changed.append("the recipe")
    if changed:
        raise ValueError(f"{out} holds a run that was begun otherwise; changed: {', '.join(changed)}. Train into another folder")


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"{folder} holds no training run: name a folder that 'bitloom train' wrote")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): train again, into another folder") from error
    if not isinstance(data, dict) or data.get("artefact") != _ARTEFACT:
        raise ValueError(f"{path} is not the manifest of a training run: name a folder that 'bitloom train' wrote")
    return data


def load_run(folder: Path) -> Trained:
    """The finished training of a folder, its model frozen. ValueError where it is unfinished or its files have changed."""
    from sw.quant.train import TrainConfig

    before = _manifest(folder)
    if not before["finished"]:
        raise ValueError(f"the training in {folder} is not finished: go on with the 'bitloom train' that began it")
    text = (folder / RECIPE).read_text(encoding="utf-8")
    sources = Sources(**before["sources"], recipe=text, config=TrainConfig(**before["config"]))
    _check_same(folder, sources.to_dict(), text)
    trainer = sources.trainer()
    trainer.load(folder / CHECKPOINT)
    trained = trainer.run()
    assert trained is not None, "a finished training runs no further epoch"
    return trained


def export_run(folder: Path, output: Path, inputs: Path | None = None, images: int = 64) -> dict[str, Any]:
    """The integer graph of a finished run, and integer codes of its first held-out inputs for 'bitloom verify'."""
    from sw.quant import codes_of, export

    trained = load_run(folder)
    batch = trained.held_out[:images]
    graph = export(trained.model, batch)
    graph.save(output)
    result = {
        "ok": True,
        "graph": str(output),
        "layers": len(graph.nodes),
        "macs": graph.macs(),
        "fixed_accuracy": trained.fixed_accuracy,
        "formats": {name: str(graph.tensors[name].fmt) for name in (*graph.inputs, *graph.outputs)},
    }
    if inputs is not None:
        inputs.parent.mkdir(parents=True, exist_ok=True)
        with inputs.open("wb") as file:
            np.save(file, codes_of(trained.model, batch))
        result["inputs"] = {"file": str(inputs), "images": len(batch)}
    return result


def _draw(trained: Trained, path: Path) -> None:
    from sw.flow.report_figures import curves_png

    write_atomically(path, curves_png(trained.history))
