"""What a campaign of disturbed programs counts, and what it must have come to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hw.sim.loop import Response
from tests.fuzz.core_campaign import MEMORY_CHANNELS
from tests.fuzz.machine_campaign import empty

PATTERNS: dict[str, dict[str, int] | None] = {
    "no stalls": {},
    "late addresses": {"aw": 250, "ar": 220},
    "late data": {"w": 250, "r": 220},
    "late answers": {"b": 253, "r": 250},
    "random stalls": None,
}
"""Stalls of the cores in turn, of 256 cycles per channel; None draws a level for each. With late addresses, write data runs ahead."""

ERRORS = tuple(f"{code.name} {access}" for code in (Response.SLVERR, Response.DECERR) for access in ("fetch", "read", "write"))
TRIALS = ("faults", "silences", "abort", "abort in silence", "watchdog", "stuck", "dirty")
UNITS = ("fetch", "LOAD", "STORE", "PW", "DW")
OUTCOMES = ("NONE", "AXI_READ", "AXI_WRITE", "ABORTED", "WATCHDOG", "BUS_STUCK")


@dataclass(kw_only=True)
class BusReport:
    """What a campaign counted. ``failures`` name the case by (seed, number); it must be empty."""

    trials: Counter[str] = field(default_factory=Counter)
    patterns: Counter[str] = field(default_factory=Counter)
    """Cores by the stalls that they ran under."""
    states: int = 0
    """Cores that were switched on, each with its own random contents of all registers and memories."""
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    """Bursts that were answered with an error, by response and access."""
    stopped_in: Counter[str] = field(default_factory=Counter)
    """Aborts and watchdogs that ended a program, by what ran then."""
    data_before_address: int = 0
    """Bursts (of those answered with an error, where the simulator tells) of which data was accepted before the address."""
    silences: int = 0
    silent_cycles: int = 0
    resets: int = 0
    dirty_programs: int = 0
    dirty_bytes: int = 0
    """Bytes of memory and on chip that differed from a fresh start when such a program began."""
    compared_beats: int = 0
    """Beats written by disturbed programs, each equal to what the machine writes there."""
    drained_beats: int = 0
    """Beats without a strobe, which finish a burst after the end of its program."""
    good_runs: int = 0
    good_bytes: int = 0
    cycles: int = 0
    stalls: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def unexercised(self) -> list[str]:
        """What the campaign is for and did not come to; empty after a campaign that is large enough."""
        names = ("states", "data_before_address", "silent_cycles", "resets", "dirty_programs", "dirty_bytes")
        names += ("compared_beats", "drained_beats", "good_bytes")
        numbers = {name: getattr(self, name) for name in names}
        return [
            *empty("trial", self.trials, TRIALS),
            *empty("stalls", self.patterns, PATTERNS),
            *empty("stall on", self.stalls, MEMORY_CHANNELS),
            *empty("outcome", self.outcomes, OUTCOMES),
            *empty("error", self.errors, ERRORS),
            *empty("stop", self.stopped_in, (f"ABORTED in {unit}" for unit in UNITS)),
            *empty("number of", numbers, numbers),
        ]
