"""`bitloom report sat`: whole training steps on the large training core, dense against N:M-sparse, by the timing model.

Each network's step is compiled for the core, every instruction's cycles are worked out by the formulas that simulation is compared
with, and added up: loads, stores, products, element-wise work, updates, pruning, fetches. So a row counts all that a step does but
the loss gradient, which the host computes. Nothing is measured on hardware; the clock is an assumption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.sat import SatArch
from hw.spec.sat.timing import MemoryTiming
from hw.spec.training import Geometry, PoolWindow
from hw.spec.training_program import TrainingProgram
from sw.compiler.training import compile_training
from sw.flow.training_cycles import PASSES, StepModel, Work, by_operation, total
from sw.training_graph import BiasState, ChannelNode, ConvNode, PoolNode, TrainingGraph, TrainingState, WeightState

if TYPE_CHECKING:
    from torch import nn

ARCH = SatArch(
    rows=32, columns=32, latency=4, feed=2, burst_beats=64, outstanding=8, act_words=1 << 16, wgt_words=1 << 14, acc_words=1 << 15,
    vec_words=1 << 14, chn_words=1 << 13, tbl_words=1 << 12,
)  # fmt: skip
"""1,024 processing elements with memories that the XCVU9P's UltraRAM holds; one 128-bit memory port."""

CLOCK_MHZ = 200
MEMORY = MemoryTiming(read_latency=40, write_latency=20)
"""Cycles; a beat of 16 bytes per cycle: 3.2 GB/s at 200 MHz, a sixth of what one of the card's four DDR4 channels offers."""

