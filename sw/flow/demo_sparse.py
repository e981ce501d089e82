"""`bitloom demo sparse`: train digits N:M-sparse, some steps of it on the simulated training core, every number compared.

Three trainings start from the same weights and see the same batches: in torch (float32, BDWP), as golden operations with compiled
products (the emulator: what a core computes), and on the simulated core, whose first steps are compared with the emulator and, byte by
byte, with the interpreter. One step of the same network trained dense runs on the same core, to see what sparsity saves.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.program import write_atomically
from hw.spec.records import PROGRAM_FILE
from hw.spec.sat import SatArch
from hw.spec.training import Hyper
from hw.spec.training_program import TrainingProgram
from sw.compiler.training import compile_training
from sw.flow.commands import file_sha256, versions
from sw.flow.files import save_json
from sw.flow.training_chain import Batch, TrainingReport
from sw.flow.training_cycles import LayerPass, layer_passes
from sw.flow.verify import power_up_and_stalls
from sw.flow.verify_training import VARIANT_STEPS, TrainingProof, prove_training
from sw.kernels.products import ordered_products
from sw.training_graph import ConvNode, TrainingGraph

if TYPE_CHECKING:
    from sw.data.digits import Digits

ARCH = SatArch(rows=8, columns=8, feed=2)
PATTERN = (2, 8)
LINKS = ("graph_machine", "machine_rtl", "memory", "timing")


@dataclass(frozen=True, kw_only=True)
class SparseConfig:
    """What is trained and for how long: ``steps`` in torch and the emulator, the first ``core_steps`` of them on the core."""

    steps: int = 400
    core_steps: int = 10
    batch: int = 16
    learning_rate: float = 0.03
    momentum: float = 0.9
    weight_decay: float = 5e-4
    width: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.core_steps <= self.steps:
            raise ValueError(f"core_steps must be in 1..steps ({self.steps}), not {self.core_steps}")


@dataclass(frozen=True, kw_only=True)
class Tell:
    """Where progress goes: ``say`` a line, ``steps`` (what, done, total)."""

    say: Callable[[str], None] = lambda words: None
    steps: Callable[[str, int, int], None] = lambda what, done, total: None


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A training's loss per step and its accuracy on the held-out images."""

    losses: list[float]
    accuracy: float


