"""Brevitas models as integer graphs: equal where nothing is told, told where not, refused where there is no counterpart."""

from __future__ import annotations

from collections.abc import Callable

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.inject.enum import FloatToIntImplType, ScalingPerOutputType
from brevitas.quant import (
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn

from hw.spec.fixed import Rounding
from sw.compiler import compile_graph
from sw.quant.brevitas import (
    BrevitasImport,
    ImportedScaleWarning,
    UnsupportedBrevitasError,
    examine_brevitas,
    import_brevitas,
)
from sw.runtime import open_device
from tests.e2e.tiny import ARCH
from tests.quant.brevitas_models import FixedPointNet, FloatScaleNet, identity, relu, trained

SHAPES = {FixedPointNet: (3, 16, 16), FloatScaleNet: (3, 10, 10)}


def made(kind: type[nn.Module], seed: int = 3, **options: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return trained(kind(**options), SHAPES[kind])


def images(kind: type[nn.Module], count: int) -> Tensor:
    return torch.randn(count, *SHAPES[kind], generator=torch.Generator().manual_seed(8))


def brevitas_codes(model: nn.Module, x: Tensor) -> np.ndarray:
    """Brevitas' own output codes (N, features), int64."""
    with torch.no_grad():
        return model(x).int().to(torch.int64).numpy()


def alive(codes: np.ndarray) -> bool:
    return all(len(np.unique(codes[:, i])) > 2 for i in range(codes.shape[1]))


# --- equal end to end


@pytest.mark.parametrize("kind", [FixedPointNet, FloatScaleNet])
def test_a_model_is_exact_from_brevitas_to_the_program(kind):
    model, x = made(kind), images(kind, 48)
    found = examine_brevitas(model, x[:1])
    assert found.differences == () and found.proven > 50_000
    expected = brevitas_codes(model, x)
    assert alive(expected)
    codes = found.input_codes(x)
    (graph_codes,) = found.graph(codes).values()
    np.testing.assert_array_equal(graph_codes[:, :, 0, 0], expected)
    outputs, _ = open_device("interpreter").run(compile_graph(found.graph, ARCH), {k: v[:4] for k, v in codes.items()})
    (program_codes,) = outputs.values()
    np.testing.assert_array_equal(program_codes[:, :, 0, 0], expected[:4])
    print(f"{kind.__name__}: {expected.size} output codes compared, {found.proven} accumulator values proven, "
          f"{found.close} close to an edge")
    assert graph_codes.size == expected.size > 200 and program_codes.size > 20


@pytest.mark.slow
def test_a_model_is_exact_in_rtl():
    model, x = made(FixedPointNet), images(FixedPointNet, 2)
    found = examine_brevitas(model, x[:1])
    device = open_device("sim", arch=ARCH)
    outputs, _ = device.run(compile_graph(found.graph, ARCH), found.input_codes(x))
    (codes,) = outputs.values()
    np.testing.assert_array_equal(codes[:, :, 0, 0], brevitas_codes(model, x))
    assert codes.size == 20


def test_import_brevitas_gives_the_graph_alone():
    model, x = made(FixedPointNet), images(FixedPointNet, 1)
    assert import_brevitas(model, x).to_bytes() == examine_brevitas(model, x).graph.to_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_rounding_down_is_the_cores_own(seed):
    """Brevitas' float scale may put an accumulator on the other side of an edge; the import has said so, and how far it can be off."""
    torch.manual_seed(seed)
    model = nn.Sequential(identity(), qnn.QuantConv2d(3, 8, 1, bias=False),
                          relu(float_to_int_impl_type=FloatToIntImplType.FLOOR))
    trained(model, (3, 6, 6))
    x = torch.randn(32, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    found = examine_brevitas(model, x[:1])
    assert [node.operation.requant.rounding for node in found.graph.nodes] == [Rounding.TRN]
    (codes,) = found.graph(found.input_codes(x)).values()
    expected = brevitas_codes(model, x)
    wrong = int((codes != expected).sum())
    assert codes.size == 9216 and wrong < 0.005 * codes.size
    told = max((difference.largest for difference in found.differences), default=int(found.close > 0))
    assert np.abs(codes - expected).max() <= told


# --- differences are told, and no other happen


def layer_codes(model: nn.Module, x: Tensor, names: tuple[str, ...]) -> list[np.ndarray]:
    """Brevitas' codes behind some layers, (N, C, H, W)."""
    seen: dict[str, np.ndarray] = {}
    hooks = [getattr(model, name).register_forward_hook(
        lambda module, inputs, output, name=name: seen.__setitem__(name, output.int().to(torch.int64).numpy()))
        for name in names]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    return [seen[name] if seen[name].ndim == 4 else seen[name][:, :, None, None] for name in names]


def test_what_differs_is_told_and_no_more():
    model, x = made(FloatScaleNet, norm=True), images(FloatScaleNet, 64)
    with pytest.warns(ImportedScaleWarning, match=r"first: \d+ of \d+ sums, .* at most 1 away"):
        graph = import_brevitas(model, x[:1])
    found = examine_brevitas(model, x[:1])
    told = {difference.place: difference for difference in found.differences}
    codes = layer_codes(model, x, ("quant", "first_relu", "second_relu", "mean_quant", "head_quant"))
    wrong = {}
    for node, before, after in zip(graph.nodes, codes, codes[1:], strict=False):
        gap = np.abs(node.operation(before) - after)
        wrong[node.name] = int((gap > 0).sum()), int(gap.max()), gap.size
    print(f"float biases: wrong codes by layer {wrong}; told {[str(d) for d in told.values()]}; close {found.close}")
    assert wrong["first"][0] > 0 and sum(size for _, _, size in wrong.values()) > 100_000
    for name, (count, largest, _) in wrong.items():
        assert count == 0 or (name in told and largest <= told[name].largest)
    assert "mean" not in told and wrong["mean"][0] == 0
    span = np.abs(graph.nodes[0].operation.weight).sum() * (found.input_range[1] - found.input_range[0])
    assert told["first"].sums == span + 16  # every accumulator of 16 channels, of either sign


# --- what is refused


def conv(**options: object) -> nn.Module:
    return qnn.QuantConv2d(3, 8, 3, bias=False, **options)


class Unshared(nn.Module):
    """A sum of two formats; Brevitas refuses it itself where it knows the scales."""

    def __init__(self, known: bool) -> None:
        super().__init__()
        self.quant, self.other = identity(), identity(scaling_impl_type="const", scaling_init=1.0)
        self.quant.return_quant_tensor = self.other.return_quant_tensor = known

    def forward(self, x: Tensor) -> Tensor:
        y = self.quant(x)
        return self.other(self.quant(y) + self.other(y))


REFUSED: list[tuple[str, Callable[[], nn.Module], str]] = [
    ("zero point", lambda: nn.Sequential(identity(ShiftedUint8ActPerTensorFloat), conv(), relu()), "0: .* has zero point"),
    ("weights' zero point",
     lambda: nn.Sequential(identity(), conv(weight_quant=ShiftedUint8WeightPerTensorFloat), relu()), "1: .* zero point"),
    ("9 bits", lambda: nn.Sequential(identity(), conv(), relu(bit_width=9)), "2: .* has 9 bits"),
    ("9-bit weights", lambda: nn.Sequential(identity(), conv(weight_bit_width=9), relu()), "1: .* weights of 9 bits"),
    ("float weights", lambda: nn.Sequential(identity(), conv(weight_quant=None), relu()), "1: .* has float weights"),
    ("rounding up", lambda: nn.Sequential(identity(), conv(), relu(float_to_int_impl_type=FloatToIntImplType.CEIL)),
     "2: .* rounds by CEIL"),
    ("scale per channel",
     lambda: nn.Sequential(identity(), conv(), relu(Uint8ActPerTensorFloat, per_channel_broadcastable_shape=(1, 8, 1, 1),
                                                    scaling_stats_permute_dims=(1, 0, 2, 3),
                                                    scaling_per_output_type=ScalingPerOutputType.CHANNEL)),
     r"2: .* has 8 scales"),
    ("dilation", lambda: nn.Sequential(identity(), conv(dilation=2), relu()), "1: .* has dilation"),
    ("float output", lambda: nn.Sequential(identity(), conv()), "output: .* is not quantised"),
    ("float input", lambda: nn.Sequential(conv(), relu()), "0: .* reads a tensor that is not quantised"),
    ("BatchNorm alone", lambda: nn.Sequential(identity(), nn.BatchNorm2d(3), identity()), "1: .* does not follow"),
    ("truncating pool", lambda: nn.Sequential(identity(), qnn.TruncAvgPool2d(2)), "1: .* truncates the mean"),
    ("other activation", lambda: nn.Sequential(identity(), conv(), qnn.QuantSigmoid()), "2: .* has no integer operation"),
    ("unshared sum", lambda: Unshared(False), "add: .* adds tensors of scales"),
    ("unshared sum in Brevitas", lambda: Unshared(True), "does not run on the example input .*Scaling factors are different"),
]


@pytest.mark.parametrize(("build", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_has_no_counterpart_is_refused(build, message):
    model = trained(build(), (3, 8, 8))
    with pytest.raises(UnsupportedBrevitasError, match=message):
        examine_brevitas(model, torch.randn(1, 3, 8, 8))


def test_a_quantiser_that_still_collects_statistics_is_refused():
    model = nn.Sequential(identity(), conv(), qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True))
    trained(model, (3, 8, 8))
    with pytest.raises(UnsupportedBrevitasError, match=r"2: QuantReLU still collects statistics \(step 4 of 300\)"):
        examine_brevitas(model, torch.randn(1, 3, 8, 8))


def test_every_refusal_is_listed_at_once():
    model = nn.Sequential(identity(), conv(weight_bit_width=9), relu(), qnn.QuantConv2d(8, 8, 1, dilation=2), relu(bit_width=9))
    trained(model, (3, 8, 8))
    with pytest.raises(UnsupportedBrevitasError) as error:
        examine_brevitas(model, torch.randn(1, 3, 8, 8))
    assert [problem.place for problem in error.value.problems] == ["1", "3", "4"]
    assert "3 thing(s)" in str(error.value)


def test_a_model_that_cannot_be_traced_is_refused():
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UnsupportedBrevitasError, match="cannot be traced"):
        examine_brevitas(Branching(), torch.ones(1, 3, 4, 4))


def test_the_model_is_left_as_it_was():
    model = made(FixedPointNet).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found: BrevitasImport = examine_brevitas(model, images(FixedPointNet, 1))
    assert model.training and found.graph.nodes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
