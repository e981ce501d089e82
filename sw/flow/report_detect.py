"""The report of `bitloom demo detect`: boxes on scenes, sampling points, losses, cycles per layer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.ops import OFFSET_MAX, OFFSET_MIN, DeformDepthwiseConv2d
from sw.flow.demo_detect import SHOWN_SCORE
from sw.flow.report_figures import BLUE, GREEN, GRID, ORANGE, as_png, as_svg, cycles_figure, figure_of, plain
from sw.flow.report_html import alive_table, facts_row, html_table, links_table, page

if TYPE_CHECKING:
    from sw.data.scenes import Scenes
    from sw.flow.demo_detect import DetectResult

PER_ROW = 4


def detect_page(result: DetectResult) -> str:
    """The report."""
    data = result.to_dict()
    verdict = "Every number is equal at every link of the chain." if result.ok else "The chain is broken: see the first differences."
    parts = [
        "<h1>Bitloom: a detector, from training to Verilog</h1>",
        f'<p class="{"ok" if result.ok else "bad"}">{verdict}</p>',
        facts_row([
            (f"{result.float_ap50:.1%}", f"AP50 in float, {result.config.test} scenes"),
            (f"{result.fixed_ap50:.1%}", "AP50 with 4-bit weights, 8-bit activations, whole-pixel offsets"),
            (f"{result.core_ap50:.1%}", f"AP50 of the core's boxes, {result.report.images} scenes"),
            (f"{data['cycles']:,}", "cycles per scene, from the core's counter"),
            (f"{data['macs']:,}", "multiply-accumulates per scene"),
        ]),
        "<h2>What the core saw</h2>",
        f"<p>Boxes of the core's scores, of {SHOWN_SCORE:g} and above, with their score; the true ones are thin and green.</p>",
        boxes_figure(result),
        "<h2>Where the deformable layers look</h2>",
        "<p>Nine taps of a few output pixels of each deformable layer, blue to orange as their step grows, over the first scene.</p>",
        taps_figure(result),
        "<h2>The chain</h2>",
        links_table(result.report),
        "".join(f"<p>{escape(words)}</p>" for words in result.report.first),
        "<h2>Where the cycles go</h2>",
        cycles_figure(result.layers) if result.report.times else "",
        "<h2>Training</h2>",
        losses_figure(result),
        "<h2>Are the tensors alive?</h2>",
        alive_table(result.report),
        "<h2>Hashes and versions</h2>",
        html_table(("what", "sha256 or identity"), [(k, f"<code>{escape(v)}</code>") for k, v in data["hashes"].items()]),
        html_table(("package", "version"), [(escape(k), escape(v)) for k, v in data["versions"].items()]),
    ]  # fmt: skip
    return page("Bitloom: detection", parts)


def boxes_figure(result: DetectResult) -> str:
    """Scenes with the core's boxes and the true ones."""
    from matplotlib.patches import Rectangle

    scenes, count = result.scenes, len(result.boxes)
    if not count:
        return "<p>The core did not finish.</p>"
    rows = -(-count // PER_ROW)
    figure = figure_of(11.0, 2.8 * rows)
    for place, axes in enumerate(figure.subplots(rows, PER_ROW, squeeze=False).reshape(-1)):
        axes.axis("off")
        if place >= count:
            continue
        _show(axes, scenes, place)
        for x0, y0, x1, y1 in scenes.boxes[place].tolist():
            axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=GREEN, linewidth=0.9))
        found = result.boxes[place]
        for box, score in zip(found.boxes.tolist(), found.scores.tolist(), strict=True):
            if score >= SHOWN_SCORE:
                x0, y0, x1, y1 = box
                axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=ORANGE, linewidth=1.8))
                axes.text(x0, y0, f"{score:.2f}", fontsize=7, va="bottom", color="white",
                          bbox={"facecolor": ORANGE, "edgecolor": "none", "pad": 1})  # fmt: skip
    return as_png(figure, "scenes with the boxes that the core found and the true ones")


def taps_figure(result: DetectResult) -> str:
    """Sampling points of each deformable layer over the first scene; "" without such a layer."""
    nodes = [node for node in result.graph.nodes if isinstance(node.operation, DeformDepthwiseConv2d)]
    if not nodes:
        return ""
    figure = figure_of(11.0, 11.0 / len(nodes))
    for axes, node in zip(figure.subplots(1, len(nodes), squeeze=False)[0], nodes, strict=True):
        s = node.operation.pixels(result.trace[node.inputs[1]][0, 0])
        scale = result.scenes.images.shape[-1] / result.graph.tensors[node.inputs[0]].shape[-1]
        _show(axes, result.scenes, 0, alpha=0.6)
        _taps(axes, s, scale, node.operation.stride)
        axes.set_title(f"{node.name}: steps {s.min():g} to {s.max():g}", fontsize=8)
        axes.set(xticks=[], yticks=[])
    return as_png(figure, "sampling points of the deformable layers")


def _taps(axes: Any, s: np.ndarray, scale: float, stride: int) -> None:
    """Nine taps of three by three output pixels that divide the map evenly."""
    rows, columns = (np.unique(((np.arange(3) + 0.5) * size / 3).astype(int)) for size in s.shape)
    for y in rows:
        for x in columns:
            step = float(s[y, x])
            taps = np.array([(y * stride + step * i, x * stride + step * j) for i in (-1, 0, 1) for j in (-1, 0, 1)])
            share = (step - OFFSET_MIN) / (OFFSET_MAX - OFFSET_MIN)
            axes.plot((taps[:, 1] + 0.5) * scale, (taps[:, 0] + 0.5) * scale, ".", markersize=5, color=_between(share))


def _between(share: float) -> tuple[float, ...]:
    """A colour from blue (0) to orange (1)."""
    from matplotlib.colors import to_rgb

    return tuple((1 - share) * a + share * b for a, b in zip(to_rgb(BLUE), to_rgb(ORANGE), strict=True))


def _show(axes: Any, scenes: Scenes, place: int, alpha: float = 1.0) -> None:
    size = scenes.images.shape[-1]
    image = scenes.images[place].permute(1, 2, 0).numpy()
    axes.imshow(image, interpolation="nearest", extent=(0, size, size, 0), alpha=alpha)
    axes.set(xlim=(-1, size + 1), ylim=(size + 1, -1))


def losses_figure(result: DetectResult) -> str:
    """Total and heat loss over the steps of both phases."""
    figure = figure_of(10.5, 2.6)
    for axes, (phase, reports) in zip(
        figure.subplots(1, 2), (("float", result.float_losses), ("fixed point", result.fixed_losses)), strict=True
    ):
        steps = [report.step for report in reports]
        for name, colour in (("total", ORANGE), ("heat", BLUE)):
            axes.plot(steps, [getattr(report, name) for report in reports], color=colour, label=name)
        axes.set(xlabel=f"step, {phase}", ylabel="loss")
        plain(axes)
        axes.grid(color=GRID, linewidth=0.6)
        axes.legend(frameon=False)
    return as_svg(figure, "losses of both phases")
