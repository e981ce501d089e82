"""`bitloom train` and `bitloom export` on a user's own file: finished, resumed, and refused in words."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sw.flow.train import CHECKPOINT, MANIFEST, Sources, export_run, load_config, load_run, train_run
from sw.graph import IntegerGraph
from sw.quant.train import Trainer

USER = '''
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

def net():
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 3))

def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (96,), generator=generator)
    images = torch.randn(96, 1, 6, 6, generator=generator) + labels[:, None, None, None]
    made = TensorDataset(images, labels)
    return DataLoader(made, batch_size=32, shuffle=True), DataLoader(made, batch_size=48)

def distance(outputs, targets):
    return nn.functional.mse_loss(outputs, nn.functional.one_hot(targets, 3).float())

def per_pixel(outputs, targets):
    return torch.zeros(len(outputs), 3)

def damaged():
    made = net()
    made[0].weight.data[0] = float("nan")
    return made

def broken():
    raise RuntimeError("no such disk")

def one_thing():
    return [1]

constant = 5
'''


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder, which is the working folder too."""
    (tmp_path / "user.py").write_text(USER)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def sources(**changes: Any) -> Sources:
    config = load_config(None, {"float_epochs": 2, "fixed_epochs": 1, "calibration_images": 32, **changes.pop("config", {})})
    return Sources(**{"model": "user.py:net", "data": "user.py:data", "recipe": "weight_bits = 5\n", "config": config} | changes)


def test_a_run_is_whole_and_exports(user: Path) -> None:
    told = []
    result = train_run(sources(loss="user.py:distance"), user / "run", told.append)
    assert result["ok"] and result["epochs"] == len(told) == 3 and result["resumed_at_epoch"] == 0
    manifest = json.loads((user / "run" / MANIFEST).read_text())
    assert manifest["finished"] and set(manifest["files"]) == {"model", "data", "loss"}
    assert (user / "run" / "curves.png").read_bytes().startswith(b"\x89PNG")
    exported = export_run(user / "run", user / "net.graph", user / "inputs.npy", images=10)
    graph, codes = IntegerGraph.load(user / "net.graph"), np.load(user / "inputs.npy")
    assert codes.shape == (10, 1, 6, 6) and exported["fixed_accuracy"] == result["fixed_accuracy"]
    outputs = graph({"input": codes})[graph.outputs[0]].reshape(10, 3)
    trained = load_run(user / "run")
    values = trained.model(trained.held_out[:10]).numpy()
    assert np.array_equal(outputs * 2.0 ** -graph.tensors[graph.outputs[0]].fmt.frac, values)


