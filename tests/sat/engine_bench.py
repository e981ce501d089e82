"""Engines with their memories in Verilator, instruction by instruction against the machine.

    bench = EngineBench(ARCH, ("VEC", "CHN"))
    bench.load(vec=..., chn=...)
    bench.check("VEC", op=..., ...)       # every word of both memories, the flag, and the cycles are equal

Memories carry over from instruction to instruction, so that each finds what the one before left. Registers and memories begin with
random contents.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
from importlib.metadata import version
from pathlib import Path

import numpy as np

from hw.rtl.emit import emit
from hw.sim import stream
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.sim.verilator_root import verilator_root
from hw.spec.isa import Instruction
from hw.spec.machine import CoreError
from hw.spec.sat import SatArch
from hw.spec.sat.latency import VECTOR_READ
from hw.spec.sat.machine import SatMachine
from hw.spec.sat.timing.chn import chn_cycles
from hw.spec.sat.timing.prune import prune_cycles
from hw.spec.sat.timing.vec import vec_cycles
from tests.sat.engine_top import ENGINES, EngineTop

CYCLES = {"VEC": vec_cycles, "CHN": chn_cycles, "PRUNE": prune_cycles}
SPARE = 64
"""Cycles beyond the formula's before an instruction counts as hung."""

AFTER_RESET = 40
"""Cycles after a reset in which whatever goes on would show."""

SPACES = ("vec", "chn")
BUILDS_KEPT = 12


def decoded(arch: SatArch, name: str, **fields: int) -> tuple[bytes, Instruction]:
    data = arch.instructions.encode(name, **fields)
    return data, arch.instructions.decode(data)


def filled(seed: int, words: int) -> np.ndarray:
    """Random bytes."""
    return np.random.default_rng(seed).integers(0, 256, (words, 16), np.uint8)


