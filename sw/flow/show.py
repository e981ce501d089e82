"""Reports as tables on the terminal; plain text where there is no colour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sw.flow.chain import Report
from sw.flow.check import CheckResult
from sw.flow.link import Link

if TYPE_CHECKING:
    from sw.flow.verify_training import TrainingProof


def _links(title: str, links: Iterable[Link]) -> Table:
    """One row per link."""
    table = Table(title=title, title_justify="left")
    for name, justify in (("link", "left"), ("compared", "right"), ("mismatches", "right"), ("", "left")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for link in links:
        table.add_row(link.name, f"{link.compared:,} {link.unit}", f"{link.mismatches:,}", _verdict(link))
    return table


def link_table(report: Report) -> Table:
    """One row per link of the chain."""
    timing = [report.timing] if report.timing else []
    table = _links(f"the chain, {report.images} images", (*report.links.values(), *timing))
    for name, counts in report.variants.items():
        verdict = _word(counts["compared"] > 0 and not counts["mismatches"])
        table.add_row(f"  of it: {name}", f"{counts['compared']:,} bytes", f"{counts['mismatches']:,}", verdict)
    return table


def show_training(console: Console, proof: TrainingProof, what: str = "") -> None:
    """The links of a training, those of its further runs, and the first differences in words."""
    steps = len(proof.report.losses)
    table = _links(f"{what}{steps} training step{'s' if steps != 1 else ''} and an inference", proof.report.links.values())
    for name, report in proof.variants.items():
        compared = sum(link.compared for link in report.links.values() if link.unit == "bytes")
        mismatches = sum(link.mismatches for link in report.links.values())
        table.add_row(f"  again: {name}", f"{compared:,} bytes", f"{mismatches:,}", _word(report.ok))
    console.print(table)
    for words in proof.first:
        console.print(f"  {escape(words)}", highlight=False, soft_wrap=True)


def _verdict(link: Link) -> str:
    return _word(link.ok)


def _word(ok: bool) -> str:
    return "[green]equal[/]" if ok else "[bold red]NOT EQUAL[/]"


def alive_table(report: Report) -> Table:
    """One row per tensor: is what was compared alive?"""
    table = Table(title="tensors", title_justify="left")
    table.add_column("tensor")
    for name in ("codes", "zero", "saturated", "constant channels"):
        table.add_column(name, justify="right")
    for life in report.alive:
        shares = (life.zero, life.saturated, life.constant_channels)
        table.add_row(escape(life.tensor), f"{life.codes:,}", *(f"{share:.1%}" for share in shares))
    return table


def show_report(console: Console, report: Report, *, tensors: bool = False) -> None:
    """The links, the first differences in words, and the tensors where they are wanted."""
    console.print(link_table(report))
    for words in report.first:
        console.print(f"  {escape(words)}", highlight=False, soft_wrap=True)
    if tensors:
        console.print(alive_table(report))


def show_check(console: Console, target: str, result: CheckResult) -> None:
    """Every obstacle with its place."""
    if result.ok:
        stages = " and ".join({"quantise": "can be quantised", "compile": "compiles"}[s] for s in result.stages)
        console.print(f"{escape(target)}: {stages}; {result.layers} layers checked", highlight=False, soft_wrap=True)
        return
    console.print(f"{escape(target)}: {len(result.obstacles)} unsupported of {result.layers} layers", highlight=False, soft_wrap=True)
    for obstacle in result.obstacles:
        line = f"  {obstacle.place}: {obstacle.reason}; {obstacle.advice}"
        console.print(escape(line), highlight=False, soft_wrap=True)
    if any(obstacle.stage == "quantise" for obstacle in result.obstacles):
        console.print("  (what reads the results of these is looked at when they are gone)", highlight=False, soft_wrap=True)


def show_proof(console: Console, result: Mapping[str, Any]) -> None:
    """One row per check of a proven design, and its identity."""
    table = Table(title=f"design {result['verilog_sha256'][:12]}, proven", title_justify="left")
    table.add_column("check")
    table.add_column("compared, 0 mismatches")
    for name, compared in result["checks"].items():
        table.add_row(name, ", ".join(f"{count:,} {kind}" for kind, count in compared.items()))
    console.print(table)
    hits = result["coverage"].values()
    console.print(
        f"coverage: {len(hits)} of {len(hits)} required bins, the rarest hit {min(hits)} times; "
        f"build_id {result['build_id']}; {result['seconds']:.0f} s; record: {escape(result['record'])}",
        highlight=False,
        soft_wrap=True,
    )