def test_an_interrupted_run_goes_on_to_the_same_bits(user: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_run(sources(), user / "whole")
    epoch = Trainer._epoch

    def interrupted(self: Trainer) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        epoch(self)

    monkeypatch.setattr(Trainer, "_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_run(sources(), user / "cut")
    monkeypatch.undo()
    os.chdir(user)
    with pytest.raises(ValueError, match=r"the training in .*cut is not finished: go on with the 'bitloom train' that began it"):
        export_run(user / "cut", user / "cut.graph")
    assert train_run(sources(), user / "cut")["resumed_at_epoch"] == 2
    states = [torch.load(user / run / CHECKPOINT)["model"] for run in ("whole", "cut")]
    assert states[0].keys() == states[1].keys() and len(states[0]) > 5
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_run_that_was_begun_otherwise_is_left_alone(user: Path) -> None:
    train_run(sources(), user / "run")
    before = {path.name: path.read_bytes() for path in (user / "run").iterdir()}
    (user / "other.py").write_text(USER + "\n# changed\n")
    others = {
        "the recipe": sources(recipe="weight_bits = 4\n"), "seed of the config": sources(config={"seed": 3}),
        "loss of the sources": sources(loss="user.py:distance"), "the file of the model": sources(model="other.py:net"),
    }  # fmt: skip
    for words, other in others.items():
        with pytest.raises(ValueError, match=rf"run that was begun otherwise; changed: .*{words}.*Train into another folder"):
            train_run(other, user / "run")
    assert {path.name: path.read_bytes() for path in (user / "run").iterdir()} == before
    (user / "user.py").write_text(USER + "\n# changed\n")
    with pytest.raises(ValueError, match="changed: the file of the model, the file of the data"):
        export_run(user / "run", user / "net.graph")
    assert not (user / "net.graph").exists()


@pytest.mark.parametrize(("changes", "words"), [
    ({"model": "nowhere.py:net"}, "there is no file nowhere.py"),
    ({"model": "user.py:nothing"}, "user.py has no 'nothing'; it has"),
    ({"model": "user.py"}, "named FILE.py:NAME"),
    ({"model": "user.py:constant"}, "user.py:constant must be a function or class, not int"),
    ({"data": "user.py:broken"}, "user.py:broken raised RuntimeError: no such disk"),
    ({"data": "user.py:one_thing"}, r"user.py:one_thing must return \(training batches, held-out batches\), not list"),
    ({"recipe": "weight_bits = 40"}, "weight_bits must be an integer of 1..8 bits, not 40"),
    ({"recipe": "colour = 1"}, "recipe has unknown keys"),
    ({"recipe": "[overrides.'nett.0']\nweight_bits = 4"}, "pattern 'nett.0' matches no layer"),
    ({"model": "user.py:damaged"}, "0.weight: 9 values are NaN or infinite"),
])  # fmt: skip
def test_bad_input_is_refused_before_anything_is_written(user: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        train_run(sources(**changes), user / "run")
    assert not (user / "run").exists()


@pytest.mark.parametrize(("changes", "words"), [
    ({"metric": "user.py:per_pixel"}, r"a metric must give one score for each of 48 samples, or their mean, not shape \(48, 3\)"),
    ({"loss": "user.py:per_pixel"}, r"a loss must be a tensor of one value that depends on the outputs, not shape \(32, 3\)"),
    ({"metric": "user.py:net"}, r"user\.py:net raised TypeError"),
])  # fmt: skip
def test_functions_of_the_user_that_give_something_else(user: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        train_run(sources(**changes), user / "run")


def test_a_change_in_a_module_that_the_file_imports_is_seen(user: Path) -> None:
    (user / "parts.py").write_text("WIDTH = 8\n")
    (user / "entry.py").write_text("from parts import WIDTH\n" + USER)
    train_run(sources(model="entry.py:net"), user / "run")
    (user / "parts.py").write_text("WIDTH = 9\n")
    with pytest.raises(ValueError, match="changed: the file of the model"):
        export_run(user / "run", user / "net.graph")


def test_no_epochs_is_post_training(user: Path) -> None:
    assert train_run(sources(config={"float_epochs": 0, "fixed_epochs": 0}), user / "run")["epochs"] == 0
    assert export_run(user / "run", user / "deep" / "net.graph", user / "codes" / "inputs.npy")["layers"] == 3
    with pytest.raises(ValueError, match="nowhere holds no training run"):
        export_run(user / "nowhere", user / "net.graph")


def test_configurations(user: Path) -> None:
    path = user / "train.toml"
    path.write_text("float_epochs = 7\nseed = 2\n")
    config = load_config(path, {"seed": 5, "fixed_epochs": None})
    assert (config.float_epochs, config.seed) == (7, 5)
    path.write_text("epochs = 7\n")
    path.write_text("batch = 'x'\n")
    with pytest.raises(ValueError, match="TrainConfig batch must be of type int, not 'x'"):
        load_config(path, {})
    path.write_text("epochs = 7\n")
    with pytest.raises(ValueError, match=r"train.toml has unknown keys \['epochs'\]; known are"):
        load_config(path, {})


def test_damaged_folders(user: Path) -> None:
    train_run(sources(), user / "run")
    (user / "run" / MANIFEST).write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        load_run(user / "run")
    (user / "run" / MANIFEST).write_text("{}")
    with pytest.raises(ValueError, match="is not the manifest of a training run"):
        load_run(user / "run")
