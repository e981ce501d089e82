"""Small training graphs for tests: every kind of node, random parameters."""

from __future__ import annotations

import numpy as np

from hw.spec.training import BiasState, Geometry, NormConstants, NormState, PoolWindow
from sw.training_graph import ChannelNode, ConvNode, Node, Pattern, PoolNode, SumNode, TrainingGraph, TrainingState, WeightState

Array = np.ndarray


def float32(values: Array) -> Array:
    return values.astype(np.float32)


def bias_state(rng: np.random.Generator, channels: int) -> BiasState:
    zero = np.zeros(channels, np.float32)
    return BiasState(scale=zero, bias=float32(rng.standard_normal(channels) * 0.1), scale_velocity=zero, bias_velocity=zero)


def norm_state(rng: np.random.Generator, channels: int) -> NormState:
    zero = np.zeros(channels, np.float32)
    return NormState(
        scale=float32(1 + 0.2 * rng.standard_normal(channels)), bias=float32(0.2 * rng.standard_normal(channels)),
        scale_velocity=zero, bias_velocity=zero, running_mean=zero, running_variance=np.ones(channels, np.float32),
    )  # fmt: skip


def random_state(rng: np.random.Generator, nodes: tuple[Node, ...]) -> TrainingState:
    weights, channels = {}, {}
    for node in nodes:
        if isinstance(node, ConvNode):
            scale = (2 / (node.shape[0] * node.shape[1] * node.in_channels)) ** 0.5
            master = float32(rng.standard_normal(node.shape) * scale)
            weights[node.name] = WeightState(master=master, velocity=np.zeros_like(master))
        elif isinstance(node, ChannelNode):
            channels[node.name] = (norm_state if node.constants else bias_state)(rng, node.channels)
    return TrainingState(weights=weights, channels=channels)


def conv(
    name: str, source: str, size: int, channels: tuple[int, int], kernel: int = 3, stride: int = 1, pattern: Pattern = None
) -> ConvNode:  # fmt: skip
    geometry = Geometry(height=size, width=size, kernel_h=kernel, kernel_w=kernel, stride=stride, padding=kernel // 2)
    return ConvNode(
        name=name, source=source, target=f"{name}.y", geometry=geometry, in_channels=channels[0], out_channels=channels[1],
        forward_pattern=pattern, backward_pattern=pattern,
    )  # fmt: skip


def norm(name: str, source: str, channels: int, relu: bool = True, residual: str | None = None) -> ChannelNode:
    return ChannelNode(
        name=name, source=source, target=f"{name}.z", channels=channels, constants=NormConstants(), relu=relu, residual=residual
    )


def residual_network(
    pattern: Pattern = None, *, batch: int = 2, size: int = 8, width: int = 8, classes: int = 10, seed: int = 0
) -> TrainingGraph:  # fmt: skip
    """3 x 3 stride 1 and 2, 1 x 1 stride 2, BatchNorm, ReLU, residual sums, maximum and average pooling, a linear layer."""
    half = size // 2
    nodes: tuple[Node, ...] = (
        conv("stem", "input", 2 * size, (1, width)),
        norm("stem_norm", "stem.y", width),
        PoolNode(name="pool", source="stem_norm.z", target="pool.z", window=PoolWindow(kernel=(2, 2))),
        conv("c1", "pool.z", size, (width, 2 * width), stride=2, pattern=pattern),
        norm("n1", "c1.y", 2 * width),
        conv("c2", "n1.z", half, (2 * width, 2 * width), pattern=pattern),
        conv("shortcut", "pool.z", size, (width, 2 * width), kernel=1, stride=2, pattern=pattern),
        norm("shortcut_norm", "shortcut.y", 2 * width, relu=False),
        norm("n2", "c2.y", 2 * width, residual="shortcut_norm.z"),
        conv("c3", "n2.z", half, (2 * width, 2 * width), kernel=1, pattern=pattern),
        norm("n3", "c3.y", 2 * width, residual="n2.z"),
        SumNode(name="sum", source="n1.z", residual="n3.z", target="sum.z", relu=True),
        SumNode(name="plain", source="sum.z", residual="n3.z", target="plain.z"),
        PoolNode(name="mean", source="plain.z", target="mean.z", window=PoolWindow(kernel=(half, half)), average=True),
        conv("head", "mean.z", 1, (2 * width, classes), kernel=1),
        ChannelNode(name="head_bias", source="head.y", target="logits", channels=classes),
    )
    rng = np.random.default_rng(seed)
    return TrainingGraph(batch=batch, shape=(2 * size, 2 * size, 1), nodes=nodes, output="logits", state=random_state(rng, nodes))


def random_batch(graph: TrainingGraph, seed: int = 1) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    classes = graph.shapes()[graph.output][2]
    return rng.standard_normal((graph.batch, *graph.shape)).astype(np.float16), rng.integers(0, classes, graph.batch)
