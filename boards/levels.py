"""Longest paths of a synthesised netlist in weighted logic levels: a modelled speed, without the vendor's timing.

A path runs from a register's output to a register's input. Its levels are the sum of what its cells weigh (:mod:`boards.cells`
holds the numbers and says what they stand for); wires weigh nothing, so fan-out and distance do not show. Paths from and
to the top module's ports are found too, and kept apart. As a guide, 6 levels are about 250 MHz and 8 about 200 MHz on UltraScale+
of the slowest speed grade.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain, groupby

from boards.cells import LUT, Arcs, Json, arcs_of, bit_ok


@dataclass(frozen=True, kw_only=True)
class Step:
    """A cell on a path: its type, the name of the net that it drives ("" where synthesis made the net up), levels up to its output."""

    cell: str
    net: str
    levels: float


@dataclass(frozen=True, kw_only=True)
class Path:
    """A longest path: ``levels``, ``start`` and ``end`` (registers or ports, by name), and the ``pin`` at which it ends."""

    levels: float
    start: str
    end: str
    pin: str
    steps: tuple[Step, ...]

    def to_dict(self) -> Json:
        return {"levels": self.levels, "start": self.start, "end": self.end, "pin": self.pin, "words": self.words()}

    def words(self) -> str:
        """The path in a line: equal cells in a row are counted, named nets stand behind their cell in brackets."""
        parts = [self.start]
        for (cell, net), same in groupby(self.steps, key=lambda step: (step.cell, _without_index(step.net))):
            count = len(list(same))
            parts.append(cell + (f" x{count}" if count > 1 else "") + (f" ({net})" if net else ""))
        return " -> ".join([*parts, f"{self.end}.{self.pin}" if self.pin else self.end])


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """``registers``: the longest path to each register vector from registers, longest first; ``ports``: likewise for paths that begin
    or end at a port."""

    registers: tuple[Path, ...]
    ports: tuple[Path, ...]


def longest_paths(module: Json, family: str, count: int = 20, *, blocks: Mapping[str, Json] | None = None) -> LevelReport:
    """The longest paths of a module as ``write_json`` of yosys gives it; ``count`` of each kind at most.

    The module is flat but for instances of ``blocks``, modules by name, which may have instances of each other. Paths into, out of and
    through blocks count whole and are told up to the block's pins; of the paths within a block, those of one instance are told.
    Raises ValueError for a cell that the family's model does not know, and for a combinational loop.
    """
    netlist = _Netlist(module, family, _Blocks(blocks or {}, family, count))
    return LevelReport(registers=netlist.worst(count, ports=False), ports=netlist.worst(count, ports=True))


PortBit = tuple[str, int]


@dataclass(frozen=True, kw_only=True)
class _Block:
    """A module as its instances show it: levels from registers to outputs, from inputs to outputs, and from inputs to registers;
    ``paths``, the longest ones between its own registers."""

    starts: dict[PortBit, float]
    through: dict[tuple[PortBit, PortBit], float]
    ends: dict[PortBit, float]
    paths: tuple[Path, ...]

    def arcs(self, instance: Json) -> Arcs:
        """Arcs of an instance."""
        pins: Json = instance["connections"]
        joined = [(pins[a][i], pins[b][j], levels) for ((a, i), (b, j)), levels in self.through.items()]
        return Arcs(
            starts=[(pins[pin][i], levels) for (pin, i), levels in self.starts.items() if bit_ok(pins[pin][i])],
            through=[arc for arc in joined if bit_ok(arc[0]) and bit_ok(arc[1])],
            ends=[(pins[pin][i], levels, pin) for (pin, i), levels in self.ends.items() if bit_ok(pins[pin][i])],
        )


class _Blocks:
    """Blocks by module name, each looked into once."""

    def __init__(self, modules: Mapping[str, Json], family: str, count: int) -> None:
        self._modules, self._family, self._count = modules, family, count
        self._known: dict[str, _Block] = {}

    def get(self, name: str) -> _Block | None:
        if name in self._modules and name not in self._known:
            self._known[name] = _Netlist(self._modules[name], self._family, self).block(self._count)
        return self._known.get(name)


class _Netlist:
    """The netlist as a graph of bits. Bits are numbers; constants are left out."""

    def __init__(self, module: Json, family: str, blocks: _Blocks) -> None:
        self._ports: Json = module["ports"]
        self._inner: dict[str, list[Path]] = {}
        self._names = _bit_names(module["netnames"])
        self._cell_of: dict[int, str] = {}
        self._through: dict[int, list[tuple[int, float]]] = {}
        self._tabled: list[tuple[int, int, float]] = []
        self._starts: dict[int, float] = {}
        self._ends: list[tuple[int, float, str, str]] = []
        for name, cell in module["cells"].items():
            if (block := blocks.get(cell["type"])) is not None:
                self._add(name, cell, block.arcs(cell), register=name)
                self._inner.setdefault(cell["type"], [_within(path, name) for path in block.paths])
            elif cell["type"] != "$scopeinfo":  # a remark about the hierarchy, no hardware
                self._add(name, cell, arcs_of(cell, family))
        for source, target, levels in self._tabled:
            behind = self._cell_of.get(source, "").startswith("LUT")
            self._through.setdefault(source, []).append((target, levels if behind else levels + LUT))
        self._inputs = {bit: 0.0 for _, bit in self._port_bits("input")}
        self._outputs = [(bit, 0.0, "", name) for (name, _), bit in self._port_bits("output")]
        self._order = self._topological()

    def _port_bits(self, direction: str) -> list[tuple[PortBit, int]]:
        ports = [(name, port["bits"]) for name, port in self._ports.items() if port["direction"] == direction]
        return [((name, index), bit) for name, bits in ports for index, bit in enumerate(bits) if bit_ok(bit)]

    def _add(self, name: str, cell: Json, arcs: Arcs, register: str = "") -> None:
        outputs = [bit for pin, bits in cell["connections"].items() if cell["port_directions"][pin] == "output" for bit in bits]
        named = next((self._names[bit] for bit in outputs if bit in self._names), "")
        for bit in outputs:
            if bit_ok(bit):
                self._cell_of[bit] = cell["type"]
        self._starts.update(arcs.starts)
        for source, target, levels in arcs.through:
            self._through.setdefault(source, []).append((target, levels))
        self._tabled += arcs.tabled
        register = register or _without_index(named) or _without_hash(name)
        self._ends += [(bit, levels, pin, register) for bit, levels, pin in arcs.ends]

    def _topological(self) -> list[int]:
        """Bits in an order in which everything a bit depends on comes before it."""
        waiting: dict[int, int] = {}
        for targets in self._through.values():
            for target, _ in targets:
                waiting[target] = waiting.get(target, 0) + 1
        ready = deque(bit for bit in self._through if bit not in waiting)
        order = []
        while ready:
            bit = ready.popleft()
            order.append(bit)
            for target, _ in self._through.get(bit, ()):
                waiting[target] -= 1
                if not waiting[target]:
                    ready.append(target)
        if looped := [bit for bit, count in waiting.items() if count]:
            names = sorted({self._names.get(bit, self._cell_of[bit]) for bit in looped})[:5]
            raise ValueError(f"the netlist must have no combinational loop; one runs through {', '.join(names)}")
        return order

    def _arrivals(self, starts: Mapping[int, float]) -> tuple[dict[int, float], dict[int, int]]:
        """Levels at each bit that a start reaches, and the bit before it on the longest path."""
        levels, before = dict(starts), {}
        for bit in self._order:
            if bit in levels:
                here = levels[bit]
                for target, weight in self._through.get(bit, ()):
                    if here + weight > levels.get(target, -1.0):
                        levels[target], before[target] = here + weight, bit
        return levels, before

    def worst(self, count: int, *, ports: bool) -> tuple[Path, ...]:
        """The longest path to each end, longest first; ends whose names differ in numbers only (lanes, banks) count as one."""
        found: dict[str, tuple[float, int, str, str, int]] = {}
        searches = [(self._starts, self._ends)]
        if ports:
            searches = [(self._inputs, [*self._ends, *self._outputs]), (self._starts, self._outputs)]
        arrivals = [self._arrivals(starts) for starts, _ in searches]
        for number, (_, ends) in enumerate(searches):
            for bit, extra, pin, end in ends:
                if bit in arrivals[number][0]:
                    levels = arrivals[number][0][bit] + extra
                    kind = re.sub(r"\d+", "", end)
                    if kind not in found or levels > found[kind][0]:
                        found[kind] = (levels, bit, pin, end, number)
        chosen = sorted(found.values(), key=lambda what: (-what[0], what[3]))[:count]
        paths = [self._path(*what[:4], *arrivals[what[4]]) for what in chosen]
        return _longest([*paths, *([] if ports else chain.from_iterable(self._inner.values()))])[:count]

    def block(self, count: int) -> _Block:
        """This module as its instances show it."""
        out = self._port_bits("output")
        levels, _ = self._arrivals(self._starts)
        through: dict[tuple[PortBit, PortBit], float] = {}
        ends: dict[PortBit, float] = {}
        for place, bit in self._port_bits("input"):
            reached, _ = self._arrivals({bit: 0.0})
            through |= {(place, to): reached[target] for to, target in out if target in reached}
            if here := [reached[end] + extra for end, extra, *_ in self._ends if end in reached]:
                ends[place] = max(here)
        starts = {to: levels[target] for to, target in out if target in levels}
        return _Block(starts=starts, through=through, ends=ends, paths=self.worst(count, ports=False))

    def _path(
        self, total: float, bit: int, pin: str, end: str, levels: Mapping[int, float], before: Mapping[int, int]
    ) -> Path:
        bits = [bit]
        while bits[-1] in before:
            bits.append(before[bits[-1]])
        first, *rest = reversed(bits)
        steps = tuple(Step(cell=self._cell_of[b], net=self._names.get(b, ""), levels=round(levels[b], 2)) for b in rest)
        start = self._names.get(first) or self._cell_of.get(first, "a port")
        return Path(levels=round(total, 2), start=start, end=end, pin=pin, steps=steps)


def _longest(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Longest first; of paths whose ends differ in numbers only, one."""
    kinds: dict[str, Path] = {}
    for path in sorted(paths, key=lambda path: (-path.levels, path.end)):
        kinds.setdefault(re.sub(r"\d+", "", path.end), path)
    return tuple(kinds.values())


def _within(path: Path, instance: str) -> Path:
    """A path of a block as the module with the instance tells it."""
    steps = tuple(replace(step, net=step.net and f"{instance}.{step.net}") for step in path.steps)
    return replace(path, start=f"{instance}.{path.start}", end=f"{instance}.{path.end}", steps=steps)


def _bit_names(netnames: Mapping[str, Json]) -> dict[int, str]:
    """The shortest public name of each bit; names nearer to the top are shorter."""
    names: dict[int, str] = {}
    for name, net in netnames.items():
        if net["hide_name"] or "$" in name.split(".")[-1]:
            continue
        for index, bit in enumerate(net["bits"]):
            if bit_ok(bit) and (bit not in names or len(name) < len(names[bit].split("[")[0])):
                names[bit] = f"{name}[{index}]" if len(net["bits"]) > 1 else name
    return names


def _without_index(name: str) -> str:
    return re.sub(r"\[\d+\]$", "", name)


def _without_hash(name: str) -> str:
    """A made-up cell name without what changes from run to run."""
    return re.sub(r"\$\d+|[^.]*\.(?:cc|v):\d+:", "", name)
