"""Training graphs: an executable training step of golden operations, one file each (`sw.training_graph_file`), numpy only.

A graph is a list of nodes in forward order, for a fixed batch. Running it *is* the definition of what a core's programs compute:
forward pass, gradient of the loss (by the host), backward pass, update of all parameters, N:M copies of the weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hw.spec.program import write_atomically
from hw.spec.training import (
    DEFINITION,
    BiasState,
    Geometry,
    Hyper,
    Normalised,
    NormConstants,
    NormState,
    PoolWindow,
    Products,
    add,
    average_pool,
    average_pool_backward,
    backward_weights,
    bias_forward,
    bias_gradient,
    forward_weights,
    masked,
    max_pool,
    max_pool_backward,
    norm_backward,
    norm_fixed,
    norm_forward,
    softmax_cross_entropy,
    summed,
    updated,
)
from hw.spec.training.rounded import half, watching

Array = np.ndarray
Pattern = tuple[int, int] | None
INPUT = "input"
LARGEST_M = 256
"""Of a pattern (n, m), as `hw.spec.sparsity` has it."""


class TrainingGraphError(ValueError):
    """A training graph that does not hold together, or a state that does not fit it; the message says where."""


@dataclass(frozen=True, kw_only=True)
class ConvNode:
    """A convolution without bias, groups or dilation. Patterns (n, m) prune its weights in either direction; None does not."""

    name: str
    source: str
    target: str
    geometry: Geometry
    in_channels: int
    out_channels: int
    forward_pattern: Pattern = None
    backward_pattern: Pattern = None

    def __post_init__(self) -> None:
        if min(self.in_channels, self.out_channels) < 1:
            raise TrainingGraphError(f"node {self.name} must have channels, not {self.in_channels} and {self.out_channels}")
        for what, pattern, channels in (("forward", self.forward_pattern, self.in_channels),
                                        ("backward", self.backward_pattern, self.out_channels)):
            if pattern is not None and (not 1 <= pattern[0] <= pattern[1] <= LARGEST_M or channels % pattern[1]):
                raise TrainingGraphError(f"node {self.name}: the {what} pattern must be (n, m), 1 <= n <= m <= {LARGEST_M}, with m "
                                         f"dividing {channels} channels, not {pattern}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the masters (KH, KW, CI, CO)."""
        return self.geometry.kernel_h, self.geometry.kernel_w, self.in_channels, self.out_channels

    @property
    def macs(self) -> int:
        """Dense multiply-accumulates of one image and pass."""
        return self.geometry.out_height * self.geometry.out_width * int(np.prod(self.shape))


@dataclass(frozen=True, kw_only=True)
class ChannelNode:
    """BatchNorm (``constants`` given) or a bias per channel, then a residual sum and a ReLU, each if wanted."""

    name: str
    source: str
    target: str
    channels: int
    constants: NormConstants | None = None
    relu: bool = False
    residual: str | None = None

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise TrainingGraphError(f"node {self.name} must have at least 1 channel, not {self.channels}")
        if (c := self.constants) is not None and not (2.0**-126 <= c.epsilon <= 2.0**126 and 0 <= c.running_weight <= 1):
            raise TrainingGraphError(f"node {self.name}: epsilon must be a normal FP32 above 0 and running_weight in 0..1, not {c}")


@dataclass(frozen=True, kw_only=True)
class PoolNode:
    """Maximum or average pooling. Windows of an average do not overlap, and the image consists of them."""

    name: str
    source: str
    target: str
    window: PoolWindow
    average: bool = False


@dataclass(frozen=True, kw_only=True)
class SumNode:
    """A residual sum that stands alone, then a ReLU if wanted."""

    name: str
    source: str
    target: str
    residual: str
    relu: bool = False


Node = ConvNode | ChannelNode | PoolNode | SumNode


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightState:
    """FP32 masters (KH, KW, CI, CO) and their velocities."""

    master: Array
    velocity: Array


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """All that training changes, by node name."""

    weights: Mapping[str, WeightState]
    channels: Mapping[str, BiasState]

    def arrays(self) -> dict[str, Array]:
        """Every array by name, ``node.part``."""
        found = {f"{name}.{part}": getattr(w, part) for name, w in self.weights.items() for part in ("master", "velocity")}
        for name, channel in self.channels.items():
            found |= {f"{name}.{part}": value for part, value in vars(channel).items()}
        return found


