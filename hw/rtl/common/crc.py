"""CRC-32 (IEEE 802.3, as ``zlib.crc32``) of a stream of 16-byte words, one word per cycle.

The register's next value is linear in the register and the word, so each of its bits is a sum modulo 2 of some of theirs; which
ones is found by running the bit-serial register on the unknowns.
"""

from functools import reduce
from operator import xor

from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.interfaces import DATA_BITS

CRC_BITS = 32
ONES = (1 << CRC_BITS) - 1
POLYNOMIAL = 0xEDB88320
"""IEEE 802.3, the lowest bit first."""

RESIDUE = 0x2144DF1C
"""The CRC-32 of whatever ends with its own CRC-32."""


class Crc32(wiring.Component):
    """CRC-32 of the words given since ``clear``; byte 0 of a word is its bits 7..0 and comes first.

    Throughput one word per cycle, latency 1: a word of this cycle is in ``crc32`` in the next. Proven for every state and word
    (tests/formal).

    Members
    -------
    clear : the next word is the first; no word comes in this cycle. Before the first ``clear`` the outputs are anything
    en, data : add a word
    crc32 : CRC-32 of the words so far, 0 if there was none
    sealed : the words so far end with the little-endian CRC-32 of all bytes before it; false before the first
    """

    clear: In(1)
    en: In(1)
    data: In(DATA_BITS)
    crc32: Out(CRC_BITS)
    sealed: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        register = Signal(CRC_BITS, reset_less=True)
        m.d.comb += [self.crc32.eq(~register), self.sealed.eq(self.crc32 == RESIDUE)]
        with m.If(self.clear):
            m.d.sync += register.eq(ONES)
        with m.Elif(self.en):
            m.d.sync += register.eq(_after_word(register, self.data))
        return m


def _after_word(register: Value, data: Value) -> Value:
    """The register after the bits of a word, the lowest first."""
    unknowns = [*register, *data]
    sums = [frozenset([place]) for place in range(CRC_BITS)]
    for place in range(CRC_BITS, CRC_BITS + len(data)):
        feedback = sums[0] ^ {place}
        shifted = [*sums[1:], frozenset[int]()]
        sums = [terms ^ feedback if POLYNOMIAL >> bit & 1 else terms for bit, terms in enumerate(shifted)]
    return Cat(reduce(xor, (unknowns[place] for place in sorted(terms))) for terms in sums)
