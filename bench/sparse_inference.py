"""What N:M-sparse weights would bring the inference core: cycles, logic, weight memory, accuracy of patterns that it could skip.

    python bench/sparse_inference.py [--results build/sparse-inference] [--seeds 3] [--only accuracy|cycles|resources] [--json FILE]

The core does not skip zeros; docs/sparse-inference.md says why, and this command makes its tables. Cycles are the timing model's, with
the K loops of 4-bit layers half as long (modelled); resources are those of an array that skips (`skipping_array.py`), synthesised;
accuracies are of 4-bit weights, two of four of which are zero, in patterns that more and more output channels share. About an hour of
one core the first time.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import TASKS, Job, Method, execute, float_network, measured, with_seed
from accuracy_report import Run, interval, paired, scores, write_tables
from amaranth.lib import wiring
from skipping_array import CHOICE_BITS, SkippingArray
from torch import nn

from boards.board import load_board_arch
from boards.synth import SynthesisReport, synthesise
from hw.rtl.deform.array import Array
from hw.rtl.emit import emit
from hw.sim.core import core_name, emit_core
from hw.spec.deform import LANES, DeformArch
from hw.spec.deform.timing.pw import words_per_tile
from hw.spec.fixed import FixedFormat
from hw.spec.program import Program
from hw.spec.sparsity import nm_mask
from sw.flow.report_deform import BOARD, PUBLISHED_FPS, compiled, modelled_times
from sw.flow.terminal import console
from sw.quant import Recipe, export
from sw.quant.train import Trainer

DOCS = Path(__file__).parents[1] / "docs" / "sparse-inference.md"
SEEDS = 3
N, M = 2, 4
SHARED = (1, 2, 32)
"""Output channels that share a pattern: each has its own, the two of a multiplier cell, the 32 of a tile."""

SHARED_WORDS = {1: "each output channel its own", 2: "the two channels of a cell", 32: "the 32 channels of a tile"}


# --- accuracy ---------------------------------------------------------------------------------------------------------


def shared_mask(weight: np.ndarray, channels: int) -> np.ndarray:
    """True where a weight (O, I, ...) stays: N of each M input channels, the same for each ``channels`` output channels.

    The N positions with the largest sums of magnitudes stay; of equal ones the first.
    """
    starts = np.arange(0, len(weight), channels)
    sums = np.add.reduceat(np.abs(weight.astype(np.float64)), starts, axis=0)
    return np.repeat(nm_mask(sums, N, M, 1), np.diff([*starts, len(weight)]), axis=0)


def prunable(network: nn.Module) -> list[nn.Parameter]:
    """Weights (O, I, ...) of layers whose input channels come in groups of M; not the first layer, not depthwise ones."""
    return [p for p in network.parameters() if p.dim() in (2, 4) and p.shape[1] % M == 0]


def prune(network: nn.Module, channels: int) -> None:
    """Set to zero, in place, what `shared_mask` leaves out; once done, doing it again changes nothing."""
    with torch.no_grad():
        for weight in prunable(network):
            weight.mul_(torch.from_numpy(shared_mask(weight.detach().numpy(), channels)))


class PruningTrainer(Trainer):
    """Trains with what the pattern of the first step leaves out held at zero. ``channels``: 0 prunes nothing."""

    channels = 0

    def _step(self, network: nn.Module, batch: Any) -> float:
        if self.channels:
            prune(network, self.channels)
        loss = super()._step(network, batch)
        if self.channels:
            prune(network, self.channels)
        return loss


@dataclass(frozen=True, kw_only=True)
class Pattern(Method):
    """A row of accuracies: 4-bit weights, 8-bit activations; ``channels`` share a pattern, 0: dense."""

    kind: str = "learned"
    bits: int = 4
    channels: int = 0

    @property
    def name(self) -> str:
        return f"w4a8 {N}of{M} shared {self.channels}" if self.channels else "w4a8 dense"

    @property
    def title(self) -> str:
        return f"{N}:{M}, {SHARED_WORDS[self.channels]}" if self.channels else "dense"

    def recipe(self, input_format: FixedFormat) -> Recipe:
        return Recipe(weight_bits=4, first_layer_weight_bits=8, activation_bits=8, input_format=input_format)


ROWS = (Pattern(), *(Pattern(channels=channels) for channels in SHARED))


def trained(results: Path, seeds: int) -> list[Run]:
    """Runs of all rows on both tasks: from the float network of a seed, in float and then in fixed point, for as many epochs each."""
    tasks = [task() for task in TASKS.values()]
    jobs: list[Job] = [(task, seed, row) for task in tasks for seed in range(seeds) for row in (Method(kind="float"), *ROWS)]

    def run(task: Any, seed: int, method: Method) -> Run:
        begin, start = time.perf_counter(), float_network(task, seed, results / f"{task.name}-{task.settings}-{seed}.float")
        if not isinstance(method, Pattern):
            return measured(task, method, seed, start, begin)
        epochs = task.training["fixed_epochs"]
        config = with_seed(task, seed, float_epochs=epochs, float_rate=task.training["fixed_rate"])
        trainer = PruningTrainer(lambda: copy.deepcopy(start), task, method.recipe(task.input_format), config, augment=task.augment)
        trainer.channels = method.channels
        found = trainer.run()
        assert found is not None
        check_pattern(export(found.model, task.train_images[:1]), method.channels)
        return measured(task, method, seed, found.model, begin)

    return execute(jobs, results, run)


def check_pattern(graph: Any, channels: int) -> int:
    """ValueError unless the codes of all layers that are to be pruned have the pattern; how many codes were looked at."""
    looked = 0
    for node in graph.nodes if channels else ():
        weight = np.asarray(getattr(node.operation, "weight", np.zeros((1, 1))))
        if node.operation.op in ("conv2d", "linear") and weight.shape[1] % M == 0:
            left = weight.reshape(len(weight), weight.shape[1] // M, M, -1) != 0
            if left.sum(axis=2).max(initial=0) > N:
                raise ValueError(f"layer {node.name} must have at most {N} of {M} weights that are not 0")
            looked += weight.size
    return looked


def accuracy_section(runs: Sequence[Run]) -> str:
    """Markdown: a row for each pattern, both tasks."""
    lines = []
    for name in TASKS:
        found = scores(runs, name)
        images = next(run.images for run in runs if run.task == name)
        lines += [f"### accuracy, {name}, {images:,} test images, {len(found['float'])} seeds", "",
                  f"Float: {interval(list(found['float'].values())).text()} %.", "",
                  "| 4-bit weights, 8-bit activations | accuracy, % | − dense, points |", "|---|---|---|"]
        for row in ROWS:
            gain = paired(found, row.name, ROWS[0].name)
            less = gain.text("+") if gain and row.channels else ""
            lines.append(f"| {row.title} | {interval(list(found[row.name].values())).text()} | {less} |")
        lines.append("")
    return "\n".join(lines).rstrip()


# --- cycles -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Cycles of an image by unit, dense, and what the array would save if each K loop of a 4-bit layer were N/M as long."""

    load: int
    array: int
    depthwise: int
    store: int
    saved: int

    @property
    def total(self) -> int:
        return self.load + self.array + self.depthwise + self.store

    @property
    def hidden(self) -> int:
        """The frame if transfers cost nothing."""
        return self.array + self.depthwise


