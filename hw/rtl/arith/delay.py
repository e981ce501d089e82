"""Registers: delay lines beside a pipeline, and registers without reset.

What decides whether something happens (a state, a count, a flag that comes with an effect) is reset; data that counts only
beside such a flag is not. A reset that nothing could notice would cost routing, and no test could find it missing.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Signal, Value


def delayed(m: Module, value: Value, cycles: int, name: str, *, reset_less: bool = False) -> list[Signal | Value]:
    """``value`` after 0, 1, .. ``cycles`` cycles: a list of cycles + 1 values, registers that reset clears if not ``reset_less``."""
    taps: list[Signal | Value] = [value]
    for number in range(1, cycles + 1):
        register = Signal(Value.cast(value).shape(), name=f"{name}_{number}", reset_less=reset_less)
        m.d.sync += register.eq(taps[-1])
        taps.append(register)
    return taps


def later(m: Module, value: Any, cycles: int, *, reset_less: bool = False) -> Any:
    """A signal or structure ``cycles`` registers later, of the same shape; zero after reset if not ``reset_less``."""
    for _ in range(cycles):
        register = Signal(value.shape(), reset_less=reset_less)
        m.d.sync += register.eq(value)
        value = register
    return value


def data_register(m: Module, output: Any) -> Any:
    """A register without reset that drives ``output``, a port of any shape; to be assigned in its place."""
    shown = output if isinstance(output, Signal) else Value.cast(output)
    name = shown.name if isinstance(shown, Signal) else "held"
    register = Signal(output.shape(), name=f"{name}_register", reset_less=True)
    m.d.comb += output.eq(register)
    return register
