"""Small random graphs, and programs run on the machine with dirty memories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.machine import DeformMachine
from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.machine import Memory, OpenRegion
from hw.spec.ops import AvgPool2d, Conv2d, DeformDepthwiseConv2d, DepthwiseConv2d, Linear, Requant, mean_requant
from hw.spec.program import Program
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

    def requant(self, channels: int, terms: int, fmt: FixedFormat = S8, peak: int = 7) -> Requant:
        """A step that spreads sums of ``terms`` products of weights up to ``peak`` over the output's codes."""
        scale = int(np.log2(max(terms, 1) ** 0.5 * peak))
        multiplier = self.rng.choice([1, 1, 3, 40000], channels)
        return Requant(
            bias=self.rng.integers(-500, 500, channels), multiplier=multiplier,
            shift=np.maximum(np.int64(scale) + np.int64(np.log2(multiplier)) - self.rng.integers(0, 2, channels), -2),
            rounding=ROUNDINGS[self.rng.integers(3)], lo=fmt.min_code, hi=fmt.max_code,
        )

    def conv(self, name: str, source: str, channels: int, *, kernel: tuple[int, int] = (1, 1), stride: int = 1,
             padding: int = 0, peak: int = 7, fmt: FixedFormat = S8) -> str:
        inputs = self.tensors[source].shape[0]
        weight = self.rng.integers(-peak - (peak > 7), peak + 1, (channels, inputs, *kernel))
        weight.flat[0] = weight.min() if peak > 7 and weight.min() < -7 else peak
        requant = self.requant(channels, inputs * kernel[0] * kernel[1], fmt, peak)
        return self.add(name, Conv2d(weight=weight, requant=requant, stride=stride, padding=padding), source, fmt=fmt)

    def linear(self, name: str, source: str, channels: int, peak: int = 7) -> str:
        inputs = self.tensors[source].shape[0]
        weight = self.rng.integers(-peak, peak + 1, (channels, inputs))
        return self.add(name, Linear(weight=weight, requant=self.requant(channels, inputs, peak=peak)), source, fmt=S8)

    def depthwise(self, name: str, source: str, *, stride: int = 1, padding: int = 1, fmt: FixedFormat = S8) -> str:
        channels = self.tensors[source].shape[0]
        weight = self.rng.integers(-128, 128, (channels, 3, 3))
        requant = self.requant(channels, 9, fmt, 128)
        return self.add(name, DepthwiseConv2d(weight=weight, requant=requant, stride=stride, padding=padding), source, fmt=fmt)

    def deform(self, name: str, source: str, offsets: str, *, stride: int = 1) -> str:
        channels = self.tensors[source].shape[0]
        weight = self.rng.integers(-128, 128, (channels, 3, 3))
        operation = DeformDepthwiseConv2d(weight=weight, requant=self.requant(channels, 9, peak=128), stride=stride)
        return self.add(name, operation, source, offsets, fmt=S8)

    def mean(self, name: str, source: str, kernel: tuple[int, int], *, stride: int = 1, padding: int = 0) -> str:
        channels, fmt = self.tensors[source].shape[0], self.tensors[source].fmt
        requant = mean_requant(channels, kernel[0] * kernel[1], 0, Rounding.RND, fmt.min_code, fmt.max_code)
        return self.add(name, AvgPool2d(kernel=kernel, requant=requant, stride=stride, padding=padding), source)

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
    """Outputs of the program on the machine; memory and on-chip memories are dirty before."""
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
    outcome = DeformMachine(program.arch, seed).run(memory, regions, 0, len(program.image))
    assert outcome.error is ErrorCode.NONE, f"{outcome} at {program.layers[outcome.index]}"
    return {t.name: t.unpack(memory.read(bases[t.region] + t.offset, t.size).tobytes()) for t in program.outputs}


def assert_alive(name: str, codes: np.ndarray) -> None:
    """Equality of constant tensors would say little: no code may dominate a tensor of some size."""
    values, counts = np.unique(codes, return_counts=True)
    if codes.size >= 64:
        assert len(values) > 3 and counts.max() <= 0.9 * codes.size, f"{name} is nearly constant: {values} {counts}"


def compare(graph: IntegerGraph, arch: DeformArch, seed: int = 0) -> tuple[Program, int]:
    """Compile, run and compare every element of every output; returns the program and how many elements were equal."""
    program = compile_graph(graph, arch)
    assert prove_memory(program, graph) > 0
    inputs = random_codes(graph, np.random.default_rng(seed))
    expected = graph({name: codes[None] for name, codes in inputs.items()})
    got, count = run_machine(program, inputs, seed), 0
    for name in graph.outputs:
        assert got[name].shape == expected[name].shape[1:]
        np.testing.assert_array_equal(got[name], expected[name][0], err_msg=name)
        assert_alive(name, got[name])
        count += got[name].size
    assert count == sum(int(np.prod(graph.tensors[name].shape)) for name in graph.outputs) > 0
    return program, count


def operations(program: Program) -> Sequence[str]:
    return [instruction.name for instruction in program.instructions()]
