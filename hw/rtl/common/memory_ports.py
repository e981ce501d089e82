"""Ports of on-chip memories of 16-byte words, seen from an engine.

An engine's address and data count only beside its ``en``, which is low while it is idle. Addresses are 20 bits; what a memory does
with an access outside of it is the core's business.
"""

from __future__ import annotations

from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.spec.transfer import ADDR_BITS

WORD_BITS = 128

ReadPort = wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": In(WORD_BITS)})
WritePort = wiring.Signature({"en": Out(1), "addr": Out(ADDR_BITS), "data": Out(WORD_BITS)})
