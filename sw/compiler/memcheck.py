"""Independent proof of a program's memory accesses, from its instructions and the graph alone.

Every transfer is walked word by word over marks that say which tensor a word holds and who wrote it. A LOAD of a layer must find,
in every word, a tensor that its node reads; so nothing live was overwritten and nothing is read that was not written before. At
the end every word of every output must hold that output. The compiler's plan is not consulted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hw.spec.isa import Instruction
from hw.spec.ops import ShuffleJoin, Split
from hw.spec.program import WORD_BYTES, Program, TensorLayout
from sw.graph import IntegerGraph, Node

PARAMETERS_MARK = "parameters"
UNWRITTEN = -1
HOST = -1


class MemoryFault(AssertionError):
    """A program that would read or destroy the wrong words: a fault of the compiler, not of its input."""


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """What a layer's transfers may read, and what they write: names of tensors that own memory."""

    reads: frozenset[str]
    writes: str


def traffic(graph: IntegerGraph, layers: set[str]) -> dict[str, Traffic]:
    """For each layer that has instructions what its node, and a join merged into it, read and write."""
    producer = {node.output: node for node in graph.nodes}
    found = {f"output {t}": Traffic(reads=frozenset({_owner(t, producer)}), writes=t) for t in graph.outputs}
    for node in graph.nodes:
        if node.name not in layers:
            continue
        reads, writes = list(node.inputs), node.output
        for join in graph.nodes:
            if isinstance(join.operation, ShuffleJoin) and join.inputs[1] == node.output and join.name not in layers:
                reads, writes = [*reads, join.inputs[0]], join.output
        found[node.name] = Traffic(reads=frozenset(_owner(t, producer) for t in reads), writes=writes)
    return found


def _owner(tensor: str, producer: Mapping[str, Node]) -> str:
    """The tensor whose memory a tensor lies in: splits are views."""
    while tensor in producer and isinstance(producer[tensor].operation, Split):
        tensor = producer[tensor].inputs[0]
    return tensor


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


def words_of(layout: TensorLayout) -> slice:
    return slice(layout.offset // WORD_BYTES, (layout.offset + layout.size) // WORD_BYTES)


def prove_memory(program: Program, graph: IntegerGraph) -> int:
    """Number of words whose access was proven; raises MemoryFault at the first that is wrong."""
    marks, proven = Marks(program), 0
    rules = traffic(graph, set(program.layers))
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
            marks.tensor[region][words] = marks.number(rule.writes)
            marks.writer[region][words] = index
        proven += len(words)
    for layout in program.outputs:
        words = np.arange(layout.size // WORD_BYTES) + layout.offset // WORD_BYTES
        _inside(f"output {layout.name}", program, layout.region, words)
        marks.expect(f"the host for output {layout.name}", layout.region, words, frozenset({layout.name}))
    return proven


def _inside(who: str, program: Program, region: int, words: np.ndarray) -> None:
    size = program.regions[region].size // WORD_BYTES if region < len(program.regions) else 0
    if words.max() >= size:
        raise MemoryFault(f"{who} accesses word {words.max()} of region {region}, which has {size} words")


def _writable(who: str, program: Program, region: int) -> None:
    if program.regions[region].kind in ("parameters", "input"):
        raise MemoryFault(f"{who} writes to region {region}, which holds {program.regions[region].kind}")
