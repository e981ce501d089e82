"""Small units, driven from arrays: millions of operands a second, where Amaranth's simulator does hundreds.

    unit = Stream(Fp32Add())
    results = unit.pipelined({"a": a, "b": b}, latency=Fp32Add.latency)    # arrays of uint64 by name of output

The unit is compiled from the same Verilog text as everything else (`hw.rtl.emit`) and kept in the user's cache. Registers start with
random contents.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.lib import wiring
from numpy.typing import NDArray

from hw.rtl.emit import EmittedVerilog, Net, emit
from hw.sim.build import BuildError
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.sim.verilator_root import verilator_environment, verilator_root, verilator_version

Words = NDArray[np.uint64]

BUILDS_KEPT = 60
WIDEST = 128
_LIBRARY = "stream.so"
_TOP = "unit"
_CONTROL = ("clk", "rst", "start", "done")
_LOG_LINES = 25
_WAIVED = ("WIDTHEXPAND", "WIDTHTRUNC", "CASEOVERLAP", "CASEINCOMPLETE", "UNUSEDSIGNAL", "UNDRIVEN", "DECLFILENAME")
_VERILATOR_FLAGS = (
    "--cc", "--prefix", "Vdut", "--no-timing", "--threads", "1", "-O3", "--x-assign", "unique", "--x-initial", "unique",
    "--Mdir", "objects", "--top-module", _TOP, "-Wno-fatal", *(f"-Wno-{name}" for name in _WAIVED),
)  # fmt: skip
_COMPILER_FLAGS = ("-std=gnu++20", "-O1", "-fPIC", "-fno-gnu-unique", "-w", "-DVM_TRACE=0", "-DVM_COVERAGE=0", "-pthread")
_LINKER_FLAGS = ("-shared", "-Wl,-Bsymbolic")
_RUNTIME = ("verilated.cpp", "verilated_threads.cpp")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Of an iterative unit: ``outputs`` by name, and the ``cycles`` from ``start`` to ``done`` of each operation."""

    outputs: dict[str, Words]
    cycles: NDArray[np.uint32]


class Stream:
    """A unit, compiled. Ports have at most 128 bits; those above 64 are arrays of shape (n, 2), the low word first.

    A unit with the ports ``start`` and ``done`` is iterative, others are pipelined. Raises ValueError for wider ports, BuildError where
    Verilator or the compiler refuses, SimulatorMissing where there is none.
    """

    def __init__(self, component: wiring.Component) -> None:
        emitted = emit(component, _TOP)
        ports = [port for port in emitted.ports if port.name not in _CONTROL]
        for port in ports:
            if port.width > WIDEST:
                raise ValueError(f"ports of a streamed unit must have at most {WIDEST} bits, not {port.width} as {port.name} has")
        self.inputs = tuple(port for port in ports if port.kind == "input")
        self.outputs = tuple(port for port in ports if port.kind == "output")
        self.iterative = {"start", "done"} <= {port.name for port in emitted.ports}
        self._library = ctypes.CDLL(str(_build(emitted, self._header())))

    def pipelined(self, inputs: Mapping[str, NDArray[np.integer]], *, latency: int, seed: int = 1) -> dict[str, Words]:
        """One vector of operands per cycle; the outputs ``latency`` cycles later, by name.

        ``inputs``: integers of one length for each input, as bits. ``seed`` draws the contents of registers. Raises ValueError where
        names, lengths or widths are not those of the unit.
        """
        packed = self._packed(inputs)
        out = np.empty((len(packed), self._width(self.outputs)), np.uint64)
        self._library.stream_pipelined(
            ctypes.c_uint64(len(packed)), ctypes.c_uint64(latency), ctypes.c_uint64(seed), _pointer(packed), _pointer(out)
        )
        return self._unpacked(out)

    def iterative_run(self, inputs: Mapping[str, NDArray[np.integer]], *, limit: int, seed: int = 1) -> Answers:
        """One operation after the other, with random pauses (``seed`` 0: none); operands are there in the cycle of ``start`` only.

        Raises like `pipelined`, and RuntimeError where ``done`` does not come within ``limit`` cycles.
        """
        if not self.iterative:
            raise ValueError("an iterative run needs a unit with the ports start and done")
        packed = self._packed(inputs)
        out, cycles = np.empty((len(packed), self._width(self.outputs)), np.uint64), np.zeros(len(packed), np.uint32)
        answered = self._library.stream_iterative
        answered.restype = ctypes.c_uint64
        count = answered(
            ctypes.c_uint64(len(packed)), ctypes.c_uint64(limit), ctypes.c_uint64(seed), _pointer(packed), _pointer(out),
            _pointer(cycles),
        )  # fmt: skip
        if count != len(packed):
            raise RuntimeError(f"operation {count} must be done within {limit} cycles")
        return Answers(outputs=self._unpacked(out), cycles=cycles)

    def _packed(self, inputs: Mapping[str, NDArray[np.integer]]) -> Words:
        if set(inputs) != {port.name for port in self.inputs}:
            raise ValueError(f"inputs must be {[port.name for port in self.inputs]}, not {sorted(inputs)}")
        columns = []
        for port in self.inputs:
            column = np.asarray(inputs[port.name])
            column = column.reshape(len(column), -1).astype(np.uint64)
            if column.shape[1] != _words(port):
                raise ValueError(f"{port.name} must have {_words(port)} words of 64 bits per vector, not {column.shape[1]}")
            columns.append(column)
        if len({len(column) for column in columns}) != 1:
            raise ValueError(f"inputs must have one length, not {[len(column) for column in columns]}")
        return np.ascontiguousarray(np.concatenate(columns, axis=1))

    def _unpacked(self, out: Words) -> dict[str, Words]:
        ends = np.cumsum([_words(port) for port in self.outputs])[:-1]
        parts = np.split(out, ends, axis=1)
        return {port.name: part if part.shape[1] > 1 else part[:, 0] for port, part in zip(self.outputs, parts, strict=True)}

    @staticmethod
    def _width(ports: tuple[Net, ...]) -> int:
        return sum(_words(port) for port in ports)

    def _header(self) -> str:
        """C++ that moves words between arrays and pins."""
        put, get = [], []
        for lines, ports in ((put, self.inputs), (get, self.outputs)):
            word = 0
            for port in ports:
                lines += _moves(port, word)
                word += _words(port)
        return "\n".join([
            "#pragma once", *(["#define ITERATIVE"] if self.iterative else []),
            f"constexpr unsigned IN_WORDS = {self._width(self.inputs)}, OUT_WORDS = {self._width(self.outputs)};",
            "inline void put(Vdut& top, const uint64_t* word) {", *put, "}",
            "inline void get(const Vdut& top, uint64_t* word) {", *get, "}", "",
        ])  # fmt: skip


