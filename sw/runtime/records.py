"""What a run wrote, instruction by instruction, in one form for every device that can tell.

The interpreter and the simulated core fill the same arrays, so that a comparison needs to know neither.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from hw.spec.arch import WORD_BYTES
from hw.spec.machine import Outcome, Writes

MEMORY = "memory"
"""Name of the bus among the spaces; the others are on-chip memories."""

ALL_BYTES = (1 << WORD_BYTES) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class WriteLog:
    """Writes of 16-byte words to one space, in the order in which they happened.

    index (n,): the instruction; address (n,): in bytes for the bus, in 16-byte words on chip; strobe (n,): bit b is set
    where byte b was written; data (n, 16).
    """

    index: np.ndarray
    address: np.ndarray
    strobe: np.ndarray
    data: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.index)
        if self.address.shape != (n,) or self.strobe.shape != (n,) or self.data.shape != (n, WORD_BYTES):
            raise ValueError(f"a log of {n} writes must have as many addresses, strobes and words of 16 bytes")

    @staticmethod
    def empty() -> WriteLog:
        return WriteLog.full(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros((0, WORD_BYTES), np.uint8))

    @staticmethod
    def full(index: np.ndarray, address: np.ndarray, data: np.ndarray) -> WriteLog:
        """Writes of whole words."""
        strobe = np.full(len(index), ALL_BYTES, np.uint16)
        return WriteLog(index=index, address=address.astype(np.int64), strobe=strobe, data=data)

    def where(self, mask: np.ndarray) -> WriteLog:
        """The writes that a boolean array (n,) or an order of positions picks."""
        return WriteLog(index=self.index[mask], address=self.address[mask], strobe=self.strobe[mask], data=self.data[mask])

    def ordered(self) -> WriteLog:
        """By instruction, then address; words written again stay in the order of writing."""
        return self.where(np.lexsort((self.address, self.index)))


@dataclass(frozen=True, kw_only=True)
class InstructionTime:
    """Cycles of an instruction: from ``issue`` to ``retire``."""

    index: int
    issue: int
    retire: int

    @property
    def cycles(self) -> int:
        return self.retire - self.issue


@dataclass(frozen=True, kw_only=True, eq=False)
class RunRecord:
    """One run: how it ended, what each instruction wrote (by space) and, of a core, when each ran."""

    outcome: Outcome
    writes: Mapping[str, WriteLog]
    times: tuple[InstructionTime, ...] = ()


@dataclass(kw_only=True)
class MachineRecorder:
    """Collects what a machine tells of each retired instruction."""

    parts: dict[str, list[WriteLog]] = field(default_factory=dict)

    def __call__(self, writes: Writes) -> None:
        for space in writes.addresses:
            address = np.concatenate(writes.addresses[space])
            data = np.concatenate(writes.data[space])
            index = np.full(len(address), writes.index, np.int64)
            self.parts.setdefault(space, []).append(WriteLog.full(index, address, data))

    def record(self, outcome: Outcome) -> RunRecord:
        return RunRecord(outcome=outcome, writes={space: joined(logs) for space, logs in self.parts.items()})


def joined(logs: Iterable[WriteLog]) -> WriteLog:
    """Logs one after the other."""
    parts = list(logs) or [WriteLog.empty()]
    columns = {name: np.concatenate([getattr(p, name) for p in parts]) for name in ("index", "address", "strobe", "data")}
    return WriteLog(**columns)
