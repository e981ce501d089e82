"""AXI signatures of every core's top: AXI4 managers for memory, an AXI4-Lite subordinate for control.

Member names are the protocol's own, so that a top-level port such as ``m0__araddr`` or ``s_axi__araddr`` is found by any bus
functional model and by the packagers of the vendors.

Transactions of a manager are INCR bursts of full 16-byte beats with id 0, normal non-cacheable bufferable memory
(cache 0b0011), unprivileged secure data (prot 0b000), no lock.
"""

from __future__ import annotations

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.common.interfaces import DATA_BITS
from hw.spec.arch import WORD_BYTES

ADDRESS_BITS = 64
CONTROL_ADDRESS_BITS = 12
CONTROL_DATA_BITS = 32

BURST_INCR = 0b01
CACHE_NORMAL = 0b0011
SIZE_WORD = WORD_BYTES.bit_length() - 1
"""AxSIZE of a 16-byte beat."""

BOUNDARY_WORDS = 4096 // WORD_BYTES
"""A burst must not cross a 4 KB boundary."""


def _address_channel(prefix: str) -> dict[str, wiring.Member]:
    return {
        f"{prefix}id": Out(1),
        f"{prefix}addr": Out(ADDRESS_BITS),
        f"{prefix}len": Out(8),
        f"{prefix}size": Out(3),
        f"{prefix}burst": Out(2),
        f"{prefix}lock": Out(1),
        f"{prefix}cache": Out(4),
        f"{prefix}prot": Out(3),
        f"{prefix}valid": Out(1),
        f"{prefix}ready": In(1),
    }


def axi4_write_manager() -> wiring.Signature:
    """Channels AW, W and B of a 128-bit AXI4 manager, seen from it."""
    return wiring.Signature({
        **_address_channel("aw"),
        "wdata": Out(DATA_BITS),
        "wstrb": Out(WORD_BYTES),
        "wlast": Out(1),
        "wvalid": Out(1),
        "wready": In(1),
        "bid": In(1),
        "bresp": In(2),
        "bvalid": In(1),
        "bready": Out(1),
    })


def axi4_read_manager() -> wiring.Signature:
    """Channels AR and R of a 128-bit AXI4 manager, seen from it."""
    return wiring.Signature({
        **_address_channel("ar"),
        "rid": In(1),
        "rdata": In(DATA_BITS),
        "rresp": In(2),
        "rlast": In(1),
        "rvalid": In(1),
        "rready": Out(1),
    })


def axi4_manager() -> wiring.Signature:
    """All channels of a 128-bit AXI4 manager, seen from it."""
    return wiring.Signature({**axi4_write_manager().members, **axi4_read_manager().members})


def axi_lite_subordinate() -> wiring.Signature:
    """A 32-bit AXI4-Lite subordinate with 4 KB of registers, seen from it."""
    return wiring.Signature({
        "awaddr": In(CONTROL_ADDRESS_BITS),
        "awprot": In(3),
        "awvalid": In(1),
        "awready": Out(1),
        "wdata": In(CONTROL_DATA_BITS),
        "wstrb": In(CONTROL_DATA_BITS // 8),
        "wvalid": In(1),
        "wready": Out(1),
        "bresp": Out(2),
        "bvalid": Out(1),
        "bready": In(1),
        "araddr": In(CONTROL_ADDRESS_BITS),
        "arprot": In(3),
        "arvalid": In(1),
        "arready": Out(1),
        "rdata": Out(CONTROL_DATA_BITS),
        "rresp": Out(2),
        "rvalid": Out(1),
        "rready": In(1),
    })


def join_channels(m: Module, manager: wiring.PureInterface, half: wiring.PureInterface) -> None:
    """Drive a top-level ``axi4_manager`` port's channels from one half: a read or a write master's port."""
    for name, member in half.signature.members.items():
        outer, inner = getattr(manager, name), getattr(half, name)
        m.d.comb += outer.eq(inner) if member.flow is Out else inner.eq(outer)


def constant_attributes(m: Module, port: wiring.PureInterface, prefix: str) -> None:
    """Drive what is the same for every burst of address channel ``ar`` or ``aw``."""
    m.d.comb += [
        getattr(port, f"{prefix}id").eq(0),
        getattr(port, f"{prefix}size").eq(SIZE_WORD),
        getattr(port, f"{prefix}burst").eq(BURST_INCR),
        getattr(port, f"{prefix}lock").eq(0),
        getattr(port, f"{prefix}cache").eq(CACHE_NORMAL),
        getattr(port, f"{prefix}prot").eq(0),
    ]
