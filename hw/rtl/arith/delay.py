"""Delay lines: control flags that travel beside a pipeline."""

from __future__ import annotations

from amaranth.hdl import Module, Signal, Value


def delayed(m: Module, value: Value, cycles: int, name: str) -> list[Signal | Value]:
    """``value`` after 0, 1, .. ``cycles`` cycles: a list of cycles + 1 values, all registers cleared by reset."""
    taps: list[Signal | Value] = [value]
    for number in range(1, cycles + 1):
        register = Signal(Value.cast(value).shape(), name=f"{name}_{number}")
        m.d.sync += register.eq(taps[-1])
        taps.append(register)
    return taps
