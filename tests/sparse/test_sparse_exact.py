"""Exact training: compiled products equal to the definition, loss scale, resumed runs, operands."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hw.spec.training import DEFINITION, Hyper
from sw.sparse import (
    CheckpointError,
    DivergedError,
    ExactTrainer,
    LossScaling,
    export,
    hyper_of,
    load_into,
    ordered_products,
)
from sw.sparse.exact import half_images
from sw.training_graph import TrainingState
from tests.sparse.exact_networks import batch, network, sgd, trained
from tests.sparse.killed_exact import STEPS, run, trainer

PROGRAM = Path(__file__).with_name("killed_exact.py")
F16, F32 = np.float16, np.float32


def same(first: TrainingState, second: TrainingState) -> int:
    """Number of values compared, on every bit."""
    ours, theirs, compared = first.arrays(), second.arrays(), 0
    assert set(ours) == set(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array.view(np.uint32), theirs[name].view(np.uint32), err_msg=name)
        compared += array.size
    return compared


# --- products --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vgg", "forms"])
def test_kernels_equal_the_definition_over_three_steps(name: str) -> None:
    """Every array of the state after each step, from a state with momenta."""
    model, optimizer = trained(name)
    graph = export(model, optimizer, batch(name)[0])
    training, state, compared = ExactTrainer(graph, scaling=LossScaling(initial=512), threads=2), graph.state, 0
    for step in range(3):
        images, labels = batch(name, 20 + step)
        hyper = hyper_of(model, optimizer, 512.0)
        result = training.step(images, labels, hyper)
        expected = graph.step(state, half_images(images), labels.numpy(), hyper, DEFINITION)
        state = expected.state
        compared += same(training.state, state)
        np.testing.assert_array_equal(result.logits.view(np.uint16), expected.logits.view(np.uint16))
        assert training.history[-1].loss == expected.loss and not expected.skipped
    assert compared > 5000 and same_as_before(graph.state, state) > 20


def same_as_before(before: TrainingState, after: TrainingState) -> int:
    """Arrays that a training has changed."""
    later = after.arrays()
    return sum(not np.array_equal(array, later[name]) for name, array in before.arrays().items())


# --- loss scale and checkpoints --------------------------------------------------------------------------------------------


def overflowing(scaling: LossScaling) -> ExactTrainer:
    """Weights of the last layer so large that scaled gradients pass 65504."""
    graph = export(*trained("vgg"), batch("vgg")[0])
    head = graph.state.weights["head"]
    large = {**graph.state.weights, "head": replace(head, master=head.master * F32(200))}
    return ExactTrainer(replace(graph, state=replace(graph.state, weights=large)), scaling=scaling)


def test_a_step_that_saturates_is_skipped_and_halves_the_scale() -> None:
    training = overflowing(LossScaling(initial=2.0**15, growth_steps=2))
    hyper, skipped = Hyper(learning_rate=1e-6), 0
    for step in range(12):
        before = training.state
        result = training.step(*batch("vgg", step), hyper)
        record = training.history[-1]
        assert record.skipped == result.skipped == result.gradients.saturated
        if record.skipped:
            skipped += 1
            names = {n for n, a in training.state.arrays().items() if not np.array_equal(a, before.arrays()[n])}
            assert names and all(name.endswith(("running_mean", "running_variance")) for name in names)
            assert training.scale.value == record.loss_scale / 2 and training.scale.good_steps == 0
        else:
            assert not np.array_equal(training.state.weights["head"].master, before.weights["head"].master)
            assert training.scale.value == record.loss_scale or training.scale.value == 2 * record.loss_scale
    scales = [record.loss_scale for record in training.history]
    grown = [b for a, b in pairwise(scales) if b == 2 * a]
    assert skipped >= 2 and grown and scales[0] == 2.0**15 and min(scales) < 2.0**14, scales


def test_saturation_at_the_smallest_scale_is_said() -> None:
    training = overflowing(LossScaling(initial=2.0**15, smallest=2.0**15))
    with pytest.raises(DivergedError, match="gradients saturate at the smallest loss scale, 32768: the training diverged"):
        training.step(*batch("vgg"), Hyper(learning_rate=0.1))
    assert not training.history and training.state is training.graph.state and training.scale.value == 2.0**15


@pytest.mark.parametrize(("options", "words"), [
    ({"initial": 1000.0}, r"initial must be a power of two of at most 32768, not 1000"),
    ({"largest": 65536.0}, r"largest must be a power of two of at most 32768, not 65536"),
    ({"initial": 0.5}, r"initial must be in 1\.0\.\.32768\.0, not 0\.5"),
    ({"growth_steps": -1}, "growth_steps must be at least 0, not -1"),
])  # fmt: skip
def test_bad_scalings_raise(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        LossScaling(**options)


@pytest.fixture(scope="module")
def whole() -> ExactTrainer:
    training = trainer()
    run(training)
    assert [record.loss_scale for record in training.history] == [64, 64, 128, 128, 256, 256, 512]
    return training


@pytest.mark.parametrize("stop", [0, 1, 4, STEPS])
def test_a_resumed_training_is_the_uninterrupted_one(whole: ExactTrainer, tmp_path: Path, stop: int) -> None:
    first, second = trainer(), trainer()
    run(first, stop=stop)
    first.save(tmp_path / "a")
    second.load(tmp_path / "a")
    run(second)
    assert same(second.state, whole.state) > 1000
    assert second.history == whole.history and second.scale == whole.scale


def test_a_killed_training_ends_as_if_it_had_not_been(whole: ExactTrainer, tmp_path: Path) -> None:
    path = tmp_path / "killed.checkpoint"
    process = subprocess.Popen([sys.executable, str(PROGRAM), str(path), "3"])
    end = time.monotonic() + 120
    while process.poll() is None and not (path.exists() and len(torch.load(path, weights_only=True)["history"]) == 3):
        assert time.monotonic() < end, "the training did not come so far in time"
        time.sleep(0.1)
    assert process.poll() is None, "it should sleep before its fourth step"
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = trainer()
    resumed.load(path)
    assert len(resumed.history) == 3
    run(resumed, path)
    assert same(resumed.state, whole.state) > 1000 and resumed.history == whole.history
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_checkpoints_are_refused_and_change_nothing(whole: ExactTrainer, tmp_path: Path) -> None:
    training = trainer()
    before = training.state
    good = whole.state_dict()
    other = export(*trained("forms"), batch("forms")[0])
    arrays = good["arrays"]
    for content, words in (
        ({**good, "version": 2}, "its version must be 1, not 2"),
        (ExactTrainer(other, scaling=training.scaling).state_dict(), "it is of another graph"),
        (ExactTrainer(training.graph).state_dict(), "its loss scaling is"),
        ({**good, "arrays": {k: v for k, v in arrays.items() if k != "head.master"}}, r"arrays \['head.master'\] are in one"),
        ({**good, "arrays": {**arrays, "head.master": arrays["head.master"] * float("nan")}}, r"head\.master must be finite"),
        ({**good, "arrays": {**arrays, "head.master": arrays["head.master"].double()}}, r"head\.master must be finite float32"),
        ({**good, "scale": {"value": 64}}, "Scale must have"),
        ({**good, "history": [{"loss": "x"}]}, "StepRecord must have"),
        ({}, "does not continue this training"),
    ):
        with pytest.raises(CheckpointError, match=words):
            training.load_state_dict(content)
    for damage in (b"", b"no checkpoint", _saved(whole, tmp_path)[:-100]):
        (tmp_path / "bad").write_bytes(damage)
        with pytest.raises(CheckpointError, match="bad is not a usable checkpoint"):
            training.load(tmp_path / "bad")
    assert training.state is before and not training.history


def _saved(training: ExactTrainer, folder: Path) -> bytes:
    training.save(folder / "good")
    return (folder / "good").read_bytes()


def test_the_trained_graph_goes_to_a_file_and_into_torch(whole: ExactTrainer) -> None:
    model = network("vgg", seed=8)
    load_into(model, sgd(model), whole.state)
    images, _ = batch("vgg", 50)
    logits = whole.logits(images[:4])  # any number of images
    assert logits.dtype == np.float16
    np.testing.assert_allclose(logits, model.eval()(images[:4]).detach().numpy(), atol=0.02)  # FP16 against torch's FP32
    again = type(whole.graph).from_bytes(whole.trained().to_bytes())
    assert same(again.state, whole.state) > 1000


def test_products_do_not_depend_on_threads() -> None:
    graph = export(*trained("vgg"), batch("vgg")[0])
    images, labels = batch("vgg")
    states = [graph.step(graph.state, half_images(images), labels.numpy(), Hyper(learning_rate=0.1), ordered_products(threads)).state
              for threads in (1, 3)]
    assert same(*states) > 1000


# --- operands --------------------------------------------------------------------------------------------------------------


def test_images_are_rounded_once() -> None:
    """A value just above the middle between two FP16, which float32 rounds onto the middle: the even neighbour would be wrong."""
    value = 1 + 2.0**-11 + 2.0**-40
    wide = torch.full((1, 1, 1, 1), value, dtype=torch.float64)
    assert half_images(wide)[0, 0, 0, 0] == F16(1 + 2.0**-10) and F16(F32(value)) == 1
    images = torch.randn(2, 3, 4, 5)
    np.testing.assert_array_equal(half_images(images), images.permute(0, 2, 3, 1).half().numpy())
    np.testing.assert_array_equal(half_images(images.bfloat16()), images.bfloat16().float().permute(0, 2, 3, 1).half().numpy())
    np.testing.assert_array_equal(half_images(images.numpy()), half_images(images))


@pytest.mark.parametrize(("images", "words"), [
    (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), r"images must be floats \(N, C, H, W\), not uint8"),
    (torch.zeros(2, 3, 4), r"of shape \(2, 3, 4\)"),
    (torch.full((1, 1, 1, 2), float("nan")), "2 of 2 values are NaN or infinite"),
    (np.full((1, 1, 1, 1), 65505.0), "at most 65504 in magnitude, not 65505"),
])  # fmt: skip
def test_other_images_are_refused(images: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        half_images(images)


def test_other_labels_and_batches_are_refused() -> None:
    training = trainer()
    images, labels = batch("vgg")
    hyper = Hyper(learning_rate=0.1)
    with pytest.raises(ValueError, match=r"labels must be integers \(N,\), not float32"):
        training.step(images, labels.float(), hyper)
    with pytest.raises(ValueError, match="labels must be 6 classes"):
        training.step(images, labels + 5, hyper)
    with pytest.raises(ValueError, match="images must be finite float16"):
        training.step(images[:3], labels[:3], hyper)
    assert not training.history
