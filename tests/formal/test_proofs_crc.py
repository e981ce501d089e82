"""Proof of the CRC-32 unit, and the faults that it must find."""

from __future__ import annotations

import random
import zlib

from hw.rtl.common import crc
from hw.rtl.formal import cover, prove
from tests.formal.crc_proof import DATA_BITS, RESIDUE, CrcProof, serial_step, unknowns_of_next_state
from tests.formal.mutants import Fault, expect_counterexample, parameters

FAULTS = (
    Fault(name="sealed always", module=crc, old="self.sealed.eq(self.crc32 == RESIDUE)", new="self.sealed.eq(1)", fails="sealed"),
    Fault(name="another polynomial", module=crc, old="POLYNOMIAL = 0xEDB88320", new="POLYNOMIAL = 0x82F63B78", fails="next"),
    Fault(name="words in reverse", module=crc, old="[*register, *data]", new="[*register, *data[::-1]]", fails="next"),
    Fault(name="one bit lost", module=crc, old="CRC_BITS + len(data))", new="CRC_BITS + len(data) - 1)", fails="next"),
    Fault(name="clear to zero", module=crc, old="register.eq(ONES)", new="register.eq(0)", fails="next"),
)


def test_definition_is_crc32() -> None:
    """The definition, run on bits and as sums of unknowns, against zlib."""
    rng, compared = random.Random(1), 0
    sums = unknowns_of_next_state()
    for _ in range(50):
        head, word = rng.randbytes(16 * rng.randrange(4)), rng.randbytes(16)
        before = ~zlib.crc32(head) & 0xFFFFFFFF
        register = [before >> place & 1 for place in range(32)]
        for place in range(DATA_BITS):
            register = serial_step(register, word[place // 8] >> place % 8 & 1)
        unknowns = before | int.from_bytes(word, "little") << 32
        after = ~zlib.crc32(head + word) & 0xFFFFFFFF
        assert register == [(mask & unknowns).bit_count() % 2 for mask in sums] == [after >> place & 1 for place in range(32)]
        assert zlib.crc32(head + zlib.crc32(head).to_bytes(4, "little")) == RESIDUE
        compared += 32
    assert compared == 1600


def test_crc() -> None:
    prove(CrcProof(crc), 1)
    assert cover(CrcProof(crc), 3) == ("cleared", "second_word")


@parameters(FAULTS)
def test_faulty_crc(fault: Fault) -> None:
    expect_counterexample(fault, CrcProof, 3)
