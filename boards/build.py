"""From a board and an architecture to a bitstream: a plan, which is all the texts that go in, and the run of the tools on it.

The core's Verilog is a file of its own, written first, because it is what a design record proves; ``admit`` decides on it. Everything
that is built is in the plan, and a bitstream is kept under the plan's digest: the same plan gives the same bitstream.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from boards.board import Board, BoardError, load_board, load_board_arch, pin_constraints
from boards.ecp5 import (
    REPORT_FILE,
    Progress,
    Routed,
    Step,
    ToolError,
    read_report,
    run_step,
    steps,
    synthesis_script,
    tool_versions,
)
from boards.fit_ecp5 import check_fits_board, larger
from boards.folder import CORE_FILE, MANIFEST_FILE, check_free, clear, mark_failed
from boards.ulx3s.system import Ulx3sSystem
from boards.ulx3s.wrapper import wrapper_verilog
from hw.rtl.common.uart_bridge import BridgeParameters
from hw.rtl.deform.core import DeformCore
from hw.rtl.emit import YOSYS_VERSION, EmittedVerilog, emit
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.sim.core import core_name
from hw.spec.deform import DeformArch
from hw.spec.program import write_atomically

SYSTEM_FILE, TOP_FILE, SCRIPT_FILE = "system.v", "top.v", "synthesis.ys"
SOURCES = (CORE_FILE, SYSTEM_FILE, TOP_FILE)
RESULT_FILE = "result.json"
LOGS = (REPORT_FILE, "synthesis.txt", "place_and_route.txt", "packing.txt")
"""Logs and reports by their names in the user's folder."""

KEPT = 20
GAP_SECONDS = 0.02
"""Longest pause within a request: longer than a host's operating system holds back the rest of a write."""

Say = Callable[[str], None]


class Admission(Protocol):
    """Whether a core may be built, and the build's identity (``sw.flow.gate.Admission``)."""

    @property
    def build_id(self) -> int: ...

    def to_dict(self) -> dict[str, Any]: ...


Admit = Callable[[Path, DeformArch], Admission]
"""Given the core's Verilog file: an admission, or an error that says what to do."""

Foresee = Callable[[Path, DeformArch], None]
"""Given where the core's Verilog will lie: an error where it is already known that it would not be admitted."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All texts of a build by file name, the board and architecture that they are for, and the tools' versions."""

    board: Board
    arch: DeformArch
    build_id: int
    files: dict[str, str]
    tools: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of files, tools and their arguments."""
        arguments = [[step.arguments, step.attempts] for step in self.steps]
        return hashlib.sha256(json.dumps([self.files, self.tools, arguments], sort_keys=True).encode()).hexdigest()

    @property
    def steps(self) -> tuple[Step, ...]:
        return steps(self.board, script=SCRIPT_FILE, constraints=self.constraints_file, bitstream=self.bitstream_file)

    @property
    def constraints_file(self) -> str:
        return f"{self.board.name}.lpf"

    @property
    def bitstream_file(self) -> str:
        return f"{self.board.name}.bit"

    @property
    def sources(self) -> dict[str, str]:
        """The Verilog, in the order of reading."""
        return {name: self.files[name] for name in SOURCES}


@dataclass(frozen=True, kw_only=True)
class Built:
    """A bitstream: its folder, what place and route reached, its manifest, and whether it was there before."""

    folder: Path
    bitstream: Path
    routed: Routed
    manifest: dict[str, Any]
    cached: bool


def bridge_parameters(board: Board) -> BridgeParameters:
    """The bridge that suits the board's clock, line and memory."""
    return BridgeParameters(timing=board.timing, ram=board.ram, gap_cycles=round(GAP_SECONDS * board.clock_hz))


def core_verilog(board: Board, arch: DeformArch, say: Say = lambda words: None) -> EmittedVerilog:
    """The core with the board's multiplier cell and row memory, made or from the cache."""
    name = core_name(arch)
    what = f"{name} {board.cell} {board.row_memory} {json.dumps(arch.to_dict(), sort_keys=True)}"
    text = _kept_text(what, lambda: emit(DeformCore(arch, board.cell_class, board.row_memory_class), name), say)
    return EmittedVerilog.from_text(text, name)


