"""Faults planted in the emitted Verilog: many in one file, of which 16 bits of the `build_id` port choose one at a time.

    netlist = Netlist(emitted)
    mutants = choose(netlist, 300, seed=1)
    build = build_simulation(instrument(netlist, mutants), random_state=True)
    Loop(build, build_id=select_pins(mutants[7].number), ...)

The file that is shipped is not touched: `instrument` writes another text, in which each faulty expression became a wire that
has the value of the expression, or of its mutation while that mutant is selected. Number 0 selects none. The selector is
``build_id[63:48] ^ build_id[47:32]``, taken into a register at each clock edge, so that every other value of the pins can
still be given. Faults are drawn from every module (stratified), of these classes:

==================  =================================================================================================
stuck bit           a bit of a wire or of a register's next value is 0 or 1
wrong width         the upper bit of a vector is cut off
swapped operands    b - a, b < a
off by one          a constant, or the strictness of a bound
inverted condition  of a comparison, an `if`, a one-bit wire, or the sides of a choice
wrong operator      + for -, & for |, | for ^, ...
dropped term        an operand of a logical expression is left out
wrong mux input     a choice always takes one side
dropped reset       a register keeps its contents through reset
reset value         a register is set to another constant
enable              a register, a memory read or write happens always, or never
address             a bit of a memory's address is stuck, or the address is one too high
wrong wire          an input of a submodule is connected to another register
==================  =================================================================================================
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hw.rtl.emit import EmittedVerilog
from hw.sim.campaign_netlist import CONSTANT, OPERAND, Netlist, Site

SELECTOR_BITS = 16
MOST = (1 << SELECTOR_BITS) - 1
ORIGINAL = "@"
"""Stands for the wire of the original value in a mutated expression."""

_BINARY = re.compile(rf"({OPERAND}) ?(==|!=|<=|>=|<|>|\+|-|\*|&|\||\^) ({OPERAND}) ?")
_MUX = re.compile(rf"({OPERAND}) ?\? ({OPERAND}) ?: ({OPERAND}) ?")
_UNARY = re.compile(rf"([~!|&]) ({OPERAND}) ?")
_CALL = re.compile(rf"((?:\\\S+ |[\w$]+) ?\({OPERAND}, {OPERAND}, )({OPERAND})\)")
_TERM = re.compile(rf"{CONSTANT}|\\\S+ (?:\[[\d:]+\])?|[A-Za-z_][\w$]*(?:\[[\d:]+\])?")
_OTHER_OPERATOR = {"+": "-", "-": "+", "*": "+", "&": "|", "|": "&", "^": "|"}
_INVERSE = {"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}
_STRICTNESS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A fault: `number` selects it, `kind` is its class, `mutated` the expression that takes the place of the site's."""

    number: int
    site: Site
    kind: str
    mutated: str

    @property
    def family(self) -> str:
        """The module without its replica numbers."""
        return family(self.site.module)

    @property
    def words(self) -> str:
        """What is changed, on one line."""
        site = self.site
        mutated = self.mutated.replace(ORIGINAL, "(" + site.expression.strip() + ")")
        return f"{site.role} {site.target}: {_short(site.expression)} -> {_short(mutated)}"


def family(module: str) -> str:
    """Name of a module with every number as `#`: one name for all lanes, cells and banks."""
    return re.sub(r"\$\d+", "", re.sub(r"(?<=[a-z_])\d+(_\d+)?", "#", module))


def select_pins(number: int, build_id: int = 0) -> int:
    """The value of the `build_id` pins that selects mutant `number`; what else is in `build_id` stays."""
    if not 0 <= number <= MOST:
        raise ValueError(f"Mutant's number must be 0 to {MOST}, not {number}")
    low = build_id & (1 << 48) - 1
    return low | (low >> 32 ^ number) << 48


