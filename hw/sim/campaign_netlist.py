"""The emitted Verilog as text with structure: modules, statements, instances, and which bits can be seen from outside.

Yosys writes one operation per statement in a small regular language, which is read here line by line; a line that is not
of that language raises ValueError. Used to plant faults (`hw.sim.mutants`), which is why places in the text are kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

from hw.rtl.emit import WATCH_PREFIX, EmittedVerilog

CONSTANT = r"\d+'s?[hbd][0-9a-fxz?]+"
REFERENCE = r"(?:\\\S+ |[A-Za-z_][\w$]*)(?:\[\d+(?::\d+)?\])?"
_ATOM = rf"(?:{CONSTANT}|{REFERENCE})"
CONCAT = rf"\{{ {_ATOM}(?:, {_ATOM})* \}}"
OPERAND = rf"(?:\$signed\((?:{CONCAT}|{_ATOM})\)|{CONCAT}|{_ATOM})"

_MODULE = re.compile(r"module (?:\\(\S+) |(\w+))\(")
_DECLARATION = re.compile(r"  (input|output|wire|reg) (?:signed )?(?:\[(\d+):0\] )?(\\\S+ |[\w$]+)(?: \[(\d+):0\])?;$")
_ASSIGN = re.compile(r"  assign (.+?) = (.+);$")
_CONDITION = re.compile(r" +(?:else )?if \((!?)(.+?)\) ?")
_NEXT = re.compile(rf" +(?:else )?(?:if \(!?.+?\) )?({REFERENCE}|{CONCAT})(?:\[({OPERAND})\])? <= (.+);$")
_MEMORY_READ = re.compile(rf"({REFERENCE})\[({OPERAND})\]$")
_INSTANCE = re.compile(r"  \\(\S+)  (\\\S+ |[\w$]+) \($")
_PORT = re.compile(r"    \.(\\\S+ |[\w$]+)\((.*)\),?$")
_REFERENCES = re.compile(rf"{CONSTANT}|(\\\S+ |[A-Za-z_][\w$]*)(?:\[(\d+)(?::(\d+))?\])?")
_BITWISE = re.compile(rf"({OPERAND}) ?[&|^] ({OPERAND}) ?$|[~] ({OPERAND}) ?$|({OPERAND}) ?$")
_MUX = re.compile(rf"({OPERAND}) ?\? ({OPERAND}) ?: ({OPERAND}) ?$")


@dataclass(frozen=True, kw_only=True)
class Site:
    """An expression in the text that can be replaced by a wire of `width` bits.

    `line` counts from 0 in the whole text, `start` and `end` are columns. `role` is one of wire, register, condition,
    reset, address, port. `live` masks the bits of the value that can reach an output.
    """

    module: str
    line: int
    start: int
    end: int
    width: int
    role: str
    target: str
    expression: str
    live: int


@dataclass
class Statement:
    """Bits of `targets` are a function of bits of `sources`; bit by bit where `bitwise` lists operands of their width."""

    targets: str
    sources: list[str]
    bitwise: list[str] = field(default_factory=list)


@dataclass
class Module:
    """A module: lines where its header and the module end, widths of its nets, what it does."""

    name: str
    first: int = 0
    last: int = 0
    widths: dict[str, int] = field(default_factory=dict)
    directions: dict[str, str] = field(default_factory=dict)
    registers: set[str] = field(default_factory=set)
    memories: set[str] = field(default_factory=set)
    statements: list[Statement] = field(default_factory=list)
    drivers: dict[str, str] = field(default_factory=dict)
    """Expression of each net that one whole assignment drives."""
    instances: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Module and, by port, the expression that is connected."""
    spans: list[tuple[int, int, int, str, str]] = field(default_factory=list)
    """Raw sites: line, start, end, role, target."""

    def slices(self, expression: str) -> Iterator[tuple[str, int, int]]:
        """(net, lowest bit, width) of each reference, the most significant first; constants have net ''."""
        for match in _REFERENCES.finditer(expression.replace("$signed(", "")):
            if match[1] is None:
                yield "", 0, int(match[0].split("'")[0])
                continue
            name = match[1].strip()
            if name not in self.widths:  # a function
                continue
            high = self.widths[name] - 1 if match[2] is None else int(match[2])
            low = 0 if match[2] is None else int(match[3] or match[2])
            yield name, low, high - low + 1

    def width(self, expression: str) -> int:
        """Width in bits of a reference, constant or concatenation."""
        return sum(width for _, _, width in self.slices(expression))


