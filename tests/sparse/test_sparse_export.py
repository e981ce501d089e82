"""Exported training graphs against the torch models that they come from, and what cannot be exported.

Masks, masters, momenta and statistics are equal on every bit. The two tolerances stand between FP16 training and float64: tensors
are rounded to 11 bits behind every layer, and a ReLU or a maximum may then choose otherwise where two values nearly tie.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hw.spec.sparsity import nm_mask
from hw.spec.training import Hyper, PoolWindow, backward_weights, forward_weights
from sw.models.resnet import PreActResNet
from sw.sparse import (
    ExactSGD,
    SparseConv2d,
    SparseLinear,
    UnsupportedTrainingError,
    export,
    hyper_of,
    load_into,
    ordered_products,
    sparsify,
)
from sw.training_graph import ChannelNode, ConvNode, PoolNode, SumNode, TrainingGraph
from tests.sparse.exact_networks import NETWORKS, batch, network, sgd, trained

FORWARD, BACKWARD = 0.01, 0.1
"""Largest relative error (norm of the difference to norm) of FP16 logits, and of FP16 gradients, against float64."""
PRODUCTS = ordered_products()
METHODS = ("bdwp", "sdwp", "dense")


def nhwc(images: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy().astype(np.float16))


def error(ours: np.ndarray, expected: Tensor) -> float:
    assert ours.shape == tuple(expected.shape)
    return float(np.linalg.norm(ours - expected.numpy()) / np.linalg.norm(expected.numpy()))


def like_torch(graph: TrainingGraph, node: str, values: np.ndarray, shape: torch.Size) -> np.ndarray:
    """Values of masters (KH, KW, I, O) at the places of a weight (O, I, KH, KW) or (O, I * KH * KW)."""
    return values.astype(np.float64).transpose(3, 2, 0, 1).reshape(shape)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_that_of_the_model(name: str, method: str) -> None:
    """Logits in training and in evaluation, loss, and the gradient of every parameter, against autograd in float64."""
    model, optimizer = trained(name, method)
    images, labels = batch(name)
    graph = export(model, optimizer, images)
    result = graph.step(graph.state, nhwc(images), labels.numpy(), hyper_of(model, optimizer, 256.0), PRODUCTS)
    assert not result.skipped and not result.tape.saturated
    wide = copy.deepcopy(model).double()
    with torch.no_grad():
        inferred = graph.infer(graph.state, nhwc(images), PRODUCTS).reshape(len(images), -1)
        assert error(inferred, wide.eval()(images.double())) < FORWARD
    logits = wide.train()(images.double())
    loss = F.cross_entropy(logits, labels)
    loss.backward()
    assert error(result.logits, logits.detach()) < FORWARD and result.loss == pytest.approx(loss.item(), rel=FORWARD)
    assert compare_gradients(graph, result.gradients, wide) == len(list(model.parameters()))
    for node, norm in ((n, m) for n, m in wide.named_modules() if isinstance(m, nn.BatchNorm2d)):
        after: Any = result.state.channels[node]
        assert error(after.running_mean, norm.running_mean) < FORWARD and error(after.running_variance, norm.running_var) < FORWARD


def compare_gradients(graph: TrainingGraph, gradients: Any, model: nn.Module) -> int:
    for name, parameter in model.named_parameters():
        place, part = name.rsplit(".", 1)
        if place in gradients.weights and part == "weight":
            ours = like_torch(graph, place, gradients.weights[place], parameter.shape)
        elif place in gradients.channels:
            ours = gradients.channels[place][0 if part == "weight" else 1]
        else:
            ours = gradients.channels[f"{place}.bias"][1]
        assert parameter.grad is not None
        # A bias in front of BatchNorm has no gradient but for rounding.
        if float(parameter.grad.norm()) > 1e-9:
            assert error(ours / 256.0, parameter.grad) < BACKWARD, name
        else:
            assert float(np.abs(ours / 256.0).max()) < 1e-2, name
    return len(list(model.parameters()))


def sparse_layers(model: nn.Module) -> dict[str, Any]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, (SparseConv2d, SparseLinear))}


@pytest.mark.parametrize("method", ["bdwp", "sdwp"])
@pytest.mark.parametrize("name", NETWORKS)
def test_masks_are_those_of_the_model(name: str, method: str) -> None:
    """With weights of few values, so that most groups have ties: the graph's, `nm_mask` of the masters, and the layers' own."""
    model = network(name, method)
    with torch.no_grad():
        for layer in sparse_layers(model).values():
            layer.weight.copy_((layer.weight * 12).round() / 8)
    graph = export(model, sgd(model), batch(name)[0])
    patterns, compared, ties = 0, 0, 0
    for node in (n for n in graph.nodes if isinstance(n, ConvNode)):
        layer = sparse_layers(model).get(node.name)
        if layer is None:
            assert node.forward_pattern is None and node.backward_pattern is None
            continue
        master = graph.state.weights[node.name].master
        assert node.backward_pattern == (2, 4) and node.forward_pattern == ((2, 4) if method == "bdwp" else None)
        for pattern, axis, make, theirs in ((node.forward_pattern, 2, forward_weights, layer.forward_weight()),
                                            (node.backward_pattern, 3, backward_weights, layer.backward_weight())):
            theirs = theirs.reshape(node.shape[3], node.shape[2], *node.shape[:2]).permute(2, 3, 1, 0).numpy()
            expected = master if pattern is None else np.where(nm_mask(master, *pattern, axis), master, np.float32(0))
            np.testing.assert_array_equal(theirs, expected)
            np.testing.assert_array_equal(make(master, pattern), expected.astype(np.float16))
            groups = np.sort(np.abs(np.moveaxis(master, axis, -1)).reshape(-1, 4), axis=-1)
            ties += int((groups[:, 1] == groups[:, 2]).sum())
            compared += expected.size
        patterns += 1
    assert patterns == len(sparse_layers(model)) > 0 and compared > 500 and ties > 30


def test_an_n_of_m_is_dense() -> None:
    model = network("vgg", "bdwp", 4, 4)
    graph = export(model, sgd(model), batch("vgg")[0])
    assert all(n.forward_pattern is None and n.backward_pattern is None for n in graph.nodes if isinstance(n, ConvNode))


def test_sums_and_relus_join_the_norms_in_front_of_them() -> None:
    model = network("forms")
    graph = export(model, sgd(model), batch("forms")[0])
    assert [(n.name, n.source, n.residual, n.relu) for n in graph.nodes if isinstance(n, ChannelNode)] == [
        ("stem.bias", "stem.y", None, False), ("norm", "stem.bias.y", None, True), ("left.bias", "left.y", "norm.y", True),
        ("right.1", "right.0.y", "left.bias.y", False), ("down.bias", "down.y", None, True), ("head.bias", "head.y", None, False),
    ]  # fmt: skip
    assert [(n.window.kernel, n.average) for n in graph.nodes if isinstance(n, PoolNode)] == [
        ((3, 2), False), ((3, 1), True), ((1, 3), True)
    ]  # fmt: skip
    norm = graph.nodes[2]
    assert isinstance(norm, ChannelNode) and norm.constants is not None
    assert (norm.constants.epsilon, norm.constants.running_weight) == (1e-3, 0.25)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_state_goes_back_into_model_and_optimiser(name: str) -> None:
    model, optimizer = trained(name)
    images, labels = batch(name)
    graph = export(model, optimizer, images)
    after = graph.step(graph.state, nhwc(images), labels.numpy(), hyper_of(model, optimizer), PRODUCTS).state
    other = network(name, seed=9)
    theirs = sgd(other)
    load_into(other, theirs, after)
    again = export(other, theirs, images).state.arrays()
    compared = 0
    for part, array in after.arrays().items():
        np.testing.assert_array_equal(again[part].view(np.uint32), array.view(np.uint32))
        compared += array.size
    assert compared > 1000
    F.cross_entropy(other(images), labels).backward()  # the copies of sparse layers are those of the new weights
    theirs.step()
    fresh = copy.deepcopy(network(name, seed=9))
    load_into(fresh, sgd(fresh), after)
    assert torch.equal(fresh.eval()(images), _with_state(network(name, seed=3), after).eval()(images))


def _with_state(model: nn.Module, state: Any) -> nn.Module:
    load_into(model, sgd(model), state)
    return model


def test_a_state_of_another_model_changes_nothing() -> None:
    state = export(*trained("vgg"), batch("vgg")[0]).state
    model = network("forms")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"weights of \['down'.* are in one of them only"):
        load_into(model, sgd(model), state)
    small, large = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten())
    with pytest.raises(ValueError, match="must have the 36 values of the model, not 18"):
        load_into(large, sgd(large), export(small, sgd(small), torch.zeros(2, 1, 3, 3)).state)
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


# --- optimisers ----------------------------------------------------------------------------------------------------------


def test_rates_are_those_of_the_optimiser() -> None:
    model = network("vgg")
    assert hyper_of(model, sgd(model), 64.0) == Hyper(learning_rate=0.05, momentum=0.875, weight_decay=1e-3, loss_scale=64.0)
    weights = [p for n, p in model.named_parameters() if p.ndim > 1]
    rest = [p for n, p in model.named_parameters() if p.ndim == 1]
    split = torch.optim.SGD([{"params": weights, "weight_decay": 0.5}, {"params": rest}], lr=1)
    assert hyper_of(model, split) == Hyper(learning_rate=1, momentum=0, weight_decay=0.5, decay_norm=False)
    assert hyper_of(model, ExactSGD(model.parameters(), 0.5)) == Hyper(learning_rate=0.5, momentum=0.9)


OPTIMIZERS: dict[str, tuple[Callable[[nn.Module], Any], str]] = {
    "adam": (lambda m: torch.optim.Adam(m.parameters()), "Adam is another update than the core's momentum SGD"),
    "nesterov": (lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, nesterov=True), "looks ahead"),
    "dampening": (lambda m: torch.optim.SGD(m.parameters(), 0.1, momentum=0.9, dampening=0.5), "dampens new gradients"),
    "maximize": (lambda m: torch.optim.SGD(m.parameters(), 0.1, maximize=True), "climbs"),
    "a part": (lambda m: torch.optim.SGD([next(m.parameters())], 0.1), r"does not have features\.0\.1\.weight, "),
    "another model": (lambda m: sgd(nn.Linear(2, 2)), r"has 2 parameter\(s\) that are not the model's"),
    "two rates": (lambda m: torch.optim.SGD([{"params": [p], "lr": 0.1 + i} for i, p in enumerate(m.parameters())]),
                  "several values of lr"),
    "two decays": (lambda m: torch.optim.SGD([{"params": [p], "weight_decay": i} for i, p in enumerate(m.parameters())], 0.1),
                   "has weight decays of"),
    "infinite": (lambda m: torch.optim.SGD(m.parameters(), 1e39), "values that FP32 does not take"),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_other_optimisers_are_refused(name: str) -> None:
    model = network("vgg")
    make, words = OPTIMIZERS[name]
    with pytest.raises(UnsupportedTrainingError, match=words):
        export(model, make(model), batch("vgg")[0])
    with pytest.raises(UnsupportedTrainingError, match=words):
        hyper_of(model, make(model))


# --- refusals --------------------------------------------------------------------------------------------------------------


class Calls(nn.Module):
    """Layers that keep (2, 4, 8, 8), a head, and a forward method given as a function of the module and x."""

    def __init__(self, call: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        self.call = call
        self.conv, self.bare = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.norm, self.head, self.tail = nn.BatchNorm2d(4), nn.Linear(4 * 64, 4), nn.Linear(4, 4)
        self.extra = nn.Parameter(torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Any:
        return self.call(self, x)


CALLS: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "a bare ReLU": (lambda m, x: m.head(torch.relu(m.bare(x)).flatten(1)), "ReLU follows neither a BatchNorm, a bias nor a residual"),
    "a ReLU apart": (lambda m, x: m.head((torch.relu(y := m.conv(x)) + y).flatten(1)), "ReLU reads what other layers read without it"),
    "a constant": (lambda m, x: m.head((m.conv(x) + 1).flatten(1)), "adds a constant"),
    "a constant first": (lambda m, x: m.head((1 + m.conv(x)).flatten(1)), "adds a constant"),
    "a multiple": (lambda m, x: m.head(torch.add(m.conv(x), x, alpha=2).flatten(1)), "adds a constant or a multiple"),
    "a broadcast": (lambda m, x: m.head((m.conv(x) + m.norm(x).mean((2, 3), keepdim=True)).flatten(1)), "adds tensors of"),
    "a product": (lambda m, x: m.head((m.conv(x) * 2).flatten(1)), "mul has no operation"),
    "a parameter": (lambda m, x: m.head((m.conv(x) * m.extra).flatten(1)), "extra: parameter is used outside a layer"),
    "twice": (lambda m, x: m.head(m.conv(m.conv(x)).flatten(1)), "conv: Conv2d is called more than once"),
    "control flow": (lambda m, x: m.head(x.flatten(1)) if x.sum() > 0 else x, "cannot be traced"),
    "two outputs": (lambda m, x: (m.head(x.flatten(1)), x), r"\(model\): output is tuple"),
    "a map": (lambda m, x: m.norm(m.conv(x)), "output has 8x8 pixels"),
    "a linear layer on a map": (lambda m, x: m.head(x), "Linear reads a map of pixels"),
    "other sizes": (lambda m, x: m.head(F.max_pool2d(x, 2).flatten(1)), "Linear reads 64 values; give it 256"),
    "a flat convolution": (lambda m, x: m.head(m.conv(x.flatten(1)).flatten(1)), "Conv2d reads a flattened map"),
    "an uneven pool": (lambda m, x: m.head(F.avg_pool2d(x, 3).flatten(1)), "windows that do not divide an image of 8x8"),
    "a dropout": (lambda m, x: m.head(F.dropout(x, 0.5).flatten(1)), r"drops values at random \(p = 0\.5\)"),
    "a dead end": (lambda m, x: (m.norm(m.conv(x)), m.head(x.flatten(1)))[1], "norm: ChannelNode computes what nothing reads"),
    "logits read": (lambda m, x: (y := m.head(x.flatten(1)), m.tail(y))[0], "output is read by a layer too"),
    "in place, read later": (lambda m, x: m.head(((y := m.norm(x)).add_(z := m.conv(x)) + y + z).flatten(1)), "in place"),
    "an unused layer": (lambda m, x: m.head(x.flatten(1)), r"conv\.weight: parameter is not used by forward"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_forward_does_is_refused_in_words(name: str) -> None:
    call, words = CALLS[name]
    model = Calls(call)
    with pytest.raises(UnsupportedTrainingError, match=words):
        export(model, sgd(model), torch.zeros(2, 4, 8, 8))


def layers(*modules: nn.Module) -> nn.Module:
    """Layers that keep (2, 4, 8, 8), and a head."""
    return nn.Sequential(*modules, nn.Flatten(), nn.Linear(4 * 64, 4))


def sparse(method: str, **options: Any) -> nn.Module:
    return sparsify(layers(nn.Conv2d(4, 4, 3, padding=1)), 2, 4, method, include=["0"], **options)


def frozen() -> nn.Module:
    model = layers(nn.Conv2d(4, 4, 1))
    model[0].weight.requires_grad_(False)  # type: ignore[index]
    return model


def damaged() -> nn.Module:
    model = layers(nn.BatchNorm2d(4))
    model[0].weight.data[2] = float("nan")  # type: ignore[index]
    return model


def hooked() -> nn.Module:
    model = layers(nn.BatchNorm2d(4))
    model[0].register_forward_hook(lambda m, i, o: o * 2)  # type: ignore[index]
    return model


def tied() -> nn.Module:
    model = layers(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1))
    model[1].weight = model[0].weight  # type: ignore[index]
    return model


LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "groups": (lambda: layers(nn.Conv2d(4, 4, 3, padding=1, groups=2)), "0: Conv2d has 2 groups; use groups=1"),
    "dilation": (lambda: layers(nn.Conv2d(4, 4, 3, padding=2, dilation=2)), r"has dilation \(2, 2\)"),
    "strides": (lambda: layers(nn.Conv2d(4, 4, 3, (1, 2), 1)), r"has stride \(1, 2\)"),
    "paddings": (lambda: layers(nn.Conv2d(4, 4, (3, 5), padding=(1, 2))), r"pads \(1, 2\) around a kernel"),
    "an even same": (lambda: layers(nn.Conv2d(4, 4, 2, padding="same")), "pads 'same' around"),
    "reflection": (lambda: layers(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")), "pads with 'reflect'"),
    "a large kernel": (lambda: layers(nn.Conv2d(4, 4, 9, padding=4)), r"has a kernel of \(9, 9\)"),
    "much padding": (lambda: layers(nn.Conv2d(4, 4, 1, padding=1)), "use less padding than the kernel's sides"),
    "no scale": (lambda: layers(nn.BatchNorm2d(4, affine=False)), "has neither scale nor bias"),
    "no statistics": (lambda: layers(nn.BatchNorm2d(4, track_running_stats=False)), "keeps no running statistics"),
    "an average": (lambda: layers(nn.BatchNorm2d(4, momentum=None)), "averages its statistics over all batches"),
    "another norm": (lambda: layers(nn.GroupNorm(2, 4)), "GroupNorm has no operation in the training core; use BatchNorm2d"),
    "another activation": (lambda: layers(nn.GELU()), "GELU has no operation in the training core; use nn.ReLU"),
    "a softmax": (lambda: nn.Sequential(layers(), nn.Softmax(1)), "the loss contains the softmax"),
    "dropout": (lambda: layers(nn.Dropout2d(0.1)), r"drops values at random \(p = 0\.1\)"),
    "a padded pool": (lambda: layers(nn.AvgPool2d(2, padding=1)), "pads by 1"),
    "srste": (lambda: sparse("srste"), "trained by srste, whose backward pass needs masks that the core's selector does not make"),
    "sdgp": (lambda: sparse("sdgp"), "trained by sdgp, whose backward pass needs masks that the core's selector does not make"),
    "wu": (lambda: sparse("bdwp", wu=(2, 4)), "prunes gradients 2:4 at random"),
    "decay": (lambda: sparse("bdwp", decay=1e-4), "decays what its mask removes"),
    "a sparse linear layer on a map": (lambda: sparsify(layers(), 2, 4, include=["1"]), "groups its weights along a flattened map"),
    "doubles": (lambda: layers(nn.Conv2d(4, 4, 1)).double(), "has a weight of torch.float64"),
    "a frozen weight": (frozen, "has a frozen weight"),
    "NaN": (damaged, "has 1 of 4 values in its weight that are NaN"),
    "a hook": (hooked, "has hooks, whose effect is not seen"),
    "shared weights": (tied, r"0\.weight: parameter is shared by 0\.weight, 1\.weight"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_refused_in_words(name: str) -> None:
    make, words = LAYERS[name]
    model = make()
    with pytest.raises(UnsupportedTrainingError, match=words):
        export(model, sgd(model), torch.zeros(2, 4, 8, 8))


def test_a_sparse_linear_layer_on_a_map_may_be_pruned_backward() -> None:
    model = sparsify(layers(), 2, 4, "sdwp", include=["1"])
    node = export(model, sgd(model), torch.zeros(2, 4, 8, 8)).nodes[0]
    assert isinstance(node, ConvNode) and (node.geometry.kernel_h, node.backward_pattern) == (8, (2, 4))


def test_all_problems_are_listed_at_once() -> None:
    """Each layer with its place, and the optimiser."""
    model = layers(nn.GELU(), nn.Conv2d(4, 4, 3, (1, 2), groups=2), nn.Dropout(0.2), nn.LayerNorm(8))
    with pytest.raises(UnsupportedTrainingError) as found:
        export(model, torch.optim.Adam(model.parameters()), torch.zeros(2, 4, 8, 8))
    assert [(p.place, p.kind) for p in found.value.problems] == [
        ("0", "GELU"), ("1", "Conv2d"), ("1", "Conv2d"), ("2", "Dropout"), ("3", "LayerNorm"), ("optimizer", "Adam")]


def test_sums_that_nothing_takes_in_stand_alone() -> None:
    model = network("sums")
    graph = export(model, sgd(model), batch("sums")[0])
    assert [(n.source, n.residual, n.relu) for n in graph.nodes if isinstance(n, SumNode)] == [
        ("norm.y", "branch.bias.y", False), ("add.y", "bare.y", True), ("pool.y", "pool.y", False)
    ]  # fmt: skip
    pool = next(n for n in graph.nodes if isinstance(n, PoolNode))
    assert pool.window == PoolWindow(kernel=(3, 3), stride=(2, 2), padding=(1, 1)) and not pool.average
    pre = PreActResNet(2, 8)
    assert sum(isinstance(n, SumNode) for n in export(pre, sgd(pre), torch.zeros(2, 3, 32, 32)).nodes) == 6


def test_an_example_must_be_a_batch_of_images() -> None:
    model = network("vgg")
    for example in (torch.zeros(2, 8, 8), np.zeros((2, 2, 8, 8)), torch.zeros(0, 2, 8, 8)):
        with pytest.raises(ValueError, match=r"example must be a batch of images \(N, C, H, W\), not"):
            export(model, sgd(model), example)  # type: ignore[arg-type]
