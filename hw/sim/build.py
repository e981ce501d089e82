"""From the Verilog of a core to a shared library that simulates it, kept in the user's cache.

The library holds the core as Verilator compiled it and the C++ loop beside this file. Its key is a hash of the Verilog,
of the loop's sources, of the flags and of the tools' versions, so an entry is never stale. Processes that want the same
library at once build it once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hw.rtl.emit import EmittedVerilog
from hw.sim.binding import Binding, bind
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.sim.verilator_root import verilator_environment, verilator_root, verilator_version

BUILDS_KEPT = 40
_LIBRARY = "simulation.so"
_SOURCES = ("loop.cpp", "axi_memory.h", "axi_lite.h", "checker.h", "records.h")
_LOG_LINES = 25
# Warnings that yosys' Verilog gives rise to in numbers; others are shown when a build fails.
_WAIVED = ("WIDTHEXPAND", "WIDTHTRUNC", "CASEOVERLAP", "CASEINCOMPLETE", "UNUSEDSIGNAL", "UNDRIVEN", "DECLFILENAME")
_VERILATOR_FLAGS = (
    "--cc", "--exe", "--build", "--prefix", "Vdut", "--no-timing", "--threads", "1", "--build-jobs", "2",
    "--verilate-jobs", "1", "-O3", "-Wno-fatal", *(f"-Wno-{name}" for name in _WAIVED),
)  # fmt: skip
# Each library keeps its own copy of the runtime, whatever else is loaded.
_COMPILER_FLAGS = ("-fPIC", "-fno-gnu-unique", "-w")
_LINKER_FLAGS = ("-shared", "-Wl,-Bsymbolic")
_MAKE_FLAGS = ("OPT_FAST=-O1", "OPT_SLOW=-O0", "OPT_GLOBAL=-O1")


class BuildError(Exception):
    """Verilator or the compiler refused the design; the message has the last lines of the log and where it lies."""


@dataclass(frozen=True, kw_only=True)
class SimulationBuild:
    """A simulator of one design. `library` is the shared library, `binding` what it was bound to, `verilog_sha256` the
    hash of the simulated text, `random_state` whether registers and memories can start with random contents, `cached`
    whether it was there before."""

    library: Path
    binding: Binding
    verilog_sha256: str
    random_state: bool
    cached: bool


def build_simulation(
    emitted: EmittedVerilog, *, random_state: bool = False, progress: Callable[[str], None] | None = None
) -> SimulationBuild:
    """Builds the simulator of `emitted`, or finds it in the cache.

    With `random_state` every register and memory starts with contents drawn from the seed given to `Loop`; without, with
    zeros or whatever is fastest. `progress` is told in words what goes on. Raises ContractError where the ports are not
    those of a core, SimulatorMissing, BuildError.
    """
    binding = bind(emitted)
    flags = _flags(emitted.name, random_state)
    folder = cache_root() / "simulation" / _key(emitted, binding, flags)
    made = cached_folder(folder, lambda target: _build(target, folder.name, emitted, binding, flags, progress))
    if made:
        drop_oldest(folder.parent, BUILDS_KEPT)
    return SimulationBuild(
        library=folder / _LIBRARY,
        binding=binding,
        verilog_sha256=emitted.sha256,
        random_state=random_state,
        cached=not made,
    )


def _flags(top: str, random_state: bool) -> tuple[str, ...]:
    unknown = "unique" if random_state else "fast"
    return (*_VERILATOR_FLAGS, "--x-assign", unknown, "--x-initial", unknown, "--top-module", top)


def _key(emitted: EmittedVerilog, binding: Binding, flags: tuple[str, ...]) -> str:
    here = Path(__file__).parent
    parts = {
        "verilog": emitted.sha256,
        "sources": {name: hashlib.sha256((here / name).read_bytes()).hexdigest() for name in _SOURCES},
        "header": binding.header(),
        "control": binding.control_file(),
        "flags": [flags, _COMPILER_FLAGS, _LINKER_FLAGS, _MAKE_FLAGS],
        "tools": [verilator_version(), _compiler_version()],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@functools.cache
def _compiler_version() -> str:
    verilator_root()  # says plainly if g++ is missing
    return subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


def _build(
    target: Path,
    key: str,
    emitted: EmittedVerilog,
    binding: Binding,
    flags: tuple[str, ...],
    progress: Callable[[str], None] | None,
) -> None:
    tell = progress or (lambda words: None)
    tell(f"compiling the simulator of {emitted.name} ({len(emitted.text.splitlines())} lines of Verilog)")
    start = time.monotonic()
    (target / f"{emitted.name}.v").write_text(emitted.text)
    (target / "design.h").write_text(binding.header())
    (target / "watch.vlt").write_text(binding.control_file())
    log = target / "build.log"
    if _run_verilator(target, flags, log, emitted.name):
        raise BuildError(_keep_log(log, key, emitted.name))
    (target / "objects" / _LIBRARY).rename(target / _LIBRARY)
    shutil.rmtree(target / "objects")
    tell(f"compiled the simulator of {emitted.name} in {time.monotonic() - start:.0f} s")


def _run_verilator(target: Path, flags: tuple[str, ...], log: Path, top: str) -> int:
    here = Path(__file__).parent.resolve()
    root = verilator_root()
    command = [
        str(root / "bin" / "verilator"), *flags,
        "--Mdir", "objects", "-o", _LIBRARY,
        "-CFLAGS", " ".join((*_COMPILER_FLAGS, f"-I{here}", f"-I{target}")),
        "-LDFLAGS", " ".join(_LINKER_FLAGS),
        *(item for flag in _MAKE_FLAGS for item in ("-MAKEFLAGS", flag)),
        "watch.vlt", f"{top}.v", str(here / "loop.cpp"),
    ]  # fmt: skip
    with log.open("w") as output:
        return subprocess.run(
            command, cwd=target, env=verilator_environment(root), stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode


def _keep_log(log: Path, key: str, name: str) -> str:
    failed = cache_root() / "simulation-failed" / f"{key}.log"
    failed.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(log, failed)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LOG_LINES:])
    return f"Simulator of {name!r} could not be built. Whole log: {failed}. Its last lines:\n{tail}"
