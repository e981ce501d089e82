"""Parts of the GEMM engine by themselves: processing element, memories, tile walker."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from amaranth.lib import wiring
from amaranth.sim import Simulator

from hw.rtl.sat.memories import AccumulatorMemory, ActivationMemory, IndexMemory, TableMemory, WeightMemory
from hw.rtl.sat.pe import ProcessingElement
from hw.rtl.sat.tile import TileWalker
from hw.spec import floats
from hw.spec.sat import SLOTS, SatArch
from hw.spec.sat.latency import FP16_PRODUCT, MEMORY_READ
from tests.sat.gemm_jobs import instruction


def simulate(unit: wiring.Component, testbench: Callable) -> None:
    sim = Simulator(unit)
    sim.add_clock(1e-8)
    sim.add_testbench(testbench)
    sim.run()


def operand(half: np.float16) -> dict[str, int]:
    """A normalised operand, from its definition: significand * 2**(exponent - 42)."""
    mantissa, exponent = np.frexp(abs(float(half)))
    return {"significand": int(mantissa * 2048), "exponent": int(exponent) - 11 + 42, "sign": int(np.signbit(half))}


@pytest.mark.parametrize("latency, feed", [(latency, feed) for latency in (4, 5, 6) for feed in (1, 2)])
def test_an_element_sums_sixteen_products_in_turn(latency: int, feed: int) -> None:
    """Sixteen dot products of random halves; then all sums through the chain. The first sums are presets."""
    rng = np.random.default_rng(latency * 2 + feed)
    unit, steps, count = ProcessingElement(latency=latency, feed=feed), 5, []
    store = (rng.standard_normal(64) * 2.0 ** rng.integers(-20, 15, 64)).astype(np.float16)
    weights = rng.standard_normal((steps, SLOTS)).astype(np.float16)
    places = rng.integers(0, 64, (steps, SLOTS))
    read, written = FP16_PRODUCT, FP16_PRODUCT + latency - 1

    async def testbench(ctx) -> None:
        for at in range(0, 64, feed):
            ctx.set(unit.west, {"values": [operand(store[at + n]) for n in range(feed)], "address": at // feed, "en": (1 << feed) - 1})
            await ctx.tick()
        ctx.set(unit.west, {"en": 0})
        presets = np.arange(1, SLOTS + 1).astype(np.float32)
        for slot in range(SLOTS):
            # What is below is in the chain a cycle later, when the slot is written.
            ctx.set(unit.all, {"slot": slot, "write": 1})
            ctx.set(unit.below, int(presets[slot].view(np.uint32)))
            await ctx.tick()
        ctx.set(unit.all, {"write": 0})
        for cycle in range(steps * SLOTS + written):
            now, late, last = cycle, cycle - read, cycle - written
            step, slot = divmod(min(now, steps * SLOTS - 1), SLOTS)
            ctx.set(unit.north, {
                "weight": operand(weights[step, slot]), "address": int(places[step, slot]), "read_slot": late % SLOTS,
                "write_slot": last % SLOTS, "write_en": last >= 0,
            })  # fmt: skip
            await ctx.tick()
            assert ctx.get(unit.south.write_en) == (last >= 0)
        ctx.set(unit.north, {"write_en": 0})
        await ctx.tick()
        for slot in range(SLOTS):
            ctx.set(unit.all, {"slot": slot, "read": 1, "load": 1})
            await ctx.tick().repeat(2)
            # The preset is a product itself, the first one: 1, 2, .. times 1.
            x, w = np.append(np.float16(presets[slot]), store[places[:, slot]]), np.append(np.float16(1), weights[:, slot])
            expected = floats.fp16_dot(x, w)
            assert ctx.get(unit.chain) == int(expected.view(np.uint32)), slot
            count.append(slot)

    simulate(unit, testbench)
    assert len(count) == SLOTS


@pytest.mark.parametrize("columns", [4, 8, 16, 32])
@pytest.mark.parametrize("memory", [WeightMemory, IndexMemory, AccumulatorMemory])
def test_words_of_columns_lie_in_units_as_in_the_machine(memory: type, columns: int) -> None:
    arch, rng, read = SatArch(rows=4, columns=columns, wgt_words=64, acc_words=64), np.random.default_rng(columns), []
    unit = memory(arch)
    space = {WeightMemory: "wgt", IndexMemory: "idx", AccumulatorMemory: "acc"}[memory]
    data = rng.integers(0, 256, (arch.space_units()[space], 16), np.uint8)
    words = data.reshape(64, -1)
    if memory is IndexMemory:
        nibbles = words.view("<u2") & 15
        words = (nibbles[:, ::2] | nibbles[:, 1::2] << 4).astype(np.uint8)
    write = unit.unit_write if memory is AccumulatorMemory else unit.write

    async def testbench(ctx) -> None:
        for addr in rng.permutation(len(data)).tolist():
            ctx.set(write.en, 1)
            ctx.set(write.addr, addr)
            ctx.set(write.data, int.from_bytes(data[addr].tobytes(), "little"))
            await ctx.tick()
        ctx.set(write.en, 0)
        order = [*rng.permutation(64).tolist(), 64, 1 << 19]
        ctx.set(unit.read.en, 1)
        for number in range(len(order) + MEMORY_READ):
            ctx.set(unit.read.addr, order[min(number, len(order) - 1)])
            if MEMORY_READ <= number < 64 + MEMORY_READ:
                assert ctx.get(unit.read.data).to_bytes(words.shape[1], "little") == words[order[number - MEMORY_READ]].tobytes()
                read.append(number)
            assert ctx.get(unit.out_of_range) == (number > 64)
            await ctx.tick()

    simulate(unit, testbench)
    assert len(read) == 64


@pytest.mark.parametrize("memory", [ActivationMemory, TableMemory])
def test_copies_hold_the_same(memory: type) -> None:
    arch, rng, read = SatArch(rows=8, columns=4, feed=2, act_words=64, tbl_words=64), np.random.default_rng(1), []
    unit = memory(arch)
    data = [int.from_bytes(rng.bytes(16), "little") for _ in range(64)]

    async def testbench(ctx) -> None:
        for addr, word in enumerate(data):
            ctx.set(unit.write.en, 1)
            ctx.set(unit.write.addr, addr)
            ctx.set(unit.write.data, word)
            await ctx.tick()
        ctx.set(unit.write.en, 0)
        for addr in range(64):
            for number, port in enumerate(unit.read):
                ctx.set(port.en, 1)
                ctx.set(port.addr, (addr + 5 * number) % 64)
            await ctx.tick().repeat(MEMORY_READ)
            for number, port in enumerate(unit.read):
                assert ctx.get(port.data) == data[(addr + 5 * number) % 64]
                read.append(addr)
        assert not ctx.get(unit.out_of_range)
        ctx.set(unit.read[1].addr, 64)
        await ctx.tick()
        assert ctx.get(unit.out_of_range)

    simulate(unit, testbench)
    assert len(read) == 64 * arch.copies == 128


@pytest.mark.parametrize("a_log2, b_log2", [(0, 0), (2, 0), (1, 2), (0, 4), (2, 2)])
def test_a_tile_is_walked_slot_by_slot(a_log2: int, b_log2: int) -> None:
    arch, walked = SatArch(rows=4, columns=4), []
    unit, i = TileWalker(arch), instruction(arch, a_log2=a_log2, b_log2=b_log2)
    fields = {entry.name: i[entry.name] for entry in i.operation.fields}
    base, pitch, b = 0xFFFF0, 37, 1 << b_log2

    async def testbench(ctx) -> None:
        ctx.set(unit.instruction, int.from_bytes(arch.instructions.encode("GEMM", **fields), "little"))
        ctx.set(unit.base, base)
        ctx.set(unit.pitch, pitch)
        ctx.set(unit.init, 1)
        await ctx.tick()
        ctx.set(unit.init, 0)
        slots = b << a_log2
        for slot in range(slots):
            for row in range(arch.rows):
                ctx.set(unit.step, 0)
                await ctx.tick()
                ctx.set(unit.step, 1)
                q, column = slot // b * arch.rows + row, slot % b
                got = [ctx.get(getattr(unit, name)) for name in ("slot", "row", "column", "addr", "first", "last", "end")]
                place, end = (base + q * pitch + column) % (1 << 20), row == 3 and slot == slots - 1
                assert got == [slot, q, column, place, row == 0, row == 3, end]
                walked.append(slot)
                await ctx.tick()

    simulate(unit, testbench)
    assert len(walked) == arch.rows * b << a_log2
