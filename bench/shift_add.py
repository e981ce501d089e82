"""Cores with and without multipliers side by side: resources, logic levels, and the accuracy of weights that each takes.

    python bench/shift_add.py [--results build/shift-add] [--seeds 3] [--only resources] [--json FILE]

Resources are those of open synthesis for the XCZU3EG: of the array alone and of the whole core of the digits demo (8 x 32), with cells
that multiply and with cells that add one or two signed powers of two. Accuracies are on the digits of `bench/accuracy.py`, whose float
networks and training they share. Writes the tables of docs/shift-add.md; about half an hour of one core the first time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import Job, Method, digits_task, execute, float_network, measured, network_of
from accuracy_report import Run, interval, paired, scores, write_tables

from boards.synth import SynthesisReport, synthesise
from hw.rtl.deform.array import Array
from hw.rtl.emit import emit
from hw.sim.core import core_name, emit_core
from hw.spec.deform import DeformArch
from hw.spec.deform.digits import is_taken
from hw.spec.fixed import FixedFormat
from hw.spec.program import write_atomically
from sw.compiler.proof import digits, is_wide
from sw.flow.terminal import console
from sw.quant import Recipe, export
from sw.quant.model import QuantModel

DOCS = Path(__file__).parents[1] / "docs" / "shift-add.md"
SEEDS = 3
TERMS = (0, 1, 2)
CELLS = {0: "multiplier", 1: "one power of two", 2: "two powers of two"}
ARCH = DeformArch()
COUNTED = ("LUT", "FF", "DSP48E2")


@dataclass(frozen=True, kw_only=True)
class Weights(Method):
    """A row of accuracies: weights of ``bits`` limited to ``digits``; activations have 8 bits."""

    kind: str = "learned"

    @property
    def name(self) -> str:
        limit = f" {self.digit_kind} {self.digits}" if self.digits else ""
        return f"weights {self.bits}{limit}"

    @property
    def title(self) -> str:
        """The row in words."""
        if self.bits == 1:
            return "1 bit: -1 or 1"
        if not self.digits:
            return f"{self.bits} bits: -{2 ** (self.bits - 1) - 1} to {2 ** (self.bits - 1) - 1}"
        kind = "one bits" if self.digit_kind == "k_hot" else "signed powers of two"
        return f"{self.bits} bits, K = {self.digits} {kind}"

    def recipe(self, input_format: FixedFormat) -> Recipe:
        return Recipe(weight_bits=self.bits, first_layer_weight_bits=self.bits, activation_bits=8, input_format=input_format,
                      weight_digits=self.digits, digit_kind=self.digit_kind)


ROWS = (
    Weights(bits=8), *(Weights(bits=8, digits=k, digit_kind=kind) for k in (3, 2, 1) for kind in ("signed", "k_hot")),
    Weights(bits=4), Weights(bits=4, digits=1, digit_kind="signed"), Weights(bits=2), Weights(bits=1),
)  # fmt: skip


# --- resources --------------------------------------------------------------------------------------------------------


def resources() -> dict[str, dict[int, SynthesisReport]]:
    """Array and whole core by terms."""
    found: dict[str, dict[int, SynthesisReport]] = {"array": {}, "core": {}}
    for terms in TERMS:
        arch = replace(ARCH, weight_terms=terms)
        array = emit(Array(arch), "array")
        found["array"][terms] = synthesise(array.text, "array", say=console.print)
        found["core"][terms] = synthesise(emit_core(arch).text, core_name(arch), say=console.print)
    return found


def resources_section(found: dict[str, dict[int, SynthesisReport]]) -> str:
    """Markdown: the array, a cell of it, the core."""
    cells = ARCH.rows * ARCH.cells
    lines = [f"### resources, {ARCH.rows} x {ARCH.columns} multiply-accumulates a cycle in {cells} cells", "",
             "| cells | array: LUT | FF | DSP48E2 | LUT a cell | levels | core: LUT | FF | DSP48E2 | levels |", f"|{'---|' * 10}"]
    for terms in TERMS:
        array, core = (found[part][terms] for part in ("array", "core"))
        used = [[f"{report.resources[name]:,}" for name in COUNTED] for report in (array, core)]
        lines.append(f"| {CELLS[terms]} | {' | '.join(used[0])} | {array.resources['LUT'] / cells:.0f} | {array.levels:.1f} "
                     f"| {' | '.join(used[1])} | {core.levels:.1f} |")
    return "\n".join(lines)


# --- accuracy ---------------------------------------------------------------------------------------------------------


def needed_terms(model: QuantModel, images: torch.Tensor) -> int:
    """The fewest terms of cells that take every weight of the array's layers; 2 take any."""
    graph = export(model, images[:1])
    weights = [np.asarray(node.operation.weight) for node in graph.nodes if node.operation.op in ("conv2d", "linear")]
    parts = [part for weight in weights for part in (digits(weight) if is_wide(weight) else (weight,))]
    return 1 if all(is_taken(part, 1).all() for part in parts) else 2


def trained(results: Path, seeds: int) -> tuple[list[Run], dict[str, int]]:
    """Runs of all rows, and the terms that each row's networks need, of all seeds the most."""
    task = digits_task()
    jobs: list[Job] = [(task, seed, row) for seed in range(seeds) for row in (Method(kind="float"), *ROWS)]

    def run(task: Any, seed: int, method: Method) -> Run:
        begin, start = time.perf_counter(), float_network(task, seed, results / f"{task.name}-{task.settings}-{seed}.float")
        model = network_of(task, method, seed, start)
        if isinstance(model, QuantModel):
            write_atomically(_terms_path(results, seed, method), f"{needed_terms(model, task.train_images)}\n".encode())
        return measured(task, method, seed, model, begin)

    runs = execute(jobs, results, run)
    terms = {row.name: max(int(_terms_path(results, seed, row).read_text()) for seed in range(seeds)) for row in ROWS}
    return runs, terms


def _terms_path(results: Path, seed: int, method: Method) -> Path:
    return results / f"{method.name.replace(' ', '-')}-{seed}.terms"


def accuracy_section(runs: Sequence[Run], terms: dict[str, int]) -> str:
    """Markdown: a row for each kind of weights."""
    found = scores(runs, "digits")
    lines = [f"### accuracy, digits, {runs[0].images} test images, {len(found['float'])} seeds", "",
             f"Float: {interval(list(found['float'].values())).text()} %.", "",
             "| weights | accuracy, % | − float, points | cells without multiplier that take them |", "|---|---|---|---|"]
    for row in ROWS:
        gain = paired(found, row.name, "float")
        assert gain is not None
        mean = interval(list(found[row.name].values())).text()
        lines.append(f"| {row.title} | {mean} | {gain.text('+')} | {'one term, or two' if terms[row.name] == 1 else 'two terms'} |")
    return "\n".join(lines)


# --- the command ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("build") / "shift-add")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", choices=("resources", "accuracy"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    sections, numbers = {}, {}
    if args.only != "accuracy":
        found = resources()
        sections["resources"] = resources_section(found)
        numbers["resources"] = {part: {CELLS[terms]: report.to_dict() for terms, report in of.items()} for part, of in found.items()}
    if args.only != "resources":
        runs, terms = trained(args.results, args.seeds)
        sections["accuracy"] = accuracy_section(runs, terms)
        numbers["accuracy"] = {"runs": [run.__dict__ for run in runs], "terms": terms}
    write_tables(DOCS, sections)
    for text in sections.values():
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
