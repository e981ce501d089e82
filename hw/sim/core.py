"""From an architecture to the one Verilog file of its core, and to a simulator of it.

Elaboration and yosys take seconds to minutes, so the text is kept in the user's cache under a hash of the architecture, of every
source that it is made from, and of the tools' versions.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path

from amaranth.lib import wiring

from hw.rtl.emit import YOSYS_VERSION, EmittedVerilog, emit
from hw.sim.build import BuildError, SimulationBuild, build_simulation
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.spec.arch import Arch

TEXTS_KEPT = 40
_FILE = "core.v"
_COMPONENTS = {"deform": "DeformCore", "sat": "SatCore"}


def core_name(arch: Arch) -> str:
    """Name of the top module."""
    return f"{arch.core}_core"


def emit_core(arch: Arch, *, merge: bool = True, progress: Callable[[str], None] | None = None) -> EmittedVerilog:
    """The one Verilog text of the architecture's core, made or from the cache; ``merge`` as in :func:`hw.rtl.emit.emit`."""
    folder = cache_root() / "verilog" / _key(arch, merge)

    def make(target: Path) -> None:
        if progress:
            progress(f"writing the Verilog of {core_name(arch)}")
        (target / _FILE).write_text(emit(_component(arch), core_name(arch), merge=merge).text)

    if cached_folder(folder, make):
        drop_oldest(folder.parent, TEXTS_KEPT)
    return EmittedVerilog.from_text((folder / _FILE).read_text(), core_name(arch))


def read_core(arch: Arch, path: Path) -> EmittedVerilog:
    """A Verilog file, edited or not, that takes the place of the generated one. BuildError where it holds no such core."""
    try:
        return EmittedVerilog.from_text(path.read_text(), core_name(arch))
    except (ValueError, UnicodeDecodeError) as error:
        raise BuildError(f"{path} cannot be simulated as a {arch.core} core: {error}") from error


def build_core(arch: Arch, verilog: Path | None = None, *, progress: Callable[[str], None] | None = None) -> SimulationBuild:
    """A simulator of the core, generated or from a file; its registers and memories can start with random contents."""
    emitted = emit_core(arch, progress=progress) if verilog is None else read_core(arch, verilog)
    return build_simulation(emitted, random_state=True, progress=progress)


def _component(arch: Arch) -> wiring.Component:
    core: type[wiring.Component] = getattr(importlib.import_module(f"hw.rtl.{arch.core}.core"), _COMPONENTS[arch.core])
    return core(arch)


def _key(arch: Arch, merge: bool) -> str:
    root = Path(__file__).parents[1]
    sources = sorted([*(root / "rtl").rglob("*.py"), *(root / "spec").rglob("*.py")])
    parts = {
        "arch": arch.to_dict(),
        "merge": merge,
        "sources": {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sources},
        "tools": [importlib.metadata.version("amaranth"), list(YOSYS_VERSION)],
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
