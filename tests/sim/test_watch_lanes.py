"""A space of which several words are written in a cycle: one watch net per lane, all of them of one space."""

from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module, Signal

from hw.rtl.emit import EmittedVerilog, emit
from hw.sim.binding import ContractError, bind
from hw.sim.build import build_simulation
from tests.sim import copy_engine
from tests.sim.copy_engine import CopyEngine

LANES = 12


class LanedEngine(CopyEngine):
    """The copy engine, which says of each word that most lanes of ``wide`` write it too, each a multiple of it."""

    def _watch(self, m: Module) -> None:
        super()._watch(m)
        bus = self._bus
        for lane in range(LANES):
            for name, width, value in (
                ("en", 1, bus.rvalid & bus.rready & (self._beat % 3 != lane % 3)),
                ("addr", 32, self._beat if lane < 2 else lane * 100 + self._beat),
                ("data", 128, bus.rdata[:120] * (lane + 1)),
            ):
                m.d.comb += Signal(width, name=f"watch_wide_{lane}__{name}").eq(value)


@pytest.fixture(scope="module")
def laned() -> EmittedVerilog:
    return emit(LanedEngine(), "copy_engine")


def test_lanes_are_of_one_space_in_the_order_of_their_numbers(laned: EmittedVerilog) -> None:
    binding = bind(laned)
    assert binding.spaces == ("fm", "wide")
    assert binding.watches == (("fm", None), *(("wide", lane) for lane in range(LANES)))


def test_writes_of_all_lanes_are_logged(laned: EmittedVerilog, open_loop, start_copy) -> None:
    loop = open_loop(build_simulation(laned), trace_writes=True)
    start_copy(loop, 1)
    loop.run(100_000)
    trace, words = loop.trace(), loop.memory[: 16 * copy_engine.BEATS].reshape(-1, 16)
    assert np.array_equal(trace.written("fm")["data"], words)
    written, compared = trace.written("wide"), 0
    assert np.array_equal(written["lane"], np.sort(written["lane"]))
    for lane in range(LANES):
        log = written[written["lane"] == lane]
        beats = np.arange(copy_engine.BEATS)[np.arange(copy_engine.BEATS) % 3 != lane % 3]
        assert np.array_equal(log["address"], beats if lane < 2 else lane * 100 + beats)
        numbers = [(int.from_bytes(words[beat, :15].tobytes(), "little") * (lane + 1)) % (1 << 128) for beat in beats]
        assert [int.from_bytes(data.tobytes(), "little") for data in log["data"]] == numbers
        compared += len(log)
    assert compared == len(written) > 500


@pytest.mark.parametrize(("old", "lanes"), [("_3__", "[0, 1, 2, 4"), ("_0__", "[1, 2, 3")])
def test_a_lane_that_is_missing_is_told(laned: EmittedVerilog, old: str, lanes: str) -> None:
    text = laned.text.replace(f"watch_wide{old}", f"other_wide{old}")
    with pytest.raises(ContractError) as caught:
        bind(EmittedVerilog.from_text(text, "copy_engine"))
    assert f"watch nets of wide must have no lane or the lanes 0, 1 and so on, not {lanes}" in str(caught.value)
