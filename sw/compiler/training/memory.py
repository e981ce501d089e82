"""Where the arrays of a training step lie: padded channels, regions, and scratch words that are reused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from hw.spec.sat import LANES, SatArch
from hw.spec.training_program import Place
from sw.compiler.plan import Life, pack
from sw.compiler.training.emit import GRADIENTS, HYPER, INPUT, OUTPUT, SCRATCH, STATE, WEIGHTS
from sw.training_graph import ConvNode, TrainingGraph

FLOATS = 4
"""FP32 values of a word."""

HYPER_WORDS = 8
"""Words of the hyper region: constants of CHN's update (4), then S, T, U of VEC's three steps of an update, and one spare."""


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """An FP16 tensor (N, H, W, words of 8 channels) in memory."""

    name: str
    region: int
    offset: int
    batch: int
    height: int
    width: int
    words: int

    @property
    def pixels(self) -> int:
        return self.batch * self.height * self.width

    def at(self, image: int = 0, row: int = 0, col: int = 0, word: int = 0) -> int:
        """Word of its region."""
        return self.offset + ((image * self.height + row) * self.width + col) * self.words + word


@dataclass(frozen=True, kw_only=True)
class Copy:
    """FP16 weights of a direction: ``rows`` steps of the reduction (of all taps), ``words`` of 8 lanes each, values then positions."""

    offset: int
    positions: int
    rows: int
    words: int
    steps: int
    chunk: int
    sparse: bool


def chunk_of(pattern: tuple[int, int] | None) -> int:
    """Values of k in a chunk."""
    return 2 * LANES if pattern is not None and pattern[1] > LANES else LANES


def steps_of(pattern: tuple[int, int] | None) -> int:
    """Products per output and chunk."""
    return chunk_of(pattern) if pattern is None else chunk_of(pattern) * pattern[0] // pattern[1]


@dataclass
class Layout:
    """Places are given out one after the other in each region; scratch at the end, when it is known how long each tensor lives."""

    graph: TrainingGraph
    arch: SatArch
    sizes: dict[int, int] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)

    def __post_init__(self) -> None:
        patterns = [p for n in self.graph.nodes if isinstance(n, ConvNode) for p in (n.forward_pattern, n.backward_pattern)]
        # Rows and columns of the array never reach beyond a tensor's channels, where anything may stand.
        self.unit = max(LANES, self.arch.rows, self.arch.columns, *(chunk_of(p) for p in patterns))
        self.shapes = self.graph.shapes()

    def padded(self, channels: int) -> int:
        """Channels as they stand in memory."""
        return -(-channels // self.unit) * self.unit

    def reserve(self, region: int, words: int) -> int:
        """First of these words of a region."""
        at = self.sizes.get(region, 0)
        self.sizes[region] = at + words
        return at

    def place(self, name: str, kind: str, region: int, shape: Sequence[int], padded: Sequence[int]) -> Place:
        """Give an array its own words, under its name."""
        place = Place(name=name, kind=kind, region=region, offset=0, shape=tuple(shape), padded=tuple(padded))
        self.places[name] = placed = replace(place, offset=self.reserve(region, place.words))
        return placed

    def host_tensor(self, name: str, tensor: str, region: int) -> Tensor:
        """A tensor that the host reads or writes."""
        height, width, channels = self.shapes[tensor]
        shape = (self.graph.batch, height, width, channels)
        place = self.place(name, "fp16", region, shape, (*shape[:3], self.padded(channels)))
        return self._tensor(tensor, region, place.offset)

    def _tensor(self, tensor: str, region: int, offset: int) -> Tensor:
        height, width, channels = self.shapes[tensor]
        return Tensor(
            name=tensor, region=region, offset=offset, batch=self.graph.batch, height=height, width=width,
            words=self.padded(channels) // LANES,
        )  # fmt: skip

    def conv(self, node: ConvNode) -> tuple[Place, Place, Place]:
        """Masters, velocities and gradients of a convolution."""
        padded = (*node.shape[:2], self.padded(node.in_channels), self.padded(node.out_channels))
        master, velocity = (self.place(f"{node.name}.{part}", "fp32", STATE, node.shape, padded) for part in ("master", "velocity"))
        return master, velocity, self.place(f"{node.name}.gradient", "fp32", GRADIENTS, node.shape, padded)

    def copy(self, node: ConvNode, *, transposed: bool) -> Copy:
        """Room for the FP16 weights of a direction."""
        pattern = node.backward_pattern if transposed else node.forward_pattern
        reduced, lanes = (node.in_channels, node.out_channels)[:: -1 if transposed else 1]
        # Chunks of pads alone are left out.
        rows = node.shape[0] * node.shape[1] * -(-reduced // chunk_of(pattern)) * steps_of(pattern)
        words = self.padded(lanes) // LANES
        offset, positions = self.reserve(WEIGHTS, rows * words), self.reserve(WEIGHTS, rows * words if pattern else 0)
        return Copy(
            offset=offset, positions=positions, rows=rows, words=words, steps=steps_of(pattern), chunk=chunk_of(pattern),
            sparse=pattern is not None,
        )  # fmt: skip

    def hyper(self) -> Place:
        return self.place("hyper", "fp32", HYPER, (HYPER_WORDS, FLOATS), (HYPER_WORDS, FLOATS))

    def flags(self) -> Place:
        return self.place("flags", "fp32", OUTPUT, (3, FLOATS), (3, FLOATS))

    def gradient_input(self) -> Tensor:
        return self.host_tensor("gradient", self.graph.output, INPUT)


@dataclass
class Scratch:
    """Tensors of the scratch region with the steps in which they are in use; their words are known after ``settle``."""

    layout: Layout
    lives: dict[str, tuple[str, int, int]] = field(default_factory=dict)

    def tensor(self, key: str, tensor: str, step: int) -> str:
        """A new tensor of the shape of ``tensor``, first written in ``step``; returns its key."""
        self.lives[key] = (tensor, step, step)
        return key

    def used(self, key: str, step: int) -> None:
        if key in self.lives:
            tensor, first, last = self.lives[key]
            self.lives[key] = (tensor, first, max(last, step))

    def settle(self) -> dict[str, Tensor]:
        """Every tensor's place, no two in use at once overlapping."""
        shapes = {key: self.layout._tensor(tensor, SCRATCH, 0) for key, (tensor, _, _) in self.lives.items()}
        words = {key: t.pixels * t.words for key, t in shapes.items()}
        offsets = pack([Life(name=k, words=words[k], first=first, last=last) for k, (_, first, last) in self.lives.items()])
        self.layout.sizes[SCRATCH] = max((at + words[key] for key, at in offsets.items()), default=0)
        return {key: self.layout._tensor(tensor, SCRATCH, offsets[key]) for key, (tensor, _, _) in self.lives.items()}
