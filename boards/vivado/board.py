"""A board that Vivado builds, read from its ``vivado.toml``; the architecture of its core from ``arch.toml`` beside it.

A board that differs little from another names it (``like``) and gives what differs: that is all a new card of a known kind needs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from boards.board import BoardError
from boards.synth import PARTS
from boards.vivado.parts import SIGNALS, Controller, Output, Pcie, ProcessingSystem, Window, require
from hw.spec.arch import Arch

PART = re.compile(r"xc[a-z0-9]+-[a-z]+[0-9]+-[0-9][A-Z]*-[a-z]")
FAMILIES = {"zynq": "xczu", "pcie": "xc[vu]"}
CLOCK_MHZ = {"zynq": (10.0, 333.0), "pcie": (10.0, 500.0)}
"""Lowest and highest clock of the core; the HP ports of a Zynq go no higher."""

PLAIN = ("name", "title", "part", "kind", "clock_mhz", "fit_part")
KNOWN = {
    *PLAIN, "board_part", "registers", "interrupts", "memory", "memories", "outputs", "processing_system", "pcie", "core",
    "constraints", "allowed_critical",
}  # fmt: skip
_ROOT = Path(__file__).parents[1]
_FILE = "vivado.toml"


@dataclass(frozen=True, kw_only=True)
class VivadoBoard:
    """A board with an AMD UltraScale+ part.

    Parameters
    ----------
    part, board_part : the device as Vivado names it, and the pattern of the vendor's board file or None
    clock_mhz : of the core, in CLOCK_MHZ
    kind : "zynq", a processor on the same chip drives the core, or "pcie", a host does over PCI Express
    fit_part : key of :data:`boards.synth.PARTS`, what :func:`boards.fit.check_fits` compares with
    registers : window of the core's registers, seen by whoever drives it
    interrupts : window of the interrupt controller ("zynq")
    memories : windows of the memory that the core reaches, by name; they do not overlap
    controllers : those of the memories that need pins ("pcie")
    core_slrs : regions of the chip that the core may lie in; empty where the chip has one
    outputs : plain pins
    bitstream : properties of the design for its configuration
    allowed_critical : critical warnings that do not stop a build: identifier to reason
    """

    name: str
    title: str
    part: str
    board_part: str | None
    clock_mhz: float
    kind: Literal["zynq", "pcie"]
    fit_part: str
    registers: Window
    interrupts: Window | None = None
    memories: Mapping[str, Window]
    controllers: tuple[Controller, ...] = ()
    core_slrs: tuple[str, ...] = ()
    outputs: tuple[Output, ...] = ()
    processing_system: ProcessingSystem | None = None
    pcie: Pcie | None = None
    bitstream: Mapping[str, str] = field(default_factory=dict)
    allowed_critical: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_part()
        self._check_windows()
        low, high = CLOCK_MHZ[self.kind]
        require(low <= self.clock_mhz <= high, "clock_mhz", f"in {low:g}..{high:g}", self.clock_mhz)
        for output in self.outputs:
            known = SIGNALS[self.kind]
            require(set(output.shows) <= set(known), f"outputs.{output.name}.shows", f"of {list(known)}", list(output.shows))
        sites = [site for _, site in self.sites]
        doubled = sorted({site for site in sites if sites.count(site) > 1})
        require(not doubled, "each site", "the pin of one port only; doubled are", doubled)
        if self.processing_system:
            self.processing_system.divisors(self.clock_mhz)

    def _check_part(self) -> None:
        require(self.kind in FAMILIES, "kind", f"one of {list(FAMILIES)}", self.kind)
        require(PART.fullmatch(self.part) is not None, "part", "written as xczu3eg-sbva484-1-i", self.part)
        require(re.match(FAMILIES[self.kind], self.part) is not None, "part", f"of a {self.kind} family", self.part)
        known = [name for name, part in PARTS.items() if part.family == "xcup"]
        require(self.fit_part in known, "fit_part", f"one of {known}", self.fit_part)
        same = self.part.split("-")[1] == self.fit_part.split("-")[1]
        require(same, "part", f"in the package of fit_part {self.fit_part}: pins are those of a package", self.part)
        needed = ("processing_system", "interrupts") if self.kind == "zynq" else ("pcie", "controllers")
        for name in needed:
            require(bool(getattr(self, name)), name, f"given for a {self.kind} board", getattr(self, name))

    def _check_windows(self) -> None:
        require(bool(self.memories), "memories", "given: the core needs one at least", {})
        for space in ((self.registers, self.interrupts), tuple(self.memories.values())):
            windows = [window for window in space if window]
            pairs = [(a, b) for i, a in enumerate(windows) for b in windows[:i] if a.overlaps(b)]
            require(not pairs, "windows of one address space", "apart", pairs)
        if self.pcie:
            bar = self.pcie.bar_bytes
            require(self.registers.end <= bar, "registers", f"within BAR0's {bar} bytes", self.registers)

    @property
    def sites(self) -> Iterator[tuple[str, str]]:
        """(port, site) of every pin that the board has for the design."""
        for output in self.outputs:
            yield from ((port, site) for port, site, _ in output.bits)
        for controller in self.controllers:
            yield from zip((f"{controller.clock_port}_clk_p", f"{controller.clock_port}_clk_n"), controller.clock, strict=True)
            yield from ((port, site) for port, site, _, _ in controller.bits)
        if self.pcie:
            yield ("pcie_perst_n", self.pcie.reset)
            yield from zip(("pcie_refclk_clk_p", "pcie_refclk_clk_n"), self.pcie.refclk, strict=True)
            for i, lane in enumerate(self.pcie.lanes):
                yield from zip((f"pcie_{pin}[{i}]" for pin in ("rxp", "rxn", "txp", "txn")), lane, strict=True)


def vivado_board_names() -> list[str]:
    """Boards that Vivado builds."""
    return sorted(path.parent.name for path in _ROOT.glob(f"*/{_FILE}"))


def load_vivado_board(name: str) -> VivadoBoard:
    """The board of that name. BoardError where there is none, or its file is wrong."""
    return parse_vivado_board(_board_data(name), str(_ROOT / name / _FILE))


def load_vivado_arch(name: str) -> Arch:
    """The architecture that the board's folder gives its core: a DeformArch or a SatArch."""
    _path(name)
    path = _ROOT / name / "arch.toml"
    if not path.is_file():
        raise BoardError(f"board {name} has no {path}: write the architecture of its core there")
    try:
        return Arch.from_dict(_toml(path))
    except ValueError as error:
        raise BoardError(f"{path}: {error}") from error


