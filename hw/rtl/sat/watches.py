"""What the simulator sees of writes to the training core's on-chip memories, in 16-byte words as LOAD counts them.

Lanes: of ``acc`` and ``vec`` several words are written in a cycle, so they have a lane for each of a word's units, ``vec`` for each
bank. With four columns a drain writes half of a word of ``vec``: there the lanes are the halves. Whole words are shown in the lower
one, and a half has zeros in place of the other, which is not written.
"""

from __future__ import annotations

from amaranth.hdl import Cat, Const, Module, Mux, Value
from amaranth.lib import wiring

from hw.rtl.common.joins import watch, watch_net
from hw.rtl.common.memory_ports import WORD_BITS
from hw.rtl.sat.memories import AccumulatorMemory
from hw.rtl.sat.ports import FP16_BITS, INDEX_BITS
from hw.rtl.sat.vec_memory import VecMemory
from hw.spec.sat import FP32_LANES, LANES, SatArch
from hw.spec.sat.instructions import BANKS


def watch_word(m: Module, space: str, write: wiring.PureInterface) -> None:
    """A port of 16-byte words."""
    watch(m, space, write, write.addr)


def watch_idx(m: Module, write: wiring.PureInterface) -> None:
    """Of each position the memory keeps the low bits."""
    kept = (write.data.word_select(lane, FP16_BITS)[:INDEX_BITS] for lane in range(LANES))
    watch_net(m, "idx", write.en, write.addr, Cat(Cat(bits, Const(0, FP16_BITS - INDEX_BITS)) for bits in kept))


def watch_acc(m: Module, arch: SatArch, memory: AccumulatorMemory) -> None:
    """A lane for each unit of a word: GEMM writes all, LOAD one."""
    units, word, unit = arch.columns // FP32_LANES, memory.write, memory.unit_write
    for lane in range(units):
        mine = unit.en & (unit.addr % units == lane)
        watch_net(
            m, f"acc_{lane}", word.en | mine,
            Mux(word.en, word.addr * units + lane, unit.addr), Mux(word.en, word.data.word_select(lane, WORD_BITS), unit.data),
        )  # fmt: skip


def watch_vec(m: Module, arch: SatArch, memory: VecMemory) -> None:
    """A lane for each bank and unit of its words, or half of one."""
    units = max(1, arch.columns // LANES)
    for bank in range(BANKS):
        write, first = memory.written[bank], bank * arch.vec_words
        if arch.columns < LANES:
            _watch_halves(m, bank, first, write)
            continue
        for unit in range(units):
            addr, data = first + write.addr * units + unit, write.data.word_select(unit, WORD_BITS)
            watch_net(m, f"vec_{bank * units + unit}", write.en[unit], addr, data)


def _watch_halves(m: Module, bank: int, first: int, write: Value) -> None:
    half = WORD_BITS // 2
    low, high = write.en[0], write.en[1]
    watch_net(m, f"vec_{2 * bank}", low, first + write.addr, Mux(high, write.data, write.data[:half]))
    watch_net(m, f"vec_{2 * bank + 1}", high & ~low, first + write.addr, Cat(Const(0, half), write.data[half:]))
