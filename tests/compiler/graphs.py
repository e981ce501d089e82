"""Small random graphs, and programs run on the machine with dirty memories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.machine import DeformMachine
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.machine import Memory, OpenRegion, Writes
from hw.spec.ops import (
    Add,
    AvgPool2d,
    Clip,
    Conv2d,
    DeformConv2d,
    DeformDepthwiseConv2d,
    DepthwiseConv2d,
    Linear,
    Requant,
    Scale,
    Slice,
    Table,
    mean_requant,
)
from hw.spec.program import Program, TensorLayout
from hw.spec.regs import ErrorCode
from sw.compiler import compile_graph
from sw.compiler.memcheck import prove_memory
from sw.compiler.shapes import output_shape
from sw.graph import IntegerGraph, Node, TensorSpec

S8, U8 = FixedFormat(8, 0), FixedFormat(8, 0, False)
ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)


class Builder:
    """A graph node by node, with random weights; tensors and nodes share names."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.tensors: dict[str, TensorSpec] = {}
        self.inputs: list[str] = []
        self.nodes: list[Node] = []

    def input(self, name: str, shape: tuple[int, int, int], fmt: FixedFormat = S8) -> str:
        self.tensors[name] = TensorSpec(shape=shape, fmt=fmt)
        self.inputs.append(name)
        return name

    def add(self, name: str, operation: Any, *inputs: str, fmt: FixedFormat | None = None) -> str:
        shape = output_shape(operation, [self.tensors[t].shape for t in inputs])
        self.tensors[name] = TensorSpec(shape=shape, fmt=fmt or self.tensors[inputs[0]].fmt)
        self.nodes.append(Node(name=name, operation=operation, inputs=inputs, output=name))
        return name

    def requant(self, channels: int, terms: int, fmt: FixedFormat = S8, peak: int = 7, source: str = "") -> Requant:
        """A step that spreads sums of ``terms`` products of ``source``'s codes and weights up to ``peak`` over the output's codes."""
        narrower = self.tensors[source].fmt.width - fmt.width if source else 0
        scale = int(np.log2(max(terms, 1) ** 0.5 * peak)) + narrower
        multiplier = self.rng.choice([1, 1, 3, 40000], channels)
        return Requant(
            bias=self.rng.integers(-500, 500, channels), multiplier=multiplier,
            shift=np.maximum(np.int64(scale) + np.int64(np.log2(multiplier)) - self.rng.integers(0, 2, channels), -2),
            rounding=ROUNDINGS[self.rng.integers(3)], lo=fmt.min_code, hi=fmt.max_code,
        )

    def conv(self, name: str, source: str, channels: int, *, kernel: tuple[int, int] = (1, 1), stride: int = 1,
             padding: int = 0, peak: int = 7, fmt: FixedFormat = S8, groups: int = 1) -> str:
        inputs = self.tensors[source].shape[0] // groups
        weight = self.rng.integers(-peak - (peak > 7), peak + 1, (channels, inputs, *kernel))
        weight.flat[0] = weight.min() if peak > 7 and weight.min() < -7 else peak
        requant = self.requant(channels, inputs * kernel[0] * kernel[1], fmt, peak, source)
        operation = Conv2d(weight=weight, requant=requant, stride=stride, padding=padding, groups=groups)
        return self.add(name, operation, source, fmt=fmt)

    def linear(self, name: str, source: str, channels: int, peak: int = 7, fmt: FixedFormat = S8) -> str:
        inputs = self.tensors[source].shape[0]
        weight = self.rng.integers(-peak, peak + 1, (channels, inputs))
        operation = Linear(weight=weight, requant=self.requant(channels, inputs, fmt, peak, source))
        return self.add(name, operation, source, fmt=fmt)

    def depthwise(self, name: str, source: str, *, stride: int = 1, padding: int = 1, fmt: FixedFormat = S8) -> str:
        channels = self.tensors[source].shape[0]
        weight = self.rng.integers(-128, 128, (channels, 3, 3))
        requant = self.requant(channels, 9, fmt, 128, source)
        return self.add(name, DepthwiseConv2d(weight=weight, requant=requant, stride=stride, padding=padding), source, fmt=fmt)

    def deform(self, name: str, source: str, offsets: str, *, stride: int = 1, fmt: FixedFormat = S8) -> str:
        channels = self.tensors[source].shape[0]
        weight = self.rng.integers(-128, 128, (channels, 3, 3))
        requant = self.requant(channels, 9, fmt, 128, source)
        frac = self.tensors[offsets].fmt.frac
        operation = DeformDepthwiseConv2d(weight=weight, requant=requant, stride=stride, offset_frac=frac)
        return self.add(name, operation, source, offsets, fmt=fmt)

    def deform_conv(self, name: str, source: str, offsets: str, channels: int, *, kernel: tuple[int, int] = (3, 3), frac: int = 4,
                    stride: int = 1, padding: int = 1, dilation: int = 1, peak: int = 7, fmt: FixedFormat = S8,
                    groups: int = 1) -> str:
        inputs = self.tensors[source].shape[0] // groups
        weight = self.rng.integers(-peak - (peak > 7), peak + 1, (channels, inputs, *kernel))
        requant = self.requant(channels, inputs * kernel[0] * kernel[1], fmt, peak, source)
        geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        operation = DeformConv2d(weight=weight, requant=requant, offset_frac=frac, **geometry)
        return self.add(name, operation, source, offsets, fmt=fmt)

    def mean(self, name: str, source: str, kernel: tuple[int, int], *, stride: int = 1, padding: int = 0) -> str:
        channels, fmt = self.tensors[source].shape[0], self.tensors[source].fmt
        requant = mean_requant(channels, kernel[0] * kernel[1], 0, Rounding.RND, fmt.min_code, fmt.max_code)
        return self.add(name, AvgPool2d(kernel=kernel, requant=requant, stride=stride, padding=padding), source)

    def scale(self, name: str, source: str, fmt: FixedFormat = S8) -> str:
        channels = self.tensors[source].shape[0]
        weight = self.rng.integers(-128, 128, channels)
        return self.add(name, Scale(weight=weight, requant=self.requant(channels, 1, fmt, 128, source)), source, fmt=fmt)

    def table(self, name: str, source: str, fmt: FixedFormat = S8) -> str:
        """A table of random values: every index shows in the result."""
        values = self.rng.integers(fmt.min_code, fmt.max_code + 1, 256)
        return self.add(name, Table(values=values), source, fmt=fmt)

    def clip(self, name: str, source: str, lo: int, hi: int, fmt: FixedFormat | None = None) -> str:
        return self.add(name, Clip(lo=lo, hi=hi), source, fmt=fmt)

    def sum(self, name: str, a: str, b: str, fmt: FixedFormat | None = None) -> str:
        fmt = fmt or self.tensors[a].fmt
        return self.add(name, Add(lo=fmt.min_code, hi=fmt.max_code), a, b, fmt=fmt)

    def half(self, name: str, source: str, which: int) -> str:
        """The first half of the channels (0), or the second (1)."""
        half = self.tensors[source].shape[0] // 2
        return self.add(name, Slice(start=which * half, stop=(which + 1) * half), source)

    def graph(self, *outputs: str) -> IntegerGraph:
        return IntegerGraph(tensors=self.tensors, inputs=tuple(self.inputs), outputs=outputs, nodes=tuple(self.nodes))


