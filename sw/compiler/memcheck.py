"""Independent proof of a program's memory accesses, from its instructions and the graph alone.

Every transfer is walked word by word over marks that say which tensor a word holds and who wrote it. A LOAD of a layer must find,
in every word, a tensor that its nodes read (of a concatenation one of its parts, if they were written in place); so nothing live
was overwritten and nothing is read that was not written before. No layer may write a word twice. At the end every word of every
output must hold that output. The compiler's plan is not consulted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hw.spec.isa import Instruction
from hw.spec.ops import Concat, Shuffle, ShuffleJoin, Slice
from hw.spec.program import WORD_BYTES, Program, TensorLayout
from sw.compiler.simplify import simplified
from sw.compiler.windows import with_windows
from sw.graph import IntegerGraph, Node

PARAMETERS_MARK = "parameters"
VIEWS = (Slice, Shuffle, Concat)
UNWRITTEN = -1
HOST = -1


class MemoryFault(AssertionError):
    """A program that would read or destroy the wrong words: a fault of the compiler, not of its input."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a layer's transfers may read, and what they write: names of tensors that are written as such."""

    reads: frozenset[str]
    writes: str


class _Traffic:
    """Finds which nodes each layer computes: those without instructions of their own go with the layer before them."""

    def __init__(self, graph: IntegerGraph, layers: Sequence[str]) -> None:
        self.graph = graph
        self.producer = {node.output: node for node in graph.nodes}
        self.last = {layer: index for index, layer in enumerate(layers)}
        self.layer: dict[str, str | None] = {}
        for node in graph.nodes:
            self.layer[node.output] = self._computed_by(node)

    def _computed_by(self, node: Node) -> str | None:
        """The layer that computes a node's output; None for a view.

        A merge without instructions goes with the right side of a join. Of an addition the last layer makes it: what it adds
        must have been there before.
        """
        if node.name in self.last:
            return node.name
        if isinstance(node.operation, VIEWS):
            return None
        names = node.inputs[1:] if isinstance(node.operation, ShuffleJoin) else node.inputs
        makers = [maker for maker in map(self.layer.get, names) if maker is not None]
        return max(makers, key=lambda maker: self.last[maker], default=None)

    def rules(self) -> dict[str, Traffic]:
        found = {f"output {t}": Traffic(reads=self.stored(t), writes=t) for t in self.graph.outputs}
        for layer in self.last.keys() - found.keys():
            nodes = [node for node in self.graph.nodes if self.layer[node.output] == layer]
            if not nodes:
                raise MemoryFault(f"the program has instructions of {layer}, which is no node of the graph")
            inner = {node.output for node in nodes[:-1]}
            reads = [self.stored(t) for node in nodes for t in node.inputs if t not in inner]
            found[layer] = Traffic(reads=frozenset().union(*reads), writes=nodes[-1].output)
        return found

    def stored(self, tensor: str) -> frozenset[str]:
        """The tensors whose words make up a tensor: of a view those that it looks at; a concatenation's parts may be in place."""
        node = self.producer.get(tensor)
        if node is None or not isinstance(node.operation, VIEWS):
            return frozenset({tensor})
        parts = frozenset().union(*map(self.stored, node.inputs)) if self._looks(node) else frozenset()
        return parts if node.name not in self.last else parts | {tensor}

    def output(self, tensor: str) -> frozenset[str]:
        """What the words of a graph output may hold at the end."""
        return frozenset({tensor}) if f"output {tensor}" in self.last else self.stored(tensor)

    def _looks(self, node: Node) -> bool:
        """True if words of a node's inputs are words of its output."""
        return isinstance(node.operation, Concat) or node.name not in self.last


def touched(instruction: Instruction) -> np.ndarray:
    """Words of its region that a LOAD or STORE accesses, in order."""
    plane, run, word = (np.arange(instruction[n], dtype=np.int64) for n in ("n2", "n1", "n0"))
    starts = instruction["stride2"] * plane[:, None, None] + instruction["stride1"] * run[:, None]
    return (instruction["offset"] + starts + word).reshape(-1)


