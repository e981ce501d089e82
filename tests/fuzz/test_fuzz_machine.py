"""Damaged programs in the interpreter: legal ends, no access outside of what was given, good programs afterwards as ever."""

from __future__ import annotations

import pytest

from hw.spec.machine import CoreError
from hw.spec.regs import ErrorCode
from tests.fuzz.bounded import BoundedMachine
from tests.fuzz.damage import DAMAGES, DRAWN, Damager
from tests.fuzz.machine_campaign import MachineCampaign, MachineReport


def _check(report: MachineReport, count: int) -> None:
    assert not report.failures, report.failures[:5]
    assert report.programs == report.good_runs == count and report.good_bytes == count * 8192
    assert report.determined > count // 3 and report.accesses > 20 * count
    assert report.unexercised() == [] and sum(report.kinds.values()) == count


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_programs_end_in_order_and_harm_nothing(seed: int) -> None:
    report = MachineCampaign(seed).run(1000)
    _check(report, 1000)
    assert report.long > 30 and not {"WATCHDOG", "ABORTED", "BUS_STUCK"} & set(report.outcomes)


@pytest.mark.slow
def test_many_damaged_programs() -> None:
    report = MachineCampaign(100).run(20_000)
    _check(report, 20_000)
    assert report.long > 1000 and report.undefined > 50


def test_each_kind_of_damage_is_named_as_it_names_its_cases() -> None:
    drawn = [Damager(1, number).draw().kind for number in range(len(DRAWN))]
    assert drawn == list(DRAWN) and set(drawn) == set(DAMAGES)


def test_a_campaign_says_what_it_never_came_to() -> None:
    missing = MachineCampaign(1).run(3).unexercised()
    assert "kind reserved bit" in missing and "outcome BLOB_CRC" in missing and "number of long" in missing
    assert "kind bits" not in missing and "number of accesses" not in missing


def test_the_same_seed_gives_the_same_programs() -> None:
    reports = [MachineCampaign(3).run(len(DAMAGES)) for _ in range(2)]
    assert reports[0] == reports[1] and reports[0].programs == len(DAMAGES)


@pytest.mark.parametrize("fault", ["no region check", "any error is OPCODE", "state survives"])
def test_a_planted_fault_is_noticed(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, convolve = BoundedMachine._decode, BoundedMachine._pw
    if fault == "no region check":
        monkeypatch.setattr(BoundedMachine, "region_address", lambda self, region, word, words: self.regions[0].base + 16 * word)
    elif fault == "any error is OPCODE":

        def wrong(self: BoundedMachine, raw: bytes) -> object:
            try:
                return decode(self, raw)
            except CoreError:
                raise CoreError(ErrorCode.OPCODE) from None

        monkeypatch.setattr(BoundedMachine, "_decode", wrong)
    else:

        def stale(self: BoundedMachine, i: object) -> None:
            convolve(self, i)  # type: ignore[arg-type]
            self.convolutions = getattr(self, "convolutions", 0) + 1
            self.chip["fm"][0, 0] ^= self.convolutions % 2

        monkeypatch.setattr(BoundedMachine, "_pw", stale)
    assert MachineCampaign(1).run(40).failures
