"""Ports of the vector memory, of the memory of channel records and of the saturation flag.

Each memory has a port for each of its users and joins them itself, because one engine runs at a time: an engine's address and data
count only beside its ``en``, which is low while it is idle. Read data comes ``VECTOR_READ`` cycles after ``en``. Addresses are 20
bits; a memory answers an enabled access at or above its size by raising ``out_of_range`` in the next cycle, and such a write does
nothing.
"""

from __future__ import annotations

from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.spec.sat.instructions import BANKS
from hw.spec.transfer import ADDR_BITS

WORD_BITS = 128
VALUE_BITS = 16
BANK_BITS = 2

ReadPort = wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": In(WORD_BITS)})
"""One word; seen from an engine. STORE's address counts the vector memory's words through all banks, PRUNE's lies in bank 0."""

WritePort = wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": Out(WORD_BITS)})
"""One word; seen from an engine. LOAD's address counts the vector memory's words through all banks."""

OperandPort = wiring.Signature(
    {
        "en": Out(BANKS),
        "addr": Out(data.ArrayLayout(ADDR_BITS, BANKS)),
        "data": In(data.ArrayLayout(WORD_BITS, BANKS)),
    }
)
"""VEC's operands a, b and c: a word of each bank, at addresses within the bank; seen from the engine."""

ResultPort = wiring.Signature({"en": Out(1), "bank": Out(BANK_BITS), "addr": Out(ADDR_BITS), "data": Out(WORD_BITS)})
"""VEC's results: one word of a bank; seen from the engine."""

PrunedPort = wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "values": Out(WORD_BITS), "positions": Out(WORD_BITS)})
"""PRUNE's results: a word of values to bank 1 and one of positions to the same address of bank 2; seen from the engine."""


def column_write_port(columns: int) -> wiring.Signature:
    """GEMM's drain: a column word of ``columns`` FP16 values; the address counts column words of the bank; seen from the engine."""
    return wiring.Signature({"en": Out(1), "bank": Out(BANK_BITS), "addr": Out(ADDR_BITS), "data": Out(VALUE_BITS * columns)})


FlagPort = wiring.Signature({"take": Out(1), "saturated": In(1)})
"""The sticky saturation flag, seen from VEC: its value, and a pulse that clears it."""

__all__ = [
    "BANK_BITS", "WORD_BITS", "FlagPort", "In", "OperandPort", "Out", "PrunedPort", "ReadPort", "ResultPort", "WritePort",
    "column_write_port",
]  # fmt: skip
