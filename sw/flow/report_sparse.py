"""The report of `bitloom demo sparse`: loss curves on each other, masks as pictures, cycles of dense and sparse training."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from hw.spec.sparsity import nm_mask
from sw.flow.report_figures import BLUE, GREEN, INK, ORANGE, as_png, as_svg, figure_of, plain
from sw.flow.report_html import facts_row, html_table, page, word
from sw.flow.training_cycles import LayerPass
from sw.training_graph import ConvNode

if TYPE_CHECKING:
    from sw.flow.demo_sparse import SparseResult

LINK_WORDS = {
    "graph_machine": "golden operations = programs in the interpreter: logits, every parameter, velocity and statistic",
    "machine_rtl": "interpreter = Verilog in Verilator: every byte that every instruction writes, in memory and on chip",
    "memory": "all of the device's memory after every step",
    "timing": "timing model = Verilog, cycles of every instruction",
}
SMOOTHING = 20
"""Steps over which the thin curves are averaged for the thick ones."""

PICTURED_LANES = 32


def sparse_page(result: SparseResult) -> str:
    """The whole document."""
    data = result.to_dict()
    config = result.config
    parts = [
        "<h1>Bitloom: digits, trained N:M-sparse on the training core</h1>",
        _verdict(result),
        facts_row([
            (f"{data['float_accuracy']:.2%}", "accuracy, trained in torch"),
            (f"{data['fixed_accuracy']:.2%}", "accuracy, trained as the core computes"),
            (f"{len(result.report.losses)} of {config.steps}", "steps on the simulated core"),
            (f"{data['cycles']:,}", "cycles of a sparse step, from the core"),
            (f"{data['speedup']:.2f}", "times faster than the same step dense"),
            (f"{data['array_speedup']:.2f}", "times fewer cycles of the array alone"),
        ]),
        "<h2>The chain</h2>",
        _links(result),
        "".join(f"<p>{escape(words)}</p>" for words in data["first_mismatches"]),
        "<h2>Loss</h2>",
        f"<p>The same batches of {config.batch} from the same weights, 2 of 8 weights kept in either direction. Torch trains in "
        "float32; the emulator in FP16 and FP32, in the core's order of operations; the core's losses are the emulator's, bit for "
        "bit.</p>",
        loss_figure(result),
        "<h2>Masks</h2>",
        "<p>Which weights of a layer take part, after the last step: forward (2 of 8 input channels) and backward (2 of 8 output "
        "channels) copies of one and the same master. Each column of pixels is an output channel, each row an input channel.</p>",
        masks_figure(result),
        "<h2>Where the cycles go</h2>",
        "<p>One step of the same network, dense and sparse, from the core's trace. This version of the core does one thing after the "
        "other: sparsity saves cycles of the array, transfers and element-wise work stay.</p>",
        cycles_figure(result.dense_layers, result.sparse_layers),
        "<h2>Versions</h2>",
        html_table(("package", "version"), [(escape(k), escape(v)) for k, v in data["versions"].items()]),
    ]  # fmt: skip
    return page("Bitloom: sparse training", parts)


def _verdict(result: SparseResult) -> str:
    if result.ok:
        return '<p class="ok">Every number is equal at every link of the chain, step after step.</p>'
    return '<p class="bad">The chain is broken: see the first differences below.</p>'


def _links(result: SparseResult) -> str:
    rows = []
    for what, report in (("2:8", result.report), ("dense", result.dense)):
        for link in report.links.values():
            words = LINK_WORDS.get(link.name, "")
            rows.append((what, link.name, words, f"{link.compared:,} {link.unit}", f"{link.mismatches:,}", word(link.ok)))
    return html_table(("training", "link", "equal on both sides", "compared", "mismatches", ""), rows, numbers=(3, 4))


def loss_figure(result: SparseResult) -> str:
    """Three trainings in one picture."""
    figure = figure_of(9.0, 3.2)
    axes = figure.subplots()
    for name, losses, colour in (("torch", result.torch.losses, BLUE), ("emulator", result.emulator.losses, ORANGE)):
        axes.plot(losses, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot(_smooth(losses), color=colour, linewidth=1.6, label=name)
    axes.plot(result.report.losses, "o", color=GREEN, markersize=4, label="core (Verilog)")
    axes.set(xlabel="step", ylabel="loss", ylim=(0, None))
    plain(axes)
    axes.legend(frameon=False)
    return as_svg(figure, "loss per step of torch, emulator and core")


def _smooth(values: Sequence[float]) -> np.ndarray:
    window = min(SMOOTHING, len(values))
    total = np.cumsum(np.concatenate([np.zeros(1), np.asarray(values)]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def masks_figure(result: SparseResult) -> str:
    """The masks of each sparse layer, the middle tap of its kernel."""
    nodes = [n for n in result.graph.nodes if isinstance(n, ConvNode) and n.forward_pattern and n.backward_pattern]
    if not nodes:
        return ""
    figure = figure_of(10.0, 1.1 + 1.5 * len(nodes))
    grid = figure.subplots(len(nodes), 3, squeeze=False)
    for row, node in zip(grid, nodes, strict=True):
        masters = result.masters[node.name][node.shape[0] // 2, node.shape[1] // 2][:PICTURED_LANES, :PICTURED_LANES]
        assert node.forward_pattern is not None and node.backward_pattern is not None
        forward, backward = nm_mask(masters, *node.forward_pattern, 0), nm_mask(masters, *node.backward_pattern, 1)
        pictures = (("magnitude", np.abs(masters)), ("forward", forward), ("backward", backward))
        for axes, (name, picture) in zip(row, pictures, strict=True):
            axes.imshow(picture, cmap="gray_r", interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.set_title(f"{node.name}: {name}", fontsize=8, color=INK, pad=2)
    return as_png(figure, "masks of the sparse layers")


def cycles_figure(dense: Sequence[LayerPass], sparse: Sequence[LayerPass]) -> str:
    """Bars of each program and layer, dense above sparse."""
    names = [(layer.program, layer.layer) for layer in dense]
    by_name = {(layer.program, layer.layer): layer for layer in sparse}
    figure = figure_of(10.5, 0.34 * len(names) + 0.9)
    axes = figure.subplots()
    for offset, layers, alpha in ((-0.2, list(dense), 0.55), (0.2, [by_name.get(name) for name in names], 1.0)):
        left = np.zeros(len(names))
        for part, colour in (("array", ORANGE), ("transfer", BLUE), ("other", GREEN)):
            values = np.array([getattr(layer, part) if layer else 0 for layer in layers])
            label = part if offset > 0 else None
            axes.barh(np.arange(len(names)) + offset, values, left=left, color=colour, alpha=alpha, height=0.36, label=label)
            left += values
    axes.set_yticks(np.arange(len(names)), [f"{program}: {layer}" for program, layer in names], fontsize=7)
    axes.set_xlabel("cycles, from issue to retirement; pale: dense, full: sparse")
    axes.invert_yaxis()
    plain(axes)
    axes.legend(frameon=False, loc="lower right")
    return as_svg(figure, "cycles per layer and pass, dense and sparse")