def choose(netlist: Netlist, count: int, seed: int) -> list[Mutant]:
    """Draw `count` mutants: first one of each module in random order, then by the square root of a family's size.

    Within a module the class is drawn first, so that classes are balanced. Numbers begin at 1. Fewer than `count` where
    there are no more.
    """
    if not 1 <= count <= MOST:
        raise ValueError(f"Count of mutants must be 1 to {MOST}, not {count}")
    rng = random.Random(seed)
    drawers = {name: _Drawer(netlist, name, rng) for name in netlist.modules}
    order = _Order(drawers, rng)
    chosen: list[Mutant] = []
    while len(chosen) < count and (module := order.next()) is not None:
        chosen.append(drawers[module].draw(len(chosen) + 1))
    return chosen


def instrument(netlist: Netlist, mutants: Sequence[Mutant]) -> EmittedVerilog:
    """The text with all of these mutants, chosen by the pins."""
    top = netlist.top
    extra: dict[str, list[str]] = defaultdict(list)
    extra[top] = [
        f"  reg [{SELECTOR_BITS - 1}:0] fault_select;",
        "  always @(posedge clk) fault_select <= build_id[63:48] ^ build_id[47:32];",
    ]
    by_site: dict[Site, list[Mutant]] = defaultdict(list)
    for mutant in mutants:
        by_site[mutant.site].append(mutant)
    replaced: dict[Site, str] = {}
    for number, (site, group) in enumerate(by_site.items()):
        replaced[site] = f"fault_{number}"
        extra[site.module] += _selected_wires(f"fault_{number}", site, group, top)
    return EmittedVerilog.from_text(_rewritten(netlist, replaced, extra), top)


def plant(netlist: Netlist, mutant: Mutant) -> str:
    """The text with this one fault in place, without a selector."""
    name = "fault"
    wires = [*_wire(f"{name}_original", mutant.site, mutant.site.expression),
             *_wire(name, mutant.site, mutant.mutated.replace(ORIGINAL, f"{name}_original"))]  # fmt: skip
    return _rewritten(netlist, {mutant.site: name}, {mutant.site.module: wires})


def _selected_wires(name: str, site: Site, group: Sequence[Mutant], top: str) -> list[str]:
    lines = _wire(f"{name}_original", site, site.expression)
    value = f"{name}_original"
    for mutant in group:
        lines += _wire(f"{name}_m{mutant.number}", site, mutant.mutated.replace(ORIGINAL, f"{name}_original"))
        value = f"{top}.fault_select == {SELECTOR_BITS}'d{mutant.number} ? {name}_m{mutant.number} : {value}"
    return [*lines, *_wire(name, site, value)]


def _wire(name: str, site: Site, value: str) -> list[str]:
    """Every value has a wire of its own, so that widths and signs of expressions do not depend on each other."""
    return [f"  wire [{site.width - 1}:0] {name};", f"  assign {name} = {value};"]


def _rewritten(netlist: Netlist, replaced: Mapping[Site, str], extra: Mapping[str, Sequence[str]]) -> str:
    lines = list(netlist.lines)
    for site in sorted(replaced, key=lambda site: (site.line, -site.start)):
        text = lines[site.line]
        lines[site.line] = f"{text[: site.start]}{replaced[site]} {text[site.end :]}"
    for module in sorted(extra, key=lambda name: -netlist.modules[name].first):
        here = netlist.modules[module]
        declared = [line for line in extra[module] if line.startswith(("  wire", "  reg"))]
        lines[here.last : here.last] = [line for line in extra[module] if line not in declared]
        lines[here.first + 1 : here.first + 1] = declared
    return "\n".join(lines)


# --- drawing ---------------------------------------------------------------------------------------------------------


class _Drawer:
    """The mutants of one module that are not drawn yet, by class."""

    def __init__(self, netlist: Netlist, module: str, rng: random.Random) -> None:
        self.rng, self.kinds = rng, defaultdict(list)
        sites = list(netlist.sites(module))
        others = _registers(netlist, module)
        for site in sites:
            for kind, mutated in variants(site, others, rng):
                self.kinds[kind].append((site, mutated))

    @property
    def left(self) -> int:
        return sum(map(len, self.kinds.values()))

    def draw(self, number: int) -> Mutant:
        kind = self.rng.choice(sorted(kind for kind, group in self.kinds.items() if group))
        group = self.kinds[kind]
        site, mutated = group.pop(self.rng.randrange(len(group)))
        return Mutant(number=number, site=site, kind=kind, mutated=mutated)


