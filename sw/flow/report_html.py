"""Reports as one self-contained HTML file: no scripts, no links to elsewhere, pictures inline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from sw.flow.chain import Report
from sw.flow.report_figures import cycles_figure, deform_figure, digits_figure, loss_figure

if TYPE_CHECKING:
    from sw.flow.demo_digits import DigitsResult

_STYLE = """
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1f2933; background: #fff; max-width: 1080px;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d8dee6 }
table { border-collapse: collapse; margin: .6rem 0 } th, td { padding: .2rem .8rem; text-align: left; border-bottom: 1px solid #e8ecf1 }
th { font-weight: 600; background: #f5f7f9 } td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
figure { margin: .6rem 0 } figure svg, figure img { max-width: 100%; height: auto }
.ok { color: #2d7a4b; font-weight: 600 } .bad { color: #c23b3b; font-weight: 600 }
.facts { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1rem 0 } .facts div { border: 1px solid #d8dee6; border-radius: 6px;
         padding: .5rem .9rem; min-width: 8rem } .facts b { display: block; font-size: 1.3rem } .facts span { color: #52606d }
code { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere } p { max-width: 60rem }
""".strip()

LINK_WORDS = {
    "torch_graph": "fixed-point forward of the torch model = integer graph, every tensor",
    "graph_ops": "graph read back from its file = golden operations, node by node",
    "ops_machine": "graph = program in the interpreter, every tensor that it stores",
    "machine_rtl": "interpreter = Verilog in Verilator, every byte that every instruction writes, in memory and on chip",
    "timing": "timing model = Verilog, cycles of every instruction",
}


def digits_page(result: DigitsResult) -> str:
    """The report of `bitloom demo digits`."""
    data = result.to_dict()
    images = result.codes / 16.0
    parts = [
        "<h1>Bitloom: handwritten digits, from training to Verilog</h1>",
        _verdict(result.report),
        facts_row([
            (f"{data['float_accuracy']:.2%}", "float accuracy"),
            (f"{data['fixed_accuracy']:.2%}", f"fixed-point accuracy, {data['held_out_images']} held-out images"),
            (f"{data['cycles']:,}", "cycles per image, from the core's counter"),
            (f"{data['macs']:,}", "multiply-accumulates per image"),
            (f"{data['mac_utilisation']:.1%}", "of the array's peak, over all cycles"),
            (f"{data['simulated_cycles_per_second']:,.0f}", "simulated cycles per second"),
        ]),
        "<h2>The chain</h2>",
        links_table(result.report),
        _first_differences(result.report),
        "<h2>What the core saw and said</h2>",
        f"<p>{len(images)} held-out images that ran through the Verilog. The number is the class that the core gave.</p>",
        digits_figure(images, result.labels, result.predictions) if len(result.predictions) else "",
        "<h2>Where the deformable layer looks</h2>",
        "<p>Nine taps of two output pixels per image: the smallest step s (blue) and the largest (orange) that the network chose. "
        "Taps outside the frame read zero.</p>",
        deform_figure(result.graph, result.trace, images),
        "<h2>Where the cycles go</h2>",
        _cycles_words(data),
        cycles_figure(result.layers) if result.report.times else "",
        "<h2>Training</h2>",
        loss_figure(result.trained.history) if result.trained.history else "",
        "<h2>Are the tensors alive?</h2>",
        "<p>Equal zeros prove little. Fractions over all compared images; a code is saturated at the end of its format.</p>",
        alive_table(result.report),
        "<h2>Hashes and versions</h2>",
        html_table(("what", "sha256 or identity"), [(k, f"<code>{escape(v)}</code>") for k, v in data["hashes"].items()]),
        html_table(("package", "version"), [(escape(k), escape(v)) for k, v in data["versions"].items()]),
    ]  # fmt: skip
    return page("Bitloom: digits", parts)


def page(title: str, parts: Sequence[str]) -> str:
    """A whole HTML document."""
    body = "\n".join(part for part in parts if part)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n'
    )


def links_table(report: Report) -> str:
    """One row per link, the further runs of the Verilog below theirs."""
    rows: list[tuple[str, ...]] = []
    for link in (*report.links.values(), *([report.timing] if report.timing else [])):
        words = LINK_WORDS.get(link.name, "")
        rows.append((link.name, words, f"{link.compared:,} {link.unit}", f"{link.mismatches:,}", word(link.ok)))
        if link.name == "machine_rtl":
            rows += [_variant_row(name, counts) for name, counts in report.variants.items()]
    return html_table(("link", "equal on both sides", "compared", "mismatches", ""), rows, numbers=(2, 3))


def _variant_row(name: str, counts: Mapping[str, int]) -> tuple[str, ...]:
    stalls = f", {counts['stall_cycles']:,} cycles stalled" if counts["stall_cycles"] else ""
    words = f"of it, {counts['images']} images with {escape(name)}{stalls}"
    ok = counts["compared"] > 0 and not counts["mismatches"]
    return "", words, f"{counts['compared']:,} bytes", f"{counts['mismatches']:,}", word(ok)


def alive_table(report: Report) -> str:
    rows = [
        (escape(t.tensor), f"{t.codes:,}", f"{t.zero:.1%}", f"{t.saturated:.2%}", f"{t.constant_channels:.1%}")
        for t in report.alive
    ]
    return html_table(("tensor", "codes", "zero", "saturated", "constant channels"), rows, numbers=(1, 2, 3, 4))


def _verdict(report: Report) -> str:
    if report.ok:
        return '<p class="ok">Every number is equal at every link of the chain.</p>'
    return '<p class="bad">The chain is broken: see the first differences below.</p>'


def _first_differences(report: Report) -> str:
    items = "".join(f"<li>{escape(words)}</li>" for words in report.first)
    return f"<p>First differences:</p><ul>{items}</ul>" if items else ""


def _cycles_words(data: dict) -> str:
    counters, images = data["counters"], data["images"]
    compute, all_cycles = counters.get("COMPUTE", 0) // images, data["cycles"]
    return (
        f"<p>One image takes {all_cycles:,} cycles, {compute:,} of them computing; the rest is loads, stores and instruction "
        "fetches, which this version of the core does one after the other. Bars are of the first image; layers that only rename "
        "or join channels cost nothing and are not shown.</p>"
    )


def facts_row(facts: Sequence[tuple[str, str]]) -> str:
    boxes = "".join(f"<div><b>{escape(value)}</b><span>{escape(words)}</span></div>" for value, words in facts)
    return f'<div class="facts">{boxes}</div>'


def word(ok: bool) -> str:
    return '<span class="ok">equal</span>' if ok else '<span class="bad">NOT EQUAL</span>'


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(f"<{tag}{' class=n' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(row))

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
