"""CRC-32 (IEEE 802.3, as ``zlib.crc32``) of a stream of 16-byte words, one word per cycle."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.crc.catalog import CRC32_ISO_HDLC
from amaranth.lib.wiring import In, Out

from hw.rtl.common.interfaces import DATA_BITS


class Crc32(wiring.Component):
    """CRC-32 of the words given since ``clear``; byte 0 of a word is its bits 7..0 and comes first.

    Throughput one word per cycle, latency 1: a word of this cycle is in ``crc32`` in the next.

    Members
    -------
    clear : the next word is the first; together with ``en`` the word of this cycle is
    en, data : add a word
    crc32 : CRC-32 of the words so far, 0 if there was none
    sealed : the words so far end with the little-endian CRC-32 of all bytes before it; false before the first
    """

    clear: In(1)
    en: In(1)
    data: In(DATA_BITS)
    crc32: Out(32)
    sealed: Out(1)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.crc = crc = CRC32_ISO_HDLC(data_width=DATA_BITS).create()
        m.d.comb += [
            crc.start.eq(self.clear),
            crc.valid.eq(self.en),
            crc.data.eq(self.data),
            self.crc32.eq(crc.crc),
            self.sealed.eq(crc.match_detected),
        ]
        return m
