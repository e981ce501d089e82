"""Processing element: an operand store, an exact FP16 product and sixteen FP32 sums.

The weights of a column come from above, the operands of a row from the left, and both go on to the next element a cycle later: so
element (r, c) does r + c cycles later what element (0, 0) does. *The read address of the operand store is the M:1 choice of N:M
sparsity*. What all elements do at once (drain, preload) comes as :obj:`Broadcast`, which is not skewed.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Module, Mux, Signal, Value, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from hw.rtl.arith.delay import data_register, later
from hw.rtl.arith.float_half import Fp16Product, Operand
from hw.rtl.arith.float_mac import MacAdder
from hw.rtl.sat.ports import FP32_BITS
from hw.spec.sat import SLOTS

STORE_BITS = 6
"""Address of an operand: the half (one is filled while the other is used), and 32 operands of a chunk."""

SLOT_BITS = exact_log2(SLOTS)
OPERAND_BITS = Operand.size

WeightStep = data.StructLayout({
    "weight": Operand,
    "address": STORE_BITS,
    "read_slot": SLOT_BITS,
    "write_slot": SLOT_BITS,
    "write_en": 1,
})  # fmt: skip
"""What goes down a column. ``weight`` and the ``address`` of its operand belong to one step; ``read_slot`` names the sum of the step
of FP16_PRODUCT cycles before, ``write_slot``, with ``write_en``, that of the step of FP16_PRODUCT + latency - 1 cycles before."""

Broadcast = data.StructLayout({"slot": SLOT_BITS, "read": 1, "load": 1, "write": 1, "clear": 1})
"""What all elements do. ``read``: in the next cycle the sum of ``slot`` is read, with ``load`` into the chain. ``write``: in the next
cycle what the chain holds then becomes the sum of ``slot``. ``clear``: the chain holds +0 in the next cycle."""


def operand_write(feed: int) -> data.StructLayout:
    """What goes along a row: operands for the stores of all its elements, ``feed`` at once.

    ``address`` leaves out the lowest bit where there are two, which lie in two memories; ``en`` has a bit for each.
    """
    return data.StructLayout({"values": data.ArrayLayout(Operand, feed), "address": STORE_BITS + 1 - feed, "en": feed})


class ProcessingElement(wiring.Component):
    """The element.

    Parameters: ``latency`` of the adder, which is the least distance of two steps of one slot; ``feed``, operands that come at once.

    Members
    -------
    north, south : steps, in, and out a cycle later; no step writes after reset
    west, east : operands, in, and out a cycle later
    all : broadcast
    below, chain : the register of the chain of the element below, and of this one: it takes what is below in every cycle
    """

    def __init__(self, *, latency: int, feed: int) -> None:
        self.latency, self.feed = latency, feed
        operands = operand_write(feed)
        super().__init__({
            "north": In(WeightStep),
            "south": Out(WeightStep),
            "west": In(operands),
            "east": Out(operands),
            "all": In(Broadcast),
            "below": In(FP32_BITS),
            "chain": Out(FP32_BITS),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        self._pass_on(m)
        m.submodules.product = product = Fp16Product()
        m.submodules.adder = adder = MacAdder(self.latency)
        m.d.comb += [
            product.a.eq(self._operand(m)),
            product.b.eq(self.south.weight),
            adder.acc.eq(self._sum(m, adder.o_next)),
            adder.product.eq(product.o),
        ]
        return m

    def _pass_on(self, m: Module) -> None:
        """The registers of the streams, from which this element works. A slot that was broadcast goes on too; nothing writes there."""
        write_en = Signal()
        m.d.comb += self.south.write_en.eq(write_en)
        m.d.sync += write_en.eq(self.north.write_en)
        chosen = {
            "weight": self.north.weight.as_value(),
            "address": self.north.address,
            "read_slot": Mux(self.all.read, self.all.slot, self.north.read_slot),
            "write_slot": Mux(self.all.write, self.all.slot, self.north.write_slot),
        }
        for name, value in chosen.items():
            register = Signal(len(value), name=f"step_{name}", reset_less=True)
            m.d.sync += register.eq(value)
            m.d.comb += Value.cast(self.south[name]).eq(register)
        m.d.sync += data_register(m, self.east).eq(self.west)

    def _operand(self, m: Module) -> Value:
        """The step's operand. With two at once, those with odd addresses lie in a memory of their own."""
        low = self.feed - 1
        found = []
        for lane in range(self.feed):
            store = memory.Memory(shape=unsigned(OPERAND_BITS), depth=1 << (STORE_BITS - low), init=[])
            m.submodules[f"store_{lane}"] = store
            read, write = store.read_port(domain="comb"), store.write_port()
            m.d.comb += [
                read.addr.eq(self.south.address[low:]),
                write.en.eq(self.east.en[lane]),
                write.addr.eq(self.east.address),
                write.data.eq(self.east["values"][lane]),
            ]
            found.append(read.data)
        return Mux(self.south.address[0], found[1], found[0]) if low else found[0]

    def _sum(self, m: Module, result: Value) -> Value:
        """The sum of the slot that is read; writes the adder's results, or what the chain holds, and keeps the chain."""
        m.submodules.sums = sums = memory.Memory(shape=unsigned(FP32_BITS), depth=SLOTS, init=[])
        read, write = sums.read_port(domain="comb"), sums.write_port()
        chain = data_register(m, self.chain)
        load, preset = later(m, Cat(self.all.load, self.all.write), 1, reset_less=True)
        m.d.comb += [
            read.addr.eq(self.south.read_slot),
            write.en.eq(self.south.write_en | preset),
            write.addr.eq(self.south.write_slot),
            write.data.eq(Mux(preset, chain, result)),
        ]
        m.d.sync += chain.eq(Mux(self.all.clear, 0, Mux(load, read.data, self.below)))
        return read.data
