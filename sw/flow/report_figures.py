"""The pictures of a report, each as an inline SVG or PNG element."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hw.spec.ops import DeformDepthwiseConv2d
from sw.flow.layers import LayerCycles
from sw.graph import IntegerGraph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sw.quant.train import Progress

INK, GRID = "#1f2933", "#d8dee6"
BLUE, ORANGE, GREEN, RED = "#2f6fb0", "#e08a2e", "#4c9a6a", "#c23b3b"
DIGITS_PER_ROW = 20
DEFORM_PANELS = 6


def figure_of(width: float, height: float) -> Figure:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    # Equal inputs give equal bytes: SVG identifiers come from a salt, else they are random.
    matplotlib.rcParams.update({"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "bitloom", "text.color": INK})
    matplotlib.rcParams.update({"axes.edgecolor": GRID, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK})
    return Figure(figsize=(width, height), layout="constrained")


def as_svg(figure: Figure, words: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return f'<figure role="img" aria-label="{words}">{text[text.index("<svg") :]}</figure>'


def as_png(figure: Figure, words: str) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="{words}" src="data:image/png;base64,{data}"></figure>'


def plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def curves_png(history: Sequence[Progress]) -> bytes:
    """Loss and held-out accuracy by epoch, the float and the fixed-point phase one after the other, as a PNG file."""
    figure = figure_of(8.0, 3.0)
    loss, score = figure.subplots(1, 2)
    epochs = np.arange(1, len(history) + 1)
    for axes, values, name in ((loss, [p.loss for p in history], "loss"), (score, [p.accuracy for p in history], "held-out score")):
        for phase, color in (("float", BLUE), ("fixed", ORANGE)):
            chosen = [i for i, p in enumerate(history) if p.phase == phase]
            axes.plot(epochs[chosen], [values[i] for i in chosen], marker="o", markersize=3, color=color, label=phase)
        axes.set(xlabel="epoch", ylabel=name)
        plain(axes)
    score.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    return buffer.getvalue()


def digits_figure(images: np.ndarray, labels: np.ndarray, predictions: np.ndarray) -> str:
    """Images (N, 1, H, W) with the class that the core gave; wrong ones are framed and show the label too."""
    rows = -(-len(images) // DIGITS_PER_ROW)
    figure = figure_of(10.5, 0.66 * rows)
    grid = figure.subplots(rows, DIGITS_PER_ROW, squeeze=False)
    for place, axes in enumerate(grid.reshape(-1)):
        axes.set_xticks([])
        axes.set_yticks([])
        if place >= len(images):
            axes.axis("off")
            continue
        right = predictions[place] == labels[place]
        axes.imshow(images[place, 0], cmap="gray_r", interpolation="nearest")
        title = str(predictions[place]) if right else f"{predictions[place]} not {labels[place]}"
        axes.set_title(title, fontsize=8, color=GREEN if right else RED, pad=2, weight="normal" if right else "bold")
        for spine in axes.spines.values():
            spine.set(color=GRID if right else RED, linewidth=0.6 if right else 2)
    return as_png(figure, "verified digits with the class that the core gave")


def deform_figure(graph: IntegerGraph, trace: dict[str, np.ndarray], images: np.ndarray) -> str:
    """Where the deformable layer looks: the nine taps of two output pixels, over the input image; "" without such a layer."""
    node = next((n for n in graph.nodes if isinstance(n.operation, DeformDepthwiseConv2d)), None)
    if node is None:
        return ""
    offsets = node.operation.pixels(trace[node.inputs[1]][:, 0])
    count = min(DEFORM_PANELS, len(images))
    figure = figure_of(10.5, 10.5 / DEFORM_PANELS * 1.15)
    panels = figure.subplots(1, DEFORM_PANELS, squeeze=False)[0]
    for axes in panels[count:]:
        axes.axis("off")
    scale = images.shape[-1] / graph.tensors[node.inputs[0]].shape[-1]
    for axes, image, s in zip(panels, images[:count, 0], offsets[:count], strict=False):
        _draw_taps(axes, image, s, scale, node.operation.stride)
    return as_png(figure, "sampling points of the deformable layer")


def _draw_taps(axes: Any, image: np.ndarray, s: np.ndarray, scale: float, stride: int) -> None:
    """The taps of the output pixels with the smallest and the largest step; ``scale`` image pixels per feature pixel."""
    size = image.shape[-1]
    axes.imshow(image, cmap="gray_r", alpha=0.55, interpolation="nearest", extent=(0, size, size, 0))
    for (y, x), colour in ((_central(s, s.min()), BLUE), (_central(s, s.max()), ORANGE)):
        step = float(s[y, x])
        taps = [(y * stride + step * i, x * stride + step * j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        points = (np.array(taps) + 0.5) * scale
        axes.plot(points[:, 1], points[:, 0], ".", color=colour, markersize=8, clip_on=True, label=f"s = {step:g}")
    axes.set(xlim=(-size / 4, 1.25 * size), ylim=(1.25 * size, -size / 4), xticks=[], yticks=[])
    axes.add_patch(_frame(size))
    axes.legend(
        fontsize=7,
        loc="upper center",
        bbox_to_anchor=(0.5, 0),
        ncols=2,
        frameon=False,
        handletextpad=0,
        columnspacing=0.6,
        borderpad=0,
    )
    for spine in axes.spines.values():
        spine.set_visible(False)


def _central(s: np.ndarray, value: int) -> tuple[int, int]:
    """The most central output pixel (y, x) with a step."""
    places = np.argwhere(s == value)
    distance = np.abs(places - (np.array(s.shape) - 1) / 2).sum(axis=1)
    y, x = places[distance.argmin()]
    return int(y), int(x)


def _frame(size: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((0, 0), size, size, fill=False, edgecolor=INK, linewidth=0.8)


def cycles_figure(layers: Sequence[LayerCycles]) -> str:
    """Stacked bars of load, compute and store per layer, with the array's utilisation beside the layers that use it."""
    figure = figure_of(10.5, 0.27 * len(layers) + 0.8)
    bars, used = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
    names = [layer.layer for layer in layers]
    left = np.zeros(len(layers))
    for part, colour in (("load", BLUE), ("compute", ORANGE), ("store", GREEN)):
        values = np.array([getattr(layer, part) for layer in layers])
        bars.barh(names, values, left=left, color=colour, label=part, height=0.7)
        left += values
    bars.set_xlabel("cycles, from issue to retirement")
    bars.legend(frameon=False, loc="lower right")
    bars.invert_yaxis()
    used.barh(names, [100 * (layer.utilisation or 0) for layer in layers], color=ORANGE, height=0.7)
    used.set_xlabel("array utilisation while computing, %")
    used.set_xlim(0, 100)
    for axes in (bars, used):
        plain(axes)
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
    return as_svg(figure, "cycles and utilisation per layer")


def loss_figure(history: Sequence[Any]) -> str:
    """Loss and held-out accuracy over the epochs of both phases."""
    figure = figure_of(10.5, 2.6)
    loss, accuracy = figure.subplots(1, 2)
    for phase, colour in (("float", BLUE), ("fixed", ORANGE)):
        epochs = [i + 1 for i, p in enumerate(history) if p.phase == phase]
        mine = [p for p in history if p.phase == phase]
        label = {"float": "float", "fixed": "fixed point"}[phase]
        loss.plot(epochs, [p.loss for p in mine], color=colour, label=label)
        accuracy.plot(epochs, [100 * p.accuracy for p in mine], color=colour, label=label)
    loss.set(xlabel="epoch", ylabel="training loss", yscale="log")
    accuracy.set(xlabel="epoch", ylabel="held-out accuracy, %")
    for axes in (loss, accuracy):
        plain(axes)
        axes.grid(color=GRID, linewidth=0.6)
        axes.legend(frameon=False)
    return as_svg(figure, "loss and accuracy over the epochs")
