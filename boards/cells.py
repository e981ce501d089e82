"""What the cells of a synthesised netlist weigh in logic levels, and how paths run through them, for each family of parts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

LUT = 1.0
"""A look-up table with the wire that leads to it: the unit. A read of a memory made of look-up tables is one too."""

CARRY = 0.1
"""A cell of a carry chain."""

WIDE_MUX = 0.3
"""A multiplexer that joins look-up tables within a slice."""

MULTIPLY = 3.0
"""A multiplier from operand to the next register, be it inside the block or not."""

ADD_IN_DSP = 1.0
"""The adder of a multiplier block: from its product register, or from an operand that is not multiplied, to a sum that is not
registered."""

BLOCK_RAM = 2.0
"""Clock to output of a block RAM whose output register is not used; with it the output counts as a register's."""


@dataclass(frozen=True, kw_only=True)
class Arcs:
    """What the search needs of one cell: bits of nets.

    ``starts``: (bit, levels): outputs that begin a path. ``through``: (from, to, levels). ``tabled``: likewise, for pins that can only
    be reached through the look-up table beside them: a level more where no table drives them. ``ends``: (bit, levels, pin): inputs
    that end a path.
    """

    starts: list[tuple[int, float]] = field(default_factory=list)
    through: list[tuple[int, int, float]] = field(default_factory=list)
    tabled: list[tuple[int, int, float]] = field(default_factory=list)
    ends: list[tuple[int, float, str]] = field(default_factory=list)


def bit_ok(bit: int | str) -> bool:
    """Whether a bit is a net's, not a constant."""
    return isinstance(bit, int)


def arcs_of(cell: Json, family: str) -> Arcs:
    """The arcs of a cell of ``family``. ValueError for an unknown one."""
    kind = cell["type"]
    for pattern, arcs in FAMILIES[family].items():
        if re.fullmatch(pattern, kind):
            return arcs(cell)
    raise ValueError(f"cell type {kind} has no model in family {family}; synthesis left it, or boards/cells.py must learn it")


def _bits(cell: Json, *pins: str) -> Iterator[tuple[str, int]]:
    """(pin, bit) of the cell's connected pins of these names; a pattern each."""
    for pin, bits in cell["connections"].items():
        if any(re.fullmatch(pattern, pin) for pattern in pins):
            yield from ((pin, bit) for bit in bits if bit_ok(bit))


def _direction(cell: Json, direction: str) -> list[str]:
    return [re.escape(pin) for pin, way in cell["port_directions"].items() if way == direction]


def _combinational(weight: float) -> Callable[[Json], Arcs]:
    def arcs(cell: Json) -> Arcs:
        outputs = [bit for _, bit in _bits(cell, *_direction(cell, "output"))]
        inputs = [bit for _, bit in _bits(cell, *_direction(cell, "input"))]
        return Arcs(through=[(source, target, weight) for source in inputs for target in outputs])

    return arcs


def _sequential(weight: Callable[[Json], float], clocks: Sequence[str]) -> Callable[[Json], Arcs]:
    """All outputs begin and all inputs but the clocks end paths."""

    def arcs(cell: Json) -> Arcs:
        inputs = [pin for pin in _direction(cell, "input") if not any(re.fullmatch(clock, pin) for clock in clocks)]
        return Arcs(
            starts=[(bit, weight(cell)) for _, bit in _bits(cell, *_direction(cell, "output"))],
            ends=[(bit, 0.0, pin) for pin, bit in _bits(cell, *inputs)],
        )

    return arcs


def _ignored(cell: Json) -> Arcs:
    return Arcs()


def _carry4(cell: Json) -> Arcs:
    """Four bits of a chain: what enters at bit i leaves at bits i and above (DI only through the carry of its own bit)."""
    pins = cell["connections"]
    arcs = Arcs()
    for out in ("O", "CO"):
        for high, target in enumerate(pins.get(out, ())):
            if bit_ok(target):
                ways = [*pins.get("CI", ()), *pins.get("CYINIT", ()), *pins.get("DI", ())[: high + (out == "CO")]]
                arcs.through.extend((source, target, CARRY) for source in ways if bit_ok(source))
                arcs.tabled.extend((source, target, CARRY) for source in pins.get("S", ())[: high + 1] if bit_ok(source))
    return arcs


def _ccu2c(cell: Json) -> Arcs:
    """Two bits of a chain, each behind a look-up table."""
    low = [bit for _, bit in _bits(cell, "[ABCD]0")]
    high = [bit for _, bit in _bits(cell, "[ABCD]1")]
    carry = [bit for _, bit in _bits(cell, "CIN")]
    through = []
    for pin, tables in (("S0", low), ("S1", low + high), ("COUT", low + high)):
        for _, target in _bits(cell, pin):
            through += [(source, target, LUT) for source in tables] + [(source, target, CARRY) for source in carry]
    return Arcs(through=through)