class _Order:
    """Names of modules, one per mutant. The first ones are of different families, then of different modules."""

    def __init__(self, drawers: Mapping[str, _Drawer], rng: random.Random) -> None:
        self.drawers, self.rng = drawers, rng
        self.families: dict[str, list[str]] = defaultdict(list)
        for module, drawer in drawers.items():
            if drawer.left:
                self.families[family(module)].append(module)
        for group in self.families.values():
            rng.shuffle(group)
        first = [group[0] for group in self.families.values()]
        rng.shuffle(first)
        self.waiting = [*first, *(module for group in self.families.values() for module in group[1:])][::-1]

    def next(self) -> str | None:
        """A module that has a mutant left; None where none has."""
        if self.waiting:
            return self.waiting.pop()
        groups = [[module for module in group if self.drawers[module].left] for group in self.families.values()]
        weights = [sum(self.drawers[module].left for module in group) ** 0.5 for group in groups]
        return self.rng.choice(self.rng.choices(groups, weights)[0]) if any(weights) else None


def _registers(netlist: Netlist, module: str) -> dict[int, list[str]]:
    """Registers of a module that can be read by name, by width."""
    here, found = netlist.modules[module], defaultdict(list)
    for name in sorted(here.registers):
        if re.fullmatch(r"[A-Za-z_]\w*", name) and name not in _WORDS:
            found[here.widths[name]].append(name)
    return found


_WORDS = frozenset({"inside", "final", "end", "program", "last", "first", "begin"})
"""Names that a reader of SystemVerilog could take for a keyword."""


# --- mutation of one expression ---------------------------------------------------------------------------------------


def variants(site: Site, registers: Mapping[int, Sequence[str]], rng: random.Random) -> Iterator[tuple[str, str]]:
    """(class, mutated expression) of a site; each differs in text from the original."""
    text = re.sub(r"\(\* .*? \*\) ", "", site.expression)
    if site.role == "reset":
        yield "dropped reset", "1'h0"
        return
    if site.role == "register" and re.fullmatch(CONSTANT, text.strip()):
        yield from (("reset value", changed) for changed in _changed_constants(text, grow=False))
        return
    if site.role == "condition":
        yield "inverted condition", f"!{ORIGINAL}"
        yield "enable", "1'h1"
        yield "enable", "1'h0"
        return
    if site.role == "port":
        yield from _wrong_wires(site, registers)
        return
    if site.role == "address":
        yield "address", f"{ORIGINAL} + 1'h1"
        yield "address", _stuck(site, rng.randrange(site.width), rng.randrange(2))
        return
    if re.search(r"\brst\b", text):
        yield from _of_resets(text)
        return
    yield from _of_bits(site, text, rng)
    if not _unknown(text):
        yield from _of_structure(text)


def _of_resets(text: str) -> Iterator[tuple[str, str]]:
    """Of `rst` joined with others by a logical or: one of them is left out, or it is inverted."""
    if match := _UNARY.fullmatch(text):
        yield from ((kind, mutated) for kind, mutated in _of_unary(*match.groups()) if kind != "wrong operator")
    yield "inverted condition", f"~{ORIGINAL}"


