"""What goes wrong on a device, in words: refusals before a program runs, and faults that the core reports."""

from __future__ import annotations

from hw.spec.machine import Outcome
from hw.spec.program import Program
from hw.spec.regs import ERROR_ADVICE, NO_INSTRUCTION, ErrorCode


class DeviceError(RuntimeError):
    """A device that is not there, or refuses a program; the message says what to do."""


class CoreFault(DeviceError):
    """A program that ended with an error.

    Members: ``code``; ``index`` of the offending instruction, None where it was found before the first; ``layer`` that the
    instruction serves, "" where the program does not say; ``advice``; ``late``, what the core was doing when the host's time was up.
    """

    def __init__(self, code: ErrorCode, index: int, layer: str = "", late: str = "") -> None:
        self.code = code
        self.index = None if index == NO_INSTRUCTION else index
        self.layer, self.late = layer, late
        self.advice = ERROR_ADVICE[code]
        where = "before the first instruction" if self.index is None else f"at instruction {self.index}"
        waited = f"; the host waited no longer, and aborted it; then: {late}" if late else ""
        super().__init__(f"the core stopped with {code.name} {where}{f' (layer {layer})' if layer else ''}: {self.advice}{waited}")


def raise_fault(outcome: Outcome, program: Program, late: str = "") -> None:
    """CoreFault where a run did not end well."""
    if outcome.error is ErrorCode.NONE:
        return
    named = outcome.index < len(program.layers)
    raise CoreFault(outcome.error, outcome.index, program.layers[outcome.index] if named else "", late)
