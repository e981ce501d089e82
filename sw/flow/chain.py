"""The report of a verification, and the links of the chain that need no device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sw.flow.alive import TensorLife
from sw.flow.link import Link
from sw.graph import IntegerGraph
from sw.runtime.records import InstructionTime


@dataclass(kw_only=True)
class Report:
    """What a verification found. ``links`` holds only links that were asked for; each must have compared something.

    Members: ``timing``, None where nothing was simulated or the timing model does not describe the memory; ``variants``, counts
    of each further run; ``counters``, of the core, summed over the images; ``times`` of the first image's instructions.
    """

    links: dict[str, Link]
    images: int
    timing: Link | None = None
    alive: tuple[TensorLife, ...] = ()
    variants: dict[str, dict[str, int]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    times: tuple[InstructionTime, ...] = ()
    rtl_outputs: dict[str, np.ndarray] = field(default_factory=dict)
    simulated_cycles_per_second: float = 0.0
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every link compared something and nothing differed."""
        return bool(self.links) and all(link.ok for link in self._all())

    @property
    def first(self) -> list[str]:
        """The first differences of every link, in words; a link that compared nothing says so."""
        silent = [f"{link.name}: nothing was compared" for link in self._all() if not link.compared]
        return silent + [f"{link.name}: {words}" for link in self._all() for words in link.first]

    def _all(self) -> list[Link]:
        return [*self.links.values(), *([self.timing] if self.timing else [])]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "ok": self.ok,
            "images": self.images,
            "links": {name: link.to_dict() for name, link in self.links.items()},
            "timing": self.timing.to_dict() if self.timing else None,
            "variants": self.variants,
            "first_mismatches": self.first,
            "tensors": [life.to_dict() for life in self.alive],
            "cycles": self.counters.get("CYCLES"),
            "counters": self.counters,
            "simulated_cycles_per_second": self.simulated_cycles_per_second,
            "hashes": self.hashes,
        }


def torch_graph(graph: IntegerGraph, trace: Mapping[str, np.ndarray], torch_trace: Mapping[str, np.ndarray]) -> Link:
    """Tensor by tensor the frozen model's codes (N, C, H, W) against the graph's; an output that it does not give is a difference."""
    link = Link(name="torch_graph", unit="codes")
    for name in (*graph.inputs, *(node.output for node in graph.nodes)):
        if name in torch_trace:
            link.codes(f"tensor {name}", trace[name], torch_trace[name])
    for name in graph.outputs:
        if name not in torch_trace:
            link.differ(f"output {name} is not in the model's trace")
    return link


def graph_ops(graph: IntegerGraph, trace: Mapping[str, np.ndarray], inputs: Mapping[str, np.ndarray]) -> Link:
    """The graph read back from its file, against direct calls of the operations it was made from."""
    link = Link(name="graph_ops", unit="codes")
    reloaded = IntegerGraph.from_bytes(graph.to_bytes()).trace(inputs)
    for node in graph.nodes:
        direct = node.operation(*(trace[name] for name in node.inputs))
        link.codes(f"node {node.name}", direct, reloaded[node.output])
    return link


def ops_machine(link: Link, number: int, trace: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray]) -> None:
    """One image's tensors of the program, outputs and intermediates by name, against the graph's."""
    for name, codes in tensors.items():
        link.codes(f"image {number}: tensor {name}", trace[name][number], codes)