def random_codes(graph: IntegerGraph, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Codes (C, H, W) of every input: random with both extremes."""
    codes = {}
    for name in graph.inputs:
        spec = graph.tensors[name]
        array = rng.integers(spec.fmt.min_code, spec.fmt.max_code + 1, spec.shape)
        extreme = rng.random(spec.shape)
        array[extreme < 0.05], array[extreme > 0.95] = spec.fmt.min_code, spec.fmt.max_code
        codes[name] = array
    return codes


def run_machine(program: Program, inputs: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Every tensor that the program stores, outputs and intermediates, on the machine; all memories are dirty before."""
    sizes = [len(program.image), *(region.size for region in program.regions)]
    starts = np.cumsum([0, *(-(-size // 64) * 64 + 64 for size in sizes)])
    memory = Memory(int(starts[-1]))
    memory.bytes[:] = np.random.default_rng(seed).integers(0, 256, memory.bytes.size, np.uint8)
    memory.write(0, np.frombuffer(program.image, np.uint8))
    bases = [int(start) for start in starts[1:]]
    for base, region in zip(bases, program.regions, strict=False):
        memory.write(base, np.frombuffer(region.data, np.uint8))
    for layout in program.inputs:
        memory.write(bases[layout.region] + layout.offset, np.frombuffer(layout.pack(inputs[layout.name]), np.uint8))
    regions = [OpenRegion(base=b, size=r.size) for b, r in zip(bases, program.regions, strict=False)]
    found: dict[str, np.ndarray] = {}

    def read(layout: TensorLayout) -> None:
        assert layout.name not in found
        found[layout.name] = layout.unpack(memory.read(bases[layout.region] + layout.offset, layout.size).tobytes())

    def look(writes: Writes) -> None:
        for entry in program.intermediates:
            if entry.after == writes.index:
                read(entry.layout)

    outcome = DeformMachine(program.arch, seed).run(memory, regions, 0, len(program.image), look)
    assert outcome.error is ErrorCode.NONE, f"{outcome} at {program.layers[outcome.index]}"
    for layout in program.outputs:
        read(layout)
    return found


def assert_alive(name: str, codes: np.ndarray) -> None:
    """Equality of constant tensors would say little: no code may dominate a tensor of some size."""
    values, counts = np.unique(codes, return_counts=True)
    if codes.size >= 64:
        assert len(values) > 3 and counts.max() <= 0.9 * codes.size, f"{name} is nearly constant: {values} {counts}"


def compare(graph: IntegerGraph, arch: DeformArch, seed: int = 0, *, alive: bool = True) -> tuple[Program, int]:
    """Compile, run and compare every element of every stored tensor; returns the program and how many elements were equal."""
    program = compile_graph(graph, arch)
    assert prove_memory(program, graph) > 0
    inputs = random_codes(graph, np.random.default_rng(seed))
    expected = graph.trace({name: codes[None] for name, codes in inputs.items()})
    got, count = run_machine(program, inputs, seed), 0
    for name, codes in got.items():
        assert codes.shape == expected[name].shape[1:]
        np.testing.assert_array_equal(codes, expected[name][0], err_msg=name)
        if alive:
            assert_alive(name, codes)
        count += codes.size
    assert set(got) == set(graph.outputs) | {entry.layout.name for entry in program.intermediates}
    assert count == sum(int(np.prod(graph.tensors[name].shape)) for name in got) > 0
    return program, count


def operations(program: Program) -> Sequence[str]:
    return [instruction.name for instruction in program.instructions()]