def _words(port: Net) -> int:
    return -(-port.width // 64)


def _moves(port: Net, word: int) -> list[str]:
    """Lines of C++ for one port; a pin is an integer up to 64 bits, an array of 32-bit words beyond."""
    pin = f"top.{port.name.replace('__', '___05F')}"
    if port.width <= 64:
        mask = f"{(1 << port.width) - 1:#x}u"
        return [f"    {pin} = word[{word}] & {mask};" if port.kind == "input" else f"    word[{word}] = {pin};"]
    lines = []
    chunks = -(-port.width // 32)
    for chunk in range(chunks):
        place, shift = word + chunk // 2, 32 * (chunk % 2)
        last = port.width - 32 * chunk
        mask = f"{(1 << min(last, 32)) - 1:#x}u"
        if port.kind == "input":
            lines.append(f"    {pin}[{chunk}] = static_cast<uint32_t>(word[{place}] >> {shift}) & {mask};")
        else:
            lines.append(f"    word[{place}] = {f'word[{place}] | ' if shift else ''}static_cast<uint64_t>({pin}[{chunk}]) << {shift};")
    return lines


def _pointer(array: NDArray[np.generic]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _build(emitted: EmittedVerilog, header: str) -> Path:
    source = Path(__file__).with_name("stream.cpp")
    parts = [emitted.sha256, source.read_text(), header, _VERILATOR_FLAGS, _COMPILER_FLAGS, _LINKER_FLAGS, *_tools()]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
    folder = cache_root() / "stream" / key

    def make(target: Path) -> None:
        (target / f"{_TOP}.v").write_text(emitted.text)
        (target / "ports.h").write_text(header)
        root = verilator_root()
        _run([str(root / "bin" / "verilator"), *_VERILATOR_FLAGS, f"{_TOP}.v"], target, root)
        models = sorted(str(path) for path in (target / "objects").glob("Vdut*.cpp"))
        _run(["g++", *_COMPILER_FLAGS, *_LINKER_FLAGS, *_includes(root), f"-I{target}", f"-I{target / 'objects'}", *models,
              str(source), *map(str, _runtime()), "-o", _LIBRARY], target, root)  # fmt: skip
        shutil.rmtree(target / "objects")

    if cached_folder(folder, make):
        drop_oldest(folder.parent, BUILDS_KEPT)
    return folder / _LIBRARY


@functools.cache
def _tools() -> tuple[str, ...]:
    verilator_root()  # says plainly if g++ is missing
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return verilator_version(), compiler


def _includes(root: Path) -> list[str]:
    return [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]


def _runtime() -> list[Path]:
    """Verilator's own part of every simulator: most of the compiler's work, done once."""
    root = verilator_root()
    key = hashlib.sha256(json.dumps([_COMPILER_FLAGS, *_tools(), str(root)]).encode()).hexdigest()[:32]
    folder = cache_root() / "stream-runtime" / key

    def make(target: Path) -> None:
        _run(["g++", *_COMPILER_FLAGS, *_includes(root), "-c", *(str(root / "include" / name) for name in _RUNTIME)], target, root)

    cached_folder(folder, make)
    return [folder / Path(name).with_suffix(".o") for name in _RUNTIME]


def _run(command: list[str], folder: Path, root: Path) -> None:
    done = subprocess.run(
        command, cwd=folder, env=verilator_environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        tail = "\n".join(done.stdout.splitlines()[-_LOG_LINES:])
        raise BuildError(f"A unit could not be compiled for streaming ({Path(command[0]).name}). The last lines:\n{tail}")