def _of_bits(site: Site, text: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Faults of the value's bits; a constant is spared, because half of its stuck bits would be no fault."""
    if re.fullmatch(CONSTANT, text.strip()):
        return
    if site.width == 1:
        yield "inverted condition", f"~{ORIGINAL}"
    elif site.live >> (site.width - 1):
        yield "wrong width", f"{ORIGINAL}[{site.width - 2}:0]"
    bits = [bit for bit in range(site.width) if site.live >> bit & 1]
    yield "stuck bit", _stuck(site, rng.choice(bits), rng.randrange(2))


def _stuck(site: Site, bit: int, value: int) -> str:
    mask = 1 << bit
    return f"{ORIGINAL} | {site.width}'h{mask:x}" if value else f"{ORIGINAL} & {site.width}'h{(1 << site.width) - 1 - mask:x}"


def _of_structure(text: str) -> Iterator[tuple[str, str]]:
    if match := _MUX.fullmatch(text):
        yield from _of_mux(*match.groups())
    elif match := _BINARY.fullmatch(text):
        yield from _of_binary(*match.groups())
    elif match := _UNARY.fullmatch(text):
        yield from _of_unary(*match.groups())
    elif match := _CALL.fullmatch(text):
        terms = _TERM.findall(match[2])
        for place in range(len(terms)):
            others = _concat([*terms[:place], "1'h0", *terms[place + 1 :]])
            yield "wrong mux input", f"{match[1]}{others})"
    elif re.fullmatch(rf"{OPERAND} ?", text):
        for constant in _changed_constants(text, grow=False):
            yield "off by one", constant


def _of_mux(choice: str, true: str, false: str) -> Iterator[tuple[str, str]]:
    yield "inverted condition", f"{choice} ? {false} : {true}"
    yield "wrong mux input", true
    yield "wrong mux input", false
    for changed in _changed_constants(true, grow=False):
        yield "off by one", f"{choice} ? {changed} : {false}"
    for changed in _changed_constants(false, grow=False):
        yield "off by one", f"{choice} ? {true} : {changed}"


def _of_binary(left: str, operator: str, right: str) -> Iterator[tuple[str, str]]:
    if operator in _INVERSE:
        yield "inverted condition", f"{left} {_INVERSE[operator]} {right}"
    if operator in _STRICTNESS:
        yield "off by one", f"{left} {_STRICTNESS[operator]} {right}"
    if operator == "-" or operator in _STRICTNESS:
        yield "swapped operands", f"{right} {operator} {left}"
    if operator in _OTHER_OPERATOR:
        yield "wrong operator", f"{left} {_OTHER_OPERATOR[operator]} {right}"
    if operator in "&|":
        yield "dropped term", left
        yield "dropped term", right
    for changed in _changed_constants(right, grow=True):
        yield "off by one", f"{left} {operator} {changed}"


def _of_unary(operator: str, operand: str) -> Iterator[tuple[str, str]]:
    terms = _TERM.findall(operand)
    if operator in "|&" and len(terms) > 1:
        yield "wrong operator", f"{_OTHER_OPERATOR[operator]} {operand}"
        for place, term in enumerate(terms):
            rest = _concat([*terms[:place], *terms[place + 1 :]])
            yield "dropped reset" if term == "rst" else "dropped term", f"{operator} {rest}"


def _concat(terms: Iterable[str]) -> str:
    return "{ " + ", ".join(terms) + " }"


def _changed_constants(text: str, *, grow: bool) -> Iterator[str]:
    """The operand with one constant more or less by one; `grow` where it may become wider."""
    for match in re.finditer(CONSTANT, text):
        if (value := _value(match[0])) is None:
            continue
        size = int(match[0].split("'")[0])
        for other in {value + 1, value - 1} if grow else {(value + 1) % (1 << size), (value - 1) % (1 << size)}:
            if other >= 0:
                width = max(size, other.bit_length())
                yield f"{text[: match.start()]}{width}'h{other:x}{text[match.end() :]}"


def _value(constant: str) -> int | None:
    digits = re.fullmatch(r"\d+'s?([hbd])([0-9a-f]+)", constant)
    return None if digits is None else int(digits[2], {"h": 16, "b": 2, "d": 10}[digits[1]])


def _unknown(text: str) -> bool:
    """Whether a constant has unknown bits: choosing another value there is no fault."""
    return any(_value(constant) is None for constant in re.findall(CONSTANT, text))


def _wrong_wires(site: Site, registers: Mapping[int, Sequence[str]]) -> Iterator[tuple[str, str]]:
    """Only registers change place: they cannot close a combinational loop."""
    mine = site.expression.strip()
    candidates = registers.get(site.width, ())
    if mine in candidates and mine not in ("clk", "rst"):
        for other in candidates:
            if other != mine:
                yield "wrong wire", other


def _short(text: str, most: int = 90) -> str:
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 4] + " ..."
