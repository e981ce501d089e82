"""Sparse layers beside the rest of torch: autocast, checkpointing, compilation, two processes, state, copies, pickles."""

from __future__ import annotations

import copy
import io
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from sw.sparse import choices, densify, set_step, sparsify, step_of

KINDS: list[dict[str, Any]] = [{"method": m} for m in ("bdwp", "srste", "sdgp", "sdwp")] + [{"wu": (1, 2)}, {"wu": (2, 4)}]
IDS = [kind.get("method") or f"wu{kind['wu'][0]}" for kind in KINDS]


class Small(nn.Module):
    """(N, 3, 10, 10) to (N, 10); BatchNorm has no statistics, so that a batch may come in parts."""

    def __init__(self, segments: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Sequential(nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.GroupNorm(4, 32), nn.ReLU(), nn.Conv2d(32, 16, 1))
        self.mix, self.head, self.segments = nn.Linear(16, 16), nn.Linear(16, 10), segments

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = checkpoint(self.body, x, use_reentrant=False) if self.segments else self.body(x)
        return self.head(torch.relu(self.mix(x.mean((2, 3)))))


def small(segments: bool = False, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return sparsify(Small(segments), 2, 8, **options)


def tiny(**options: Any) -> nn.Module:
    """One convolution and one linear layer, both sparse: little to compile."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 12, 3), nn.Flatten(), nn.Linear(108, 12))
    return sparsify(net, 2, 4, keep_ends=False, **options)


def data(count: int = 6) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 10, 10, generator=random), torch.randint(0, 10, (count,), generator=random)


def step(model: Any, run: Any = None) -> tuple[Tensor, list[Tensor]]:
    """Loss and gradients."""
    x, y = data()
    model.zero_grad()
    loss = F.cross_entropy((model if run is None else run)(x).float(), y)
    loss.backward()
    return loss.detach(), [p.grad.clone() for p in model.parameters()]


def same(found: list[Tensor], expected: list[Tensor], tolerance: float = 0) -> None:
    assert len(found) == len(expected) >= 4
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_autocast(kind: dict[str, Any], dtype: torch.dtype) -> None:
    """Parameters and gradients stay float32; the masks are those of the float32 master."""
    model = small(**kind)
    _, exact = step(model)
    if "wu" in kind:
        set_step(model, 0)  # the same draws
    with torch.autocast("cpu", dtype=dtype):
        assert model.body[1](torch.randn(2, 16, 4, 4)).dtype == dtype  # type: ignore[index]
        _, found = step(model)
    assert all(g.dtype == torch.float32 and bool(g.isfinite().all()) for g in found)
    layer: Any = model.body[1]  # type: ignore[index]
    assert torch.equal(layer.forward_weight(dtype), layer.forward_weight().to(dtype))
    assert torch.equal(layer.backward_weight(dtype), layer.backward_weight().to(dtype))
    if kind.get("method") in ("bdwp", "srste", "sdwp"):  # pruned gradients may choose other elements
        cosines = [F.cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in zip(found, exact, strict=True)]
        assert min(cosines) > 0.98


def test_autocast_is_that_of_the_dense_layer() -> None:
    """N = M under bfloat16: equal to torch's own layer, bit for bit."""
    torch.manual_seed(2)
    dense = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8 * 16, 8))
    sparse, x = sparsify(dense, 8, 8, keep_ends=False), torch.randn(2, 8, 6, 6)
    for model in (dense, sparse):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            model(x).float().square().sum().backward()
    compared = 0
    for a, b in zip(sparse.parameters(), dense.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)  # type: ignore[arg-type]
        compared += a.numel()
    assert compared > 1000


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_checkpointing_changes_nothing(kind: dict[str, Any]) -> None:
    loss, gradients = step(small(segments=True, **kind))
    expected, wanted = step(small(**kind))
    assert torch.equal(loss, expected)
    same(gradients, wanted)


def test_compiled_models_are_one_graph_and_equal() -> None:
    """BDWP with the decay term, which a compiled graph once lost (see `sw.sparse.functions._finish`)."""
    compare_compiled({"method": "bdwp", "decay": 0.5}, tiny)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_compiled_models_of_every_method(kind: dict[str, Any]) -> None:
    compare_compiled(kind)


