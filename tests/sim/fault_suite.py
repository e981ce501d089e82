"""The tests of the whole core as a list of stages, for one mutant of an instrumented simulator (`hw.sim.mutants`).

The stages are the checks of the design record (`hw.sim.checks`) and tests that `make test` runs on the generated Verilog. A stage
that raises has found the fault; what hangs is found by the cycle limits of the tests themselves.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from unittest import mock

from hw.sim import bench
from hw.sim.build import SimulationBuild
from hw.sim.checks import CHECKS, TestBed
from hw.sim.loop import Loop
from hw.sim.mutants import select_pins
from tests.sim import test_core_control, test_core_edges, test_core_mutant_killers, test_core_results
from tests.sim.core_bench import ARCH

Check = Callable[..., None]
DESIGN_CHECKS = ("error programs", "damaged programs", "timing", "stalls", "bus errors", "abort and watchdog")
"""Of the design record: those that take few seconds. Its check of registers has its own idea of the pins, which select here."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A named test; `check` gets the simulator and the number of the mutant that its pins select."""

    name: str
    check: Check


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """`stage` found the fault, and `words` say how; None where all stages passed. `seconds` of wall time."""

    stage: str | None
    words: str
    seconds: float


def stages() -> list[Stage]:
    """All tests, those that find most in least time first."""
    killers, control, edges = test_core_mutant_killers, test_core_control, test_core_edges
    design = [
        _design("random programs", seeds=(1,), programs=20),
        *(_design(name, seeds=(1,)) for name in DESIGN_CHECKS),
    ]
    listed: list[tuple[Check, tuple[object, ...]]] = [
        (control.test_counters_of_a_copy, ()),
        (control.test_identity_and_storage_of_registers, ()),
        (control.test_the_interrupt_follows_done_and_its_enable, ()),
        (killers.test_every_register_keeps_every_bit, ()),
        *((killers.test_every_address_bit_reaches_the_bus, (base,)) for base in killers.BASES),
        *((killers.test_long_loops_equal_the_machine, (name,)) for name in killers.LONG),
        *((killers.test_any_bit_of_an_address_counts, (name,)) for name in ("LOAD", "STORE", "PW", "DW")),
        (control.test_cycles_of_instructions_and_programs_equal_the_timing_model, ((20, 10, 1),)),
        *((edges.test_rounding_looks_at_every_bit, (cases,)) for cases in edges.CASES),
        *((edges.test_one_past_the_end_is_an_error, (name,)) for name in edges.BEYOND),
        *((edges.test_every_legal_bit_of_a_field_is_accepted, (op.name,)) for op in ARCH.instructions.operations),
        *((edges.test_memory_offsets_do_not_wrap, (name,)) for name in edges.FAR),
        *((edges.test_addresses_wrap_around, (name,)) for name in edges.BEFORE),
        *((edges.test_a_long_watchdog_does_not_expire, (bit,)) for bit in edges.WATCHDOG_BITS),
        *((edges.test_a_short_watchdog_expires_before_the_header, (limit,)) for limit in edges.SHORT),
        *((edges.test_every_bit_of_a_single_row_address_is_looked_at, (tap,)) for tap in range(3)),
        (edges.test_every_bit_of_a_crc_is_looked_at, ()),
        *((edges.test_a_drain_has_the_time_of_the_watchdog, (bit,)) for bit in edges.WATCHDOG_BITS),
        *((edges.test_a_program_lies_on_whole_units, (bit,)) for bit in range(6)),
        (edges.test_a_reset_of_one_cycle_is_enough, ()),
        (killers.test_every_token_counts_up_and_down, (1,)),
        (killers.test_a_reset_in_the_middle_of_a_program_leaves_nothing_behind, ()),
        *((killers.test_a_computation_right_after_an_abort_is_not_disturbed, (name,)) for name in killers.ABORTED),
        *((edges.test_counts_of_sixteen_bits_take_their_time, (name,)) for name in edges.LONG),
        *((control.test_abort_at_any_time_ends_the_program_and_the_next_one_runs, (name, 2)) for name in ("store", "pw")),
        *((control.test_a_memory_that_falls_silent_leaves_the_core_stuck_until_reset, (limit,)) for limit in (0, 500)),
    ]  # fmt: skip
    tests = [*result_stages(), *_stages(listed)]
    last = [_design("power-up states", seeds=(1,)), _design("random programs", seeds=(2,), programs=60)]
    return [*design, Stage(name="build_id", check=killers.check_build_id), *tests, *last]


def result_stages() -> list[Stage]:
    """Tests of additions, tables and small windows, those that find most in least time first."""
    results = test_core_results
    listed: list[tuple[Check, tuple[object, ...]]] = [
        (results.test_neighbours_with_different_tables, ()),
        *((results.test_every_entry_of_a_table_in_every_lane, (table,)) for table in range(1, ARCH.tables + 1)),
        *((results.test_sums_around_both_clips, (unsigned,)) for unsigned in (0, 1)),
        (results.test_loads_of_single_words_of_the_tables, ()),
        *((results.test_tables_that_there_are_not, (name,)) for name in results.MISSING),
        *((results.test_every_window_of_a_convolution, (stride,)) for stride in (1, 2)),
    ]
    return _stages(listed)


def _stages(listed: Sequence[tuple[Check, tuple[object, ...]]]) -> list[Stage]:
    return [Stage(name=_name(test, extra), check=_bound(test, extra)) for test, extra in listed]


def _design(name: str, *, seeds: tuple[int, ...], programs: int = 60) -> Stage:
    """A check of the design record."""

    def check(build: SimulationBuild, number: int) -> None:
        CHECKS[name](TestBed(build=build, arch=ARCH, seeds=seeds, programs=programs))

    return Stage(name=f"{name}, {programs} programs of seeds {seeds}" if name == "random programs" else name, check=check)


def _bound(test: Callable[..., None], extra: tuple[object, ...]) -> Check:
    return lambda build, number: test(build, *extra)


def _name(test: Callable[..., None], extra: tuple[object, ...]) -> str:
    named = ", ".join(str(getattr(value, "__name__", value)) for value in extra)
    return test.__name__.removeprefix("test_") + (f" [{named}]" if named else "")


HANG_CYCLES = 300_000
"""Within which every program of the suite ends on a core without fault: a core that runs on hangs."""


class _BoundedLoop(Loop):
    """Gives a hanging core up early; the tests then find that there is no interrupt."""

    def run(self, max_cycles: int, *, until_interrupt: bool = True) -> int:
        return super().run(min(max_cycles, HANG_CYCLES), until_interrupt=until_interrupt)


def examine(build: SimulationBuild, number: int, suite: Sequence[Stage]) -> Verdict:
    """Run the stages on mutant `number` (0: none) up to the first that fails."""
    start = time.perf_counter()

    def selected(*positional: Any, build_id: int = 0, **options: Any) -> Loop:
        return _BoundedLoop(*positional, build_id=select_pins(number, build_id), **options)

    with mock.patch.object(bench, "Loop", selected):
        for stage in suite:
            try:
                stage.check(build, number)
            except Exception as error:  # whatever a test raises, it is red
                words = f"{type(error).__name__}: {' '.join(str(error).split())}"[:160]
                return Verdict(stage=stage.name, words=words, seconds=time.perf_counter() - start)
    return Verdict(stage=None, words="", seconds=time.perf_counter() - start)