class Netlist:
    """All modules of an emitted text; `lines` of it; `live` bits per (module, net)."""

    def __init__(self, emitted: EmittedVerilog) -> None:
        self.top, self.lines = emitted.name, emitted.text.split("\n")
        self.modules: dict[str, Module] = {}
        self._read()
        self.live: dict[tuple[str, str], int] = defaultdict(int)
        self._find_live()

    def sites(self, module: str) -> Iterator[Site]:
        """Every expression of a module of which some bit can be seen."""
        here = self.modules[module]
        for line, start, end, role, target in here.spans:
            expression = self.lines[line][start:end]
            width, live = self._width_and_live(here, role, target, expression)
            if live:
                yield Site(module=module, line=line, start=start, end=end, width=width, role=role,
                           target=target.strip(), expression=expression, live=live)  # fmt: skip

    def _width_and_live(self, here: Module, role: str, target: str, expression: str) -> tuple[int, int]:
        """Of conditions and addresses each bit counts as live if the target is."""
        live = self._mask(here.name, target)
        if role in ("condition", "reset"):
            return 1, int(live != 0)
        if role == "address":
            width = here.width(expression)
            return width, (1 << width) - 1 if live else 0
        if target.split("[")[0].strip() in here.memories:
            width = here.width(target)
            return width, (1 << width) - 1 if live else 0
        return here.width(target), live

    def _read(self) -> None:
        current: Module | None = None
        for number, line in enumerate(self.lines):
            if match := _MODULE.match(line):
                current = Module(name=match[1] or match[2])
                self.modules[current.name] = current
            if current is not None and not current.first and line.endswith(");"):
                current.first = number
            if line == "endmodule" and current is not None:
                current.last = number
                _Reader(current, self.lines).read()
                current = None

    # --- what can be seen ------------------------------------------------------------------------------------------

    def _find_live(self) -> None:
        top = self.modules[self.top]
        for net, width in top.widths.items():
            if top.directions.get(net) == "output" or net.startswith(WATCH_PREFIX):
                self.live[self.top, net] = (1 << width) - 1
        changed = set(self.modules)
        while changed:
            changed = {name for module in changed for name in self._spread(self.modules[module])}

    def _spread(self, module: Module) -> set[str]:
        """Carry live bits from targets to sources until nothing changes; names of modules that this may change."""
        touched: set[str] = set()
        again = True
        while again:
            again = any([self._spread_statement(module, s) for s in reversed(module.statements)])
            for child, ports in module.instances:
                if self._spread_instance(module, self.modules[child], ports, touched):
                    again = True
        return touched | {parent.name for parent in self.modules.values() if self._stale(parent, module)}

    def _spread_statement(self, module: Module, statement: Statement) -> bool:
        live = self._mask(module.name, statement.targets)
        if not live:
            return False
        changed = [self._mark(module, source, -1) for source in statement.sources]
        changed += [self._mark(module, source, live) for source in statement.bitwise]
        return any(changed)

    def _spread_instance(self, parent: Module, child: Module, ports: dict[str, str], touched: set[str]) -> bool:
        changed = False
        for port, expression in ports.items():
            if child.directions[port] == "output":
                seen = self._mask(parent.name, expression)
                if seen & ~self.live[child.name, port]:
                    self.live[child.name, port] |= seen
                    touched.add(child.name)
            elif live := self.live[child.name, port]:
                changed |= self._mark(parent, expression, live)
        return changed

    def _stale(self, parent: Module, child: Module) -> bool:
        """Whether a live input of the child has not been carried to a parent."""
        for name, ports in parent.instances:
            if name != child.name:
                continue
            for port, expression in ports.items():
                if child.directions[port] == "input":
                    wanted = _spare_constants(parent, expression, self.live[name, port])
                    if wanted & ~self._mask(parent.name, expression):
                        return True
        return False

    def _mask(self, module: str, expression: str) -> int:
        """Live bits of an expression of references, as a mask."""
        mask, here = 0, self.modules[module]
        for net, low, width in here.slices(expression):
            mask = mask << width | (self.live[module, net] >> low & ((1 << width) - 1) if net else 0)
        return mask

    def _mark(self, module: Module, expression: str, live: int) -> bool:
        """Make bits of an expression live (all of them for -1); whether any was not."""
        changed, position = False, 0
        for net, low, width in reversed(list(module.slices(expression))):
            bits = (live >> position & ((1 << width) - 1)) << low
            position += width
            if net and bits & ~self.live[module.name, net]:
                self.live[module.name, net] |= bits
                changed = True
        return changed


