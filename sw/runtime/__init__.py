"""Running programs: one interface over the interpreter, the simulated core and, later, boards.

``open_device(kind).run(program, inputs)`` takes and returns logical integer codes (N, C, H, W) by tensor name.
"""

from __future__ import annotations

from typing import Any

from sw.runtime.device import Device, ImageRun, Launch
from sw.runtime.errors import CoreFault, DeviceError
from sw.runtime.records import RunRecord

KINDS = ("interpreter", "sim")


def open_device(kind: str, **options: Any) -> Device:
    """A device of a kind: ``interpreter`` (options of InterpreterDevice) or ``sim`` (``arch=`` and options of SimDevice).

    DeviceError for a kind that is not there, in words.
    """
    if kind == "interpreter":
        from sw.runtime.interpreter import InterpreterDevice

        return InterpreterDevice(**options)
    if kind == "sim":
        from sw.runtime.sim import SimDevice

        if "arch" not in options:
            raise DeviceError("a simulated device needs the architecture to build: open_device('sim', arch=program.arch)")
        return SimDevice(**options)
    raise DeviceError(f"device kind must be one of {', '.join(KINDS)}, not {kind!r}")


__all__ = ["KINDS", "CoreFault", "Device", "DeviceError", "ImageRun", "Launch", "RunRecord", "open_device"]
