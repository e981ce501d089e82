"""What cocotbext-axi does not check: once VALID is high, it and the payload hold until READY."""

from __future__ import annotations

from collections import Counter
from typing import Any

CHANNELS = {
    "s_axi": {"b": ("bresp",), "r": ("rdata", "rresp")},
    "m_axi": {
        "aw": ("awaddr", "awlen", "awsize", "awburst", "awid", "awlock", "awcache", "awprot"),
        "w": ("wdata", "wstrb", "wlast"),
        "ar": ("araddr", "arlen", "arsize", "arburst", "arid", "arlock", "arcache", "arprot"),
    },
}
"""Per kind of port the channels that the core drives, with their payloads."""


class HoldChecker:
    """Watches one channel, one cycle at a time; counts transfers and stalls, and keeps what went wrong."""

    def __init__(self, name: str) -> None:
        self.name, self.counts, self.problems = name, Counter[str](), list[str]()
        self._waiting: Any = None

    def step(self, valid: int, ready: int, payload: Any) -> None:
        if self._waiting is not None and not valid:
            self.problems.append(f"{self.name}: VALID fell before READY")
        elif self._waiting is not None and payload != self._waiting:
            self.problems.append(f"{self.name}: payload changed while it waited")
        self._waiting = payload if valid and not ready else None
        self.counts["stalls" if valid and not ready else "transfers" if valid else "idle"] += 1


class PortChecker:
    """All channels that the core drives at one port of the design."""

    def __init__(self, dut: Any, port: str) -> None:
        self._dut, self._port = dut, port
        self._channels = CHANNELS["s_axi" if port == "s_axi" else "m_axi"]
        self.checkers = {name: HoldChecker(f"{port}.{name}") for name in self._channels}

    def step(self) -> None:
        for name, checker in self.checkers.items():
            valid, ready = self._value(f"{name}valid"), self._value(f"{name}ready")
            checker.step(valid, ready, [self._value(member) for member in self._channels[name]] if valid else None)

    def _value(self, member: str) -> int:
        return int(getattr(self._dut, f"{self._port}__{member}").value)
