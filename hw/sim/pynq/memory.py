"""The board's memory twice: as the processor sees it, and as the core sees it.

The two begin with different random bytes, and bytes pass from one to the other only where a driver flushes or invalidates, in whole
cache lines: a driver that forgets one reads or leaves poison.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pynq.buffer import PynqBuffer

LINE_BYTES = 64
PAGE_BYTES = 4096


class SimulatedBuffer(PynqBuffer):
    """A buffer of a simulated board; ``freebuffer`` gives it back, as the board's own does, and only once."""

    memory: TwoCopies | None = None  # set on what was allocated, not on views of it

    def freebuffer(self) -> None:
        memory, self.memory = self.memory, None
        if memory is not None:
            memory.free(self.bo)


class TwoCopies:
    """Memory at ``base``: ``board`` is what the core reads and writes, ``host`` what buffers are views of.

    ``whole``: PYNQ from 3.1 on syncs a whole buffer, whatever part of it is asked for. Lines that the processor changed are written to
    memory, all others are read anew. ``flushed`` and ``invalidated`` count the bytes that were asked for.
    """

    def __init__(self, board: np.ndarray, base: int, *, seed: int = 1, whole: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.board, self.base, self.whole = board, base, whole
        self.host = rng.integers(0, 256, board.size, np.uint8)
        self.board[:] = self.host ^ rng.integers(1, 256, board.size, np.uint8)  # not one byte equal
        self._seen = self.host.copy()  # the processor's copy when its lines were last clean
        self.spans: dict[int, slice] = {}
        self.flushed = self.invalidated = self.made = 0

    def allocate(self, shape: Any, dtype: Any, device: Any) -> SimulatedBuffer:
        """Whole pages, at the lowest address where they fit; RuntimeError where they do not, as XRT says it."""
        size = -(-int(np.prod(shape)) * np.dtype(dtype).itemsize // PAGE_BYTES) * PAGE_BYTES
        start = self._free_place(size)
        self.made += 1
        self.spans[self.made] = slice(start, start + size)
        buffer = SimulatedBuffer(
            shape, dtype, bo=self.made, device=device, buffer=self.host[start : start + size], device_address=self.base + start
        )
        buffer.memory = self
        return buffer

    def free(self, bo: int) -> None:
        del self.spans[bo]

    def flush(self, bo: int, offset: int, size: int) -> None:
        """Write lines to memory."""
        lines = self._lines(bo, offset, size)
        self.flushed += size
        if self.whole:
            self._write_changed(self.spans[bo])
        self.board[lines] = self._seen[lines] = self.host[lines]

    def invalidate(self, bo: int, offset: int, size: int) -> None:
        """Forget lines: the next read comes from memory."""
        lines = self.spans[bo] if self.whole else self._lines(bo, offset, size)
        self.invalidated += size
        self.host[lines] = self._seen[lines] = self.board[lines]

    def _write_changed(self, span: slice) -> None:
        """The lines that a processor would write: those that it changed."""
        rows = (self.host[span] != self._seen[span]).reshape(-1, LINE_BYTES).any(axis=1)
        for copy in (self.board, self._seen):
            copy[span].reshape(-1, LINE_BYTES)[rows] = self.host[span].reshape(-1, LINE_BYTES)[rows]

    def _lines(self, bo: int, offset: int, size: int) -> slice:
        span = self.spans[bo]
        start, end = span.start + offset, span.start + offset + size
        if not span.start <= start < end <= span.stop:
            raise RuntimeError(f"sync of {size} bytes at {offset} must lie in the buffer of {span.stop - span.start} bytes")
        return slice(start // LINE_BYTES * LINE_BYTES, -(-end // LINE_BYTES) * LINE_BYTES)

    def _free_place(self, size: int) -> int:
        start = 0
        for span in sorted(self.spans.values(), key=lambda span: span.start):
            if span.start - start >= size:
                break
            start = span.stop
        if start + size > self.host.size:
            raise RuntimeError("Allocate failed: 4294967295")
        return start
