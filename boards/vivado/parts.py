"""What a Vivado board is described by: address windows, pins, memory controllers, processing system, PCI Express."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from boards.board import BoardError

SMALLEST_WINDOW = 4096
"""Bytes: the vendor's address map knows no smaller one."""

SITE = re.compile(r"[A-Z]{1,2}[1-9][0-9]?")
SLR = re.compile(r"SLR[0-9]")

DDR4_WIDTHS = {
    "adr": 17, "ba": 2, "bg": 2, "ck_t": 2, "ck_c": 2, "cke": 2, "cs_n": 4, "odt": 2, "act_n": 1, "par": 1, "reset_n": 1,
    "dq": 72, "dqs_t": 18, "dqs_c": 18,
}  # fmt: skip
"""Pins of an x72 RDIMM slot by signal: 144."""

ONE_RANK = {"ck_t": 1, "ck_c": 1, "cke": 1, "cs_n": 1, "odt": 1}
"""Signals of which a controller for a module of one rank has fewer bits than the slot has pins."""

SCALARS = ("act_n", "par", "reset_n")
"""Signals that are no vectors."""

DDR4_STANDARDS = {
    "ck_t": "DIFF_SSTL12_DCI", "ck_c": "DIFF_SSTL12_DCI", "dqs_t": "DIFF_POD12_DCI", "dqs_c": "DIFF_POD12_DCI", "dq": "POD12_DCI",
    "reset_n": "LVCMOS12",
}  # fmt: skip
"""Signalling standards; every other signal is SSTL12_DCI."""

SIGNALS = {
    "zynq": ("zero", "one", "running", "irq"),
    "pcie": ("zero", "one", "running", "irq", "calibrated", "link"),
}
"""What an output may show, by the board's kind: a constant, the core out of reset, its interrupt, all memories ready, PCIe up."""


def require(ok: bool, entry: str, rule: str, value: object) -> None:
    """BoardError unless ``ok``: ``entry`` of the description must be ``rule``."""
    if not ok:
        raise BoardError(f"{entry} must be {rule}, not {value!r}")


def require_sites(entry: str, sites: tuple[str, ...], count: int | None = None) -> None:
    """BoardError unless all are package pins, ``count`` of them."""
    wrong = [site for site in sites if not SITE.fullmatch(site)]
    require(not wrong and bool(sites), entry, "package pins such as AY37", wrong or sites)
    require(count in (None, len(sites)), entry, f"{count} pins", len(sites))


@dataclass(frozen=True, kw_only=True)
class Window:
    """``bytes`` addresses from ``base``: a power of two from 4096, and the base a multiple of it, below 2**64."""

    base: int
    bytes: int

    def __post_init__(self) -> None:
        size = self.bytes
        require(size >= SMALLEST_WINDOW and size & (size - 1) == 0, "a window's bytes", "a power of two from 4096", size)
        require(
            0 <= self.base <= (1 << 64) - size and self.base % size == 0,
            "a window's base",
            f"a multiple of {size:#x}",
            self.base,
        )

    @property
    def end(self) -> int:
        """First address behind it."""
        return self.base + self.bytes

    def overlaps(self, other: Window) -> bool:
        return self.base < other.end and other.base < self.end


@dataclass(frozen=True, kw_only=True)
class Output:
    """Pins that show something: a site and a signal of ``SIGNALS`` for each bit."""

    name: str
    sites: tuple[str, ...]
    standard: str
    shows: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(self.sites))
        object.__setattr__(self, "shows", tuple(self.shows))
        require_sites(f"outputs.{self.name}.sites", self.sites, len(self.shows))

    @property
    def bits(self) -> Iterator[tuple[str, str, str]]:
        """(port, site, signal) of each bit; a port per bit."""
        for i, (site, signal) in enumerate(zip(self.sites, self.shows, strict=True)):
            yield (self.name if len(self.sites) == 1 else f"{self.name}_{i}", site, signal)


