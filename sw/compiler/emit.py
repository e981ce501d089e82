"""Instructions and parameter blobs as they are produced, with the tokens that hand over from engine to engine.

The table memory is kept as a cache: a table is loaded where it is not there already, in place of the one that was used longest ago.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import ADDR_BITS, SPACES, TABLE_BYTES
from hw.spec.program import WORD_BYTES
from sw.compiler.weights import table_bytes

PARAMETERS, INPUT, OUTPUT, SCRATCH = range(4)
"""Memory regions of every program."""

RUN_LIMIT = 65535
"""Most words of a run, runs of a plane and planes of a transfer."""

ENGINES = ("LOAD", "STORE", "PW", "DW")


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One loop of a transfer: ``count`` steps of ``memory`` words outside and ``chip`` words on chip."""

    count: int
    memory: int
    chip: int


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Parameters in memory: first word, words, and the CRC-32 that the core checks."""

    offset: int
    words: int
    crc: int


def chip(address: int) -> int:
    """An on-chip address or step as its field holds it: modulo 2**20."""
    return address % (1 << ADDR_BITS)


def merge_axes(axes: list[Axis]) -> list[Axis]:
    """The same words in the same order with as few, as long loops as possible; outermost first, strides of 1 innermost."""
    merged = [axes[-1]]
    for axis in reversed(axes[:-1]):
        inner = merged[0]
        together = inner.count * inner.memory == axis.memory and inner.count * inner.chip == axis.chip
        if axis.count == 1:
            continue
        if together and axis.count * inner.count <= RUN_LIMIT:
            merged[0] = Axis(count=axis.count * inner.count, memory=inner.memory, chip=inner.chip)
        else:
            merged.insert(0, axis)
    return merged


def loops(axes: list[Axis], *, planes: bool = False) -> dict[str, int]:
    """Transfer fields for up to three axes, outermost first; with ``planes`` the outermost stays the plane loop."""
    outer, inner = (axes[0], axes[1:]) if planes else (None, axes)
    merged = merge_axes(inner)
    runs = merged[0] if len(merged) > 1 else Axis(count=1, memory=0, chip=0)
    if outer is None:
        outer = runs if len(merged) > 2 else Axis(count=1, memory=0, chip=0)
        runs = merged[1] if len(merged) > 2 else runs
    return {
        "n0": merged[-1].count, "n1": runs.count, "n2": outer.count,
        "stride1": runs.memory, "stride2": outer.memory,
        "chip_stride1": chip(runs.chip), "chip_stride2": chip(outer.chip),
    }


class Emitter:
    """Collects a program. An instruction on another engine than its predecessor waits for it.

    Token ``4 * from + to`` (engines in the order of ``ENGINES``) is pushed by the last instruction of one engine before a change
    and waited for by the first of the next. So every pair of engines has a token of its own, at most one is outstanding, and the
    order of execution is that of the program even on a core whose engines run concurrently.
    """

    def __init__(self, arch: DeformArch) -> None:
        self.arch = arch
        self.layers: list[str] = []
        self.parameters = bytearray()
        self._instructions: list[tuple[str, dict[str, int]]] = []
        self._blobs: dict[bytes, Blob] = {}
        self._tables: dict[bytes, int] = {}

    def blob(self, data: bytes) -> Blob:
        """Parameters, a whole number of words, in their region; the same bytes stand there once."""
        assert len(data) % WORD_BYTES == 0
        if data not in self._blobs:
            place = len(self.parameters) // WORD_BYTES
            self._blobs[data] = Blob(offset=place, words=len(data) // WORD_BYTES, crc=zlib.crc32(data))
            self.parameters += data
        return self._blobs[data]

    def table(self, layer: str, values: np.ndarray | None) -> int:
        """What an instruction's ``table`` field must hold for these values (256,), loaded if need be; 0 for no table."""
        if values is None:
            return 0
        data, free = table_bytes(values), len(self._tables)
        if data in self._tables:
            place = self._tables.pop(data)
        else:
            place = free if free < self.arch.tables else self._tables.pop(next(iter(self._tables)))
            self.load_blob(layer, "tbl", self.blob(data), TABLE_BYTES // WORD_BYTES, at=place * TABLE_BYTES // WORD_BYTES)
        self._tables[data] = place
        return place + 1

    def load_blob(self, layer: str, space: str, blob: Blob, run_words: int, at: int = 0) -> None:
        """Load parameters that consist of equal runs of ``run_words``."""
        axes = [
            Axis(count=blob.words // run_words, memory=run_words, chip=run_words),
            Axis(count=run_words, memory=1, chip=1),
        ]
        fields = {"region": PARAMETERS, "offset": blob.offset, "chip_addr": at, "check_crc": 1, "crc": blob.crc}
        self.add(layer, "LOAD", space=SPACES.index(space), **fields, **loops(axes))

    def load(self, layer: str, space: str, place: tuple[int, int], at: int, axes: list[Axis]) -> None:
        """Load from ``place`` (region, word); for the row memory the outermost axis is the rows."""
        fields = {"region": place[0], "offset": place[1], "chip_addr": at, **loops(axes, planes=space == "row")}
        self.add(layer, "LOAD", space=SPACES.index(space), **fields)

    def store(self, layer: str, place: tuple[int, int], at: int, axes: list[Axis]) -> None:
        self.add(layer, "STORE", region=place[0], offset=place[1], chip_addr=at, **loops(axes))

    def add(self, layer: str, operation: str, **fields: int) -> None:
        if self._instructions:
            before, previous = self._instructions[-1]
            if before != operation:
                token = 1 << (4 * ENGINES.index(before) + ENGINES.index(operation))
                previous["push"], fields["wait"] = token, token
        self._instructions.append((operation, fields))
        self.layers.append(layer)

    def instructions(self) -> list[bytes]:
        return [self.arch.instructions.encode(name, **fields) for name, fields in self._instructions]
