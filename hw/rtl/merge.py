"""Equal modules of a design become one module with many instances.

Amaranth writes a module for every instance: 1,024 times the same processing element. Here modules whose text is the same are found from
the leaves upwards, where "the same" leaves aside what Amaranth numbers through the whole design: the modules' own names, the order of
ports, and names of ports that the design did not name. The tools behind then read, optimise and compile each module once. Modules that
differ in anything else, as those at the edge of an array with an unused output, stay apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_END = re.compile(r"(?m)(?<=^end\n)")
_NAME = re.compile(r"(?m)^module (\S+)$")
_PORT_NUMBER = re.compile(r"(?m)^(  wire .*\b(?:input|output)) \d+ ")
_UNNAMED = re.compile(r"\\port\$\d+\$\d+(?!\S)")
_CELL = re.compile(r"  cell (\\\S+) (\S+)$")


def merge_equal(source: str) -> str:
    """RTLIL of Amaranth in which each module is unlike every other; the first module is the top and stays as it is.

    Ports are connected by name. The same source gives the same text.
    """
    modules = {_module_name(text): text for text in _END.split(source) if text.strip()}
    merger = _Merger(modules)
    merger.merged(next(iter(modules)))
    return "".join(merger.texts)


@dataclass(frozen=True)
class _Merged:
    """The module that stands for another: its name, and what it calls the ports that the design did not name."""

    name: str
    ports: dict[str, str]


class _Merger:
    """Modules by the names that Amaranth gave, and the ``texts`` of those that stay, instances before what instantiates them."""

    def __init__(self, modules: dict[str, str]) -> None:
        self.texts: list[str] = []
        self._modules = modules
        self._known: dict[str, _Merged] = {}
        self._names: dict[str, str] = {}

    def merged(self, name: str) -> _Merged:
        """What stands for module ``name``."""
        if name not in self._known:
            lines = list(self._instantiated(self._modules[name]))
            ports = _numbered(lines)
            lines = [_UNNAMED.sub(lambda found: ports.get(found[0], found[0]), line) for line in lines]
            kept = self._names.setdefault(_signature(lines, name), name)
            if kept == name:
                self.texts.append("\n".join(lines))
            self._known[name] = _Merged(kept, ports)
        return self._known[name]

    def _instantiated(self, text: str) -> Iterator[str]:
        """Lines of a module whose cells are those that stay, with their connections in the order of the ports' names."""
        lines = iter(text.split("\n"))
        for line in lines:
            found = _CELL.match(line)
            if found is None or found[1] not in self._modules:
                yield line
                continue
            child = self.merged(found[1])
            yield f"  cell {child.name} {found[2]}"
            body = []
            while (inner := next(lines)) != "  end":
                word, port, rest = inner.split(maxsplit=2)
                body.append(f"    {word} {child.ports.get(port, port)} {rest}")
            yield from sorted(body)
            yield "  end"


def _module_name(text: str) -> str:
    found = _NAME.search(text)
    if found is None:
        raise ValueError(f"RTLIL must have a module line before each end; is this a new Amaranth? Text:\n{text[:500]}")
    return found[1]


def _numbered(lines: list[str]) -> dict[str, str]:
    """New names of the ports that the design did not name, in the order in which the module uses them.

    A use comes in the same place in equal modules, a declaration need not.
    """
    used = [name for line in lines if not _PORT_NUMBER.match(line) for name in _UNNAMED.findall(line)]
    declared = [name for line in lines if _PORT_NUMBER.match(line) for name in _UNNAMED.findall(line)]
    return {name: rf"\port$${number}" for number, name in enumerate(dict.fromkeys(used + declared))}


def _signature(lines: list[str], name: str) -> str:
    """What two modules share exactly if one can stand for the other: ports without their numbers, sorted, then all the rest."""
    ports, rest = [], []
    for statement in _statements(lines):
        if _PORT_NUMBER.search(statement):
            ports.append(_PORT_NUMBER.sub(r"\1 ", statement))
        elif statement:
            rest.append("module" if statement.endswith(f"module {name}") else statement)
    return "\n".join([*sorted(ports), *rest])


def _statements(lines: list[str]) -> Iterator[str]:
    """Lines, each with the attributes before it."""
    attributes: list[str] = []
    for line in lines:
        if line.lstrip().startswith("attribute "):
            attributes.append(line)
        else:
            yield "\n".join([*attributes, line])
            attributes = []
