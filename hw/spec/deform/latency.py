"""Pipeline lengths of the inference core in cycles: what its timing model is made of.

The RTL composes its own latencies from its parts and refuses to elaborate where they differ from these.
"""

from __future__ import annotations

from hw.spec.deform.arch import DeformArch

MEMORY_READ = 2
"""On-chip memory: cycle of the address to the cycle in which the data can be used."""

REQUANTISE = 5
"""Requantise lane: accumulator in to byte out (add bias, multiply, multiply, shift and round, clip)."""

TABLE = 2
"""Table activation: byte in to byte out (read, choice of the entry or of the byte itself)."""

ADD = 2
"""Residual addition: byte and residual in to byte out (sum, clip)."""

CELL = 3
"""Multiplier cell: operands in to accumulator updated (operand, product, accumulator register)."""

TABLE_PARTS = 4
"""Cycles in which LOAD writes a word to the table memories, which take four bytes at a time."""


def result_cycles(arch: DeformArch) -> int:
    """Accumulator at the requantise unit to result byte: tables lie behind it, where the core has any."""
    return REQUANTISE + (TABLE if arch.tables else 0)
