"""Compiled kernels against the definitions they stand for: hw.spec.fixed in numpy, and the torch code of sw.quant."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Overflow, Rounding, dequantize, quantize
from sw.kernels import KernelBuildError, available, build
from sw.kernels import fake_quantize as kernel
from sw.quant import Recipe, quantize_model
from sw.quant.fake import code_range, fake_quantize
from sw.quant.weighted import QuantLayer

SATURATING = (Overflow.SAT, Overflow.SAT_SYM)
DTYPES = {torch.float32: (np.float32, 24), torch.float64: (np.float64, 53)}


def test_kernels_are_used_here():
    """Everything below would pass without them: they must compile where g++ is."""
    assert available()


@pytest.fixture
def torch_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], object]:
    """Calls a function with the kernels switched off."""

    def call(function: Callable[[], object]) -> object:
        with monkeypatch.context() as patch:
            patch.setattr(build, "ENABLED", False)
            assert not available()
            return function()

    return call


def hard_values(rng: np.random.Generator, fmt: FixedFormat, dtype: type, count: int) -> np.ndarray:
    """Values at and next to ties, bounds and zero, denormals, huge values and infinities, of a float type."""
    reach = 2.0 ** (fmt.width + 2)
    codes = np.concatenate([rng.uniform(-reach, reach, count), np.floor(rng.uniform(-reach, reach, count)),
                            fmt.max_code + rng.integers(-2, 4, 64), fmt.min_code + rng.integers(-3, 3, 64)])
    near = np.ldexp(codes + rng.choice([0.0, 0.5, 0.25], codes.size), -fmt.frac).astype(dtype)
    side = np.nextafter(near, np.array(rng.choice([-np.inf, np.inf], near.size), dtype))
    near = np.where(rng.random(near.size) < 0.4, side, near)
    tiny = np.finfo(dtype).tiny
    extremes = np.array([0, -0.0, tiny, -tiny, tiny / 8, -tiny / 8, np.finfo(dtype).max, -np.finfo(dtype).max, np.inf, -np.inf])
    return rng.permutation(np.concatenate([near, extremes.astype(dtype)])).astype(dtype)


def cast_of(fmt: FixedFormat, rounding: Rounding, overflow: Overflow, **options: object) -> kernel.Cast:
    low, high = code_range(fmt.width, fmt.signed, overflow)
    return kernel.Cast(width=fmt.width, low=low, high=high, rounding=rounding, **options)


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward_is_the_cast_of_the_spec(dtype):
    rng, compared = np.random.default_rng(1), 0
    numpy_type, widest = DTYPES[dtype]
    for rounding, overflow, signed in itertools.product(Rounding, SATURATING, (True, False)):
        for width, frac in ((1, 0), (2, 5), (4, -3), (8, 4), (8, 60), (8, -60), (16, 100), (widest, 3)):
            fmt = FixedFormat(width, frac, signed)
            values = hard_values(rng, fmt, numpy_type, 800)
            expected = dequantize(quantize(values, fmt, rounding, overflow), fmt)
            bits = torch.tensor(float(fmt.integer_bits), dtype=torch.float64)
            got = kernel.forward(torch.from_numpy(values), bits, cast_of(fmt, rounding, overflow))
            np.testing.assert_array_equal(got.numpy(), expected.astype(numpy_type), f"{fmt} {rounding} {overflow}")
            compared += got.numel()
    print(f"kernel: {compared} casts of {dtype} compared with hw.spec.fixed")
    assert compared > 350_000


def gradients(values: Tensor, addend: Tensor | None, bits: Tensor, grad: Tensor, **options: object) -> tuple[Tensor, ...]:
    """Result, gradient of the values, of the addend, of the bits, by `fake_quantize`."""
    leaves = [t.clone().requires_grad_() for t in (values, bits)]
    more = None if addend is None else addend.clone().requires_grad_()
    result = fake_quantize(leaves[0], leaves[1], addend=more, **options)
    result.backward(grad)
    found = [result.detach(), leaves[0].grad, leaves[1].grad] + ([] if more is None else [more.grad])
    assert all(t is not None for t in found)
    return tuple(t for t in found if t is not None)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("axis", "relu", "added"), [(None, False, False), (None, True, True), (0, False, False),
                                                     (1, True, False), (-1, False, True)])
def test_kernel_and_torch_give_the_same_values_and_gradients(torch_only, dtype, axis, relu, added):
    """Values and their gradients are equal; the gradient of a binary point is a float sum, whose order torch leaves open."""
    rng, compared = np.random.default_rng(2), 0
    for rounding, overflow, signed in itertools.product(Rounding, SATURATING, (True, False)):
        values = hard_values(rng, FixedFormat(6, 2), DTYPES[dtype][0], 1300)
        values = torch.from_numpy(values[np.isfinite(values) & (np.abs(values) < 1e30)][:2520]).view(7, 9, 40)
        grad, addend = torch.randn(values.shape, dtype=dtype), torch.randn(values.shape, dtype=dtype) if added else None
        count = () if axis is None else (values.shape[axis],)
        bits = torch.from_numpy(rng.uniform(1, 6, count)).to(dtype) if count else torch.tensor(4.2, dtype=dtype)
        options = dict(width=6, signed=signed, rounding=rounding, overflow=overflow, axis=axis, relu=relu, limits=(0.0, 4.0))
        ours = gradients(values, addend, bits, grad, **options)
        theirs = torch_only(lambda a=(values, addend, bits, grad), o=options: gradients(*a, **o))
        for index in (0, 1, 3)[: len(ours) - 1]:
            assert torch.equal(ours[index], theirs[index]), (rounding, overflow, signed, index)
            compared += ours[index].numel()
        torch.testing.assert_close(ours[2], theirs[2], rtol=2e-5, atol=1e-4)
    assert compared > 100_000


def test_sums_do_not_depend_on_threads():
    values, grad = torch.randn(500_001), torch.randn(500_001)
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(gradients(values, None, torch.tensor(2.0), grad, width=8))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_damaged_operands_are_refused():
    cast = cast_of(FixedFormat(8, 0), Rounding.RND, Overflow.SAT)
    one = torch.tensor(3.0, dtype=torch.float64)
    with pytest.raises(ValueError, match="values must be numbers, not NaN"):
        kernel.forward(torch.tensor([1.0] * 5000 + [float("nan")]), one, cast)
    with pytest.raises(ValueError, match="values must be numbers, not NaN"):
        kernel.forward(torch.tensor([float("inf")]), one, cast, torch.tensor([float("-inf")]))
    for bits in (109.0, -93.0, float("nan")):
        with pytest.raises(ValueError, match=r"binary points must be in -100\.\.100"):
            kernel.forward(torch.ones(3), torch.tensor(bits, dtype=torch.float64), cast)


# --- a layer's weights and bias


def small_layer(seed: int, norm: bool, bias: bool) -> tuple[QuantLayer, tuple, object]:
    """A calibrated convolution, its input's points and its output's point."""
    torch.manual_seed(seed)
    conv = nn.Conv2d(5, 24, 3, bias=bias)
    parts = [conv, *([nn.BatchNorm2d(24)] if norm else []), nn.ReLU()]
    if norm:
        parts[1].weight.data.normal_()
        parts[1].bias.data.normal_(0, 2.0**-3)
        parts[1].running_var.uniform_(0.01, 3)
        parts[1].running_mean.normal_()
    if bias:
        conv.bias.data.copy_(torch.ldexp(torch.randn(24).sign(), torch.randint(-30, 4, (24,))))
        conv.bias.data[::2] *= 1 - 2.0**-24  # just below a power of two, where a logarithm in float is off
    model = quantize_model(nn.Sequential(*parts), Recipe(weight_bits=4))
    model.calibrate([torch.randn(4, 5, 8, 8)])
    (step,) = model.steps
    layer = model.layer(step.name)
    assert isinstance(layer, QuantLayer)
    layer.point.integer_bits.data += torch.randn(24) * 4  # some beyond their limits
    layer.weight.data[0] = 0
    return layer, tuple(model.point(t) for t in step.inputs), model.point(step.name)


def layer_result(layer: QuantLayer, ins: tuple, out: object, seed: int) -> list[Tensor]:
    """Weights and bias on their grids, and the gradients of all parameters."""
    layer.zero_grad()
    random = torch.Generator().manual_seed(seed)
    weight, bias = layer.parameters_on_grid((torch.zeros(1),), ins, out)
    loss = (weight * torch.randn(weight.shape, generator=random)).sum() + (bias * torch.randn(bias.shape, generator=random)).sum()
    loss.backward()
    return [weight.detach(), bias.detach(), *(p.grad.clone() for p in layer.parameters() if p.grad is not None)]


@pytest.mark.parametrize(("norm", "bias"), [(False, False), (False, True), (True, False), (True, True)])
def test_a_layers_parameters_are_those_of_the_torch_code(torch_only, norm, bias):
    compared = 0
    for seed in range(12):
        layer, ins, out = small_layer(seed, norm, bias)
        assert layer._kernel_knows()
        ours = layer_result(layer, ins, out, seed)
        theirs = torch_only(lambda a=(layer, ins, out, seed): layer_result(*a))
        assert len(ours) == len(theirs) >= 4
        for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            if index < 2:
                assert torch.equal(a, b), (seed, index)
                compared += a.numel()
            else:
                torch.testing.assert_close(a, b, rtol=2e-5, atol=2e-5)
    assert compared == 12 * (24 * 45 + 24)


def test_damaged_parameters_are_refused():
    for damage in ("weight", "bias", "point"):
        layer, ins, out = small_layer(1, True, True)
        target = layer.point.integer_bits if damage == "point" else getattr(layer, damage)
        target.data.view(-1)[7] = float("nan")
        with pytest.raises(ValueError, match="must be numbers"):
            layer.parameters_on_grid((torch.zeros(1),), ins, out)


# --- building


def test_a_library_is_built_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "two.cpp"
    source.write_text('extern "C" int two() { return 2; }\n')
    first = build.build(source)
    made = first.stat().st_mtime_ns
    assert build.build(source) == first and first.stat().st_mtime_ns == made
    source.write_text('extern "C" int two() { return 3; }\n')
    assert (second := build.build(source)) != first
    (tmp_path / "number.h").write_text("// a header that the source may include\n")
    assert build.build(source) not in (first, second)
    assert len(list(first.parent.iterdir())) == 3


def test_a_kernel_that_does_not_compile_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "bad.cpp"
    source.write_text("this is no C++\n")
    with pytest.raises(KernelBuildError, match=r"bad\.cpp"):
        build.build(source)
    assert not list((tmp_path / "cache" / "bitloom" / "kernels").iterdir())


def test_without_a_compiler_torch_stands_in(monkeypatch):
    values = torch.randn(1000)
    expected = fake_quantize(values, torch.tensor(3.0), width=8)
    monkeypatch.setattr(build, "_ask", build._ask.__wrapped__)
    monkeypatch.setattr(build, "_loaded", build._loaded.__wrapped__)
    monkeypatch.setenv("PATH", "")
    with pytest.warns(RuntimeWarning, match=r"slower code stands in .* g\+\+ is not on the PATH"):
        assert not available()
    with pytest.warns(RuntimeWarning):
        assert torch.equal(fake_quantize(values, torch.tensor(3.0), width=8), expected)


# --- inside torch.compile


@pytest.mark.slow
def test_a_compiled_step_has_the_eager_values():
    """One graph without breaks; the integers are those of the eager step, sums of floats may be ordered differently."""
    torch.manual_seed(0)
    model = quantize_model(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)), Recipe())
    model.calibrate([torch.randn(4, 3, 8, 8)])
    x = torch.randn(4, 3, 8, 8)
    compiled = torch.compile(model, fullgraph=True)
    results = []
    for network in (model, compiled):
        model.zero_grad()
        y = network(x)
        y.square().sum().backward()
        results.append([y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    step = 2.0 ** -model.formats()[model.outputs[0]].frac
    assert float(((results[0][0] - results[1][0]).abs() / step).max()) <= 1
    assert len(results[0]) > 8
    for eager, fused in zip(results[0][1:], results[1][1:], strict=True):
        torch.testing.assert_close(eager, fused, rtol=0.02, atol=0.02 * float(eager.abs().max()) + 1e-6)
