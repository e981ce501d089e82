"""Ports between the inference core's engines and its on-chip memories and requantise unit.

The core is serial, so each memory has one read and one write port: an engine's address and data count only beside its ``en``, which
is low while it is idle; the requantise unit's inputs are joined by a disjunction, and an idle engine drives zeros. Data comes
``MEMORY_READ`` cycles after ``en``. Addresses are 20 bits; a memory answers an enabled access at or above
its size by raising its ``out_of_range`` for a cycle, which ends the instruction with BUFFER_RANGE.
"""

from __future__ import annotations

from amaranth.hdl import signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.memory_ports import WORD_BITS, ReadPort, WritePort
from hw.spec.deform import LANES, ROW_BANKS
from hw.spec.deform.instructions import ADDR_BITS, PW, TABLE_BYTES, TABLES_MAX
from hw.spec.deform.latency import TABLE_PARTS

ACC_BITS = 32
TABLE_FIELD_BITS = next(field.width for field in PW.fields if field.name == "table")


def weight_read_port(units: int) -> wiring.Signature:
    """Weight memory, ``units`` 16-byte units a word; seen from an engine."""
    return wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": In(WORD_BITS * units)})


_PART_BYTES = LANES // TABLE_PARTS

TableWritePort = wiring.Signature(
    {"en": Out(1), "addr": Out(range(TABLES_MAX * TABLE_BYTES // _PART_BYTES)), "data": Out(8 * _PART_BYTES)}
)
"""Entries of the tables, TABLE_PARTS to a word of 16; seen from an engine."""

RowReadPort = wiring.Signature(
    {
        "en": Out(3),
        "bank": Out(data.ArrayLayout(4, 3)),
        "addr": Out(data.ArrayLayout(ADDR_BITS, 3)),
        "data": In(data.ArrayLayout(WORD_BITS, 3)),
    }
)
"""Three words at once from banks 0..8. Two taps may name one bank only with one address, also where they are not enabled."""

RequantisePort = wiring.Signature(
    {
        "load_en": Out(1),
        "load_set": Out(2),
        "load_index": Out(3),
        "load_data": Out(WORD_BITS),
        "set": Out(2),
        "acc": Out(data.ArrayLayout(signed(ACC_BITS), LANES)),
        "rounding": Out(2),
        "clip_lo": Out(9),
        "clip_hi": Out(9),
        "o_data": In(WORD_BITS),
    }
)
"""Sixteen lanes, seen from an engine. ``load_*`` writes two channels' records (word ``load_index`` of 8) of parameter set
``load_set`` (sets: columns / 16). 16 accumulators (two's complement, 32 bits each) enter the pipeline every cycle, with the records
of ``set``; their 16 output bytes come on ``o_data``: from the unit
REQUANTISE cycles later, at an engine, behind the tables, ``result_cycles`` later. ``rounding`` and the clips hold still during an
instruction."""

__all__ = ["ROW_BANKS", "In", "Out", "ReadPort", "RequantisePort", "RowReadPort", "TableWritePort", "WritePort", "weight_read_port"]
