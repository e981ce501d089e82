"""Synthesises cores and writes the table in docs/resources.md: resources and modelled logic levels.

    python bench/resources.py [--only NAME] [--json FILE]

Minutes per core the first time (a quarter of an hour for 32 x 32); netlists are cached. The training cores are those for the VCU1525.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.sat import SatArch
from sw.flow import report_sat
from sw.flow.files import load_arch
from sw.flow.resources import CoreResources, core_resources

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "resources.md"
PARTS = {"sat": "xcvu9p-fsgd2104-2L-e"}
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
COLUMNS = ("core", "rows x columns", "LUT", "FF", "BRAM36", "URAM288", "DSP48E2", "logic levels (modelled)", "longest path")


def cores() -> dict[str, Arch]:
    """The cores of the table, by name."""
    return {
        "digits demo": DeformArch(),
        "4 rows": DeformArch(rows=4),
        "training, 8 x 8": SatArch(),
        "training, 32 x 32": report_sat.ARCH,
        "Ultra96-V2": load_arch(str(ROOT / "boards" / "ultra96v2" / "arch.toml")),
    }


def row(name: str, result: CoreResources) -> str:
    """A line of the table."""
    synthesis, arch = result.synthesis, result.arch
    used = [f"{synthesis.resources[resource]:,}" for resource in ("LUT", "FF", "BRAM36", "URAM288", "DSP48E2")]
    path = synthesis.paths.registers[0]
    cells = [name, f"{arch.rows} x {arch.columns}", *used, f"{synthesis.levels:.1f}", f"`{path.start}` to `{path.end}`"]
    return f"| {' | '.join(cells)} |"


def write_page(lines: list[str]) -> None:
    """Replaces the table of the page."""
    head, rest = PAGE.read_text().split(BEGIN)
    _, tail = rest.split(END)
    header = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    PAGE.write_text("\n".join([head + BEGIN, *header, *lines, END + tail]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(cores()), help="one core; prints, and leaves the page alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    chosen = {name: arch for name, arch in cores().items() if options.only in (None, name)}
    results = {name: core_resources(arch, part=PARTS.get(arch.core)) for name, arch in chosen.items()}
    lines = [row(name, result) for name, result in results.items()]
    print("\n".join(lines))
    if options.only is None:
        write_page(lines)
    if options.json:
        options.json.write_text(json.dumps({name: result.to_dict() for name, result in results.items()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
