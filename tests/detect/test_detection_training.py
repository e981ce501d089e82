"""Training of a small detector in float and in fixed point: it learns, repeats to the bit, and says in words what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from sw.data.scenes import Scenes, generate, sources
from sw.detect.decode import decode, detect
from sw.detect.evaluate import Truth, average_precision
from sw.detect.feeds import Feed, fresh_scenes, shuffled
from sw.detect.train import Report, Settings, Trained, train_detector
from sw.models.codenet import CodeNet, Operator
from sw.quant import NonFiniteError, Recipe, quantize_model


@pytest.fixture(scope="module")
def data() -> Scenes:
    return generate(sources()["train"], 12, 64, seed=6)


def network(operator: Operator = Operator.DEPTHWISE) -> CodeNet:
    torch.manual_seed(1)
    return CodeNet(10, widths=(12, 16, 24, 32, 32), units=(0, 0, 0), decoder=(32, 24, 24), operator=operator)


def trained(model: nn.Module, data: Scenes, progress: Any = None, **given: Any) -> Trained:
    settings = Settings(**{"steps": 6, "rate": 5e-3, "report": 4, **given})
    return train_detector(model, shuffled(data, 6, seed=3), settings, classes=10, progress=progress)


def precision(model: nn.Module, data: Scenes) -> float:
    wanted = [Truth(boxes=boxes, labels=labels) for boxes, labels in zip(data.boxes, data.labels, strict=True)]
    return average_precision(detect(model, data.images), wanted).ap50


def few(data: Scenes) -> Scenes:
    """The six scenes that the small network learns by heart."""
    return Scenes(images=data.images[:6], boxes=data.boxes[:6], labels=data.labels[:6])


@pytest.fixture(scope="module")
def learned(data: Scenes) -> tuple[CodeNet, Trained]:
    model = network()
    return model, trained(model, few(data), steps=120, report=50)


def test_a_float_detector_learns_its_images(data: Scenes, learned: tuple[CodeNet, Trained]) -> None:
    model, run = learned
    assert len(run.losses) == 120 and run.losses[-1] < 0.1 * run.losses[0]
    assert not model.training
    assert precision(model, few(data)) > 0.9 > 0.1 > precision(network(), few(data))


def test_a_fixed_point_detector_learns_weights_and_points(data: Scenes, learned: tuple[CodeNet, Trained]) -> None:
    data, model = few(data), quantize_model(learned[0], Recipe())
    model.calibrate([data.images])
    points = {id(point) for point in model.binary_points()}
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    run = trained(model, data, steps=30, rate=5e-4, point_rate=3e-3)
    moved = {id(value) in points for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {True, False}
    assert run.losses[-1] < 0.5 * run.losses[0]
    model.freeze()
    assert precision(model, data) > 0.9


def test_binary_points_are_held_at_the_end(data: Scenes) -> None:
    model = quantize_model(network(), Recipe())
    model.calibrate([data.images])
    seen: list[list[float]] = []
    trained(model, data, lambda report: seen.append([float(point.detach()) for point in model.binary_points() if point.numel() == 1]),
            steps=5, report=1, hold_points=0.4)
    assert seen[0] != seen[1] != seen[2] and seen[2] == seen[3] == seen[4]


def test_integer_codes_of_a_deformable_detector_decode_to_the_same_boxes(data: Scenes) -> None:
    model = quantize_model(network(Operator.SQUARE_DEPTHWISE), Recipe())
    model.calibrate([data.images])
    trained(model, data, steps=2)
    model.freeze()
    codes = model.trace(data.images)
    scales = [2.0 ** -model.point(name).fmt.frac for name in model.outputs]
    found = decode([codes[name] for name in model.outputs], scales=scales)
    for a, b in zip(found, detect(model, data.images), strict=True):
        assert len(a.scores) > 5
        assert torch.equal(a.boxes, b.boxes) and torch.equal(a.scores, b.scores) and torch.equal(a.labels, b.labels)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_repeats_to_the_bit(data: Scenes, optimizer: str) -> None:
    first, second, other = network(), network(), network()
    runs = [trained(first, data, optimizer=optimizer), trained(second, data, optimizer=optimizer), trained(other, data, rate=4e-3)]
    assert runs[0].losses == runs[1].losses != runs[2].losses
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_reports_are_means_of_the_losses_and_rates_warm_up_and_fall(data: Scenes) -> None:
    seen: list[Report] = []
    run = trained(network(), data, seen.append, steps=10, report=1, rate=1e-3, warm_up=0.2)
    assert tuple(seen) == run.reports and [report.step for report in seen] == list(range(1, 11))
    assert [report.rate for report in seen] == pytest.approx(
        [5e-4, 1e-3] + [5e-4 * (1 + math.cos(math.pi * i / 8)) for i in range(8)])
    for report, loss in zip(seen, run.losses, strict=True):
        assert report.total == pytest.approx(report.heat + 0.1 * report.size + report.shift, rel=1e-5)
        assert report.total == loss
    run = trained(network(), data, steps=6, report=4)
    assert [report.step for report in run.reports] == [4, 6]
    assert run.reports[0].total == pytest.approx(sum(run.losses[:4]) / 4, rel=1e-5)
    assert run.reports[1].total == pytest.approx(sum(run.losses[4:]) / 2, rel=1e-5)


def test_a_loss_that_is_no_number_is_refused_before_any_weight_changes(data: Scenes) -> None:
    model = network()
    damaged = Scenes(images=data.images.clone(), boxes=data.boxes, labels=data.labels)
    damaged.images[5, 0, 3, 3] = math.nan
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(NonFiniteError, match=r"the loss must be finite, and in step 1 it is not \(total nan, .*lower the rate"):
        train_detector(model, shuffled(damaged, 12, seed=0), Settings(steps=2), classes=10)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_a_gradient_that_is_no_number_is_refused(data: Scenes) -> None:
    model = network()
    model.last[0].weight.register_hook(lambda gradient: gradient * math.inf)  # type: ignore[union-attr, operator]
    with pytest.raises(NonFiniteError, match="the gradient must be finite, and in step 1 its norm is"):
        trained(model, data)


def test_what_cannot_be_trained_is_refused(data: Scenes) -> None:
    with pytest.raises(ValueError, match=r"must be in mode QAT to be trained, not .*: call calibrate\(\) first"):
        trained(quantize_model(network(), Recipe()), data)
    with pytest.raises(ValueError, match="at least one batch an epoch, and there is none in epoch 0"):
        train_detector(network(), lambda epoch: [], Settings(), classes=10)
    with pytest.raises(ValueError, match=r"label must be in 0\.\.1"):
        train_detector(network(), shuffled(data, 4, seed=1), Settings(), classes=2)
    with pytest.raises(ValueError, match="parameters that learn"):
        trained(network().requires_grad_(False), data)


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [("steps", 0, "whole number from 1"), ("rate", math.nan, "finite number"), ("clip", 0.0, "finite number from 1e-09"),
     ("warm_up", 1.0, "below 1"), ("optimizer", "lion", "one of adamw, sgd, not 'lion'"), ("seed", "1", "of type int, not '1'")],
)
def test_settings_out_of_range_are_refused(entry: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"Settings {entry} must be .*{message}"):
        Settings(**{entry: value})


def images(feed: Feed, epoch: int) -> list[bytes]:
    return [image.numpy().tobytes() for batch in feed(epoch) for image in batch.images]


def test_shuffled_epochs_are_permutations_that_keep_boxes_with_their_image(data: Scenes) -> None:
    feed, place = shuffled(data, 4, seed=2), {image.numpy().tobytes(): i for i, image in enumerate(data.images)}
    first, second = images(feed, 0), images(feed, 1)
    assert sorted(first) == sorted(second) == sorted(place) and first != second and first == images(feed, 0)
    for batch in feed(0):
        for image, boxes, labels in zip(*batch, strict=True):
            i = place[image.numpy().tobytes()]
            assert torch.equal(boxes, data.boxes[i]) and torch.equal(labels, data.labels[i])
    assert len(images(shuffled(data, 5, seed=2), 0)) == 10
    with pytest.raises(ValueError, match="at most the 12 that there are, not 13"):
        shuffled(data, 13, seed=2)


def test_fresh_scenes_are_new_in_every_epoch() -> None:
    feed = fresh_scenes(sources()["train"], 9, 32, 4, seed=1)
    first, second = images(feed, 0), images(feed, 1)
    assert len(set(first + second)) == 16 and first == images(feed, 0)