def plan(board: Board, arch: DeformArch, *, build_id: int = 0, say: Say = lambda words: None) -> Plan:
    """Everything that goes into the board's bitstream. Writing the Verilog takes half a minute the first time.

    BoardError where the architecture does not suit the board, or a port has no pin.
    """
    check_suits(board, arch)
    system, name = f"{board.name}_system", core_name(arch)
    bridge = bridge_parameters(board)
    text = _kept_text(f"{system} {name} {bridge}", lambda: emit(Ulx3sSystem(core=name, bridge=bridge), system), say)
    files = {
        CORE_FILE: core_verilog(board, arch, say).text,
        SYSTEM_FILE: text,
        TOP_FILE: wrapper_verilog(board, system=system, build_id=build_id),
        SCRIPT_FILE: synthesis_script(board, SOURCES),
        f"{board.name}.lpf": pin_constraints(board),
    }
    check_ports(board, files[TOP_FILE])
    return Plan(board=board, arch=arch, build_id=build_id, files=files, tools=tool_versions())


def check_suits(board: Board, arch: DeformArch) -> None:
    """BoardError where the core does not fit the part or suit the board."""
    if arch.managers != 1:
        raise BoardError(f"{board.title} has one memory: arch.managers must be 1, not {arch.managers}")
    check_fits_board(board, arch, bridge_parameters(board))


def check_ports(board: Board, top: str) -> None:
    """BoardError unless the pins of the description are exactly the ports of the top module's text."""
    found = {port.name: (port.width, port.kind) for port in EmittedVerilog.from_text(top, board.top).ports}
    wanted = {port.name: (len(port.sites), port.direction) for port in board.ports}
    if wrong := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
        listed = "; ".join(f"{name}: top {found.get(name)}, pins {wanted.get(name)}" for name in wrong)
        raise BoardError(f"board.toml must give every port of {board.top} its pins, and no others ({listed})")


def build(
    name: str,
    out: Path,
    *,
    admit: Admit,
    foresee: Foresee = lambda verilog, arch: None,
    arch: DeformArch | None = None,
    progress: Progress = lambda step, done, total, note: None,
    say: Say = lambda words: None,
) -> Built:
    """Build a board's bitstream into the folder ``out``, with its plan, reports and manifest.json.

    What an earlier build left in ``out`` is removed first: the bitstream and manifest that lie there are those of the last build, and
    none does after one that failed. A folder with somebody else's files of the same names is refused as it is.

    Parameters
    ----------
    admit : the proof gate; it is asked once, with the core's Verilog in place
    foresee : asked before anything is written
    arch : None takes that of the board's folder

    Raises BoardError, ToolError, TimingMissed where the board's clock is not met, and whatever ``foresee`` and ``admit`` raise.
    """
    board, own = load_board(name), load_board_arch(name)
    arch = arch or own
    check_suits(board, arch)
    check_free(out, (*SOURCES, SCRIPT_FILE, f"{board.name}.lpf", f"{board.name}.bit"), LOGS)
    core = out / CORE_FILE
    foresee(core, arch)
    if words := larger(board, arch, own, bridge_parameters(board)):
        say(words)
    clear(out, LOGS)
    write_atomically(core, core_verilog(board, arch, say).text.encode())
    admission = admit(core, arch)
    planned = plan(board, arch, build_id=admission.build_id, say=say)
    folder = cache_root() / "bitstream" / planned.digest[:32]
    made = cached_folder(folder, lambda target: _run_tools(planned, target, out, progress))
    if made:
        drop_oldest(folder.parent, KEPT)
    return _deliver(planned, folder, out, admission, cached=not made)


