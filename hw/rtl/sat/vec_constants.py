"""Constants of the vector unit's affine operation: S, T and U of eight lanes, for SLOTS channel words."""

from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.sat.vec_control import SLOTS
from hw.rtl.sat.vec_lane import MINUS_ZERO
from hw.rtl.sat.vec_ports import WORD_BITS
from hw.rtl.sat.vec_words import fp32_word
from hw.spec.sat.arch import LANES


class Constants(wiring.Component):
    """Small memories that are read a channel word's lanes at a time.

    Members
    -------
    write, lane, slot, word : a channel's record word: S, T, U and one that is not used
    use_b, use_u : where not, T and U are -0
    product_slot, sum_slot : whose constants are wanted
    s, t : of ``product_slot``, a cycle later
    u : of ``sum_slot``, a cycle later
    """

    write: In(1)
    lane: In(range(LANES))
    slot: In(range(SLOTS))
    word: In(WORD_BITS)
    use_b: In(1)
    use_u: In(1)
    product_slot: In(range(SLOTS))
    sum_slot: In(range(SLOTS))
    s: Out(data.ArrayLayout(32, LANES))
    t: Out(data.ArrayLayout(32, LANES))
    u: Out(data.ArrayLayout(32, LANES))

    delay = 1

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = Signal(WORD_BITS)
        m.d.comb += values.eq(fp32_word(self.word))
        for lane in range(LANES):
            s, t = values[:32], Mux(self.use_b, values[32:64], MINUS_ZERO)
            factors = self._memory(m, f"factors_{lane}", lane, self.product_slot, (s, t))
            offset = self._memory(m, f"offset_{lane}", lane, self.sum_slot, (Mux(self.use_u, values[64:96], MINUS_ZERO),))
            m.d.comb += [self.s[lane].eq(factors[0]), self.t[lane].eq(factors[1]), self.u[lane].eq(offset[0])]
        return m

    def _memory(self, m: Module, name: str, lane: int, read_slot: Value, values: tuple[Value, ...]) -> list[Signal]:
        """A lane's memory of 32-bit values: what it has at ``read_slot``, a cycle later."""
        layout = data.ArrayLayout(32, len(values))
        m.submodules[name] = array = memory.Memory(shape=layout, depth=SLOTS, init=[])
        writer, reader = array.write_port(), array.read_port(domain="comb")
        m.d.comb += [writer.en.eq(self.write & (self.lane == lane)), writer.addr.eq(self.slot), reader.addr.eq(read_slot)]
        registers = []
        for number, value in enumerate(values):
            m.d.comb += writer.data[number].eq(value)
            register = Signal(32, name=f"{name}_{number}", reset_less=True)
            m.d.sync += register.eq(reader.data[number])
            registers.append(register)
        return registers