def parse_vivado_board(data: Mapping[str, Any], where: str = "board") -> VivadoBoard:
    """The board that plain data describes."""
    try:
        if unknown := sorted(set(data) - KNOWN):
            raise BoardError(f"has unknown entries {unknown}; known are {sorted(KNOWN)}")
        controllers = tuple(_controller(key, value) for key, value in data.get("memories", {}).items())
        memories = {key: Window(**value) for key, value in data.get("memory", {}).items()}
        return VivadoBoard(
            **{key: data[key] for key in PLAIN},
            board_part=data.get("board_part"),
            registers=Window(**data["registers"]),
            interrupts=Window(**data["interrupts"]) if "interrupts" in data else None,
            memories=memories | {controller.name: controller.window for controller in controllers},
            controllers=controllers,
            core_slrs=tuple(data.get("core", {}).get("slrs", ())),
            outputs=tuple(Output(name=key, **value) for key, value in data.get("outputs", {}).items()),
            processing_system=ProcessingSystem(**data["processing_system"]) if "processing_system" in data else None,
            pcie=Pcie(**data["pcie"]) if "pcie" in data else None,
            bitstream=data.get("constraints", {}),
            allowed_critical=data.get("allowed_critical", {}),
        )
    except KeyError as error:
        raise BoardError(f"{where} has no entry {error}") from error
    except (TypeError, ValueError) as error:
        raise BoardError(f"{where}: {error}") from error


def _controller(name: str, data: Mapping[str, Any]) -> Controller:
    pins = {signal: tuple(sites.split()) for signal, sites in data["pins"].items()}
    window = Window(base=data["base"], bytes=data["bytes"])
    rest = {key: value for key, value in data.items() if key not in ("pins", "base", "bytes")}
    return Controller(name=name, window=window, pins=pins, **rest)


def _path(name: str) -> Path:
    path = _ROOT / name / _FILE
    if not path.is_file():
        raise BoardError(f"board must be one of {', '.join(vivado_board_names())}, not {name!r}")
    return path


def _board_data(name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The file's entries over those of the board that it is like."""
    data = _toml(_path(name))
    other = data.pop("like", None)
    if other in (name, *above):
        raise BoardError(f"board {name} must not be like itself, by way of {[*above, name]}")
    return data if other is None else _over(_board_data(other, (*above, name)), data)


def _over(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the changes in place, table by table."""
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        merged[key] = _over(base[key], value) if both else value
    return merged


def _toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError as error:
        raise BoardError(f"reading {path} needs Python 3.11 or newer") from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BoardError(f"{path} is no TOML: {error}") from error
