"""A user's loader, loss, metric and optimiser in the trainer; killed and resumed runs equal uninterrupted ones to the bit."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from sw.quant import Recipe
from sw.quant.batches import source_of
from sw.quant.finite import NonFiniteError
from sw.quant.train import Batches, TrainConfig, Trainer, evaluate
from tests.quant.killed_training import CONFIG, Net, digest, trainer

PROGRAM = Path(__file__).parent / "killed_training.py"


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> int:
    """Number of tensors compared; fails on any that differs."""
    assert set(first) == set(second)
    for name, values in first.items():
        assert torch.equal(values, second[name]), name
    return len(first)


def spoil_global_generators() -> None:
    torch.manual_seed(99)
    random.seed(99)
    np.random.seed(99)  # noqa: NPY002


@pytest.mark.parametrize(("own_generator", "stop"), [(True, 1), (True, 4), (False, 3), (False, 4)])
def test_a_resumed_loader_goes_on_in_its_order(tmp_path: Path, own_generator: bool, stop: int) -> None:
    whole = trainer(own_generator=own_generator).run()
    path = tmp_path / "run.checkpoint"
    assert trainer(own_generator=own_generator).run(path, stop_at=stop) is None
    spoil_global_generators()
    second = trainer(own_generator=own_generator)
    second.load(path)
    resumed = second.run(path)
    assert whole is not None and resumed is not None
    assert same(digest(whole), digest(resumed)) > 20


def test_training_leaves_the_global_generators_alone() -> None:
    spoil_global_generators()
    expected = torch.rand(2), random.random(), np.random.uniform()  # noqa: NPY002
    spoil_global_generators()
    trainer().run(stop_at=1)
    assert torch.equal(torch.rand(2), expected[0])
    assert (random.random(), np.random.uniform()) == expected[1:]  # noqa: NPY002


def wait_for(condition: Any, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the training did not come so far in time"
        time.sleep(0.02)


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    """SIGKILL, twice: in the float and in the fixed-point phase; then to the end."""
    path = tmp_path / "killed.checkpoint"
    for passes, epochs in ((1, 1), (3, 3)):  # of each process; the second goes on after one epoch, and calibrates
        process = subprocess.Popen([sys.executable, str(PROGRAM), str(path), str(passes), "60"])
        wait_for(lambda p=process, n=epochs: p.poll() is not None or (path.exists() and saved_epoch(path) >= n))
        assert process.poll() is None, "it should sleep before its next batch"
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert saved_epoch(path) == CONFIG.float_epochs
    last = trainer()
    last.load(path)
    resumed, whole = last.run(path), trainer().run()
    assert resumed is not None and whole is not None
    assert same(digest(resumed), digest(whole)) > 20
    assert [p.name for p in tmp_path.iterdir()] == [path.name]  # no half-written file stays


def saved_epoch(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["epoch"])


# --- the user's choices -----------------------------------------------------------------------------------------------


def batches(count: int = 4, outputs: int = 4) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [(torch.randn(8, 1, 8, 8, generator=generator), torch.arange(8) % outputs) for _ in range(count)]


def test_the_users_loss_and_metric_are_used() -> None:
    """A regression: targets are vectors, the score is the negative distance."""
    targets = [(x, F.one_hot(y, 4).float()) for x, y in batches()]
    seen = []

    def distance(outputs: Tensor, wanted: Tensor) -> Tensor:
        seen.append(outputs.shape)
        return F.mse_loss(outputs, wanted)

    config = TrainConfig(float_epochs=2, fixed_epochs=1, float_rate=0.02)
    run = Trainer(Net, Batches(train=targets, test=targets), Recipe(), config, loss=distance,
                  metric=lambda outputs, wanted: -(outputs - wanted).square().mean(1))
    trained = run.run()
    assert trained is not None and len(seen) == 3 * 4 and seen[0] == (8, 4)
    outputs = torch.cat([trained.model(x) for x, _ in targets])
    wanted = torch.cat([y for _, y in targets])
    # The mean of means of batches is another order of the same sum.
    assert trained.fixed_accuracy == pytest.approx(-float((outputs - wanted).square().mean()), rel=1e-6)
    assert trained.history[0].loss > trained.history[1].loss > 0 and trained.fixed_accuracy < 0
    assert torch.equal(trained.held_out, targets[0][0])


def test_a_score_per_sample_and_a_mean_agree() -> None:
    model, data = Net().eval(), [*batches(2), (torch.randn(3, 1, 8, 8), torch.tensor([0, 1, 2]))]
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data)
    assert evaluate(model, data) == right / 19
    assert evaluate(model, data, lambda o, y: (o.argmax(1) == y).double().mean()) == pytest.approx(right / 19, rel=1e-12)
    with pytest.raises(ValueError, match="at least one sample"):
        evaluate(model, [])


def test_the_optimiser_is_a_choice() -> None:
    data, ends = Batches(train=batches(), test=batches(1)), {}
    for name in ("adamw", "adam", "sgd"):
        config = TrainConfig(float_epochs=1, fixed_epochs=1, optimizer=name, hold_points=0.0, weight_decay=0.1)
        run = Trainer(Net, data, Recipe(), config)
        trained = run.run()
        assert trained is not None
        assert [type(o).__name__ for o in run.optimizers] == [{"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}[name], "AdamW"]
        ends[name] = trained.history[-1].loss
    assert len(set(ends.values())) == 3


def test_points_learn_between_delay_and_hold() -> None:
    data = Batches(train=batches(), test=batches(1))
    config = TrainConfig(float_epochs=0, fixed_epochs=4, delay_points=0.25, hold_points=0.5, point_rate=0.1)
    run = Trainer(Net, data, Recipe(), config)
    points = []
    for epoch in range(1, 5):
        run.run(stop_at=epoch)
        assert run.model is not None
        points.append(torch.cat([p.detach().flatten().clone() for p in run.model.binary_points()]))
    assert not torch.equal(points[0], points[1])
    assert torch.equal(points[1], points[2]) and torch.equal(points[2], points[3])
    fresh = Trainer(Net, data, Recipe(), config)
    fresh._quantise()
    assert fresh.model is not None
    assert torch.equal(points[0], torch.cat([p.detach().flatten() for p in fresh.model.binary_points()]))


def test_binary_points_have_a_rate_of_their_own() -> None:
    data = Batches(train=batches(), test=batches(1))
    run = Trainer(Net, data, Recipe(), TrainConfig(float_epochs=0, fixed_epochs=1, point_rate=0.0, hold_points=0.0))
    run.run(stop_at=0)
    run._quantise()
    assert run.model is not None
    before = [p.detach().clone() for p in run.model.binary_points()]
    weights = [p.detach().clone() for _, layer in run.model.quant_layers() for p in [layer.weight]]
    run._batches(run.model)
    assert all(torch.equal(p, b) for p, b in zip(run.model.binary_points(), before, strict=True))
    assert all(not torch.equal(layer.weight, w) for (_, layer), w in zip(run.model.quant_layers(), weights, strict=True))


# --- refused in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train", "text"), [
    ([], "there must be at least one training batch"),
    ([torch.zeros(2, 1, 8, 8)], r"training batch 0 must be \(inputs, targets\) with a tensor of inputs, not Tensor"),
    ([(torch.zeros(2, 1, 8, 8), torch.zeros(2), 1)], "not tuple of 3"),
    ([(torch.zeros(2, 1, 8, 8).byte(), torch.zeros(2))], r"inputs of training batch 0 must be floats, not torch\.uint8"),
])
def test_bad_batches(train: list[Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Trainer(Net, Batches(train=train, test=batches(1)), Recipe(), TrainConfig(float_epochs=1, fixed_epochs=0)).run()


def test_workers_whose_random_numbers_a_resumed_run_cannot_repeat_are_refused() -> None:
    data = TensorDataset(torch.zeros(4, 1), torch.zeros(4))
    with pytest.raises(ValueError, match="persistent_workers of the training loader must be False"):
        Batches(train=DataLoader(data, num_workers=1, persistent_workers=True), test=batches())


def test_generators_of_samplers_and_data_sets_are_kept() -> None:
    """A batch sampler of its own, and a data set that draws from its own generator."""
    own = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    data = TensorDataset(torch.zeros(8, 1), torch.zeros(8))
    data.generator = own[0]
    sampler = BatchSampler(RandomSampler(data, generator=own[1]), 2, drop_last=False)
    source = source_of(Batches(train=DataLoader(data, batch_sampler=sampler), test=batches()), 2)
    before = source.state()
    assert len(before) == 2
    for generator in own:
        torch.rand(3, generator=generator)
    assert not any(torch.equal(kept, now) for kept, now in zip(before, source.state(), strict=True))
    source.load_state(before)
    assert all(torch.equal(kept, now) for kept, now in zip(before, source.state(), strict=True))


def test_data_that_can_be_read_once_only_is_refused() -> None:
    with pytest.raises(ValueError, match="train must start afresh every epoch"):
        Batches(train=iter(batches()), test=batches())
    with pytest.raises(ValueError, match="test must be an iterable"):
        Batches(train=batches(), test=3)  # type: ignore[arg-type]


def test_a_loss_that_is_no_number_is_refused() -> None:
    data = batches()
    data[2][0][0, 0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="the loss must be finite, and in epoch 1 it is nan: lower"):
        Trainer(Net, Batches(train=data, test=data), Recipe(), TrainConfig(float_epochs=1, fixed_epochs=0)).run()


@pytest.mark.parametrize(("fields", "text"), [
    ({"optimizer": "lion"}, "optimizer must be one of adamw, adam, sgd, not 'lion'"),
    ({"calibration_method": "max"}, "calibration_method must be one of minmax, mse"),
    ({"point_rate": float("nan")}, "point_rate must be a positive number, not nan"),
    ({"delay_points": 1.5}, r"delay_points must be in 0\.\.1"),
])
def test_bad_configurations(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TrainConfig(**fields)
