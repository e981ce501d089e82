"""Random integer graphs of every operation, with an architecture that holds them.

A graph grows by one operation at a time on tensors that it has, the latest more often than others, so that chains form that the
compiler can fuse. What is drawn is its form; weights come from a drawn seed, so that hypothesis can replay and shrink it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from hw.spec.deform import DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.ops import Concat, MaxPool2d, Shuffle, ShuffleJoin, Slice, Upsample2x
from sw.compiler import check_graph
from sw.graph import IntegerGraph
from tests.compiler.graphs import Builder

Draw = Callable[[st.SearchStrategy[Any]], Any]

CHANNELS = st.sampled_from([1, 2, 3, 5, 8, 16, 17, 24, 32, 40])
FORMATS = st.builds(FixedFormat, st.sampled_from([8, 8, 8, 6, 4, 3]), st.just(0), st.booleans())
SIDES = st.integers(1, 9)
MOST_CHANNELS, MOST_SIDE = 96, 18

LARGE = DeformArch(rows=4, feature_words=16384, row_words=4096, weight_words=16384, parameter_words=4096)
ARCHITECTURES = (
    DeformArch(),
    DeformArch(rows=5, columns=64, tables=1),
    DeformArch(rows=3, feature_words=96, row_words=24, weight_words=480, parameter_words=40, tables=2),
    DeformArch(rows=2, feature_words=320, row_words=64, weight_words=1200, parameter_words=64, tables=8),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawn:
    """A graph, the architecture to compile it for and the seed of its inputs."""

    graph: IntegerGraph
    arch: DeformArch
    seed: int


class _Growth:
    """A graph that grows; each verb adds an operation and returns whether one could be added."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.seed = draw(st.integers(0, 2**20))
        self.build = Builder(self.seed)
        self.names: list[str] = []
        for _ in range(draw(st.integers(1, 2))):
            self.names.append(self.build.input(f"in{len(self.names)}", (draw(CHANNELS), draw(SIDES), draw(SIDES)), draw(FORMATS)))

    def name(self) -> str:
        return f"t{len(self.build.nodes)}"

    def shape(self, tensor: str) -> tuple[int, int, int]:
        return self.build.tensors[tensor].shape

    def source(self) -> str:
        """The latest tensor, or any."""
        return self.names[-1] if self.draw(st.integers(0, 3)) else self.draw(st.sampled_from(self.names))

    def like(self, tensor: str) -> str:
        """A tensor of the same shape and format: one that is there, perhaps the same, or a new convolution of one as large."""
        spec = self.build.tensors[tensor]
        same = [name for name in self.names if self.build.tensors[name] == spec]
        if self.draw(st.booleans()):
            return self.draw(st.sampled_from(same))
        large = [name for name in self.names if self.shape(name)[1:] == spec.shape[1:]]
        return self.build.conv(self.name(), self.draw(st.sampled_from(large)), spec.shape[0], fmt=spec.fmt)

    def step(self) -> None:
        verb = self.draw(st.sampled_from(VERBS))
        before = len(self.build.nodes)
        made = verb(self, self.source())
        self.names += [node.output for node in self.build.nodes[before:-1]] if made else []
        self.names += [made] if made else []

    def conv(self, source: str) -> str | None:
        channels, rows, cols = self.shape(source)
        kernel = self.draw(st.sampled_from([(1, 1), (1, 1), (3, 3), (1, 3), (2, 2), (5, 5)]))
        padding = self.draw(st.integers(0, min(kernel) - 1))
        if rows + 2 * padding < kernel[0] or cols + 2 * padding < kernel[1]:
            return None
        groups = self.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        wide, per_group = self.draw(st.sampled_from([7, 127])), self.draw(st.integers(1, 3))
        out = self.draw(CHANNELS) if groups == 1 else groups * per_group
        if out > MOST_CHANNELS:
            return None
        stride, fmt = self.draw(st.integers(1, 2)), self.draw(FORMATS)
        return self.build.conv(self.name(), source, out, kernel=kernel, stride=stride, padding=padding, peak=wide, fmt=fmt,
                               groups=groups)

    def linear(self, source: str) -> str:
        if self.shape(source)[1:] != (1, 1):
            source = self.build.mean(self.name(), source, self.shape(source)[1:])
        return self.build.linear(self.name(), source, self.draw(CHANNELS), fmt=self.draw(FORMATS))

    def depthwise(self, source: str) -> str | None:
        padding = self.draw(st.integers(0, 1))
        if min(self.shape(source)[1:]) + 2 * padding < 3:
            return None
        return self.build.depthwise(self.name(), source, stride=self.draw(st.integers(1, 2)), padding=padding, fmt=self.draw(FORMATS))

    def deform(self, source: str) -> str:
        stride, fmt = self.draw(st.integers(1, 2)), FixedFormat(self.draw(st.sampled_from([8, 5])), self.draw(st.integers(0, 3)))
        offsets = self.build.conv(self.name(), source, 1, stride=stride, fmt=fmt)
        return self.build.deform(self.name(), source, offsets, stride=stride, fmt=self.draw(FORMATS))

    def deform_conv(self, source: str) -> str | None:
        channels, rows, cols = self.shape(source)
        kernel, dilation = self.draw(st.sampled_from([(1, 1), (3, 3), (1, 3), (2, 2)])), self.draw(st.integers(1, 2))
        reach = [dilation * (side - 1) + 1 for side in kernel]
        padding, stride = self.draw(st.integers(0, min(reach) - 1)), self.draw(st.integers(1, 2))
        if rows + 2 * padding < reach[0] or cols + 2 * padding < reach[1]:
            return None
        groups = self.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        out = self.draw(CHANNELS) if groups == 1 else groups * self.draw(st.integers(1, 3))
        if out > MOST_CHANNELS:
            return None
        # A convolution whose window is as large gives a map as large.
        fmt, geometry = FixedFormat(self.draw(st.sampled_from([8, 8, 5])), 0), {"stride": stride, "padding": padding}
        offsets = self.build.conv(self.name(), source, 2 * kernel[0] * kernel[1], kernel=(reach[0], reach[1]), fmt=fmt, **geometry)
        return self.build.deform_conv(
            self.name(), source, offsets, out, kernel=kernel, frac=self.draw(st.integers(0, 7)), dilation=dilation,
            peak=self.draw(st.sampled_from([7, 127])), fmt=self.draw(FORMATS), groups=groups, **geometry,
        )  # fmt: skip

    def max_pool(self, source: str) -> str | None:
        kernel, stride = self.draw(st.integers(1, 4)), self.draw(st.integers(1, 3))
        padding = self.draw(st.integers(0, kernel // 2))
        if min(self.shape(source)[1:]) + 2 * padding < kernel:
            return None
        return self.build.add(self.name(), MaxPool2d(kernel=kernel, stride=stride, padding=padding), source)

    def mean(self, source: str) -> str:
        _, rows, cols = self.shape(source)
        kernel = (self.draw(st.integers(1, rows)), self.draw(st.integers(1, cols)))
        return self.build.mean(self.name(), source, kernel, stride=self.draw(st.integers(1, 2)))

    def slice(self, source: str) -> str:
        channels = self.shape(source)[0]
        start = self.draw(st.integers(0, channels - 1))
        return self.build.add(self.name(), Slice(start=start, stop=self.draw(st.integers(start + 1, channels))), source)

    def halves(self, source: str) -> str | None:
        """Both halves and something that puts them together again."""
        channels = self.shape(source)[0]
        if channels % 2:
            return None
        left, right = (self.build.half(self.name(), source, which) for which in (0, 1))
        if self.draw(st.booleans()):
            right = self.build.conv(self.name(), right, channels // 2, fmt=self.build.tensors[source].fmt)
        return self.build.add(self.name(), self.draw(st.sampled_from([ShuffleJoin(), Concat()])), left, right)

    def join(self, source: str) -> str | None:
        other = self.like(source)
        return None if 2 * self.shape(source)[0] > MOST_CHANNELS else self.build.add(self.name(), ShuffleJoin(), source, other)

    def sum(self, source: str) -> str:
        pair = [source, self.like(source)]
        self.draw(st.randoms()).shuffle(pair)
        return self.build.sum(self.name(), *pair)

    def concat(self, source: str) -> str | None:
        spec = self.build.tensors[source]
        fits = [n for n in self.names if self.shape(n)[1:] == spec.shape[1:] and self.build.tensors[n].fmt == spec.fmt]
        parts = [source, *self.draw(st.lists(st.sampled_from(fits), min_size=1, max_size=3))]
        if sum(self.shape(part)[0] for part in parts) > MOST_CHANNELS:
            return None
        return self.build.add(self.name(), Concat(), *parts)

    def shuffle(self, source: str) -> str:
        channels = self.shape(source)[0]
        groups = self.draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        return self.build.add(self.name(), Shuffle(groups=groups), source)

    def upsample(self, source: str) -> str | None:
        if 2 * max(self.shape(source)[1:]) > MOST_SIDE:
            return None
        return self.build.add(self.name(), Upsample2x(), source)

    def scale(self, source: str) -> str:
        return self.build.scale(self.name(), source, self.draw(FORMATS))

    def table(self, source: str) -> str:
        return self.build.table(self.name(), source, self.draw(FORMATS))

    def clip(self, source: str) -> str:
        fmt = self.build.tensors[source].fmt
        low = self.draw(st.integers(fmt.min_code, fmt.max_code))
        return self.build.clip(self.name(), source, low, self.draw(st.integers(low, fmt.max_code)))


VERBS = (
    _Growth.conv, _Growth.conv, _Growth.conv, _Growth.linear, _Growth.depthwise, _Growth.deform, _Growth.deform_conv,
    _Growth.max_pool, _Growth.mean, _Growth.slice, _Growth.halves, _Growth.join, _Growth.sum, _Growth.sum, _Growth.concat,
    _Growth.shuffle, _Growth.upsample, _Growth.scale, _Growth.table, _Growth.table, _Growth.clip,
)  # fmt: skip


@st.composite
def graphs(draw: Draw, most: int = 12, architectures: tuple[DeformArch, ...] = ARCHITECTURES) -> Drawn:
    """A graph of up to ``most`` draws of an operation. Its outputs are the tensors that nothing reads, and perhaps one more."""
    growth = _Growth(draw)
    for _ in range(draw(st.integers(1, most))):
        growth.step()
    if not growth.build.nodes:
        growth.names.append(growth.table(growth.names[0]))
    read = {name for node in growth.build.nodes for name in node.inputs}
    ends = [name for name in growth.build.tensors if name not in read and name not in growth.build.inputs]
    graph = growth.build.graph(*dict.fromkeys([*ends, *draw(st.lists(st.sampled_from(growth.names), max_size=1))]))
    return Drawn(graph=graph, arch=_fitting(graph, draw(st.sampled_from(architectures))), seed=growth.seed)


def _fitting(graph: IntegerGraph, arch: DeformArch) -> DeformArch:
    """The architecture, or a large one if memories are all that it lacks."""
    problems = check_graph(graph, arch)
    assert all("_words (it has" in problem.reason for problem in problems), list(map(str, problems))
    return LARGE if problems else arch


def operations(graph: IntegerGraph) -> list[str]:
    """Names of a graph's operations."""
    return [node.operation.op for node in graph.nodes]


def codes_of(graph: IntegerGraph) -> int:
    """Codes of all its tensors."""
    return sum(int(np.prod(spec.shape)) for spec in graph.tensors.values())
