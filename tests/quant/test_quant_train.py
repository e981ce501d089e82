"""The trainer resumes to the bit; the digits data and network are what they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hw.spec.fixed import Overflow, Rounding, quantize
from sw.data.digits import INPUT_FORMAT, Digits, augment, load_digits
from sw.models.shufflenet_digits import DigitsNet
from sw.quant import Recipe, codes_of, export
from sw.quant.train import CheckpointError, TrainConfig, Trained, Trainer

RECIPE = Recipe(input_format=INPUT_FORMAT)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


def small(digits: Digits) -> Digits:
    return Digits(train_images=digits.train_images[:128], train_labels=digits.train_labels[:128],
                  test_images=digits.test_images[:64], test_labels=digits.test_labels[:64])


def state(trained: Trained) -> dict[str, torch.Tensor]:
    return {**{f"float.{k}": v for k, v in trained.float_model.state_dict().items()}, **trained.model.state_dict()}


@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_run_equals_an_uninterrupted_one(digits: Digits, tmp_path: Path, stop: int) -> None:
    config = TrainConfig(float_epochs=2, fixed_epochs=2, seed=7, batch=32, hold_points=0.5)
    data, seen = small(digits), []

    def trainer() -> Trainer:
        return Trainer(DigitsNet, data, RECIPE, config, augment=augment, progress=seen.append)

    whole = trainer().run()
    assert whole is not None and [p.phase for p in seen] == ["float", "float", "fixed", "fixed"]
    path = tmp_path / "run.checkpoint"
    assert trainer().run(path, stop_at=stop) is None
    torch.manual_seed(99)  # the global state must not matter
    second = trainer()
    second.load(path)
    resumed = second.run(path)
    assert resumed is not None
    first_state, second_state = state(whole), state(resumed)
    assert set(first_state) == set(second_state) and len(first_state) > 100
    assert all(torch.equal(first_state[k], second_state[k]) for k in first_state)
    assert [p.loss for p in whole.history] == [p.loss for p in resumed.history]
    assert not any(name.startswith(path.name) and name != path.name for name in (p.name for p in tmp_path.iterdir()))


def test_another_seed_is_another_run(digits: Digits) -> None:
    runs = [Trainer(DigitsNet, small(digits), RECIPE, TrainConfig(float_epochs=1, fixed_epochs=0, seed=s)).run() for s in (1, 2)]
    assert runs[0] is not None and runs[1] is not None
    assert runs[0].history[0].loss != runs[1].history[0].loss


def test_bad_checkpoints(digits: Digits, tmp_path: Path) -> None:
    path = tmp_path / "a"
    data = small(digits)
    Trainer(DigitsNet, data, RECIPE, TrainConfig(float_epochs=1, fixed_epochs=1)).run(path, stop_at=1)
    other = Trainer(DigitsNet, data, RECIPE, TrainConfig(float_epochs=1, fixed_epochs=1, seed=1))
    with pytest.raises(CheckpointError, match="another recipe, configuration or data set"):
        other.load(path)
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(CheckpointError, match="not a usable checkpoint"):
        other.load(path)
    torch.save({"x": 1}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of version"):
        other.load(path)
    with pytest.raises(ValueError, match="batch must be positive"):
        TrainConfig(batch=0)


def test_the_digits_are_split_and_exact(digits: Digits) -> None:
    assert len(digits.train_images) == 1347 and len(digits.test_images) == 450
    everything = torch.cat([digits.train_images, digits.test_images]).flatten(1)
    assert torch.equal(load_digits().test_images, digits.test_images)
    shares = torch.bincount(digits.test_labels, minlength=10).double() / torch.bincount(
        torch.cat([digits.train_labels, digits.test_labels]), minlength=10)
    assert (shares - 450 / 1797).abs().max() < 0.006
    for images in (everything, augment(digits.train_images, torch.Generator().manual_seed(1)).flatten(1)):
        codes = quantize(images.numpy(), INPUT_FORMAT, Rounding.RND, Overflow.SAT)
        assert np.array_equal(codes / 16, images.numpy()) and codes.min() == 0 and codes.max() == 16


def test_the_network_fits_the_core(digits: Digits) -> None:
    """Trained for a moment: the graph has the core's operations only, alive channels, and equals torch."""
    trained = Trainer(DigitsNet, digits, RECIPE, TrainConfig(float_epochs=2, fixed_epochs=1), augment=augment).run()
    assert trained is not None and trained.fixed_accuracy > 0.3
    x = digits.test_images[:32]
    graph = export(trained.model, x)
    assert {n.operation.op for n in graph.nodes} == {
        "conv2d", "depthwise_conv2d", "deform_depthwise_conv2d", "slice", "shuffle_join", "max_pool2d", "avg_pool2d", "linear"}
    assert 300_000 <= graph.macs() <= 1_500_000 and graph.tensors["head"].shape == (10, 1, 1)
    assert all(graph.tensors[n.output].shape[0] % 16 == 0 for n in graph.nodes if n.operation.op == "slice")
    ours, theirs = trained.model.trace(x), graph.trace({"input": codes_of(trained.model, x)})
    compared = sum(codes.size for codes in theirs.values())
    assert compared > 500_000 and sum(int((ours[n].numpy() != theirs[n]).sum()) for n in theirs) == 0
    flags = np.concatenate([c.max((0, 2, 3)) > c.min((0, 2, 3)) for n, c in theirs.items()])
    assert flags.mean() > 0.95


@pytest.mark.slow
def test_the_digits_reach_their_accuracy(digits: Digits) -> None:
    trained = Trainer(DigitsNet, digits, RECIPE, TrainConfig(), augment=augment).run()
    assert trained is not None
    assert trained.float_accuracy >= 0.98 and trained.fixed_accuracy >= max(0.975, trained.float_accuracy - 0.01)
