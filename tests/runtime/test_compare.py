"""The comparison itself: it counts, finds every planted difference, and names it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hw.spec.machine import Outcome
from hw.spec.regs import ErrorCode
from sw.flow.link import Link, compare_writes
from sw.flow.machine_rtl import RtlTally, compare_devices
from sw.runtime.device import Launch
from sw.runtime.errors import DeviceError
from sw.runtime.interpreter import InterpreterDevice
from sw.runtime.records import MEMORY, InstructionTime, RunRecord, WriteLog
from tests.runtime.copy_program import copy_program, image


def log(seed: int = 0, words: int = 40) -> WriteLog:
    """Random writes of four instructions to distinct addresses."""
    rng = np.random.default_rng(seed)
    index, address = np.sort(rng.integers(0, 4, words)), rng.permutation(words) * 16
    return WriteLog.full(index, address, rng.integers(0, 256, (words, 16), np.uint8))


def compared(expected: WriteLog, got: WriteLog) -> Link:
    link = Link(name="test", unit="bytes")
    compare_writes(link, expected, got, lambda index, address: f"instruction {index} word {address}")
    return link


def test_equal_logs_in_another_order_are_equal():
    one = log()
    shuffled = one.where(np.random.default_rng(3).permutation(len(one.index)))
    link = compared(one, shuffled)
    assert (link.compared, link.mismatches, link.first, link.ok) == (640, 0, [], True)


def test_one_wrong_byte_is_found_and_named():
    one = log()
    data = one.data.copy()
    data[7, 5] ^= 0x80
    link = compared(one, dataclasses.replace(one, data=data))
    assert (link.compared, link.mismatches) == (640, 1)
    place = f"instruction {one.index[7]} word {one.address[7]} byte 5"
    assert link.first == [f"{place}: expected {one.data[7, 5]:#04x}, got {data[7, 5]:#04x}"]


def test_a_byte_that_was_not_written_is_found():
    one = log()
    strobe = one.strobe.copy()
    strobe[3] &= ~np.uint16(1 << 15)
    link = compared(one, dataclasses.replace(one, strobe=strobe))
    assert link.mismatches == 1 and link.first[0].endswith("got no write")


def test_a_missing_and_a_surplus_word_are_found_and_the_rest_is_compared():
    one = log()
    address = one.address.copy()
    address[4] += 0x1000
    link = compared(one, dataclasses.replace(one, address=address))
    assert (link.compared, link.mismatches) == (656, 32)
    assert any("expected a write, which did not happen" in words for words in link.first)
    assert any("written, which was not expected" in words for words in link.first)


def test_a_word_of_another_instruction_is_found():
    one = log()
    index = one.index.copy()
    index[0] += 1
    assert compared(one, dataclasses.replace(one, index=index)).mismatches == 32


def test_a_word_written_twice_counts_twice():
    one = log()
    twice = one.where(np.append(np.arange(len(one.index)), 9))
    assert compared(twice, twice).compared == 656
    assert compared(one, twice).mismatches == 16


def test_a_large_log_is_fast_enough_for_networks():
    one = log(words=200_000)
    assert compared(one, one).compared == 3_200_000


def test_codes_count_and_name_the_place():
    link = Link(name="test", unit="codes")
    expected = np.arange(24).reshape(2, 3, 2, 2)
    got = expected.copy()
    got[1, 2, 0, 1] = 99
    link.codes("tensor a", expected, got)
    assert (link.compared, link.mismatches, link.first) == (24, 1, ["tensor a at (1, 2, 0, 1): expected 21, got 99"])


@pytest.mark.parametrize("got", [np.zeros((2, 3, 2)), np.zeros((2, 3, 2, 2))])
def test_codes_of_another_shape_or_type_differ(got):
    link = Link(name="test", unit="codes")
    link.codes("tensor a", np.zeros((2, 3, 2, 2), np.int64), got)
    assert link.mismatches == 1 and "expected integer codes of shape (2, 3, 2, 2)" in link.first[0]


def test_a_link_that_compared_nothing_is_not_well():
    assert not Link(name="test", unit="codes").ok


class Spoilt(InterpreterDevice):
    """An interpreter that stands in for a core; ``spoil`` changes each launch."""

    def __init__(self, spoil) -> None:
        super().__init__()
        self.spoil = spoil

    def launch(self, program, placement, *, record=False):
        launch = super().launch(program, placement, record=record)
        timed = dataclasses.replace(launch.record, times=(InstructionTime(index=0, issue=5, retire=15),))
        return self.spoil(dataclasses.replace(launch, record=timed))


def against(spoil, predict=None, images: int = 3) -> RtlTally:
    """Two interpreters compared, one of them spoilt."""
    tally = RtlTally(link=Link(name="rtl", unit="bytes"), timing=Link(name="timing", unit="instructions"))
    batch = [{"x": image(i)} for i in range(images)]
    runs = list(compare_devices(tally, copy_program(), InterpreterDevice(), Spoilt(spoil), batch, predict))
    assert len(runs) >= 1
    return tally


def test_equal_devices_are_equal_in_every_space():
    tally = against(lambda launch: launch, predict=lambda index: 10)
    words = 3 * (4 + 12 + 12)
    assert (tally.link.compared, tally.link.mismatches) == (16 * words + 3 * 120, 0)
    assert (tally.timing.compared, tally.timing.mismatches, tally.counters) == (3, 0, {"RETIRED": 9})


def test_a_wrong_byte_is_named_by_image_instruction_layer_and_address():
    def spoil(launch: Launch) -> Launch:
        log = launch.record.writes[MEMORY]
        log.data[2, 1] ^= 1
        return launch

    tally = against(spoil)
    assert tally.link.mismatches == 3
    assert tally.link.first[0].startswith("image 0: instruction 2 (STORE, layer output): memory 0x8")


def test_a_wrong_time_is_named():
    tally = against(lambda launch: launch, predict=lambda index: 11)
    assert tally.timing.mismatches == 3
    assert "instruction 0 (LOAD, layer parameters): the model says 11 cycles, the core took 10" in tally.timing.first[0]


def test_a_core_that_ends_with_an_error_is_a_difference_and_ends_the_run():
    def spoil(launch: Launch) -> Launch:
        outcome = Outcome(error=ErrorCode.BLOB_CRC, index=0, retired=0)
        return Launch(outcome=outcome, counters={}, record=RunRecord(outcome=outcome, writes={}))

    tally = against(spoil)
    assert tally.link.first[0] == "image 0: the machine ended well, the core: ended with BLOB_CRC at instruction 0"
    assert tally.link.mismatches > 1


def test_a_core_that_does_not_end_is_a_difference():
    def spoil(launch: Launch) -> Launch:
        raise DeviceError("it hangs")

    tally = against(spoil)
    assert tally.link.mismatches == 1 and tally.link.first == ["image 0: the machine ended well, the core: it hangs"]