class EngineBench:
    """A bench and the machine beside it; ``compared`` counts the words that were found equal, ``cycles`` those that the engines ran."""

    def __init__(self, arch: SatArch, engines: tuple[str, ...], seed: int = 1) -> None:
        self.arch, self.compared, self.cycles, self.jobs = arch, 0, 0, 0
        self.machine = SatMachine(arch, seed=seed)
        self._library = ctypes.CDLL(str(_build(arch, engines)))
        self._library.bench_new.restype = ctypes.c_void_p
        self._library.bench_strays.restype = ctypes.c_uint64
        self._handle = ctypes.c_void_p(self._library.bench_new(ctypes.c_uint64(seed)))
        self.load()

    def load(self, **spaces: np.ndarray) -> None:
        """Words (n, 16) from word 0 of ``vec`` or ``chn`` on, in the bench and the machine; the rest stays as the machine has it."""
        for space, data in spaces.items():
            flat = np.ascontiguousarray(data).view(np.uint8).reshape(-1, 16)
            self.machine.chip[space][: len(flat)] = flat
        vec, chn = (np.ascontiguousarray(self.machine.chip[space]) for space in SPACES)
        self._library.bench_load(self._handle, len(vec), _pointer(vec), len(chn), _pointer(chn))

    def stored(self) -> dict[str, np.ndarray]:
        """What the bench's memories hold."""
        memories = {space: np.empty_like(self.machine.chip[space]) for space in SPACES}
        vec, chn = memories.values()
        self._library.bench_store(self._handle, VECTOR_READ, len(vec), _pointer(vec), len(chn), _pointer(chn))
        return memories

    def check(self, name: str, *, outside: bool = False, compare: bool = True, idle: int = 0, **fields: int) -> None:
        """Runs an instruction in both and compares. ``outside``: it must reach outside a memory, and only that is compared. Without
        ``compare`` the memories are left for the next one to compare, which so follows at once."""
        data, instruction = decoded(self.arch, name, **fields)
        wanted = CYCLES[name](instruction, self.arch)
        cycles, saturated, missed = self.run(name, data, wanted + SPARE, idle)
        self.jobs += 1
        if outside:
            try:
                self.machine.execute(instruction)
            except CoreError:
                assert missed, f"{name} {fields} reaches outside a memory, which no memory noticed"
                self.resume_from_bench()
                return
            raise AssertionError(f"{name} {fields} does not reach outside a memory")
        self.machine.execute(instruction)
        assert not missed, f"{name} {fields} reached outside a memory"
        if compare:
            self.compare(f"{name} {fields}")
        assert saturated == self.machine.saturated, f"{name} {fields}: flag {saturated}, not {self.machine.saturated}"
        assert cycles == wanted, f"{name} {fields} took {cycles} cycles, not {wanted}"
        self.cycles += cycles

    def run(self, name: str, data: bytes, limit: int, idle: int = 0) -> tuple[int, bool, bool]:
        """Cycles, the flag after them, and whether there was an access outside a memory."""
        report = (ctypes.c_uint8 * 3)()
        cycles = self._library.bench_run(self._handle, 1 << ENGINES.index(name), data, limit, idle, report)
        assert cycles, f"{name} is not done after {limit} cycles"
        assert report[2] == 0, f"{name} ended with error {report[2]}"
        return cycles, bool(report[0]), bool(report[1])

    def compare(self, words: str) -> None:
        """Both memories, whole."""
        for space, found in self.stored().items():
            wanted = self.machine.chip[space]
            different = np.flatnonzero((found != wanted).any(axis=1))
            if len(different):
                first = int(different[0])
                raise AssertionError(
                    f"{words}: {len(different)} words of {space} differ, the first one at {first}: "
                    f"{found[first].tobytes().hex()}, not {wanted[first].tobytes().hex()}"
                )
            self.compared += len(found)

    def cut(self, name: str, cycles: int, *, written: bool = True, **fields: int) -> None:
        """Resets all but the memories so many cycles after an instruction's start. The machine takes over what they hold then; or, if
        nothing was ``written`` yet, the next instruction follows at once."""
        data, _ = decoded(self.arch, name, **fields)
        idle = AFTER_RESET if written else 0
        self._library.bench_cut(self._handle, 1 << ENGINES.index(name), data, cycles, idle)
        self.machine.saturated = False
        if written:
            self.resume_from_bench()

    def resume_from_bench(self) -> None:
        """The machine goes on from the bench's memories, with the flag clear in both."""
        for space, found in self.stored().items():
            self.machine.chip[space][:] = found
        self.machine.saturated = False
        self._library.bench_cut(self._handle, 0, bytes(64), 0, 0)

    def gemm_event(self) -> None:
        """GEMM's drain saturates."""
        self._library.bench_gemm_event(self._handle)
        self.machine.saturated = True

    def strays(self) -> int:
        """Cycles in which an idle engine reached for a memory or the flag."""
        return self._library.bench_strays(self._handle)


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _sources() -> str:
    """A hash of all that the design is made from: it is known sooner than the Verilog, which takes longer to write than to simulate."""
    root = Path(__file__).parents[2]
    design = [path for folder in ("rtl", "spec") for path in (root / "hw" / folder).rglob("*.py")]
    files = sorted([*design, *Path(__file__).parent.glob("engine_*.*")])
    digest = hashlib.sha256(version("amaranth").encode())
    for file in files:
        digest.update(f"\0{file.relative_to(root)}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def _build(arch: SatArch, engines: tuple[str, ...]) -> Path:
    """The simulator as a shared library, from the cache where it is there; built as :mod:`hw.sim.stream` builds its units."""
    parts = [_sources(), repr(arch), engines, stream._VERILATOR_FLAGS, stream._COMPILER_FLAGS, *stream._tools()]
    folder = cache_root() / "engines" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def make(target: Path) -> None:
        (target / f"{stream._TOP}.v").write_text(emit(EngineTop(arch, engines), stream._TOP).text)
        root = verilator_root()
        stream._run([str(root / "bin" / "verilator"), *stream._VERILATOR_FLAGS, f"{stream._TOP}.v"], target, root)
        models = sorted(str(path) for path in (target / "objects").glob("Vdut*.cpp"))
        compiler = ["g++", *stream._COMPILER_FLAGS, *stream._LINKER_FLAGS, *stream._includes(root), f"-I{target / 'objects'}"]
        source = Path(__file__).with_name("engine_bench.cpp")
        stream._run([*compiler, *models, str(source), *map(str, stream._runtime()), "-o", "engines.so"], target, root)
        shutil.rmtree(target / "objects")

    if cached_folder(folder, make):
        drop_oldest(folder.parent, BUILDS_KEPT)
    return folder / "engines.so"
