"""A board's description, read from its ``board.toml``: part, clock, serial line, memory and the pin of every port."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from hw.rtl.cells.mac2 import Mac2Cell
from hw.rtl.cells.mac2_narrow import Mac2NarrowCell
from hw.rtl.common.axi_ram import RamParameters
from hw.rtl.common.uart import UartTiming
from hw.rtl.deform.memories import RowMemory
from hw.rtl.deform.row_copies import RowCopies
from hw.spec.arch import Arch
from hw.spec.deform import DeformArch

CELLS: dict[str, type[Mac2Cell]] = {"wide": Mac2Cell, "narrow": Mac2NarrowCell}
"""Multiplier cells by name; all compute the same."""

ROW_MEMORIES: dict[str, type[RowMemory]] = {"banks": RowMemory, "copies": RowCopies}
"""Row memories by name; all compute the same."""

VCO_MHZ = (400.0, 800.0)
_PULLS = ("none", "up", "down")
_ROOT = Path(__file__).parent


class BoardError(ValueError):
    """A board that is not there, or whose description is wrong."""


@dataclass(frozen=True, kw_only=True)
class Pll:
    """Dividers of an EHXPLLL whose output is its feedback: output = input * feedback / input divider."""

    input_divider: int
    feedback_divider: int
    output_divider: int

    def __post_init__(self) -> None:
        for field in fields(self):
            if not 1 <= getattr(self, field.name) <= 128:
                raise BoardError(f"pll.{field.name} must be in 1..128, not {getattr(self, field.name)}")

    def output_hz(self, input_hz: int) -> int:
        """The output's frequency; BoardError where the oscillator within would leave its range."""
        output = input_hz * self.feedback_divider / self.input_divider
        vco = output * self.output_divider / 1e6
        if not VCO_MHZ[0] <= vco <= VCO_MHZ[1]:
            raise BoardError(f"the PLL's oscillator must run at {VCO_MHZ[0]:g}..{VCO_MHZ[1]:g} MHz, not {vco:g}")
        if output != int(output):
            raise BoardError(f"the PLL's output must be a whole number of hertz, not {output}")
        return int(output)


@dataclass(frozen=True, kw_only=True)
class Port:
    """Where a port of the top lies: one site per bit, lowest first."""

    name: str
    sites: tuple[str, ...]
    direction: Literal["input", "output"]
    pull: str = "none"
    drive: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(self.sites))
        if not self.sites or self.direction not in ("input", "output") or self.pull not in _PULLS:
            raise BoardError(f"port {self.name} must have sites, direction input or output, and pull {', '.join(_PULLS)}")

    @property
    def bits(self) -> tuple[tuple[str, str], ...]:
        """(name, site) of each bit, named as in Verilog."""
        if len(self.sites) == 1:
            return ((self.name, self.sites[0]),)
        return tuple((f"{self.name}[{i}]", site) for i, site in enumerate(self.sites))


@dataclass(frozen=True, kw_only=True)
class Board:
    """A board with an ECP5.

    Members: ``device``, ``package`` and ``speed`` as nextpnr names them; ``top``, the wrapper's module; ``clock_port`` of
    ``input_hz``; ``pll`` or None; ``baud``; ``ram``, the window of the memory on chip; ``cell``, the multiplier cell;
    ``row_memory``; ``ports``.
    """

    name: str
    title: str
    part: str
    device: str
    package: str
    speed: int
    top: str
    clock_port: str
    input_hz: int
    pll: Pll | None
    baud: int
    ram: RamParameters
    cell: str
    row_memory: str
    ports: tuple[Port, ...]

    def __post_init__(self) -> None:
        for entry, known in (("cell", CELLS), ("row_memory", ROW_MEMORIES)):
            if getattr(self, entry) not in known:
                raise BoardError(f"core.{entry} must be one of {sorted(known)}, not {getattr(self, entry)!r}")
        if self.clock_port not in [port.name for port in self.ports]:
            raise BoardError(f"clock.port must be one of the ports, not {self.clock_port!r}")
        sites = [site for port in self.ports for site in port.sites]
        if doubled := sorted({site for site in sites if sites.count(site) > 1}):
            raise BoardError(f"a site must belong to one port only; {doubled} belong to two")
        _ = self.timing

    @property
    def clock_hz(self) -> int:
        """Frequency of the design's one clock."""
        return self.pll.output_hz(self.input_hz) if self.pll else self.input_hz

    @property
    def timing(self) -> UartTiming:
        return UartTiming(clock_hz=self.clock_hz, baud=self.baud)

    @property
    def cell_class(self) -> type[Mac2Cell]:
        return CELLS[self.cell]

    @property
    def row_memory_class(self) -> type[RowMemory]:
        return ROW_MEMORIES[self.row_memory]


def board_names() -> list[str]:
    """Boards that can be built with open tools."""
    return sorted(path.parent.name for path in _ROOT.glob("*/board.toml"))


def load_board(name: str) -> Board:
    """The board of that name. BoardError where there is none, or its file is wrong."""
    path = _ROOT / name / "board.toml"
    if not path.is_file():
        raise BoardError(f"board must be one of {', '.join(board_names())}, not {name!r}")
    return parse_board(_toml(path), str(path))


def load_board_arch(name: str) -> DeformArch:
    """The architecture that the board's folder gives its core."""
    arch = Arch.from_dict(_toml(_ROOT / name / "arch.toml"))
    assert isinstance(arch, DeformArch)
    return arch


def parse_board(data: Mapping[str, Any], where: str = "board") -> Board:
    """The board that plain data describes."""
    try:
        plain = {key: data[key] for key in ("name", "title", "part", "device", "package", "speed", "top")}
        clock = data["clock"]
        return Board(
            **plain,
            clock_port=clock["port"],
            input_hz=clock["input_hz"],
            pll=Pll(**clock["pll"]) if "pll" in clock else None,
            baud=data["serial"]["baud"],
            ram=RamParameters(base=data["memory"]["base"], size=data["memory"]["bytes"]),
            cell=data["core"]["cell"],
            row_memory=data["core"]["row_memory"],
            ports=tuple(Port(name=key, **value) for key, value in data["ports"].items()),
        )
    except KeyError as error:
        raise BoardError(f"{where} has no entry {error}") from error
    except (TypeError, ValueError) as error:
        raise BoardError(f"{where}: {error}") from error


def _toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError as error:
        raise BoardError(f"reading {path} needs Python 3.11 or newer") from error
    return tomllib.loads(path.read_text(encoding="utf-8"))


def pin_constraints(board: Board) -> str:
    """The .lpf file: site, standard and pull of every port, and the input clock's frequency."""
    lines = [
        f"# {board.title}: pins and clock, written from board.toml.",
        "BLOCK RESETPATHS;",
        "BLOCK ASYNCPATHS;",
        "SYSCONFIG CONFIG_IOVOLTAGE=3.3 COMPRESS_CONFIG=ON MCCLK_FREQ=62 "
        "SLAVE_SPI_PORT=DISABLE MASTER_SPI_PORT=ENABLE SLAVE_PARALLEL_PORT=DISABLE;",
        f'FREQUENCY PORT "{board.clock_port}" {board.input_hz / 1e6:g} MHZ;',
    ]
    for port in board.ports:
        drive = f" DRIVE={port.drive}" if port.direction == "output" else ""
        for bit, site in port.bits:
            lines.append(f'LOCATE COMP "{bit}" SITE "{site}";')
            lines.append(f'IOBUF PORT "{bit}" IO_TYPE=LVCMOS33 PULLMODE={port.pull.upper()}{drive};')
    return "\n".join(lines) + "\n"
