"""How a core's Verilog is bound to the C++ loop: the port contract, a small header and a Verilator control file.

The contract (Amaranth's names; synchronous, active-high reset): `clk`, `rst`, an AXI4-Lite subordinate `s_axi__*` of
32 data and 12 address bits, AXI4 managers `m_axi_0__*`, `m_axi_1__*`, ... of 128 data and 64 address bits, `irq`,
`build_id` (64), `trace__issue`, `trace__retire`, `trace__index` (32). The top module may have internal nets
`watch_<space>__en`, `watch_<space>__addr` (32), `watch_<space>__data` (128): a write to an on-chip buffer in this cycle; or, for a
buffer of which several words are written in a cycle, such nets of lanes: `watch_<space>_0__en`, `watch_<space>_1__en` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hw.rtl.emit import EmittedVerilog

WATCHES_LIMIT = 64
_CONTROL = {"clk": 1, "rst": 1, "irq": -1, "build_id": 64, "trace__issue": -1, "trace__retire": -1, "trace__index": -32}
_LITE = {
    "awaddr": 12, "awprot": 3, "awvalid": 1, "awready": -1, "wdata": 32, "wstrb": 4, "wvalid": 1, "wready": -1,
    "bresp": -2, "bvalid": -1, "bready": 1, "araddr": 12, "arprot": 3, "arvalid": 1, "arready": -1,
    "rdata": -32, "rresp": -2, "rvalid": -1, "rready": 1,
}  # fmt: skip
_ADDRESS = {"id": 1, "addr": 64, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "valid": 1}
_MANAGER = {
    **{f"aw{name}": -width for name, width in _ADDRESS.items()}, "awready": 1,
    "wdata": -128, "wstrb": -16, "wlast": -1, "wvalid": -1, "wready": 1,
    "bid": 1, "bresp": 2, "bvalid": 1, "bready": -1,
    **{f"ar{name}": -width for name, width in _ADDRESS.items()}, "arready": 1,
    "rid": 1, "rdata": 128, "rresp": 2, "rlast": 1, "rvalid": 1, "rready": -1,
}  # fmt: skip
_WATCH = {"en": 1, "addr": 32, "data": 128}
_HEADER = """\
#pragma once
#include "axi_lite.h"
#include "axi_memory.h"

constexpr unsigned DESIGN_MANAGERS = {managers};

inline LitePins lite_pins(Vdut& top) {{
    LitePins pins{{}};
{lite}    return pins;
}}

inline ManagerPins manager_pins(Vdut& top, unsigned number) {{
    ManagerPins pins{{}};
    switch (number) {{
{cases}    }}
    return pins;
}}

