"""How a core's parts come together: memory ports of several engines, commands with their range errors, nets for the simulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_

from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring

from hw.rtl.common.memory_ports import WORD_BITS
from hw.rtl.common.shell import Shell
from hw.spec.regs import ErrorCode

WATCH_ADDR_BITS = 32


def join_commands(m: Module, shell: Shell, engines: Mapping[str, wiring.Component], missed: Value) -> None:
    """Commands to the engines, by operation; ``missed``, an access of the cycle before that lay outside its memory, makes an
    instruction end with BUFFER_RANGE unless the engine has found an error itself."""
    overrun, starting = Signal(reset_less=True), Signal()
    m.d.comb += starting.eq(Cat(shell.command(name).start for name in engines).any())
    with m.If(starting):
        m.d.sync += overrun.eq(0)
    with m.Elif(missed):
        m.d.sync += overrun.eq(1)
    for name, engine in engines.items():
        outer, inner = shell.command(name), engine.command
        m.d.comb += [
            inner.start.eq(outer.start),
            inner.instruction.eq(outer.instruction),
            outer.done.eq(inner.done),
            outer.error.eq(inner.error),
        ]
        with m.If((inner.error == ErrorCode.NONE) & (overrun | missed)):
            m.d.comb += outer.error.eq(ErrorCode.BUFFER_RANGE)


def join_reads(m: Module, memory: wiring.PureInterface, engines: Sequence[wiring.PureInterface]) -> None:
    """One read port for several engines: it is the enabled one's."""
    m.d.comb += [
        memory.en.eq(Cat(port.en for port in engines).any()),
        memory.addr.eq(_joined(engines, "addr")),
        *(port.data.eq(memory.data) for port in engines),
    ]


def join_writes(m: Module, memory: wiring.PureInterface, engines: Sequence[wiring.PureInterface]) -> None:
    """One write port for several engines."""
    m.d.comb += [
        memory.en.eq(Cat(port.en for port in engines).any()),
        *(getattr(memory, name).eq(_joined(engines, name)) for name in ("addr", "data")),
    ]


def _joined(engines: Sequence[wiring.PureInterface], name: str) -> Value:
    """What the enabled engine drives; anything if none is."""
    if len(engines) == 1:
        return getattr(engines[0], name)
    return reduce(or_, (Mux(port.en, getattr(port, name), 0) for port in engines))


def watch(m: Module, space: str, write: wiring.PureInterface, addr: Value) -> None:
    """Show a write port of 16-byte words to the simulator."""
    watch_net(m, space, write.en, addr, write.data)


def watch_net(m: Module, space: str, en: Value, addr: Value, word: Value) -> None:
    """Nets ``watch_<space>__en``, ``__addr`` and ``__data``, which drive nothing; a lane of a space is ``<space>_<lane>``."""
    for name, value, width in (("en", en, 1), ("addr", addr, WATCH_ADDR_BITS), ("data", word, WORD_BITS)):
        m.d.comb += Signal(width, name=f"watch_{space}__{name}").eq(value)
