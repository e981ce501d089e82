"""Intermediate tensors of a run, read from its write log: scratch memory is reused, so its end state shows only a few."""

from __future__ import annotations

import numpy as np

from hw.spec.arch import WORD_BYTES
from hw.spec.program import Program, TensorLayout
from sw.runtime import RunRecord
from sw.runtime.placement import Placement
from sw.runtime.records import MEMORY, WriteLog


def stored_tensors(program: Program, placement: Placement, record: RunRecord) -> dict[str, np.ndarray]:
    """Codes (C, H, W) of every intermediate tensor that the run wrote whole, by name."""
    log = record.writes.get(MEMORY, WriteLog.empty())
    found = {}
    for entry in program.intermediates:
        data = _as_of(log, placement.tensor_address(entry.layout), entry.layout, entry.after)
        if data is not None:
            found[entry.layout.name] = entry.layout.unpack(data)
    return found


def _as_of(log: WriteLog, address: int, layout: TensorLayout, after: int) -> bytes | None:
    """A tensor's bytes once an instruction has retired; None where a word of it was never written."""
    mine = (log.index <= after) & (log.address >= address) & (log.address < address + layout.size)
    word = (log.address[mine] - address) // WORD_BYTES
    words = np.zeros((layout.size // WORD_BYTES, WORD_BYTES), np.uint8)
    words[word] = log.data[mine]
    return words.tobytes() if np.unique(word).size == len(words) else None