template <typename See>
void for_each_chip_write(const Vdut___024root& root, See see) {{
    (void)root, (void)see;
{watches}}}
"""


class ContractError(ValueError):
    """The top module does not have the ports that every core has; the message lists each difference."""


@dataclass(frozen=True, kw_only=True)
class Binding:
    """What the loop must know of a design: top module, number of AXI managers, and its watch nets (space, lane), in order.

    A space with one net only has lane None.
    """

    top: str
    managers: int
    watches: tuple[tuple[str, int | None], ...]

    @property
    def spaces(self) -> tuple[str, ...]:
        """Names of the watched spaces, in order."""
        return tuple(dict.fromkeys(space for space, _ in self.watches))

    def header(self) -> str:
        """C++ header `design.h` for `loop.cpp`: where each pin of the model lies, and a visitor of the watch nets."""
        cases = "".join(f"        case {index}:\n{_pins(f'm_axi_{index}__', _MANAGER)}            break;\n"
                        for index in range(self.managers))  # fmt: skip
        return _HEADER.format(
            managers=self.managers, lite=_pins("s_axi__", _LITE), cases=cases,
            watches="".join(self._watch(number, _watch_name(*watch)) for number, watch in enumerate(self.watches)),
        )  # fmt: skip

    def _watch(self, number: int, name: str) -> str:
        en, addr, data = (f"root.{self.top}__DOT__{_model_name(name + part)}" for part in _WATCH)
        return f"    if ({en}) see({number}u, {addr}, {data}.data());\n"

    def control_file(self) -> str:
        """Verilator control file: makes the watch nets readable and leaves the Verilog as it is."""
        nets = (_watch_name(*watch) + part for watch in self.watches for part in _WATCH)
        lines = (f'public_flat_rd -module "{self.top}" -var "{net}"' for net in nets)
        return "\n".join(("`verilator_config", *lines, ""))


def bind(emitted: EmittedVerilog) -> Binding:
    """Checks the port contract. Raises ContractError with every missing, surplus or wrong port and watch net."""
    found = {port.name: port.width if port.kind == "input" else -port.width for port in emitted.ports}
    managers = _count_managers(found)
    wanted = {**_CONTROL, **_prefixed("s_axi__", _LITE)}
    for index in range(managers):
        wanted |= _prefixed(f"m_axi_{index}__", _MANAGER)
    watched = {net.name: net.width for net in emitted.watches}
    watches = _watches(watched)
    watch_wanted: dict[str, int] = {}
    for watch in watches:
        watch_wanted |= _prefixed(_watch_name(*watch), _WATCH)
    problems = [*_differences(found, wanted, _port_words), *_differences(watched, watch_wanted, "a net of {} bits".format)]
    if not managers:
        problems.append("no AXI manager m_axi_0__*")
    if len(watches) > WATCHES_LIMIT:
        problems.append(f"{len(watches)} watch nets, of which at most {WATCHES_LIMIT} are supported")
    for space in dict.fromkeys(space for space, _ in watches):
        lanes = [lane for name, lane in watches if name == space]
        if lanes not in ([None], list(range(len(lanes)))):
            problems.append(f"watch nets of {space} must have no lane or the lanes 0, 1 and so on, not {lanes}")
    if problems:
        raise ContractError(f"Ports of {emitted.name!r} must follow the contract of hw.sim.binding: " + "; ".join(problems))
    return Binding(top=emitted.name, managers=managers, watches=watches)


def _watches(nets: Mapping[str, int]) -> tuple[tuple[str, int | None], ...]:
    """(space, lane) of every watch net, by space, then lane."""
    found = (re.fullmatch(r"watch_(\w+?)(?:_(\d+))?__en", name) for name in nets)
    watches = [(match[1], None if match[2] is None else int(match[2])) for match in found if match]
    return tuple(sorted(watches, key=lambda watch: (watch[0], -1 if watch[1] is None else watch[1])))


def _watch_name(space: str, lane: int | None) -> str:
    """What the names of a watch's nets begin with."""
    return f"watch_{space}__" if lane is None else f"watch_{space}_{lane}__"


def _model_name(net: str) -> str:
    """Verilator's C++ name of a net: a double underscore is written as a code."""
    return net.replace("__", "___05F")


def _pins(prefix: str, names: Mapping[str, int]) -> str:
    return "".join(f"    pins.{name} = &top.{_model_name(prefix + name)};\n" for name in names)


def _count_managers(found: Mapping[str, int]) -> int:
    indices = {int(match[1]) for name in found if (match := re.match(r"m_axi_(\d+)__", name))}
    return max(indices, default=-1) + 1


def _prefixed(prefix: str, widths: Mapping[str, int]) -> dict[str, int]:
    return {prefix + name: width for name, width in widths.items()}


def _port_words(width: int) -> str:
    return f"an {'input' if width > 0 else 'output'} of {abs(width)} bits"


def _differences(found: Mapping[str, int], wanted: Mapping[str, int], words: Callable[[int], str]) -> list[str]:
    problems = [f"{name} is missing (must be {words(width)})" for name, width in wanted.items() if name not in found]
    for name, width in found.items():
        if name not in wanted:
            problems.append(f"{name} is not known")
        elif width != wanted[name]:
            problems.append(f"{name} must be {words(wanted[name])}, not {words(width)}")
    return problems