class Marks:
    """Per region and word: which tensor it holds and which instruction wrote it."""

    def __init__(self, program: Program) -> None:
        self.names: list[str] = [PARAMETERS_MARK]
        sizes = [region.size // WORD_BYTES for region in program.regions]
        self.tensor = [np.full(size, UNWRITTEN, np.int64) for size in sizes]
        self.writer = [np.full(size, HOST, np.int64) for size in sizes]
        for i, region in enumerate(program.regions):
            self.tensor[i][: len(region.data) // WORD_BYTES] = 0
        for layout in program.inputs:
            self.tensor[layout.region][words_of(layout)] = self.number(layout.name)

    def number(self, name: str) -> int:
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def describe(self, region: int, word: int) -> str:
        tensor, writer = int(self.tensor[region][word]), int(self.writer[region][word])
        if tensor == UNWRITTEN:
            return "nothing"
        return f"{self.names[tensor]} from {'the host' if writer == HOST else f'instruction {writer}'}"

    def expect(self, who: str, region: int, words: np.ndarray, allowed: frozenset[str]) -> None:
        numbers = [self.number(name) for name in sorted(allowed)]
        wrong = ~np.isin(self.tensor[region][words], numbers)
        if wrong.any():
            word = int(words[wrong.argmax()])
            holds = self.describe(region, word)
            raise MemoryFault(f"{who} reads word {word} of region {region}, which must hold {sorted(allowed)}, but holds {holds}")


    def once(self, who: str, region: int, words: np.ndarray, layers: Sequence[str], index: int) -> None:
        """A layer writes each word of its result once."""
        writers = {i for i in np.unique(self.writer[region][words]).tolist() if i != HOST}
        if np.unique(words).size != words.size or any(layers[i] == layers[index] for i in writers):
            raise MemoryFault(f"{who} writes a word of region {region} that {layers[index]} has written already")


def words_of(layout: TensorLayout) -> slice:
    return slice(layout.offset // WORD_BYTES, (layout.offset + layout.size) // WORD_BYTES)


def prove_memory(program: Program, graph: IntegerGraph) -> int:
    """Number of words whose access was proven; raises MemoryFault at the first that is wrong."""
    marks, proven = Marks(program), 0
    windows = {layout.name: layout.window for layout in program.inputs if layout.window}
    facts = _Traffic(simplified(with_windows(graph, windows)), program.layers)
    rules = facts.rules()
    for index, instruction in enumerate(program.instructions()):
        if instruction.name not in ("LOAD", "STORE"):
            continue
        who = f"instruction {index} ({instruction.name} of {program.layers[index]})"
        words, region, rule = touched(instruction), instruction["region"], rules[program.layers[index]]
        _inside(who, program, region, words)
        if instruction.name == "LOAD":
            marks.expect(who, region, words, frozenset({PARAMETERS_MARK}) if region == 0 else rule.reads)
        else:
            _writable(who, program, region)
            marks.once(who, region, words, program.layers, index)
            marks.tensor[region][words] = marks.number(rule.writes)
            marks.writer[region][words] = index
        proven += len(words)
    for layout in program.outputs:
        words = np.arange(layout.size // WORD_BYTES) + layout.offset // WORD_BYTES
        _inside(f"output {layout.name}", program, layout.region, words)
        marks.expect(f"the host for output {layout.name}", layout.region, words, facts.output(layout.name))
    return proven


def _inside(who: str, program: Program, region: int, words: np.ndarray) -> None:
    size = program.regions[region].size // WORD_BYTES if region < len(program.regions) else 0
    if words.max() >= size:
        raise MemoryFault(f"{who} accesses word {words.max()} of region {region}, which has {size} words")


def _writable(who: str, program: Program, region: int) -> None:
    if program.regions[region].kind in ("parameters", "input"):
        raise MemoryFault(f"{who} writes to region {region}, which holds {program.regions[region].kind}")
