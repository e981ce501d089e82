"""The design of the ULX3S but for clock, reset and pins: the core, its memory on chip and the serial bridge.

The core comes as a module of its own, from its own Verilog file: the file that a design record proves.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, ClockSignal, Instance, Module, ResetSignal, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.axi import axi4_manager, axi_lite_subordinate
from hw.rtl.common.axi_ram import AxiRam
from hw.rtl.common.uart_bridge import BridgeParameters, UartBridge

LEDS = 8
HEARTBEAT_BITS = 25
"""A lamp that changes every 2**24 cycles shows that the clock runs."""

GLOW_BITS = 20
"""A lamp for something that takes one cycle stays on for 2**20."""


class Ulx3sSystem(wiring.Component):
    """Core, memory and bridge.

    Parameters: ``core``, the name of the core's top module, with one AXI manager; ``bridge``.

    Members
    -------
    uart_rx, uart_tx : the line, from the board's view
    build_id : hash of the design record, tied off by the board's wrapper
    led : busy, done, error and stuck of the core, byte received, byte sent, heartbeat, reset is over
    """

    def __init__(self, *, core: str, bridge: BridgeParameters) -> None:
        self._core, self._bridge = core, bridge
        super().__init__({"uart_rx": In(1), "uart_tx": Out(1), "build_id": In(64), "led": Out(LEDS)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.bridge = bridge = UartBridge(self._bridge)
        m.submodules.ram = ram = AxiRam(self._bridge.ram)
        wiring.connect(m, bridge.host, ram.host)
        m.submodules.core = self._instance(bridge, ram)
        heartbeat = Signal(HEARTBEAT_BITS)
        m.d.sync += heartbeat.eq(heartbeat + 1)
        lamps = Cat(bridge.status, self._glow(m, bridge.receiving), self._glow(m, bridge.sending), heartbeat[-1], ~ResetSignal())
        m.d.comb += [bridge.rx.eq(self.uart_rx), self.uart_tx.eq(bridge.tx), self.led.eq(lamps)]
        return m

    def _instance(self, bridge: UartBridge, ram: AxiRam) -> Instance:
        pins: dict[str, Any] = {"i_clk": ClockSignal(), "i_rst": ResetSignal(), "i_build_id": self.build_id}
        pins |= _pins("s_axi", axi_lite_subordinate(), bridge.lite)
        pins |= _pins("m_axi_0", axi4_manager(), ram.axi)
        return Instance(self._core, **pins)

    @staticmethod
    def _glow(m: Module, event: Signal) -> Signal:
        left = Signal(GLOW_BITS)
        with m.If(event):
            m.d.sync += left.eq(~0)
        with m.Elif(left != 0):
            m.d.sync += left.eq(left - 1)
        return left.any()


def _pins(prefix: str, signature: wiring.Signature, port: wiring.PureInterface) -> dict[str, Any]:
    """Connections of a core's bus, whose ``signature`` is seen from the core, to the port at its other end."""
    return {
        f"{'o' if member.flow is Out else 'i'}_{prefix}__{name}": getattr(port, name)
        for name, member in signature.members.items()
    }