def compare_compiled(kind: dict[str, Any], make: Callable[..., nn.Module] = small) -> None:
    """Three steps with an optimiser: loss and gradients within float32 tolerance of the eager model's."""
    torch._dynamo.reset()
    graphs: list[int] = []

    def counting(graph: Any, inputs: Any) -> Any:
        from torch._inductor.compile_fx import compile_fx

        graphs.append(len(graph.graph.nodes))
        return compile_fx(graph, inputs)

    eager, model = make(**kind), make(**kind)
    compiled = torch.compile(model, fullgraph=True, backend=counting)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (eager, model)]
    for _ in range(3):
        loss, gradients = step(model, compiled)
        expected, wanted = step(eager)
        assert abs(loss - expected) <= 1e-6 * abs(expected)
        same(gradients, wanted, 1e-5)
        for optimizer in optimizers:
            optimizer.step()
    assert len(graphs) == (2 if "wu" in kind else 1)  # with wu, the step's increment is a graph of its own
    assert step_of(model) == step_of(eager) == (3 if "wu" in kind else 0)
    assert list(compiled.state_dict()) == [f"_orig_mod.{name}" for name in densify(eager).state_dict()]


def _worker(rank: int, folder: str, kind: dict[str, Any]) -> None:
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = small(**kind)
    if rank:  # a replica that began elsewhere takes rank 0's weights
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1)
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1, momentum=0.9)
    x, y = data()
    gradients: list[Tensor] = []
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(parallel(x[rank * 3 : rank * 3 + 3]), y[rank * 3 : rank * 3 + 3]).backward()
        gradients += [p.grad.clone() for p in model.parameters()]  # type: ignore[union-attr]
        optimizer.step()
    torch.save(gradients, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("kind", [{"decay": 0.1}, pytest.param(KINDS[1], marks=pytest.mark.slow)], ids=["bdwp", "srste"])
def test_two_processes_have_the_gradients_of_one(kind: dict[str, Any]) -> None:
    """Half of the batch each, two steps; the mean of half-batch gradients is the batch's to float32 rounding."""
    import torch.multiprocessing as mp

    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_worker, (folder, kind), nprocs=2)
        found = [torch.load(Path(folder) / f"{rank}.pt") for rank in range(2)]
    model, expected = small(**kind), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        expected += step(model)[1]
        optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    same(found[0][:12], expected[:12], 1e-5)
    same(found[0][12:], expected[12:], 1e-5)


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_state_goes_to_the_dense_model_and_back(kind: dict[str, Any]) -> None:
    model, dense = small(**kind), Small()
    assert list(model.state_dict()) == list(dense.state_dict())
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in dense.named_parameters()]
    dense.load_state_dict(model.state_dict())
    again = sparsify(dense, 2, 8, **kind)
    for _ in range(2):
        same(step(again)[1], step(model)[1])
    plain = densify(model)
    assert type(plain.mix) is nn.Linear and not plain._forward_pre_hooks and "sparse_clock" not in plain.__dict__
    assert all(torch.equal(a, b) for a, b in zip(plain.state_dict().values(), model.state_dict().values(), strict=True))
    assert vars(plain.mix).keys() == vars(Small().mix).keys()
    x, _ = data()
    dense.load_state_dict(plain.state_dict())
    assert torch.equal(plain(x), dense(x))


@pytest.mark.parametrize("kind", KINDS, ids=IDS)
def test_copies_and_pickles_go_on_alike_and_apart(kind: dict[str, Any]) -> None:
    model = small(**kind)
    step(model)
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(buffer, weights_only=False)]
    for other in others:
        assert choices(other) == choices(model) and step_of(other) == step_of(model)
        layer: Any = other.mix
        assert layer.clock is other.body[1].clock is not model.mix.clock  # type: ignore[union-attr,index]
        with torch.no_grad():
            layer.weight.neg_()
        assert torch.equal(layer.forward_weight(), -model.mix.forward_weight())  # type: ignore[union-attr,operator]
        with torch.no_grad():
            layer.weight.neg_()
    _, expected = step(model)
    for other in others:
        same(step(other)[1], expected)


def test_pickles_carry_no_copies() -> None:
    model = small()
    before = len(pickle.dumps(model))
    step(model)
    model.zero_grad()
    assert len(pickle.dumps(model)) <= before + 200


def test_half_and_double_models() -> None:
    for dtype in (torch.bfloat16, torch.float64):
        model, x = small().to(dtype), data()[0].to(dtype)
        model(x).sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in model.parameters())


def test_frozen_parameters_and_inputs_have_no_gradient() -> None:
    model = small()
    model.mix.weight.requires_grad_(False)  # type: ignore[union-attr]
    model.body[1].bias.requires_grad_(False)  # type: ignore[index]
    x, y = data()
    x.requires_grad_()
    F.cross_entropy(model(x), y).backward()
    assert x.grad is not None and model.mix.weight.grad is None and model.body[1].bias.grad is None  # type: ignore[union-attr,index]
    assert model.mix.bias.grad is not None and model.body[1].weight.grad is not None  # type: ignore[union-attr,index]
