"""Given formats, binary points per tensor, and the recipe's keys for them; NaN, infinity and empty calibration in words."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Overflow, Rounding
from sw.quant import Recipe, RecipeError, codes_of, export, quantize_model
from sw.quant.finite import NonFiniteError, check_finite
from sw.quant.hot import DigitSet
from sw.quant.points import ActivationPoint, BinaryPoint
from sw.quant.ptq import post_training
from sw.quant.recipe import LayerRecipe, parse_format

Make = Callable[[int], nn.Module]
Images = Callable[[int, int], Tensor]


# --- recipe -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "fmt"), [
    ("s8f4", FixedFormat(8, 4)), ("fixed<8, 4>", FixedFormat(8, 4)), ("fixed<4,-2>", FixedFormat(4, 6)),
    ("ufixed<8, 0>", FixedFormat(8, 8, False)), ("fixed<4, 9>", FixedFormat(4, -5)), (FixedFormat(3, 1), FixedFormat(3, 1))])
def test_formats_in_text(text: Any, fmt: FixedFormat) -> None:
    assert parse_format("x", text) == fmt
    assert fmt.width - fmt.frac == fmt.integer_bits


def test_the_recipe_of_a_layer() -> None:
    recipe = Recipe(weight_bits=6, weight_digits=2, per_channel=False, batch_norm="layer", overrides={
        "a*": {"weight_format": "fixed<4, 1>", "activation_format": "u6f2", "weight_digits": 0},
        "ab": {"weight_bits": 5, "digit_kind": "signed"}})
    a, ab, b, first = recipe.layer("a"), recipe.layer("ab"), recipe.layer("b"), recipe.layer("b", first=True)
    assert (a.weight_bits, a.weight_format, a.weight_digits) == (4, FixedFormat(4, 3), 0)
    assert (a.activation_bits, a.activation_format) == (6, FixedFormat(6, 2, False))
    assert (ab.weight_bits, ab.weight_format, ab.digit_kind) == (5, None, "signed")  # the later pattern wins
    assert (b.weight_bits, b.weight_digits, b.per_channel, b.batch_norm) == (6, 2, False, "layer")
    assert first.weight_bits == 8 and Recipe(weight_digits=None).weight_digits == 0


def test_the_keys_in_toml(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text('weight_digits = 3\ndigit_kind = "signed"\nper_channel = false\nbatch_norm = "layer"\n'
                    '[overrides."stem"]\nweight_format = "fixed<8, 2>"\nactivation_format = "ufixed<8, 4>"\n')
    recipe = Recipe.from_toml(path)
    assert recipe == Recipe.from_toml_text(path.read_text())
    assert recipe.layer("stem").weight_format == FixedFormat(8, 6) and recipe.layer("stem").weight_digits == 3
    with pytest.raises(RecipeError, match="elsewhere: recipe has unknown keys"):
        Recipe.from_toml_text("weight_bit = 3", "elsewhere")


@pytest.mark.parametrize(("call", "text"), [
    (lambda: Recipe(weight_digits=9), r"weight_digits must be K, the most digits of a weight, 1\.\.8, or 0"),
    (lambda: Recipe(weight_digits=True), "weight_digits must be K"),
    (lambda: Recipe(digit_kind="hot"), "digit_kind must be one of k_hot, signed, not 'hot'"),
    (lambda: Recipe(per_channel=1), "per_channel must be true or false, not 1"),
    (lambda: Recipe(batch_norm="none"), "batch_norm must be one of fold, layer"),
    (lambda: LayerRecipe(weight_format="u8f4"), "weight_format must be signed"),
    (lambda: LayerRecipe(weight_format="fixed<9, 4>"), r"weight_format must have 2\.\.8 bits .* not s9f5"),
    (lambda: LayerRecipe(weight_format="s8f60"), r"-32\.\.48 fraction bits \(what the core holds\), not s8f60"),
    (lambda: LayerRecipe(activation_format="s8f30"), r"activation_format must have .* -16\.\.24 fraction bits"),
    (lambda: LayerRecipe(activation_format="fixed<8>"), "activation_format must be a FixedFormat or text such as"),
    (lambda: LayerRecipe(activation_format=8), "activation_format must be a FixedFormat or text such as"),
    (lambda: LayerRecipe(weight_format="s8f4", weight_bits=4), "weight_bits must be 8, as in weight_format s8f4"),
])
def test_bad_keys_are_refused(call: Callable[[], object], text: str) -> None:
    with pytest.raises(RecipeError, match=text):
        call()


# --- binary points ----------------------------------------------------------------------------------------------------


def test_a_given_format_is_kept() -> None:
    point = BinaryPoint(width=4, signed=False, overflow=Overflow.SAT_SYM, channels=3, fixed=FixedFormat(8, 5))
    point.fit(torch.randn(3, 50) * 100, Rounding.RND, "mse")
    assert (point.width, point.signed, bool(point.ready), point.integer_bits.requires_grad) == (8, True, True, False)
    assert point.frac(-10, torch.tensor([5, 6, 20])).tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match=r"format s8f5 was given, and here the fraction bits must be -10\.\.4"):
        point.frac(-10, torch.tensor([5, 4, 20]))
    with pytest.raises(ValueError, match="digits of 8 bits must limit a signed format"):
        BinaryPoint(width=8, signed=False, overflow=Overflow.SAT, digits=DigitSet(kind="k_hot", digits=1, width=8))


def test_one_point_for_the_tensor_lies_in_the_limits_of_every_channel() -> None:
    point = BinaryPoint(width=8, signed=True, overflow=Overflow.SAT_SYM)
    point.fit(torch.randn(3, 50), Rounding.RND, "mse")
    high = torch.tensor([20, 3, 9])
    assert point.frac(-10, high).tolist() == [3, 3, 3]
    values = torch.randn(3, 4)
    codes = point.codes(values, point.frac(-10, high), Rounding.RND)
    assert torch.equal(point.quantise(values, Rounding.RND, -10, high) * 8, codes)


@pytest.mark.parametrize("recipe", [
    Recipe(per_channel=False), Recipe(overrides={"mix": {"weight_format": "fixed<6, 1>"}, "side.0": {"per_channel": False}})])
def test_points_per_tensor_and_given_formats_freeze_exactly(every_layer: Make, images: Images, recipe: Recipe) -> None:
    model = post_training(every_layer(2), [images(16, 1)], recipe)
    x = images(6, 4)
    graph = export(model, x)
    shifts = {n.name: n.operation.requant.shift for n in graph.nodes if hasattr(n.operation, "weight")}
    same = {name for name, shift in shifts.items() if len(set(shift.tolist())) == 1}
    assert same >= ({"mix", "side.0"} if recipe.per_channel else set(shifts)) and len(shifts) > 10
    if recipe.per_channel:
        assert same != set(shifts)  # points per channel do differ elsewhere
        assert set(shifts["mix"]) == {5 + graph.tensors["max"].fmt.frac - graph.tensors["mix"].fmt.frac}
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert sum(codes.size for codes in theirs.values()) > 40_000
    assert sum(int((ours[name].numpy() != codes).sum()) for name, codes in theirs.items()) == 0


def test_a_given_format_does_not_learn(every_layer: Make, images: Images) -> None:
    model = quantize_model(every_layer(2), Recipe(overrides={"mix": {"weight_format": "s6f5"}}))
    model.calibrate([images(8, 1)])
    given = [p for name, p in model.named_parameters() if name == "layers.mix.point.integer_bits"]
    assert len(given) == 1 and all(p is not given[0] for p in model.binary_points())
    model.learn_points(True)
    sum(y.square().mean() for y in model.train()(images(4, 2))).backward()
    assert given[0].grad is None and all(p.grad is not None for p in model.binary_points())


# --- refused in words -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(every_layer: Make, value: float) -> None:
    model = every_layer(1)
    check_finite(model)
    with torch.no_grad():
        model.get_parameter("mix.weight")[0, 1] = value
        model.get_buffer("norm2.running_var")[2] = value
    with pytest.raises(NonFiniteError, match=r"norm2\.running_var: 1 values are NaN or infinite\n  mix\.weight: 1 values"):
        quantize_model(model)


def test_inputs_that_are_no_numbers_are_refused(every_layer: Make, images: Images) -> None:
    batch = images(4, 1)
    batch[0, 0, 0, 0] = float("inf")
    with pytest.raises(NonFiniteError, match="the values of input in the calibration must be finite"):
        post_training(every_layer(1), [batch])


@pytest.mark.parametrize("batches", [[], [torch.zeros(0, 3, 12, 12)]])
def test_an_empty_calibration_is_refused(every_layer: Make, batches: list[Tensor]) -> None:
    with pytest.raises(ValueError, match="calibration saw no values of input: give it at least one batch that is not empty"):
        post_training(every_layer(1), batches)


def test_an_unknown_method_is_refused(every_layer: Make, images: Images) -> None:
    with pytest.raises(ValueError, match="method must be one of minmax, mse, not 'max'"):
        post_training(every_layer(1), [images(4, 1)], None, "max")


# --- post-training ----------------------------------------------------------------------------------------------------


def test_post_training_takes_batches_of_a_loader_and_leaves_the_model_alone(images: Images) -> None:
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    x = images(8, 2)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    pairs, plain = (post_training(model, batches, Recipe(weight_bits=8)) for batches in ([(x, torch.zeros(8))], [x]))
    assert all(torch.equal(model.state_dict()[name], values) for name, values in before.items())
    assert torch.equal(pairs(x), plain(x)) and not pairs.training
    error = (pairs(x) - model(x)).abs().max() / model(x).abs().max()
    assert 0 < error < 0.1  # of fixed point, against float


def test_the_range_holds_every_value_and_the_squared_error_is_no_larger_by_mse() -> None:
    random = np.random.default_rng(1)
    values = torch.from_numpy(random.standard_t(3, (4, 500))).float()
    for width in (3, 4, 8):
        errors = {}
        for method in ("minmax", "mse"):
            point = ActivationPoint(width=width, signed=True)
            point.fit(values, Rounding.RND, method)
            on_grid = point.quantise(values, Rounding.RND, -16, 24).detach()
            errors[method] = float((on_grid - values).square().sum())
            if method == "minmax":
                top = (2 ** (width - 1) - 1) * 2.0 ** -point.fmt.frac
                assert top / 2 < float(values.abs().max()) <= top
        assert errors["mse"] <= errors["minmax"]
        assert width == 8 or errors["mse"] < errors["minmax"]