def saved_cycles(instruction: Any, arch: DeformArch) -> int:
    """Steps that skipping leaves out of the K loops of a PW instruction; gaps and drains stay as they are."""
    if instruction.name != "PW" or instruction["wide_weights"]:
        return 0
    pixel_tiles = -(-(instruction["out_rows"] * instruction["out_cols"]) // arch.rows)
    word_tiles = -(-instruction["out_words"] // words_per_tile(arch, wide=False))
    steps = LANES * instruction["kernel_h"] * instruction["kernel_w"] * instruction["in_words"]
    return pixel_tiles * word_tiles * (steps - steps * N // M)


def frame(program: Program, arch: DeformArch) -> Frame:
    """Of a program; an instruction after the other, fetches left out."""
    instructions, times = program.instructions(), modelled_times(program)
    of = {name: sum(time.cycles for time in times if instructions[time.index].name == name) for name in ("LOAD", "PW", "DW", "STORE")}
    return Frame(load=of["LOAD"], array=of["PW"], depthwise=of["DW"], store=of["STORE"],
                 saved=sum(saved_cycles(i, arch) for i in instructions))


def arches() -> dict[str, DeformArch]:
    """The Ultra96's core, and one of as many cells whose feature memory can feed an array that skips."""
    board = load_board_arch(BOARD)
    return {"16 x 32": board, "8 x 64": replace(board, rows=8, columns=64, weight_words=board.weight_words // 2)}


def cycles() -> dict[str, dict[str, Frame]]:
    """Frames of CoDeNet's configurations by architecture."""
    return {name: {words: frame(compiled(name, arch)[-1], arch) for words, arch in arches().items()} for name in PUBLISHED_FPS}


def cycles_section(found: Mapping[str, Mapping[str, Frame]]) -> str:
    """Markdown: dense on both arrays, and what skipping would leave."""
    lines = [f"### cycles of an image, CoDeNet, 512 multiply-accumulates a cycle, weights {N}:{M} (modelled)", "",
             "| configuration | 16 x 32, dense | 8 x 64, dense | 8 x 64, skipping | faster than 16 x 32 "
             "| without transfers: 16 x 32, dense | 8 x 64, skipping | faster |", f"|{'---|' * 8}"]
    for name, frames in found.items():
        dense, wide = frames["16 x 32"], frames["8 x 64"]
        left, hidden = wide.total - wide.saved, wide.hidden - wide.saved
        lines.append(f"| {name} | {dense.total:,} | {wide.total:,} | {left:,} | {dense.total / left:.2f} "
                     f"| {dense.hidden:,} | {hidden:,} | {dense.hidden / hidden:.2f} |")
    return "\n".join(lines)


# --- resources --------------------------------------------------------------------------------------------------------


ARRAYS: dict[str, Callable[[DeformArch], wiring.Component]] = {
    "dense": Array,
    SHARED_WORDS[2]: lambda arch: SkippingArray(arch, shared=False),
    SHARED_WORDS[32]: lambda arch: SkippingArray(arch, shared=True),
}


def resources() -> tuple[dict[str, SynthesisReport], dict[str, SynthesisReport]]:
    """Arrays of 8 x 64 multiply-accumulates a cycle by pattern, and whole dense cores by shape."""
    arch = arches()["8 x 64"]
    arrays = {words: synthesise(emit(kind(arch), "array").text, "array", say=console.print) for words, kind in ARRAYS.items()}
    cores = {words: synthesise(emit_core(of).text, core_name(of), say=console.print) for words, of in arches().items()}
    return arrays, cores


def used(report: SynthesisReport, *names: str) -> str:
    return " | ".join(f"{report.resources[name]:,}" for name in names)


def resources_section(arrays: Mapping[str, SynthesisReport], cores: Mapping[str, SynthesisReport]) -> str:
    """Markdown: a row for each array, a row for each core."""
    arch = arches()["8 x 64"]
    cells = arch.rows * arch.cells
    bits = {"dense": M * 4, SHARED_WORDS[2]: N * (4 + CHOICE_BITS / 2), SHARED_WORDS[32]: N * (4 + CHOICE_BITS / 32)}
    lines = [f"### resources of the array, {arch.rows} x {arch.columns} in {cells} cells", "",
             "| pattern | LUT | FF | DSP48E2 | LUT a cell | logic levels (modelled) | bits of weights, a channel and four inputs |",
             f"|{'---|' * 7}"]
    for words, report in arrays.items():
        each = report.resources["LUT"] / cells
        lines.append(f"| {words} | {used(report, 'LUT', 'FF', 'DSP48E2')} | {each:.0f} | {report.levels:.1f} | {bits[words]:.3g} |")
    lines += ["", "### resources of dense cores of 512 multiply-accumulates a cycle", "",
              "| rows x columns | LUT | FF | BRAM36 | DSP48E2 | logic levels (modelled) |", f"|{'---|' * 6}"]
    for words, report in cores.items():
        lines.append(f"| {words} | {used(report, 'LUT', 'FF', 'BRAM36', 'DSP48E2')} | {report.levels:.1f} |")
    return "\n".join(lines)


# --- the command ------------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=Path("build") / "sparse-inference")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--only", choices=("accuracy", "cycles", "resources"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    texts, numbers = {}, {}
    if args.only in (None, "cycles"):
        frames = cycles()
        texts["cycles"] = cycles_section(frames)
        numbers["cycles"] = {name: {arch: vars(of) for arch, of in each.items()} for name, each in frames.items()}
    if args.only in (None, "resources"):
        reports = resources()
        texts["resources"] = resources_section(*reports)
        numbers["resources"] = [{words: report.to_dict() for words, report in of.items()} for of in reports]
    if args.only in (None, "accuracy"):
        runs = trained(args.results, args.seeds)
        texts["accuracy"] = accuracy_section(runs)
        numbers["accuracy"] = [vars(run) for run in runs]
    write_tables(DOCS, texts)
    for text in texts.values():
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    if args.json:
        args.json.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