@dataclass(kw_only=True, eq=False)
class Tape:
    """A forward pass: every tensor, what BatchNorm's backward pass needs, the state with new running statistics."""

    values: dict[str, Array]
    seen: dict[str, Normalised]
    state: TrainingState
    saturated: bool = False


@dataclass(kw_only=True, eq=False)
class Gradients:
    """Gradients times the loss scale: of tensors (float16), of masters and of channel values (scale, bias) in FP32."""

    tensors: dict[str, Array] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    channels: dict[str, tuple[Array, Array]] = field(default_factory=dict)
    saturated: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class StepResult:
    """One training step; ``skipped``: a gradient saturated, so that nothing but the running statistics changed."""

    state: TrainingState
    loss: float
    logits: Array
    skipped: bool
    tape: Tape
    gradients: Gradients


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingGraph:
    """A network that trains.

    Parameters
    ----------
    batch : images of a step
    shape : (H, W, C) of an image
    nodes : in forward order; each tensor but ``input`` is written once, before it is read
    output : the tensor of logits (N, 1, 1, classes)
    state : parameters at the start
    """

    batch: int
    shape: tuple[int, int, int]
    nodes: tuple[Node, ...]
    output: str
    state: TrainingState

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise TrainingGraphError(f"a batch must have at least 1 image, not {self.batch}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise TrainingGraphError(f"an image must be (H, W, C), each at least 1, not {self.shape}")
        if len({node.name for node in self.nodes}) != len(self.nodes):
            raise TrainingGraphError(f"nodes must have names of their own, not {[node.name for node in self.nodes]}")
        shapes = self.shapes()
        if self.output not in shapes or shapes[self.output][:2] != (1, 1):
            raise TrainingGraphError(f"the output {self.output} must be a tensor of one pixel, not {shapes.get(self.output)}")
        self.check_state(self.state)

    def shapes(self) -> dict[str, tuple[int, int, int]]:
        """(H, W, C) of every tensor; TrainingGraphError where a node does not fit its source."""
        shapes = {INPUT: self.shape}
        for node in self.nodes:
            sources = [node.source, *([residual] if (residual := getattr(node, "residual", None)) else [])]
            if missing := [name for name in sources if name not in shapes]:
                raise TrainingGraphError(f"node {node.name} reads {missing} before anything writes it")
            if node.target in shapes:
                raise TrainingGraphError(f"node {node.name} writes {node.target}, which is already written")
            shapes[node.target] = _result(node, [shapes[name] for name in sources])
        return shapes

    def check_state(self, state: TrainingState) -> None:
        """TrainingGraphError where a state's arrays are not those of the graph, or not finite."""
        for node in self.nodes:
            parts: dict[str, tuple[int, ...]] = {}
            if isinstance(node, ConvNode):
                parts = dict.fromkeys(("master", "velocity"), node.shape)
            elif isinstance(node, ChannelNode):
                kind = NormState if node.constants else BiasState
                parts = dict.fromkeys(kind.__dataclass_fields__, (node.channels,))
            for part, shape in parts.items():
                _check_array(f"{node.name}.{part}", state.arrays().get(f"{node.name}.{part}"), shape)

    def consumers(self, tensor: str) -> int:
        """How many nodes read a tensor."""
        return sum((node.source == tensor) + (getattr(node, "residual", None) == tensor) for node in self.nodes)

    def forward(self, state: TrainingState, images: Array, products: Products = DEFINITION) -> Tape:
        """Training's forward pass; images float16 (N, H, W, C)."""
        if images.dtype != np.float16 or images.shape != (self.batch, *self.shape) or not np.isfinite(images).all():
            raise TrainingGraphError(f"images must be finite float16 {(self.batch, *self.shape)}, not {images.dtype} {images.shape}")
        values, seen, channels = {INPUT: images}, {}, dict(state.channels)
        with watching() as watch:
            for node in self.nodes:
                if isinstance(node, ChannelNode) and node.constants is not None:
                    values[node.target], seen[node.name], channels[node.name] = _norm(node, values, channels[node.name])
                else:
                    values[node.target] = _forward(node, values, state, products)
        return Tape(values=values, seen=seen, state=replace(state, channels=channels), saturated=watch.saturated)

    def infer(self, state: TrainingState, images: Array, products: Products = DEFINITION) -> Array:
        """Logits (N, 1, 1, classes) with the running statistics; any number of images."""
        values = {INPUT: images}
        for node in self.nodes:
            if isinstance(node, ChannelNode) and node.constants is not None:
                norm = state.channels[node.name]
                assert isinstance(norm, NormState)
                residual = None if node.residual is None else values[node.residual]
                values[node.target] = norm_fixed(values[node.source], norm, node.constants, residual, node.relu)
            else:
                values[node.target] = _forward(node, values, state, products)
        return values[self.output]

    def backward(self, tape: Tape, gradient: Array, products: Products = DEFINITION) -> Gradients:
        """All gradients from that of the output, float16 (N, 1, 1, classes); the input's is not computed."""
        found = Gradients(tensors={self.output: gradient})
        with watching() as watch:
            for node in reversed(self.nodes):
                for tensor, part in _backward(node, tape, found, products):
                    before = found.tensors.get(tensor)
                    found.tensors[tensor] = part if before is None else add(before, part)
        found.saturated = watch.saturated
        return found

    def update(self, state: TrainingState, gradients: Gradients, hyper: Hyper) -> TrainingState:
        """The state after the optimiser's step."""
        weights = {}
        for name, before in state.weights.items():
            master, velocity = updated(before.master, before.velocity, gradients.weights[name], hyper, hyper.weight_decay)
            weights[name] = WeightState(master=master, velocity=velocity)
        return TrainingState(weights=weights, channels={n: self._updated_channel(n, state, gradients, hyper) for n in state.channels})

    def _updated_channel(self, name: str, state: TrainingState, gradients: Gradients, hyper: Hyper) -> BiasState:
        channel, decay = state.channels[name], hyper.weight_decay if hyper.decay_norm else 0.0
        scale_gradient, bias_gradient = gradients.channels[name]
        scale, scale_velocity = updated(channel.scale, channel.scale_velocity, scale_gradient, hyper, decay)
        bias, bias_velocity = updated(channel.bias, channel.bias_velocity, bias_gradient, hyper, decay)
        return replace(channel, scale=scale, bias=bias, scale_velocity=scale_velocity, bias_velocity=bias_velocity)

    def step(self, state: TrainingState, images: Array, labels: Array, hyper: Hyper, products: Products = DEFINITION) -> StepResult:
        """One training step. A step whose backward pass saturates is skipped: only the running statistics are new."""
        tape = self.forward(state, images, products)
        logits = tape.values[self.output].reshape(self.batch, -1)
        with watching() as watch:
            loss, gradient = softmax_cross_entropy(logits, labels, hyper.loss_scale)
        gradients = self.backward(tape, gradient.reshape(self.batch, 1, 1, -1), products)
        skipped = watch.saturated or gradients.saturated
        after = tape.state if skipped else self.update(tape.state, gradients, hyper)
        return StepResult(state=after, loss=loss, logits=logits, skipped=skipped, tape=tape, gradients=gradients)

    def to_bytes(self) -> bytes:
        """The graph's file; equal graphs have equal bytes."""
        from sw.training_graph_file import to_bytes

        return to_bytes(self)

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        write_atomically(path, self.to_bytes())

    @property
    def structure_sha256(self) -> str:
        """SHA-256 (hex) of the graph without its state: what a program was compiled from."""
        return hashlib.sha256(repr((self.batch, self.shape, self.nodes, self.output)).encode()).hexdigest()

    @staticmethod
    def load(path: str | Path) -> TrainingGraph:
        return TrainingGraph.from_bytes(Path(path).read_bytes(), str(path))

    @staticmethod
    def from_bytes(data: bytes, where: str = "graph") -> TrainingGraph:
        """The graph in a file's bytes; TrainingGraphError says what is wrong."""
        from sw.training_graph_file import from_bytes

        return from_bytes(data, where)


def _check_array(name: str, array: Array | None, shape: Sequence[int]) -> None:
    if array is None or array.dtype != np.float32 or array.shape != tuple(shape) or not np.isfinite(array).all():
        found = "missing" if array is None else f"{array.dtype} {array.shape}"
        raise TrainingGraphError(f"{name} must be finite float32 of shape {tuple(shape)}, not {found}")


def _result(node: Node, sources: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    """(H, W, C) of a node's result."""
    height, width, channels = sources[0]
    if isinstance(node, ConvNode):
        g = node.geometry
        if (g.height, g.width, node.in_channels) != sources[0]:
            raise TrainingGraphError(f"node {node.name} expects {(g.height, g.width, node.in_channels)}, its source is {sources[0]}")
        return g.out_height, g.out_width, node.out_channels
    if isinstance(node, PoolNode):
        w = node.window
        if not w.overlaps and (height % w.kernel[0] or width % w.kernel[1] or w.stride != w.kernel):
            raise TrainingGraphError(f"node {node.name}: windows of {w.kernel} do not divide {height}x{width}")
        if (node.average and w.overlaps) or min(w.size(height, width)) < 1:
            raise TrainingGraphError(f"node {node.name}: {w} must not overlap for an average, and must fit into {height}x{width}")
        return (*w.size(height, width), channels)
    if channels != getattr(node, "channels", channels) or any(other != sources[0] for other in sources):
        wanted = f"{node.channels} channels" if isinstance(node, ChannelNode) else "two sources of one shape"
        raise TrainingGraphError(f"node {node.name} has {wanted}, its sources are {sources}")
    return sources[0]


def _norm(node: ChannelNode, values: Mapping[str, Array], state: BiasState) -> tuple[Array, Normalised, NormState]:
    assert isinstance(state, NormState) and node.constants is not None
    residual = None if node.residual is None else values[node.residual]
    return norm_forward(values[node.source], state, node.constants, residual, node.relu)


def _forward(node: Node, values: Mapping[str, Array], state: TrainingState, products: Products) -> Array:
    x = values[node.source]
    if isinstance(node, ConvNode):
        weight = forward_weights(state.weights[node.name].master, node.forward_pattern)
        return half(products.forward(x, weight, node.geometry))
    if isinstance(node, PoolNode):
        return average_pool(x, node.window) if node.average else max_pool(x, node.window)
    if isinstance(node, SumNode):
        return summed(x, values[node.residual], node.relu)
    residual = None if node.residual is None else values[node.residual]
    return bias_forward(x, state.channels[node.name], residual, node.relu)


def _backward(node: Node, tape: Tape, found: Gradients, products: Products) -> list[tuple[str, Array]]:
    """Contributions to the gradients of the tensors that a node reads; its parameters' gradients go into ``found``."""
    dz = found.tensors[node.target]
    if isinstance(node, ConvNode):
        return _conv_backward(node, dz, tape, found, products)
    x, z = tape.values[node.source], tape.values[node.target]
    if isinstance(node, PoolNode):
        w = node.window
        return [(node.source, average_pool_backward(dz, w) if node.average else max_pool_backward(dz, x, z, w))]
    g = masked(dz, z) if node.relu else dz
    if isinstance(node, SumNode):
        return [(node.source, g), (node.residual, g)]
    state = tape.state.channels[node.name]
    if node.constants is not None:
        assert isinstance(state, NormState)
        dx, *found_channels = norm_backward(g, x, state, tape.seen[node.name])
        found.channels[node.name] = (found_channels[0], found_channels[1])
    else:
        dx, found.channels[node.name] = g, (np.zeros_like(state.scale), bias_gradient(g))
    return [(node.source, dx), *([(node.residual, g)] if node.residual is not None else [])]


def _conv_backward(node: ConvNode, dy: Array, tape: Tape, found: Gradients, products: Products) -> list[tuple[str, Array]]:
    found.weights[node.name] = products.weight_gradient(tape.values[node.source], dy, node.geometry)
    if node.source == INPUT:
        return []
    weight = backward_weights(tape.state.weights[node.name].master, node.backward_pattern)
    return [(node.source, half(products.input_gradient(dy, weight, node.geometry)))]

