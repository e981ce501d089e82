"""CRC-32 of 128 bits per cycle against the bit-serial definition, for every state and all data."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import xor
from types import ModuleType

from amaranth.hdl import Const, Signal, Value

from hw.rtl.common.interfaces import DATA_BITS
from hw.rtl.formal import Harness

POLYNOMIAL = 0xEDB88320
"""IEEE 802.3 with the lowest bit first."""

CRC_BITS = 32
RESIDUE = 0x2144DF1C
"""CRC-32 of anything followed by its own CRC-32, as ``zlib.crc32`` gives it."""


def serial_step(register: Sequence[int], bit: int) -> list[int]:
    """The definition: the shift register after one more bit of the message. Elements need only the operator ``^``: they are bits,
    or sums of unknown bits, one bit of an integer for each unknown."""
    feedback = register[0] ^ bit
    shifted = [*register[1:], 0]
    return [old ^ feedback if POLYNOMIAL >> place & 1 else old for place, old in enumerate(shifted)]


def unknowns_of_next_state() -> list[int]:
    """For each bit of the register after DATA_BITS steps which unknowns it sums: bit i is state bit i, bit 32 + j data bit j."""
    register = [1 << place for place in range(CRC_BITS)]
    for place in range(DATA_BITS):
        register = serial_step(register, 1 << CRC_BITS + place)
    return register


class CrcProof(Harness):
    """Checks: ``next``, the state after each cycle; ``sealed``, the mark of a message that ends with its CRC-32."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def describe(self) -> None:
        m, dut = self.m, self._module.Crc32()
        register = self.part(dut)["register"]
        clear, en, data = self.any(1, "clear"), self.any(1, "en"), self.any(DATA_BITS, "data")
        m.d.comb += [dut.clear.eq(clear), dut.en.eq(en), dut.data.eq(data)]
        self.assume(~(clear & en))
        after, begun = Signal(CRC_BITS), Signal()
        with m.If(en):
            m.d.sync += after.eq(self._next(register, data))
        with m.Elif(clear):
            m.d.sync += [after.eq((1 << CRC_BITS) - 1), begun.eq(1)]
        with m.Else():
            m.d.sync += after.eq(register)
        self.check("next", ~begun | ((register == after) & (dut.crc32 == ~register)))
        self.check("sealed", dut.sealed == (dut.crc32 == RESIDUE))
        # That ``sealed`` can be high is shown by tests/rtl/test_crc.py: solvers find no preimages of a CRC.
        self.cover("cleared", self.past(begun & clear, "clearing") & (dut.crc32 == 0))
        self.cover("second_word", self.past(begun & en, "first") & en)

    def _next(self, before: Value, data: Value) -> Value:
        # Summed in the order of the RTL's chains (register, then word), which the solver sees at once.
        after = Signal(CRC_BITS, name="defined")
        for bit, mask in enumerate(unknowns_of_next_state()):
            state = [before[place] for place in range(CRC_BITS) if mask >> place & 1]
            word = [data[place] for place in range(DATA_BITS) if mask >> CRC_BITS + place & 1]
            self.m.d.comb += after[bit].eq(reduce(xor, state + word, Const(0, 1)))
        return after
