"""The float square deformable convolution against a direct definition, its gradients, and integers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx.backend.test.loader import load_model_tests
from onnx.reference import ReferenceEvaluator

from hw.spec.fixed import Rounding
from hw.spec.ops import Conv2d, DeformConv2d, DeformDepthwiseConv2d, Requant, identity_requant
from sw.quant import Recipe, codes_of, deform_conv2d, export, quantize_model, unsupported
from sw.quant.deform import DeformConv2d as DeformLayer
from sw.quant.emulate import Geometry, deform_conv_codes
from sw.quant.primitives import SquareDeform, square_deform, square_samples, whole_samples
from sw.quant.recipe import RecipeError


def corner(image: np.ndarray, y: int, x: int) -> float:
    return float(image[y, x]) if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] else 0.0


def bilinear(image: np.ndarray, y: float, x: float) -> float:
    top, left = math.floor(y), math.floor(x)
    return sum(corner(image, top + i, left + j) * (1 - abs(y - top - i)) * (1 - abs(x - left - j))
               for i in (0, 1) for j in (0, 1))


@pytest.mark.parametrize("stride", [1, 2])
def test_against_the_definition(stride: int) -> None:
    random = np.random.default_rng(stride)
    x, weight = random.normal(size=(2, 3, 7, 6)), random.normal(size=(3, 1, 3, 3))
    offset = random.uniform(-9, 10, (2, 1, -(-7 // stride), -(-6 // stride)))
    ours = square_deform(*(torch.from_numpy(a) for a in (x, offset, weight)), stride).numpy()
    expected = np.zeros_like(ours)
    for n, c, y, col in np.ndindex(*ours.shape):
        s = min(max(offset[n, 0, y, col], -7), 8)
        expected[n, c, y, col] = sum(
            weight[c, 0, i, j] * bilinear(x[n, c], y * stride + s * (i - 1), col * stride + s * (j - 1))
            for i in range(3) for j in range(3))
    assert expected.std() > 0.1 and np.allclose(ours, expected, rtol=1e-9, atol=1e-9)  # float sums in another order


def test_integer_offsets_give_the_golden_operation() -> None:
    random = np.random.default_rng(5)
    x, weight = random.integers(-128, 128, (2, 4, 9, 9)), random.integers(-7, 8, (4, 3, 3))
    s = random.integers(-9, 11, (2, 1, 9, 9))
    golden = DeformDepthwiseConv2d(weight=weight, requant=identity_requant(4, -256, 255))(x, s)
    ours = square_deform(torch.from_numpy(x).double(), torch.from_numpy(s).double(),
                         torch.from_numpy(weight[:, None]).double(), 1)
    assert golden.size == 648 and np.array_equal(ours.clamp(-256, 255).numpy(), golden)


def test_gradients_against_finite_differences() -> None:
    torch.manual_seed(2)
    x = torch.randn(1, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    # Away from integers, where the bilinear sample has a kink.
    offset = (torch.randint(-2, 3, (1, 1, 5, 5)) + torch.rand(1, 1, 5, 5) * 0.6 + 0.2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b, c: square_deform(a, b, c, 1), (x, offset, weight))


def test_offset_one_is_an_ordinary_convolution() -> None:
    torch.manual_seed(3)
    layer = SquareDeform(4, bias=True)
    x = torch.randn(2, 4, 6, 6)
    plain = torch.nn.functional.conv2d(x, layer.weight, layer.bias, padding=1, groups=4)
    assert torch.allclose(layer(x, torch.ones(2, 1, 6, 6)), plain, atol=1e-5)


GENERAL = [  # stride, padding, dilation, groups, offset groups, masked
    (1, 1, 1, 1, 1, False), (2, 1, 1, 1, 2, True), (1, 0, 2, 2, 1, True), ((2, 1), (0, 2), (1, 2), 4, 4, True)]


@pytest.mark.parametrize(("stride", "padding", "dilation", "groups", "offset_groups", "masked"), GENERAL)
def test_general_operator_against_onnx(stride, padding, dilation, groups, offset_groups, masked) -> None:
    pair = lambda v: v if isinstance(v, tuple) else (v, v)  # noqa: E731
    (sh, sw), (ph, pw), (dh, dw) = pair(stride), pair(padding), pair(dilation)
    size = ((9 + 2 * ph - 2 * dh - 1) // sh + 1, (8 + 2 * pw - dw - 1) // sw + 1)
    random = np.random.default_rng(7)
    arrays = {
        "x": random.normal(size=(2, 4, 9, 8)), "w": random.normal(size=(8, 4 // groups, 3, 2)),
        "o": random.normal(size=(2, 12 * offset_groups, *size)) * 2, "b": random.normal(size=8),
        "m": random.uniform(size=(2, 6 * offset_groups, *size))}
    arrays = {k: v.astype(np.float32) for k, v in arrays.items() if k != "m" or masked}
    node = onnx.helper.make_node(
        "DeformConv", ["x", "w", "o", "b", *(["m"] if masked else [])], ["y"], kernel_shape=[3, 2], strides=[sh, sw],
        pads=[ph, pw, ph, pw], dilations=[dh, dw], group=groups, offset_group=offset_groups)
    expected = ReferenceEvaluator(node).run(None, arrays)[0]
    t = {k: torch.from_numpy(v) for k, v in arrays.items()}
    ours = deform_conv2d(t["x"], t["o"], t["w"], t["b"], stride, padding, dilation, t.get("m")).numpy()
    assert ours.shape == expected.shape and expected.std() > 0.1
    assert np.allclose(ours, expected, rtol=1e-4, atol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize("name", ["test_basic_deform_conv_with_padding", "test_basic_deform_conv_without_padding",
                                  "test_deform_conv_with_mask_bias", "test_deform_conv_with_multiple_offset_groups"])
def test_general_operator_on_the_node_tests_of_onnx(name: str) -> None:
    """Inputs and results that ONNX ships."""
    tests = load_model_tests(kind="node")
    (folder,) = [Path(test.model_dir) for test in tests if test.name == name]
    (node,) = onnx.load(folder / "model.onnx").graph.node
    given = {a.name: list(a.ints) or a.i for a in node.attribute}

    def tensor(file: str) -> torch.Tensor:
        read = onnx.TensorProto.FromString((folder / "test_data_set_0" / file).read_bytes())
        return torch.from_numpy(onnx.numpy_helper.to_array(read).copy())

    names = dict(zip(("x", "w", "o", "b", "m"), node.input, strict=False))
    t = {short: tensor(f"input_{i}.pb") for i, short in enumerate(short for short, name in names.items() if name)}
    stride, dilation, pads = given.get("strides", [1, 1]), given.get("dilations", [1, 1]), given.get("pads", [0] * 4)
    assert pads[:2] == pads[2:]
    ours = deform_conv2d(t["x"], t["o"], t["w"], t.get("b"), tuple(stride), tuple(pads[:2]), tuple(dilation), t.get("m"))
    expected = tensor("output_0.pb")
    assert ours.shape == expected.shape and expected.numel() >= 4
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", range(8))
def test_samples_on_the_border_and_far_outside(seed: int) -> None:
    """Float64 against the reference of ONNX, 1e-9: whole offsets, quarters, samples at -1, 0, H - 1, H and beside them, far away."""
    random = np.random.default_rng(seed)
    height, width, kernel = 5, 6, 3
    ends = np.array([-1.0, 0.0, height - 1, width - 1, height, width])
    targets = np.concatenate([ends, ends + 0.25, ends - 0.25, np.nextafter(ends, 99), np.nextafter(ends, -99), [-1000, 1000.5]])
    wanted = random.choice(targets, (2, 2 * kernel * kernel, height, width))
    free = random.integers(-12, 13, wanted.shape) / 4
    base = np.stack([np.arange(height)[:, None] + np.zeros((1, width)), np.arange(width)[None] + np.zeros((height, 1))])
    taps = np.array([(i - 1, j - 1) for i in range(kernel) for j in range(kernel)]).reshape(-1, 2, 1, 1)
    regular = (taps + base).reshape(1, -1, height, width)
    offset = np.where(random.random(wanted.shape) < 0.5, wanted - regular, free)
    x, w = random.normal(size=(2, 4, height, width)), random.normal(size=(6, 4, kernel, kernel))
    node = onnx.helper.make_node("DeformConv", ["x", "w", "o"], ["y"], kernel_shape=[kernel] * 2, pads=[1] * 4)
    expected = ReferenceEvaluator(node).run(None, {"x": x, "w": w, "o": offset})[0]
    ours = deform_conv2d(*(torch.from_numpy(v) for v in (x, offset, w)), padding=1).numpy()
    rows = (offset + regular)[:, ::2]
    assert all((rows == end).any() for end in (-1, 0, height - 1, height)) and (np.abs(rows) > 900).any()
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
    assert np.abs(expected).max() > 1


def test_general_operator_contains_the_square_one() -> None:
    torch.manual_seed(8)
    x, weight, s = torch.randn(2, 5, 6, 7), torch.randn(5, 1, 3, 3), torch.rand(2, 1, 6, 7) * 12 - 5
    signs = torch.tensor([[i - 1, j - 1] for i in range(3) for j in range(3)], dtype=torch.float32).view(1, 18, 1, 1)
    general = deform_conv2d(x, (s - 1) * signs, weight, padding=1)
    assert torch.allclose(general, square_deform(x, s, weight, 1), atol=1e-4)


@pytest.mark.parametrize("order", [(0, 1, 3, 2), (3, 0, 1, 2), (2, 3, 0, 1)])
def test_the_layout_in_memory_does_not_matter(order: tuple[int, ...]) -> None:
    """Results of some of torch's operators have their axes in another order in memory."""
    torch.manual_seed(4)
    back = tuple(int(a) for a in np.argsort(order))
    x, offset, weight = torch.randn(2, 3, 6, 5), 2 * torch.randn(2, 12, 5, 3), torch.randn(4, 3, 2, 3)
    expected = deform_conv2d(x, offset, weight)
    moved = [t.permute(order).contiguous().permute(back) for t in (x, offset)]
    assert not any(t.is_contiguous() for t in moved)
    assert torch.equal(deform_conv2d(*moved, weight), expected) and expected.numel() == 120


