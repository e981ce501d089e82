"""Ports between the training core's engines and its on-chip memories.

The core is serial, so a memory's port is driven by the disjunction of the engines' ports: an engine's address and data count only
beside its ``en``, which is low while it is idle. Data comes ``MEMORY_READ`` cycles after ``en``. Addresses are 20 bits; a memory
answers an enabled access at or above its size by raising its ``out_of_range`` for a cycle, which ends the instruction with
BUFFER_RANGE.
A *unit* is 16 bytes, a memory word of the instruction set; weights, positions and accumulators have words of a value per column.
"""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.transfer import ADDR_BITS

WORD_BITS = 128
FP16_BITS = 16
FP32_BITS = 32
INDEX_BITS = 4
"""Bits that the index memory keeps of a value."""


def read_port(bits: int) -> wiring.Signature:
    """Reads of words of so many bits; seen from an engine."""
    return wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": In(bits)})


def write_port(bits: int) -> wiring.Signature:
    """Writes of words of so many bits; seen from an engine."""
    return wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": Out(bits)})


ReadPort = read_port(WORD_BITS)
"""A unit; seen from an engine."""

WritePort = write_port(WORD_BITS)
"""A unit; seen from an engine."""


def column_write_port(columns: int) -> wiring.Signature:
    """GEMM's results to the vector memory, a *column word* (``columns`` FP16 values) per cycle; seen from the engine.

    ``addr`` counts column words within ``bank``: half a unit for four columns, one, two or four units for 8, 16, 32.
    ``saturated``, with ``en``: a value of the word saturated when it was rounded.
    """
    members = {"en": Out(1), "bank": Out(2), "addr": Out(ADDR_BITS), "data": Out(FP16_BITS * columns), "saturated": Out(1)}
    return wiring.Signature(members)


__all__ = ["ADDR_BITS", "In", "Out", "ReadPort", "WritePort", "column_write_port", "read_port", "write_port"]
