"""Instructions of the training core as they are produced, with the tokens that hand over from engine to engine."""

from __future__ import annotations

from collections.abc import Sequence

from hw.spec.arch import WORD_BYTES
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import SPACES
from sw.compiler.emit import Axis, chip, loops, merge_axes

PARAMETERS, INPUT, OUTPUT, STATE, HYPER, SCRATCH, WEIGHTS, GRADIENTS = range(8)
"""Memory regions of every training program."""

ENGINES = ("LOAD", "STORE", "GEMM", "VEC", "CHN", "PRUNE")
RUNS = 65535


class Parameters:
    """Constant data of all programs; the same bytes stand there once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._offsets: dict[bytes, int] = {}

    def place(self, data: bytes) -> int:
        """First word of these bytes, padded to whole words."""
        data += bytes(-len(data) % WORD_BYTES)
        if data not in self._offsets:
            self._offsets[data] = len(self.data) // WORD_BYTES
            self.data += data
        return self._offsets[data]


class Emitter:
    """Collects one program. An instruction on another engine than its predecessor waits for it.

    Token i is waited for by the first instruction of engine i after a change, and pushed by the last one before it, so that the
    order of execution is that of the program even on a core whose engines run concurrently. ``layer`` names what is being lowered.
    """

    def __init__(self, arch: SatArch, parameters: Parameters) -> None:
        self.arch, self.parameters = arch, parameters
        self.layer = ""
        self.layers: list[str] = []
        self._instructions: list[tuple[str, dict[str, int]]] = []

    def load(self, space: str, region: int, offset: int, at: int, axes: Sequence[Axis]) -> None:
        """Load words of a region; ``at`` and the axes' ``chip`` are in 16-byte words."""
        self._transfer("LOAD", space, region, offset, at, axes)

    def store(self, space: str, region: int, offset: int, at: int, axes: Sequence[Axis]) -> None:
        self._transfer("STORE", space, region, offset, at, axes)

    def load_parameters(self, space: str, data: bytes, at: int) -> None:
        """Load constant data."""
        words = -(-len(data) // WORD_BYTES)
        self.load(space, PARAMETERS, self.parameters.place(data), at, flat(words))

    def _transfer(self, operation: str, space: str, region: int, offset: int, at: int, axes: Sequence[Axis]) -> None:
        merged = merge_axes([axis for axis in axes if axis.count > 1] or [Axis(count=1, memory=1, chip=1)])
        if (merged[-1].memory, merged[-1].chip) != (1, 1):
            merged.append(Axis(count=1, memory=1, chip=1))
        if len(merged) > 3:
            # More loops than an instruction has: the outermost one is unrolled.
            for step in range(merged[0].count):
                self._transfer(operation, space, region, offset + step * merged[0].memory, at + step * merged[0].chip, merged[1:])
            return
        fields = {"region": region, "offset": offset, "chip_addr": chip(at), **loops(merged)}
        self.add(operation, space=SPACES.index(space), **fields)

    def add(self, operation: str, **fields: int) -> None:
        if self._instructions:
            before, previous = self._instructions[-1]
            if before != operation:
                token = 1 << ENGINES.index(operation)
                previous["push"], fields["wait"] = token, token
        self._instructions.append((operation, fields))
        self.layers.append(self.layer)

    def instructions(self) -> list[bytes]:
        return [self.arch.instructions.encode(name, **fields) for name, fields in self._instructions]


def flat(words: int) -> list[Axis]:
    """Contiguous words, in runs that an instruction's loops can hold."""
    if words <= RUNS:
        return [Axis(count=words, memory=1, chip=1)]
    for run in range(RUNS, 0, -1):
        if words % run == 0 and words // run <= RUNS:
            return [Axis(count=words // run, memory=run, chip=run), Axis(count=run, memory=1, chip=1)]
    raise ValueError(f"a transfer of {words} words has no two factors below {RUNS + 1}")