def test_general_operator_refuses_shapes() -> None:
    x, w = torch.ones(1, 4, 5, 5), torch.ones(2, 4, 3, 3)
    with pytest.raises(ValueError, match="2 x 9 channels"):
        deform_conv2d(x, torch.ones(1, 17, 3, 3), w)
    with pytest.raises(ValueError, match="one value per output pixel"):
        deform_conv2d(x, torch.ones(1, 18, 4, 4), w)
    with pytest.raises(ValueError, match="mask must have"):
        deform_conv2d(x, torch.ones(1, 18, 3, 3), w, mask=torch.ones(1, 9, 2, 3))


FIXED = [  # fraction bits, stride, padding, dilation, groups, kernel
    (0, 1, 1, 1, 1, (3, 3)), (3, 1, 1, 1, 2, (3, 3)), (7, 2, 0, 1, 4, (1, 3)), (5, 1, 2, 2, 1, (2, 2)), (1, 2, 1, 1, 2, (3, 1))]


def fixed_case(frac: int, stride: int, padding: int, dilation: int, groups: int, kernel: tuple[int, int]):
    """Codes of x, offsets (beyond the image too) and weights, and the output's size."""
    random = np.random.default_rng(frac)
    size = tuple((n + 2 * padding - dilation * (k - 1) - 1) // stride + 1 for n, k in zip((7, 6), kernel, strict=True))
    x = random.integers(-128, 128, (2, 4, 7, 6))
    reach = min(127, 5 << frac)
    offset = random.integers(-reach - 1, reach + 1, (2, 2 * kernel[0] * kernel[1], *size))
    return x, offset, random.integers(-127, 128, (8, 4 // groups, *kernel)), size


@pytest.mark.parametrize("case", FIXED)
def test_fixed_point_samples_by_the_definition(case) -> None:
    """Each sample is the real bilinear value of the codes, rounded half up; sums and records as of a convolution."""
    frac, stride, padding, dilation, groups, kernel = case
    x, offset, weight, size = fixed_case(*case)
    requant = Requant(bias=np.arange(8) * 50 - 200, multiplier=np.ones(8), shift=np.full(8, 9), rounding=Rounding.RND, lo=-128, hi=127)
    operation = DeformConv2d(weight=weight, requant=requant, offset_frac=frac, stride=stride, padding=padding, dilation=dilation,
                             groups=groups)
    samples = operation.sample(x, offset)
    assert samples.shape == (2, 4, kernel[0] * kernel[1], *size)
    for n, c, t, y, col in np.ndindex(*samples.shape):
        row = y * stride - padding + t // kernel[1] * dilation + offset[n, 2 * t, y, col] / 2**frac
        column = col * stride - padding + t % kernel[1] * dilation + offset[n, 2 * t + 1, y, col] / 2**frac
        assert samples[n, c, t, y, col] == math.floor(bilinear(x[n, c], row, column) + 0.5)  # exact in float64
    expected = np.zeros((2, 8, *size), np.int64)
    for o in range(8):
        first = o // (8 // groups) * (4 // groups)
        expected[:, o] = np.einsum("nctyx,ct->nyx", samples[:, first:first + 4 // groups], weight[o].reshape(4 // groups, -1))
    made = operation(x, offset)
    assert np.array_equal(made, requant(expected)) and made.std() > 5 and samples.size > 150


@pytest.mark.parametrize("case", FIXED)
def test_emulation_equals_the_operation(case) -> None:
    frac, stride, padding, dilation, groups, _ = case
    x, offset, weight, _ = fixed_case(*case)
    operation = DeformConv2d(weight=weight, requant=identity_requant(8, -256, 255), offset_frac=frac, stride=stride,
                             padding=padding, dilation=dilation, groups=groups)
    geometry = Geometry(stride=stride, padding=padding, dilation=dilation, groups=groups)
    for dtype in (torch.float32, torch.float64):
        acc = deform_conv_codes(*(torch.from_numpy(a) for a in (x, offset, weight)), geometry, frac, dtype)
        assert acc.numel() > 100 and np.array_equal(acc.clamp(-256, 255).numpy(), operation(x, offset))
        assert acc.abs().max() > 5000


def test_no_offset_is_an_ordinary_convolution() -> None:
    x, offset, weight, _ = fixed_case(4, 1, 1, 1, 2, (3, 3))
    requant = identity_requant(8, -256, 255)
    deform = DeformConv2d(weight=weight, requant=requant, offset_frac=4, padding=1, groups=2)
    plain = Conv2d(weight=weight, requant=requant, padding=1, groups=2)(x)
    assert np.array_equal(deform(x, offset * 0), plain) and not np.array_equal(deform(x, offset), plain)


@pytest.mark.parametrize(("change", "text"), [
    ({"offset_frac": 8}, "offset_frac must be in 0..7, not 8"), ({"dilation": 0}, "needs dilation >= 1"),
    ({"groups": 3}, "groups that divide the 8 output channels"), ({"stride": 0}, "needs stride >= 1"),
])
def test_bad_fixed_point_parameters(change: dict[str, int], text: str) -> None:
    _, _, weight, _ = fixed_case(4, 1, 1, 1, 2, (3, 3))
    with pytest.raises(ValueError, match=text):
        DeformConv2d(**{"weight": weight, "requant": identity_requant(8, -256, 255), "offset_frac": 4} | change)


def test_offsets_of_another_shape_are_refused() -> None:
    x, offset, weight, _ = fixed_case(4, 1, 1, 1, 2, (3, 3))
    operation = DeformConv2d(weight=weight, requant=identity_requant(8, -256, 255), offset_frac=4, padding=1, groups=2)
    for wrong in (offset[:, :-1], offset[..., :-1], offset[:1]):
        with pytest.raises(ValueError, match="expects 4 channels and offsets \\(2, 18, \\(7, 6\\)\\)"):
            operation(x, wrong)


def test_general_gradients_against_finite_differences() -> None:
    torch.manual_seed(4)
    x, weight, bias = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((1, 4, 5, 5), (2, 2, 2, 2), (2,)))
    mask = torch.rand(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    # Away from integers, where the bilinear sample has a kink.
    offset = (torch.randint(-2, 3, (1, 8, 3, 3)) + torch.rand(1, 8, 3, 3) * 0.6 + 0.2).double().requires_grad_()

    def operator(a, b, c, d, e):
        return deform_conv2d(a, b, c, d, stride=2, padding=1, mask=e)

    assert torch.autograd.gradcheck(operator, (x, offset, weight, bias, mask))


class Foreign(torch.nn.Module):
    """Stands for the layer of torchvision: its name and module, its attributes, and an optional mask."""

    def __init__(self, masked: bool) -> None:
        super().__init__()
        kind = type("DeformConv2d", (DeformLayer,), {"__module__": "torchvision.ops.deform_conv", "forward": masked_forward})
        self.offset, self.mask = torch.nn.Conv2d(3, 18, 3, padding=1), torch.nn.Conv2d(3, 9, 3, padding=1)
        self.deform, self.masked = kind(3, 8, 3, padding=1), masked

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deform(x, self.offset(x), self.mask(x)) if self.masked else self.deform(x, self.offset(x))


def masked_forward(self, x, offset, mask=None):
    return deform_conv2d(x, offset, self.weight, self.bias, self.stride, self.padding, self.dilation, mask)


def test_the_layer_of_torchvision_is_known_and_its_mask_refused() -> None:
    torch.manual_seed(6)
    net, x = Foreign(False).eval(), torch.randn(4, 3, 8, 8)
    model = quantize_model(net)
    assert torch.allclose(model(x), net(x), atol=1e-5)
    model.calibrate([x])
    graph = export(model, x)
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert graph.nodes[-1].operation.op == "deform_conv2d" and theirs["deform"].size == 2048
    assert all(np.array_equal(ours[name].numpy(), codes) for name, codes in theirs.items())
    assert Foreign(True)(x).shape == (4, 8, 8, 8)
    assert [(p.place, p.reason) for p in unsupported(Foreign(True))] == [("deform", "multiplies its samples by a mask")]


class Square(torch.nn.Module):
    """A square deformable convolution with steps from a 1 x 1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.step, self.deform = torch.nn.Conv2d(4, 1, 1), SquareDeform(4)
        torch.nn.init.normal_(self.step.weight, std=3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.deform(x, self.step(x))


@pytest.mark.parametrize("frac", [0, 1, 2, 3])
def test_square_offsets_with_fraction_bits(frac: int) -> None:
    """Frozen torch and graph are equal; in training, samples are what the frozen model reads."""
    torch.manual_seed(frac)
    net, x = Square().eval(), torch.randn(6, 4, 9, 8)
    recipe = Recipe(overrides={"step": {"activation_format": f"s8f{frac}"}} if frac else {})
    model = quantize_model(net, recipe)
    model.calibrate([x])
    trained = model.eval()(x).detach()
    graph = export(model, x)
    operation = graph.nodes[-1].operation
    assert operation.op == "deform_depthwise_conv2d" and operation.offset_frac == frac == graph.tensors["step"].fmt.frac
    ours, theirs = model.trace(x), graph.trace({"input": codes_of(model, x)})
    assert theirs["deform"].size == 1728 and len(np.unique(theirs["step"])) > 10 << frac >> 1
    assert all(np.array_equal(ours[name].numpy(), codes) for name, codes in theirs.items())
    assert torch.equal(trained, ours["deform"] * 2.0**-graph.tensors["deform"].fmt.frac)


@pytest.mark.parametrize("fmt", ["s8f4", "s7f1", "s8f-1"])
def test_square_offset_formats_that_cannot_be(fmt: str) -> None:
    with pytest.raises(RecipeError, match=f"its format must be s8f0, or have up to 3 fraction bits, not {fmt}"):
        quantize_model(Square(), Recipe(overrides={"step": {"activation_format": fmt}}))


@pytest.mark.parametrize("stride", [1, 2])
def test_whole_samples_and_their_gradients_by_the_definition(stride: int) -> None:
    """Gradients by hand, a pixel, channel and tap at a time: of x as of a sum of picked pixels, of an offset half the difference
    between what a step further and a step nearer would read."""
    torch.manual_seed(stride)
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64, requires_grad=True)
    size = (-(-7 // stride), -(-6 // stride))
    offset = torch.randint(-3, 5, (2, 1, *size)).double().requires_grad_()
    weights = torch.randn(2, 3, 9, *size, dtype=torch.float64)
    taken = whole_samples(x, offset, stride)
    assert torch.equal(taken, square_samples(x, offset, stride))
    (taken * weights).sum().backward()
    to_x, to_offset = np.zeros(x.shape), np.zeros(offset.shape)

    def read(n: int, c: int, y: int, col: int) -> float:
        return float(x.detach()[n, c, y, col]) if 0 <= y < 7 and 0 <= col < 6 else 0.0

    for n, c, t, y, col in np.ndindex(*taken.shape):
        s, (i, j) = int(offset[n, 0, y, col]), divmod(t, 3)
        here, further, nearer = ((y * stride + k * (i - 1), col * stride + k * (j - 1)) for k in (s, s + 1, s - 1))
        if 0 <= here[0] < 7 and 0 <= here[1] < 6:
            to_x[n, c, here[0], here[1]] += float(weights[n, c, t, y, col])
        to_offset[n, 0, y, col] += float(weights[n, c, t, y, col]) * (read(n, c, *further) - read(n, c, *nearer)) / 2
    assert x.grad is not None and offset.grad is not None and np.abs(to_offset).max() > 1
    np.testing.assert_allclose(x.grad.numpy(), to_x, rtol=1e-12, atol=1e-12)  # float64 sums in another order
    np.testing.assert_allclose(offset.grad.numpy(), to_offset, rtol=1e-12, atol=1e-12)


def test_offsets_beyond_the_range_do_not_learn() -> None:
    x, offset = torch.randn(1, 2, 9, 9), torch.tensor([-9.0, -7.0, 3.0, 8.0, 10.0]).repeat(81)[:81].reshape(1, 1, 9, 9).requires_grad_()
    whole_samples(x, offset, 1).square().sum().backward()
    assert offset.grad is not None and bool((offset.grad[(offset < -7) | (offset > 8)] == 0).all())
    assert int((offset.grad[(offset >= -7) & (offset <= 8)] != 0).sum()) > 20


def test_a_float_layer_with_whole_offsets() -> None:
    """It reads what offsets rounded half up read; they learn as whole ones do, and fixed point takes the layer for the same."""
    torch.manual_seed(9)
    layer, x = SquareDeform(3, whole=True), torch.randn(1, 3, 6, 6)
    offset = (torch.arange(36).reshape(1, 1, 6, 6) / 4 - 4).requires_grad_()
    wanted = square_deform(x, torch.floor(offset.detach() + 0.5), layer.weight, 1)
    found = layer(x, offset)
    assert torch.allclose(found, wanted, atol=1e-6) and not torch.allclose(found, square_deform(x, offset, layer.weight, 1), atol=1e-2)
    found.square().sum().backward()
    assert offset.grad is not None and int((offset.grad != 0).sum()) > 30