@dataclass(frozen=True, kw_only=True, eq=False)
class SparseResult:
    """Everything that the demo found."""

    config: SparseConfig
    arch: SatArch
    graph: TrainingGraph
    """At the start."""
    program: TrainingProgram
    torch: Trained
    emulator: Trained
    proof: TrainingProof
    dense_proof: TrainingProof
    sparse_layers: tuple[LayerPass, ...]
    dense_layers: tuple[LayerPass, ...]
    masters: dict[str, np.ndarray]
    """After the emulator's last step."""
    seconds: float

    @property
    def report(self) -> TrainingReport:
        """Of the sparse training."""
        return self.proof.report

    @property
    def dense(self) -> TrainingReport:
        """Of one dense step."""
        return self.dense_proof.report

    @property
    def ok(self) -> bool:
        """Every link is equal, of sparse and dense training, and the core's losses are the emulator's."""
        return self.proof.ok and self.dense_proof.ok and self.report.losses == self.emulator.losses[: len(self.report.losses)]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON; ``cycles`` and ``macs`` are of one sparse step."""
        cycles = {name: sum(layer.cycles for layer in layers) for name, layers in self._layers().items()}
        macs = sum(self.graph.batch * node.macs for node in self.graph.nodes if isinstance(node, ConvNode))
        array = sum(layer.array for layer in self.sparse_layers)
        return {
            "ok": self.ok,
            "float_accuracy": self.torch.accuracy,
            "fixed_accuracy": self.emulator.accuracy,
            "pattern": f"{PATTERN[0]}:{PATTERN[1]}",
            "links": self.report.to_dict()["links"],
            "dense_links": self.dense.to_dict()["links"],
            "variants": self.proof.to_dict()["variants"],
            "first_mismatches": [*self.proof.first, *self.dense_proof.first],
            "losses": {"torch": self.torch.losses, "emulator": self.emulator.losses, "core": self.report.losses},
            "cycles": cycles["sparse"],
            "dense_cycles": cycles["dense"],
            "speedup": cycles["dense"] / cycles["sparse"],
            "array_speedup": sum(layer.array for layer in self.dense_layers) / array if array else 0.0,
            "macs": 3 * macs,
            "mac_utilisation": 3 * macs / (cycles["dense"] * self.arch.rows * self.arch.columns),
            "simulated_cycles_per_second": self.proof.cycles_per_second,
            "layers": {name: [asdict(layer) for layer in layers] for name, layers in self._layers().items()},
            "config": asdict(self.config),
            "arch": self.arch.to_dict(),
            "versions": versions(),
            "seconds": self.seconds,
        }

    def _layers(self) -> dict[str, tuple[LayerPass, ...]]:
        return {"sparse": self.sparse_layers, "dense": self.dense_layers}


def demo_sparse(out: Path, *, config: SparseConfig | None = None, arch: SatArch = ARCH, tell: Tell | None = None) -> SparseResult:
    """Run it all and leave graph, program, data, report.html and manifest.json in ``out``."""
    from hw.sim.core import build_core
    from sw.data.digits import load_digits

    config, tell, start = config or SparseConfig(), tell or Tell(), time.perf_counter()
    data = load_digits()
    batches = _batches(data, config)
    tell.say("building the simulator of the training core")
    build = build_core(arch, progress=tell.say)
    graph, dense = (_graph(config, pattern, batches[0]) for pattern in (PATTERN, None))
    program, dense_program = compile_training(graph, arch), compile_training(dense, arch)
    tell.say(f"compiled {len(graph.nodes)} nodes to {sum(map(len, program.layers.values()))} instructions")
    hyper = Hyper(
        learning_rate=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay, loss_scale=1024.0
    )  # fmt: skip
    by_torch = _train_torch(config, data, batches, tell)
    emulator, masters = _emulate(graph, data, batches, hyper, tell)
    core_batches = batches[: config.core_steps]
    proof = prove_training(
        graph, program, core_batches, hyper, build=build, variants=power_up_and_stalls(VARIANT_STEPS), progress=tell.steps
    )
    dense_proof = prove_training(
        dense, dense_program, batches[:1], hyper, build=build, progress=lambda what, n, total: tell.steps(f"{what}, dense", n, total)
    )
    result = SparseResult(
        config=config, arch=arch, graph=graph, program=program, torch=by_torch, emulator=emulator, proof=proof, dense_proof=dense_proof,
        sparse_layers=layer_passes(program, proof.report.times), dense_layers=layer_passes(dense_program, dense_proof.report.times),
        masters=masters, seconds=time.perf_counter() - start,
    )  # fmt: skip
    _write(out, result, data)
    return result


def _arrays(data: Digits, part: str) -> dict[str, np.ndarray]:
    """Images (N, H, W, C) as float16, exact for pixels that are multiples of 1/16, and labels of ``train`` or ``test``."""
    images, labels = getattr(data, f"{part}_images"), getattr(data, f"{part}_labels")
    return {f"{part}_images": images.permute(0, 2, 3, 1).numpy().astype(np.float16), f"{part}_labels": labels.numpy()}


def _batches(data: Digits, config: SparseConfig) -> list[Batch]:
    """Random batches of images and labels."""
    rng = np.random.default_rng(config.seed)
    images, labels = _arrays(data, "train").values()
    picks = (rng.choice(len(labels), config.batch, replace=False) for _ in range(config.steps))
    return [(images[pick], labels[pick]) for pick in picks]


def _model(config: SparseConfig, pattern: tuple[int, int] | None) -> tuple[Any, Any]:
    """The model and its optimiser, the same weights for every pattern."""
    import torch

    from sw.models.sparse_digits import SparseDigitsNet
    from sw.sparse import sparsify

    torch.manual_seed(config.seed)
    model: torch.nn.Module = SparseDigitsNet(width=config.width)
    model = model if pattern is None else sparsify(model, *pattern)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return model, optimizer


def _graph(config: SparseConfig, pattern: tuple[int, int] | None, batch: Batch) -> TrainingGraph:
    from sw.sparse import export

    model, optimizer = _model(config, pattern)
    return export(model, optimizer, _torch_images(batch[0]))


def _torch_images(images: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


def _train_torch(config: SparseConfig, data: Digits, batches: list[Batch], tell: Tell) -> Trained:
    """Ordinary float32 training in torch."""
    import torch
    from torch.nn import functional as F

    model, optimizer = _model(config, PATTERN)
    losses = []
    for number, (images, labels) in enumerate(batches):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(_torch_images(images)), torch.from_numpy(labels))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        tell.steps("torch", number + 1, len(batches))
    with torch.no_grad():
        scores = model.eval()(data.test_images)
    return Trained(losses=losses, accuracy=float((scores.argmax(1) == data.test_labels).float().mean()))


def _emulate(
    graph: TrainingGraph, data: Digits, batches: list[Batch], hyper: Hyper, tell: Tell
) -> tuple[Trained, dict[str, np.ndarray]]:
    """The same training as golden operations, as a core computes it."""
    products, state, losses = ordered_products(), graph.state, []
    for number, batch in enumerate(batches):
        result = graph.step(state, *batch, hyper, products)
        state = result.state
        losses.append(result.loss)
        tell.steps("emulator", number + 1, len(batches))
    images, labels = _arrays(data, "test").values()
    scores = graph.infer(state, images, products).reshape(len(images), -1)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    return Trained(losses=losses, accuracy=accuracy), {name: weights.master for name, weights in state.weights.items()}


def _write(out: Path, result: SparseResult, data: Digits) -> None:
    """All artefacts, the manifest with every other file's hash last. digits.npz holds images float16 (N, H, W, C) and labels."""
    from sw.flow.report_sparse import sparse_page

    out.mkdir(parents=True, exist_ok=True)
    result.program.save(out / "digits.training")
    replace(result.graph).save(out / "digits.traingraph")
    save_json(out / "arch.json", result.arch.to_dict())
    with (out / "digits.npz").open("wb") as file:
        np.savez(file, **_arrays(data, "train"), **_arrays(data, "test"))  # type: ignore[arg-type]
    write_atomically(out / "report.html", sparse_page(result).encode())
    names = ["digits.training", "digits.traingraph", "arch.json", "digits.npz", "report.html"]
    if result.proof.ok:
        result.proof.record().save(out / PROGRAM_FILE)
        names.append(PROGRAM_FILE)
    else:
        (out / PROGRAM_FILE).unlink(missing_ok=True)
    files = {name: file_sha256(out / name) for name in names}
    save_json(out / "manifest.json", {"artefact": "demo sparse", "files": files, "result": result.to_dict()})
