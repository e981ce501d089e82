"""Synthesises cores and writes the tables of docs/resources.md: resources, their share of the part, and modelled logic levels.

    python bench/resources.py [--only NAME] [--json FILE]

Minutes per core the first time (a quarter of an hour for 32 x 32); netlists are cached. A U200's core and die are the VCU1525's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from accuracy_report import write_tables

from boards.synth import PARTS
from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.sat import SatArch
from sw.flow.files import load_arch
from sw.flow.resources import CoreResources, core_resources

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "resources.md"
ULTRA96, VCU1525 = "xczu3eg-sbva484-1-i", "xcvu9p-fsgd2104-2L-e"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A core on a part."""

    arch: Arch
    part: str

    def measured(self) -> CoreResources:
        return core_resources(self.arch, PARTS[self.part].family, self.part)


def board(name: str) -> Arch:
    return load_arch(str(ROOT / "boards" / name / "arch.toml"))


ROWS = {
    "Ultra96-V2": Row(arch=board("ultra96v2"), part=ULTRA96),
    "digits demo": Row(arch=DeformArch(), part=ULTRA96),
    "digits demo, shift-add": Row(arch=replace(DeformArch(), weight_terms=2), part=ULTRA96),
    "4 rows": Row(arch=DeformArch(rows=4), part=ULTRA96),
    "VCU1525, U200: training": Row(arch=board("vcu1525"), part=VCU1525),
    "training, 8 x 8": Row(arch=SatArch(), part=VCU1525),
}
"""By name; the own cores of the Vivado boards are among them. That of the ULX3S has other cells and is routed (docs/ulx3s.md)."""


def line(name: str, row: Row, result: CoreResources) -> str:
    """A line of a table."""
    synthesis, has = result.synthesis, PARTS[row.part].resources
    used = [f"{synthesis.resources[name]:,} ({synthesis.resources[name] / has[name]:.0%})" if has[name] else "" for name in has]
    path = synthesis.paths.registers[0]
    cells = [name, f"{row.arch.rows} x {row.arch.columns}", *used, f"{synthesis.levels:.1f}", f"`{path.start}` to `{path.end}`"]
    return f"| {' | '.join(cells)} |"


def section(part: str, results: Mapping[str, CoreResources]) -> str:
    """Markdown: the cores on a part."""
    has = PARTS[part].resources
    columns = ("core", "rows x columns", *has, "logic levels (modelled)", "longest path")
    whole = ", ".join(f"{count:,} {name}" for name, count in has.items() if count)
    lines = [f"### {part}, {whole}", "", f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return "\n".join([*lines, *(line(name, ROWS[name], result) for name, result in results.items() if ROWS[name].part == part)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(ROWS), help="one core; prints, and leaves the page alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = {name: row.measured() for name, row in ROWS.items() if options.only in (None, name)}
    parts = dict.fromkeys(ROWS[name].part for name in results)
    sections = {part: section(part, results) for part in parts}
    print("\n\n".join(sections.values()))
    if options.only is None:
        write_tables(PAGE, sections)
    if options.json:
        options.json.write_text(json.dumps({name: result.to_dict() for name, result in results.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