class _Reader:
    """Reads the lines of one module."""

    def __init__(self, module: Module, lines: list[str]) -> None:
        self.module, self.lines = module, lines
        self.conditions: list[tuple[int, int, int, str]] = []
        self.ports: dict[str, str] | None = None

    def read(self) -> None:
        """Declarations first: nets are used before they are declared."""
        numbers = range(self.module.first + 1, self.module.last)
        for number in numbers:
            self._declaration(self.lines[number])
        for number in numbers:
            self._line(number, self.lines[number])
        self._name_resets()

    def _declaration(self, line: str) -> None:
        if not (match := _DECLARATION.match(line)):
            return
        kind, msb, name, depth = match[1], match[2], match[3].strip(), match[4]
        self.module.widths[name] = int(msb or 0) + 1
        if kind in ("input", "output"):
            self.module.directions[name] = kind
        if kind == "reg":
            (self.module.registers if depth is None else self.module.memories).add(name)

    def _line(self, number: int, line: str) -> None:
        if line.startswith("  always "):
            self.conditions = []
        elif match := _ASSIGN.match(line):
            self._assign(number, match)
        elif match := _INSTANCE.match(line):
            self.ports = {}
            self.module.instances.append((match[1], self.ports))
        elif self.ports is not None and (match := _PORT.match(line)):
            self.ports[match[1].strip()] = match[2]
            self._span(number, match, 2, "port", match[2])
        elif line == "  );":
            self.ports = None
        elif line.lstrip().startswith(("if (", "else", "end")) or " <= " in line:
            self._procedural(number, line)

    def _span(self, number: int, match: re.Match[str], group: int, role: str, target: str) -> None:
        self.module.spans.append((number, match.start(group), match.end(group), role, target))

    def _assign(self, number: int, match: re.Match[str]) -> None:
        target, source = match[1], re.sub(r"\(\* .*? \*\) ", "", match[2])
        self.module.drivers[target.strip()] = source
        if read := _MEMORY_READ.match(source):
            self._memory_read(number, match.start(2), read, target)
            return
        self._span(number, match, 2, "wire", target)
        self.module.statements.append(_statement(self.module, target, source))

    def _memory_read(self, number: int, column: int, read: re.Match[str], target: str) -> None:
        self.module.spans.append((number, column + read.start(2), column + read.end(2), "address", target))
        self.module.statements.append(Statement(target, [read[1], read[2]]))

    def _procedural(self, number: int, line: str) -> None:
        if condition := _CONDITION.match(line):
            self.conditions.append((number, condition.start(2), condition.end(2), condition[2]))
        if not (match := _NEXT.match(line)):
            return
        target, address, source = match[1], match[2], match[3]
        sources = [text for *_, text in self.conditions]
        for place in self.conditions:
            if place[0] == number or (place[0] == number - 1 and " <= " not in self.lines[number - 1]):
                role = "reset?" if re.fullmatch(CONSTANT, source) and not line.lstrip().startswith("else") else "condition"
                self.module.spans.append((*place[:3], role, target))
        if address is not None:
            self._span(number, match, 2, "address", target)
            sources.append(address)
        if read := _MEMORY_READ.match(source):
            self._memory_read(number, match.start(3), read, target)
        else:
            self._span(number, match, 3, "register", target)
        self.module.statements.append(Statement(target, [*sources, source]))

    def _name_resets(self) -> None:
        """A condition that sets a constant is a reset if `rst` is in it."""
        for place, (line, start, end, role, target) in enumerate(self.module.spans):
            if role == "reset?":
                condition = self.lines[line][start:end].strip()
                whole = f"{condition} {self.module.drivers.get(condition, '')}"
                self.module.spans[place] = (line, start, end, "reset" if re.search(r"\brst\b", whole) else "condition", target)


def _statement(module: Module, target: str, source: str) -> Statement:
    """An assignment; which of its operands it takes bit by bit."""
    width = module.width(target)
    if (match := _MUX.match(source)) and _equal(module, match.groups()[1:], width):
        return Statement(target, [match[1]], [match[2], match[3]])
    if match := _BITWISE.match(source):
        operands = [operand for operand in match.groups() if operand is not None]
        if _equal(module, operands, width):
            return Statement(target, [], operands)
    return Statement(target, [source])


def _equal(module: Module, operands: tuple[str, ...] | list[str], width: int) -> bool:
    return all(module.width(operand) == width for operand in operands)


def _spare_constants(module: Module, expression: str, live: int) -> int:
    """The mask without bits where the expression is a constant."""
    position = 0
    for net, _, width in reversed(list(module.slices(expression))):
        if not net:
            live &= ~(((1 << width) - 1) << position)
        position += width
    return live
