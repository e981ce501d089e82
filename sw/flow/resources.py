"""What a core takes of a part, and how deep its logic is: open synthesis of the one Verilog file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from boards.fit import check_fits
from boards.synth import SynthesisReport, find_part, synthesise
from hw.spec.arch import Arch

BLOCKS = {"sat": r".*\.array\.element_\d+_\d+"}
"""Modules that are mapped once, by core: the elements of an array, whose ports are registers but for a broadcast and a chain."""

LEVELS_GUIDE = "about 6 for 250 MHz, 8 for 200 MHz on UltraScale+"


@dataclass(frozen=True, kw_only=True)
class CoreResources:
    """Synthesis of the core of ``arch``."""

    arch: Arch
    synthesis: SynthesisReport

    @property
    def ok(self) -> bool:
        """Whether the core fits the part."""
        return not self.synthesis.over

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"ok": self.ok, "arch": self.arch.to_dict(), "arch_id": f"{self.arch.arch_id:016x}", **self.synthesis.to_dict()}


def core_resources(
    arch: Arch, family: str = "xcup", part: str | None = None, *, tell: Callable[[str], None] | None = None
) -> CoreResources:
    """Synthesise the core of an architecture. ValueError, before the long part, where it certainly does not fit."""
    from hw.sim.core import core_name, emit_core

    chosen = find_part(family, part)
    check_fits(arch, chosen)
    emitted = emit_core(arch, progress=tell)
    synthesis = synthesise(
        emitted.text, core_name(arch), chosen.family, part=chosen.name, blocks=BLOCKS.get(arch.core), say=tell
    )
    return CoreResources(arch=arch, synthesis=synthesis)


def show_resources(console: Console, result: CoreResources, paths: int) -> None:
    """The table against the part, then the longest paths in words."""
    synthesis = result.synthesis
    table = Table(title=f"{synthesis.top} on {synthesis.part.name}", title_justify="left")
    for name in ("resource", "used", "there are", "share"):
        table.add_column(name, justify="left" if name == "resource" else "right")
    for name, used in synthesis.resources.items():
        available = synthesis.part.resources[name]
        table.add_row(name, f"{used:,}", f"{available:,}", f"{used / available:.0%}" if available else "")
    console.print(table)
    console.print(f"logic levels (modelled): {synthesis.levels:.1f}; {LEVELS_GUIDE}", highlight=False, soft_wrap=True)
    for path in synthesis.paths.registers[:paths]:
        console.print(f"  {path.levels:.1f}  {escape(path.words())}", highlight=False, soft_wrap=True)
    if synthesis.paths.ports:
        console.print(f"longest path of a port: {escape(synthesis.paths.ports[0].words())}", highlight=False, soft_wrap=True)
    for name, (used, available) in synthesis.over.items():
        console.print(f"[bold red]does not fit[/]: {name} {used:,} of {available:,}", highlight=False, soft_wrap=True)
