"""Writes the reference pages that come from the tables: ``python -m hw.spec.reference [folder]`` (default docs/reference)."""

from __future__ import annotations

import sys
from pathlib import Path

from hw.spec import deform, regs, sat
from hw.spec.program import write_atomically

DEFAULT_REGIONS = deform.DeformArch().regions


def pages() -> dict[str, str]:
    """File name to content of every generated page."""
    return {
        "instructions-deform.md": deform.INSTRUCTIONS.to_markdown(),
        "instructions-sat.md": sat.INSTRUCTIONS.to_markdown(),
        "registers.md": regs.to_markdown(DEFAULT_REGIONS),
        "bitloom_regs.h": regs.to_c_header(DEFAULT_REGIONS),
    }


def main(folder: str = "docs/reference") -> None:
    for name, text in pages().items():
        write_atomically(Path(folder) / name, text.encode())
        print(Path(folder) / name)


if __name__ == "__main__":
    main(*sys.argv[1:2])