def _run_tools(planned: Plan, target: Path, out: Path, progress: Progress) -> None:
    """Fill the folder with the tools' results; where it fails, the logs are left in ``out``."""
    for name, text in planned.files.items():
        (target / name).write_text(text)
    seconds = {}
    try:
        for step in planned.steps:
            seconds[step.name] = round(run_step(step, target, progress), 1)
            if step.report:  # before anything is packed that is too slow
                read_report(target / step.report, planned.board)
    except ToolError as error:
        mark_failed(out, board=planned.board.name, plan_sha256=planned.digest, error=str(error))
        for log in (target / name for name in LOGS if (target / name).is_file()):
            shutil.copy(log, out)
        raise type(error)(f"{error}\nNo bitstream is delivered; the tools' logs and reports lie in {out}") from error
    for big in ("netlist.json", "synthesis.log", "routed.config"):
        (target / big).unlink(missing_ok=True)
    bits = (target / planned.bitstream_file).read_bytes()
    result = {"sha256": hashlib.sha256(bits).hexdigest(), "seconds": seconds}
    (target / RESULT_FILE).write_text(json.dumps(result))


def _deliver(planned: Plan, folder: Path, out: Path, admission: Admission, *, cached: bool) -> Built:
    """Copy what the tools made; the manifest comes last, when everything that it names is there."""
    result = json.loads((folder / RESULT_FILE).read_text())
    bits = (folder / planned.bitstream_file).read_bytes()
    if hashlib.sha256(bits).hexdigest() != result["sha256"]:
        raise ToolError(f"the kept bitstream in {folder} was changed after it was made: remove that folder and build again")
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != RESULT_FILE:
            write_atomically(out / path.name, path.read_bytes())
    routed = read_report(out / REPORT_FILE, planned.board)
    manifest = _manifest(planned, routed, bits, admission) | {"seconds": result["seconds"], "cached": cached}
    write_atomically(out / MANIFEST_FILE, (json.dumps(manifest, indent=1) + "\n").encode())
    return Built(folder=out, bitstream=out / planned.bitstream_file, routed=routed, manifest=manifest, cached=cached)


def _manifest(planned: Plan, routed: Routed, bits: bytes, admission: Admission) -> dict[str, Any]:
    board = planned.board
    return {
        "board": board.name,
        "part": board.part,
        "arch": planned.arch.to_dict(),
        "arch_id": f"{planned.arch.arch_id:016x}",
        "cell": board.cell,
        "row_memory": board.row_memory,
        **admission.to_dict(),
        "plan_sha256": planned.digest,
        "files": {name: hashlib.sha256(text.encode()).hexdigest() for name, text in planned.files.items()},
        "bitstream": {"file": planned.bitstream_file, "bytes": len(bits), "sha256": hashlib.sha256(bits).hexdigest()},
        "clock_mhz": board.clock_hz / 1e6,
        "routed_mhz": routed.frequency_mhz,
        "baud": board.baud,
        "memory": {"base": board.ram.base, "bytes": board.ram.size},
        "utilisation": {kind: {"used": used, "available": there} for kind, (used, there) in routed.utilisation.items()},
        "longest_path": list(routed.longest_path),
        "tools": planned.tools,
    }


def _kept_text(what: str, make: Callable[[], EmittedVerilog], say: Say) -> str:
    """A Verilog text, made or from the cache, where its key is what it is of and every source that it is made from."""
    root = Path(__file__).parents[1]
    sources = sorted(path for part in ("hw/rtl", "hw/spec", "boards") for path in (root / part).rglob("*.py"))
    hashes = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in sources}
    tools = [importlib.metadata.version("amaranth"), list(YOSYS_VERSION)]
    key = hashlib.sha256(json.dumps([what, hashes, tools], sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_root() / "board-verilog" / key

    def fill(target: Path) -> None:
        say(f"writing the Verilog of {what.split(' ')[0]}")
        (target / "text.v").write_text(make().text)

    if cached_folder(folder, fill):
        drop_oldest(folder.parent, 2 * KEPT)
    return (folder / "text.v").read_text()
