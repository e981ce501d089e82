"""Running programs: one interface over the interpreter, the simulated core and boards.

``open_device(kind).run(program, inputs)`` takes and returns logical integer codes (N, C, H, W) by tensor name.
"""

from __future__ import annotations

from typing import Any

from sw.runtime.device import Device, ImageRun, Launch
from sw.runtime.errors import CoreFault, DeviceError
from sw.runtime.proof import Proof, require_proof
from sw.runtime.records import RunRecord

KINDS = ("interpreter", "sim", "uart", "pynq", "xdma")


def open_device(kind: str, *, proof: Proof | None = None, without_proof: bool = False, **options: Any) -> Device:
    """A device of a kind, with the options of what makes it.

    ===========  =====================================================  =============================================
    interpreter  the definition, in numpy                               ``sw.runtime.interpreter.InterpreterDevice``
    sim          the Verilog, simulated; needs ``arch=``                ``sw.runtime.sim.SimDevice``
    uart         a board on a serial line: ``port=``, ``baud=``         ``sw.runtime.uart.open_uart``
    pynq         a board under PYNQ, on that board: ``bitstream=``      ``sw.runtime.pynq.open_pynq``
    xdma         a PCIe card behind the XDMA driver: ``index=``         ``sw.runtime.xdma.open_xdma``
    ===========  =====================================================  =============================================

    A board needs ``proof``, or ``without_proof=True``, which warns (``sw.runtime.proof``); a simulated core may be given one.
    GateRefusal where records are missing or do not match; DeviceError for a kind that is not there, in words.
    """
    if kind in KINDS:
        require_proof(kind, proof, without_proof=without_proof)
    device = _open(kind, options)
    if proof is None:
        return device
    from sw.runtime.driver import CoreDevice

    if not isinstance(device, CoreDevice):
        raise DeviceError(f"device kind {kind!r} has no core that a proof could be of: leave the proof out")
    try:
        device.demand(proof)
    except Exception:
        device.close()
        raise
    return device


def _open(kind: str, options: dict[str, Any]) -> Device:
    if kind == "interpreter":
        from sw.runtime.interpreter import InterpreterDevice

        return InterpreterDevice(**options)
    if kind == "sim":
        from sw.runtime.sim import SimDevice

        if "arch" not in options:
            raise DeviceError("a simulated device needs the architecture to build: open_device('sim', arch=program.arch)")
        return SimDevice(**options)
    if kind == "uart":
        from sw.runtime.uart import open_uart

        return open_uart(**options)
    if kind == "pynq":
        from sw.runtime.pynq import open_pynq

        return open_pynq(**options)
    if kind == "xdma":
        from sw.runtime.xdma import open_xdma

        return open_xdma(**options)
    raise DeviceError(f"device kind must be one of {', '.join(KINDS)}, not {kind!r}")


__all__ = ["KINDS", "CoreFault", "Device", "DeviceError", "ImageRun", "Launch", "Proof", "RunRecord", "open_device"]