@dataclass(frozen=True, kw_only=True)
class ProcessingSystem:
    """The hard processor of a Zynq UltraScale+.

    Parameters
    ----------
    reference_mhz, pll_multiplier : the I/O PLL, which the clock of the programmable logic comes from
    properties : of the vendor's block, without their CONFIG prefix: memory, pins of peripherals
    """

    reference_mhz: float
    pll_multiplier: int
    properties: Mapping[str, str]

    TOLERANCE = 0.001
    """Part by which the clock may miss its nominal value: the reference is 33.333 MHz, not a third of 100."""

    @property
    def pll_mhz(self) -> float:
        return self.reference_mhz * self.pll_multiplier

    def divisors(self, mhz: float) -> tuple[int, int]:
        """The two divisors, 1..63 each, that give the clock; BoardError where none do."""
        choices = [(abs(self.pll_mhz / (a * b) / mhz - 1), a, b) for b in range(1, 64) for a in range(b, 64)]
        error, first, second = min((miss, b, a) for miss, a, b in choices)
        if error > self.TOLERANCE:
            near = sorted({round(self.pll_mhz / d, 1) for d in range(1, 64)}, key=lambda other: abs(other - mhz))[:4]
            raise BoardError(f"clock_mhz must be {self.pll_mhz:g} / (d0 * d1), such as {sorted(near)}, not {mhz:g}")
        return second, first

    def actual_mhz(self, mhz: float) -> float:
        first, second = self.divisors(mhz)
        return self.pll_mhz / (first * second)


@dataclass(frozen=True, kw_only=True)
class Pcie:
    """A PCI Express edge connector behind the vendor's XDMA block.

    Parameters
    ----------
    block, quad : location of the hard block and of the lanes' last quad
    slr : region of the chip that the hard block lies in
    speed : of a lane, as the vendor writes it
    axi_bits, axi_mhz : the block's memory port and its clock
    bar_bytes : of BAR0, behind which the registers lie
    reset : pin of PERST#, low in reset
    refclk : pins p, n of the 100 MHz reference
    lanes : for each lane the pins of rx p, rx n, tx p, tx n
    """

    block: str
    quad: str
    slr: str
    speed: str
    axi_bits: int
    axi_mhz: float
    device_id: str
    bar_bytes: int
    reset: str
    reset_standard: str
    refclk: tuple[str, ...]
    lanes: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "refclk", tuple(self.refclk))
        object.__setattr__(self, "lanes", tuple(tuple(lane) for lane in self.lanes))
        require(len(self.lanes) in (1, 2, 4, 8, 16), "pcie.lanes", "1, 2, 4, 8 or 16 lanes", len(self.lanes))
        for i, lane in enumerate(self.lanes):
            require_sites(f"pcie.lanes[{i}]", lane, 4)
        require_sites("pcie.refclk", self.refclk, 2)
        require_sites("pcie.reset", (self.reset,))
        require(
            self.bar_bytes in [1 << i for i in range(20, 31)],
            "pcie.bar_bytes",
            "a power of two from 1 MB to 1 GB",
            self.bar_bytes,
        )
        require(SLR.fullmatch(self.slr) is not None, "pcie.slr", "a region such as SLR1", self.slr)


@dataclass(frozen=True, kw_only=True)
class Controller:
    """A DDR4 controller of the vendor's for one slot.

    Parameters
    ----------
    slr : region of the chip that its pins lie in
    window : where the memory lies for core and host
    clock, clock_standard : pins p, n of its 300 MHz clock
    board_clock, board_memory : names of the interfaces in the vendor's board file
    pins : sites by signal, as many as ``DDR4_WIDTHS`` says
    """

    name: str
    slr: str
    window: Window
    clock: tuple[str, ...]
    clock_standard: str
    board_clock: str
    board_memory: str
    pins: Mapping[str, tuple[str, ...]]

    def __post_init__(self) -> None:
        object.__setattr__(self, "clock", tuple(self.clock))
        where = f"memories.{self.name}"
        require(SLR.fullmatch(self.slr) is not None, f"{where}.slr", "a region such as SLR1", self.slr)
        require_sites(f"{where}.clock", self.clock, 2)
        require(
            set(self.pins) == set(DDR4_WIDTHS), f"{where}.pins", f"given for exactly {list(DDR4_WIDTHS)}", sorted(self.pins)
        )
        for signal, width in DDR4_WIDTHS.items():
            require_sites(f"{where}.pins.{signal}", self.pins[signal], width)

    @property
    def port(self) -> str:
        """The design's interface port of the memory."""
        return f"ddr4_{self.name}"

    @property
    def clock_port(self) -> str:
        """The design's interface port of the clock."""
        return f"clk300_{self.name}"

    @property
    def bits(self) -> Iterator[tuple[str, str, str, bool]]:
        """(port, site, standard, whether a controller for one rank has the bit) of each of the slot's pins."""
        for signal, width in DDR4_WIDTHS.items():
            standard = DDR4_STANDARDS.get(signal, "SSTL12_DCI")
            for i, site in enumerate(self.pins[signal]):
                index = "" if signal in SCALARS else f"[{i}]"
                yield (f"{self.port}_{signal}{index}", site, standard, i < ONE_RANK.get(signal, width))