def _lut_ram(reads: Mapping[str, str]) -> Callable[[Json], Arcs]:
    """A memory of look-up tables: asynchronous reads, by output pin the pattern of its address pins; writes end paths.

    What is read begins paths too: a word may have been written in the last cycle.
    """

    def arcs(cell: Json) -> Arcs:
        found = Arcs()
        addresses = set()
        for out, pattern in reads.items():
            sources = list(_bits(cell, pattern))
            addresses |= {pin for pin, _ in sources}
            for _, target in _bits(cell, out):
                found.starts.append((target, LUT))
                found.through.extend((source, target, LUT) for _, source in sources)
        writes = [pin for pin in _direction(cell, "input") if pin not in ("WCLK", "CLK", "WCK")]
        both = ("A", "ADDR.", r"A\d")  # of ports that read and write
        kept = [pin for pin in writes if pin not in addresses or any(re.fullmatch(name, pin) for name in both)]
        found.ends.extend((bit, 0.0, pin) for pin, bit in _bits(cell, *kept))
        return found

    return arcs


_LETTERS = {f"DO{letter}": f"ADDR{letter}" for letter in "ABCDEFGH"}


def _block_ram(cell: Json) -> float:
    registered = any(int(value, 2) for name, value in cell["parameters"].items() if re.fullmatch("DO[AB]_REG", name))
    return 0.0 if registered else BLOCK_RAM


def _ultra_ram(cell: Json) -> float:
    return 0.0 if cell["parameters"].get("OREG_A", "FALSE") == "TRUE" else BLOCK_RAM


def _ecp5_ram(cell: Json) -> float:
    return 0.0 if cell["parameters"].get("REGMODE_B") == "OUTREG" else BLOCK_RAM


_DSP_OPERANDS = {"A": "AREG", "B": "BREG", "C": "CREG", "D": "DREG"}


def _dsp48(cell: Json) -> Arcs:
    """Operands that are not registered inside weigh what lies between them and the next register; so does an output."""

    def used(register: str) -> bool:
        return bool(int(cell["parameters"].get(register, "0"), 2))

    outputs = [bit for _, bit in _bits(cell, "P", "PCOUT", "CARRYOUT", "CARRYCASCOUT", "PATTERN.*", "OVERFLOW", "UNDERFLOW")]
    multiplies = cell["parameters"].get("USE_MULT", "MULTIPLY") != "NONE"
    arcs = Arcs()
    for pin, bit in _bits(cell, "A", "B", "C", "D", "CARRYIN", "PCIN", "ACIN", "BCIN"):
        product = multiplies and pin in ("A", "B", "D", "ACIN", "BCIN")
        weight = MULTIPLY if product else ADD_IN_DSP
        if used(_DSP_OPERANDS.get(pin, "")):
            arcs.ends.append((bit, 0.0, pin))
        elif used("PREG") or (product and used("MREG")):
            arcs.ends.append((bit, weight, pin))
        else:
            arcs.through.extend((bit, output, weight) for output in outputs)
    controls = "CE.*|RST.*|OPMODE|ALUMODE|INMODE|CARRYINSEL"
    arcs.ends.extend((bit, 0.0, pin) for pin, bit in _bits(cell, controls))
    if any(used(register) for register in ("PREG", "MREG", *_DSP_OPERANDS.values())):
        begins = 0.0 if used("PREG") else ADD_IN_DSP if used("MREG") else MULTIPLY
        arcs.starts.extend((output, begins) for output in outputs)
    return arcs


Model = dict[str, Callable[[Json], Arcs]]

XCUP: Model = {
    r"LUT\d": _combinational(LUT),
    "INV|BUFG|IBUF|OBUF": _combinational(0.0),
    r"MUXF\d": _combinational(WIDE_MUX),
    "CARRY4": _carry4,
    "FD[RSPC]E(_1)?": _sequential(lambda _: 0.0, ["C"]),
    r"SRL16E|SRLC32E": _lut_ram({"Q": r"A\d?"}),
    r"RAM(32|64)M(8|16)?": _lut_ram(_LETTERS),
    r"RAM\d+X\dD(_1)?": _lut_ram({"SPO": r"A\d?", "DPO": r"DPRA\d?"}),
    r"RAM\d+X\dS(_1)?": _lut_ram({"O": r"A\d?"}),
    "RAMB(18|36)E2": _sequential(_block_ram, ["CLK.*"]),
    "URAM288": _sequential(_ultra_ram, ["CLK"]),
    "DSP48E2": _dsp48,
    "GND|VCC": _ignored,
}
"""Cells of UltraScale+ as yosys' ``synth_xilinx -family xcup`` uses them."""

ECP5: Model = {
    "LUT4": _combinational(LUT),
    "PFUMX|L6MUX21": _combinational(WIDE_MUX),
    "CCU2C": _ccu2c,
    "TRELLIS_FF": _sequential(lambda _: 0.0, ["CLK"]),
    "TRELLIS_DPR16X4": _lut_ram({"DO": "RAD"}),
    "DP16KD|PDPW16KD": _sequential(_ecp5_ram, ["CLK.*"]),
    "MULT18X18D": _combinational(MULTIPLY),
    "DCCA|GSR|PUR|VHI|VLO": _ignored,
}
"""Cells of ECP5 as yosys' ``synth_ecp5`` uses them; it packs no registers into multipliers."""

FAMILIES: dict[str, Model] = {"xcup": XCUP, "ecp5": ECP5}