RATIOS: dict[str, tuple[int, int] | None] = {"dense": None, "2:4": (2, 4), "2:8": (2, 8), "2:16": (2, 16)}
SOURCE = "timing model"


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained: a model, images of a size, so many to a batch; ``note`` says what a row leaves out."""

    name: str
    batch: int
    graphs: Callable[[int, tuple[int, int] | None], Sequence[tuple[TrainingGraph, float, str]]]
    """(batch, ratio) to graphs, how often each counts, and the one layer of it that counts ("" for all)."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network at one ratio; cycles of a step, and where they go.

    ``mac_limit`` is what the speedup could be if only multiply-accumulates took time; ``dense_utilisation`` the part of the array's
    peak that the dense step uses. ``element_bytes`` is the traffic of layers that are no products.
    """

    network: str
    batch: int
    ratio: str
    cycles: int
    speedup: float
    mac_limit: float
    dense_utilisation: float
    milliseconds: float
    array_cycles: int
    transfer_cycles: int
    vector_cycles: int
    other_cycles: int
    element_bytes: int
    source: str
    note: str


def networks() -> list[Network]:
    """Those of the publication, in torch."""
    from sw.models.imagenet_resnet import resnet18, resnet50
    from sw.models.resnet9 import ResNet9
    from sw.models.vgg import VGG19

    return [
        Network(name="ResNet9", batch=512, graphs=_exported(lambda: ResNet9(10), 32)),
        Network(name="VGG19 (CIFAR)", batch=512, graphs=_exported(lambda: VGG19(10), 32)),
        Network(name="ResNet18, 64x64, CIFAR stem", batch=256, graphs=_exported(lambda: resnet18(200, "cifar"), 64)),
        Network(name="ResNet18, 64x64, ImageNet stem", batch=256, graphs=_exported(lambda: resnet18(200, "imagenet"), 64)),
        Network(name="ResNet50, 224x224", batch=64, graphs=_exported(lambda: resnet50(1000), 224)),
        Network(
            name="ViT small, 65 tokens, GEMMs", batch=512, graphs=_transformer,
            note="linear layers of the blocks only: no attention products, softmax, LayerNorm, GELU, patches or head",
        ),
    ]  # fmt: skip


def report_sat(
    names: Sequence[str] = (),
    *,
    batch: int | None = None,
    arch: SatArch = ARCH,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Row]:
    """Rows of all networks (or of those whose name holds one of ``names``), dense first; ``batch`` in place of the stated ones."""
    chosen = [n for n in networks() if not names or any(name.lower() in n.name.lower() for name in names)]
    if not chosen:
        raise ValueError(f"network must be one of {', '.join(n.name for n in networks())}, not {', '.join(names)}")
    rows: list[Row] = []
    for number, network in enumerate(chosen):
        if batch is not None:
            network = replace(network, batch=batch)
        for place, row in enumerate(_rows(network, arch)):
            rows.append(row)
            if progress:
                progress("training steps", number * len(RATIOS) + place + 1, len(chosen) * len(RATIOS))
    return rows


def _rows(network: Network, arch: SatArch) -> Iterator[Row]:
    model, dense_cycles, dense_macs = StepModel(arch, MEMORY), 0, 0
    for name, ratio in RATIOS.items():
        parts = network.graphs(network.batch, ratio)
        programs = [compile_training(graph, arch) for graph, _, _ in parts]
        works = [(_counted(model.step(p), layer), times) for p, (_, times, layer) in zip(programs, parts, strict=True)]
        traffic = sum(_element_bytes(g, p, layer) * times for p, (g, times, layer) in zip(programs, parts, strict=True))
        cycles = round(sum(total(step) * times for step, times in works))
        macs = round(sum(step_macs(g, layer) * times for g, times, layer in parts))
        if ratio is None:
            dense_cycles, dense_macs = cycles, macs
        split = _split(works)
        yield Row(
            network=network.name, batch=network.batch, ratio=name, cycles=cycles, speedup=dense_cycles / cycles,
            mac_limit=dense_macs / macs, dense_utilisation=dense_macs / (dense_cycles * arch.rows * arch.columns),
            milliseconds=cycles / CLOCK_MHZ / 1000, source=SOURCE, note=network.note,
            element_bytes=round(traffic), **split,
        )  # fmt: skip


def _counted(step: dict[str, list[Work]], layer: str) -> dict[str, list[Work]]:
    return step if not layer else {name: [w for w in works if w.layer == layer] for name, works in step.items()}


def _split(works: Sequence[tuple[dict[str, list[Work]], float]]) -> dict[str, int]:
    kinds = {"GEMM": "array_cycles", "LOAD": "transfer_cycles", "STORE": "transfer_cycles", "VEC": "vector_cycles"}
    found = dict.fromkeys((*kinds.values(), "other_cycles"), 0.0)
    for step, times in works:
        for operation, cycles in by_operation(step).items():
            found[kinds.get(operation, "other_cycles")] += cycles * times
    return {name: round(value) for name, value in found.items()}


def step_macs(graph: TrainingGraph, layer: str = "") -> int:
    """Multiply-accumulates of a step, those with pruned weights left out; the images have no gradient."""
    macs = 0
    for node in graph.nodes:
        if isinstance(node, ConvNode) and layer in ("", node.name):
            passes = [_kept(node.forward_pattern), 0.0 if node.source == "input" else _kept(node.backward_pattern), 1.0]
            macs += round(graph.batch * node.macs * sum(passes))
    return macs


def _kept(pattern: tuple[int, int] | None) -> float:
    return 1.0 if pattern is None else pattern[0] / pattern[1]


def _element_bytes(graph: TrainingGraph, program: TrainingProgram, layer: str) -> int:
    """Traffic of the layers that are no products, as far as it counts."""
    if layer:
        return 0
    products, words = {node.name for node in graph.nodes if isinstance(node, ConvNode)}, 0
    for name in PASSES:
        for place, i in zip(program.layers[name], program.program(name).instructions(), strict=True):
            if place not in products and i.name in ("LOAD", "STORE"):
                words += i["n0"] * i["n1"] * i["n2"]
    return 16 * words


def _exported(build: Callable[[], nn.Module], size: int) -> Callable[[int, tuple[int, int] | None], Sequence[Any]]:
    def graphs(batch: int, ratio: tuple[int, int] | None) -> list[tuple[TrainingGraph, float, str]]:
        import torch

        from sw.sparse import export, sparsify

        torch.manual_seed(0)
        model = build()
        if ratio is not None:
            model = sparsify(model, *ratio, inplace=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        # One stored value stands for all of the batch's: only its shape counts.
        example = torch.zeros(1).expand(batch, 3, size, size)
        return [(export(model, optimizer, example), 1.0, "")]

    return graphs


TOKENS, WIDTH, BLOCKS = 65, 384, 12
GEMMS = {"qkv": (WIDTH, 3 * WIDTH), "project": (WIDTH, WIDTH), "feed 1": (WIDTH, 4 * WIDTH), "feed 2": (4 * WIDTH, WIDTH)}


def _transformer(batch: int, ratio: tuple[int, int] | None) -> list[tuple[TrainingGraph, float, str]]:
    """Each linear layer of a block as a graph of its own, between a dense layer before it and a mean behind it."""
    return [(_linear(batch, name, *sizes, ratio), BLOCKS, name) for name, sizes in GEMMS.items()]


def _linear(batch: int, name: str, inputs: int, outputs: int, ratio: tuple[int, int] | None) -> TrainingGraph:
    tokens, pixel = (Geometry(height=h, width=1, kernel_h=1, kernel_w=1) for h in (TOKENS, 1))
    nodes = (
        ConvNode(name="before", source="input", target="x", geometry=tokens, in_channels=8, out_channels=inputs),
        ConvNode(name=name, source="x", target="y", geometry=tokens, in_channels=inputs, out_channels=outputs,
                 forward_pattern=ratio, backward_pattern=ratio),
        PoolNode(name="mean", source="y", target="p", window=PoolWindow(kernel=(TOKENS, 1)), average=True),
        ConvNode(name="head", source="p", target="z", geometry=pixel, in_channels=outputs, out_channels=8),
        ChannelNode(name="bias", source="z", target="logits", channels=8),
    )  # fmt: skip
    return TrainingGraph(batch=batch, shape=(TOKENS, 1, 8), nodes=nodes, output="logits", state=_zeros(nodes))


def _zeros(nodes: Sequence[Any]) -> TrainingState:
    """A state that takes no memory: only shapes count."""
    weights, channels = {}, {}
    for node in nodes:
        if isinstance(node, ConvNode):
            zero = np.broadcast_to(np.float32(0), node.shape)
            weights[node.name] = WeightState(master=zero, velocity=zero)
        elif isinstance(node, ChannelNode):
            zero = np.zeros(node.channels, np.float32)
            channels[node.name] = BiasState(scale=zero, bias=zero, scale_velocity=zero, bias_velocity=zero)
    return TrainingState(weights=weights, channels=channels)


def to_dict(rows: Sequence[Row], arch: SatArch = ARCH) -> dict[str, Any]:
    """The report as JSON."""
    limited = all(row.speedup <= row.mac_limit * (1 + 1e-9) for row in rows)
    return {
        "ok": bool(rows) and limited, "rows": [asdict(row) for row in rows], "arch": arch.to_dict(), "clock_mhz": CLOCK_MHZ,
        "memory": asdict(MEMORY), "mean_speedup": {
            ratio: float(np.mean([row.speedup for row in rows if row.ratio == ratio])) for ratio in RATIOS if ratio != "dense"
        } if rows else {},
    }  # fmt: skip
