"""Comparisons with constants, and clips."""

from __future__ import annotations

from amaranth.hdl import Const, Mux, Value


def at_least(value: Value, limit: int) -> Value:
    """``value >= limit`` of an unsigned value, as plain logic: a few gates for a round limit, where a subtraction takes a carry chain.

    Raises ValueError for a negative limit.
    """
    if limit < 0:
        raise ValueError(f"limit must not be negative, not {limit}")
    if limit >> len(value):
        return Const(0, 1)
    result: Value = Const(1, 1)
    for bit, wanted in enumerate(reversed(f"{limit:0{len(value)}b}")):
        result = value[bit] & result if wanted == "1" else value[bit] | result
    return result


def clipped(value: Value, low: Value, high: Value) -> Value:
    """``value`` between two clips; where they cross, the lower one wins. All comparisons are side by side."""
    return Mux((value < low) | (high < low), low, Mux(value > high, high, value))
