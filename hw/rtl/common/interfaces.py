"""Signatures between the shell and the engines of a core.

*Engine command*: in the cycle of ``start`` the instruction is in ``instruction`` and stays there until ``done``; ``done`` pulses
for one cycle when all of the instruction's effects have happened, with ``error`` (an :class:`hw.spec.regs.ErrorCode`; 0 is none).
An instruction's time is the number of cycles from ``start`` to ``done``.

*Runs*: contiguous words of a region. The shell's masters split them into bursts, check them against the region before any
burst, and route them to the region's AXI manager. A run that the region does not hold is not started: ``refused`` rises and stays
until ``clear``; later runs are dropped. ``request.ready`` may be high before earlier runs are checked. ``idle`` means that all
accepted runs are done or dropped, with ``refused`` and ``failed`` final.
"""

from __future__ import annotations

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.decode import INSTRUCTION_BITS

DATA_BITS = 128
PROGRAM_REGION = 16
"""Region number that stands for the program itself (PROGRAM_ADDR, PROGRAM_LENGTH)."""

ERROR_BITS = 8

Run = data.StructLayout({"region": 5, "offset": 32, "words": 16})
"""``words`` 16-byte words from word ``offset`` of a region; words >= 1."""

EngineCommand = wiring.Signature(
    {
        "start": Out(1),
        "instruction": Out(INSTRUCTION_BITS),
        "done": In(1),
        "error": In(ERROR_BITS),
    }
)
"""Seen from the sequencer; an engine has ``In(EngineCommand)``."""

ReadRuns = wiring.Signature(
    {
        "request": Out(stream.Signature(Run)),
        "data": In(stream.Signature(DATA_BITS)),
        "refused": In(1),
        "failed": In(1),
        "idle": In(1),
        "clear": Out(1),
    }
)
"""Seen from an engine that reads memory. ``data`` carries the words of all runs in order (after a failed beat too, with any content).
``failed``: a beat came with SLVERR or DECERR (sticky until ``clear``). ``idle``: nothing outstanding: no run is being split, no
burst awaits data and ``data`` is drained. ``clear`` pulses while idle, before the first run of an instruction."""

WriteRuns = wiring.Signature(
    {
        "request": Out(stream.Signature(Run)),
        "data": Out(stream.Signature(DATA_BITS)),
        "refused": In(1),
        "failed": In(1),
        "idle": In(1),
        "clear": Out(1),
    }
)
"""Seen from an engine that writes memory: after a run's request was accepted and not refused its words follow on ``data``.
``idle``: every accepted run's last write response has arrived."""
