"""Runs a notebook's code cells, unchanged, one after another; imported where only numpy and Matplotlib are, too."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "notebooks"


def code_cells(name: str) -> list[str]:
    """The code of a notebook's cells."""
    cells = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_cells(name: str, pictures: Path) -> tuple[str, int]:
    """What the cells printed, and how many figures they showed; each is left in the folder ``pictures``."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = 0

    def show(*given: Any, **more: Any) -> None:
        nonlocal shown
        for number in pyplot.get_fignums():
            shown += 1
            pyplot.figure(number).savefig(pictures / f"{name}-{shown}.png")
        pyplot.close("all")

    kept, pyplot.show = pyplot.show, show
    printed, space = io.StringIO(), {"__name__": "__main__"}
    try:
        with contextlib.redirect_stdout(printed):
            for number, code in enumerate(code_cells(name)):
                exec(compile(code, f"{name}, code cell {number}", "exec"), space)
    finally:
        pyplot.show = kept
    return printed.getvalue(), shown
