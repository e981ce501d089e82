"""The one interface of every device: give it a program and inputs, get outputs and counters.

A device owns a flat memory and something that runs a program in it. What is common lives here: the refusal of a foreign program,
placement, packing of tensors, faults in words. Many images go through ``sw.runtime.pipeline``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hw.spec.arch import Arch
from hw.spec.machine import Outcome
from hw.spec.program import Program
from sw.runtime.errors import DeviceError, raise_fault
from sw.runtime.placement import Placement, contents, place, place_buffers
from sw.runtime.records import RunRecord

if TYPE_CHECKING:
    from hw.spec.training_program import TrainingProgram
    from sw.runtime.training import TrainingSession

Tensors = dict[str, np.ndarray]
Counters = dict[str, int]
Self = TypeVar("Self", bound="Device")


@dataclass(frozen=True, kw_only=True, eq=False)
class Launch:
    """One start of a program: how it ended, counters, and what it wrote where the device was asked to record that.

    ``late``: it did not end in time and was aborted; what the core was doing then, in words.
    """

    outcome: Outcome
    counters: Counters
    record: RunRecord | None = None
    late: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageRun:
    """One image through a program: output codes (C, H, W) by name, and the launch."""

    outputs: Tensors
    launch: Launch


class Device(ABC):
    """Runs programs. A device keeps the memory that the last program left."""

    memory_base: int
    memory_bytes: int

    @property
    @abstractmethod
    def arch_id(self) -> int | None:
        """Identity of the core's architecture; None where the device takes any."""

    @abstractmethod
    def write_memory(self, address: int, data: bytes) -> None:
        """Put bytes at an address of the device's memory."""

    @abstractmethod
    def read_memory(self, address: int, count: int) -> bytes:
        """Bytes at an address of the device's memory."""

    @abstractmethod
    def start(self, program: Program, placement: Placement, *, record: bool = False) -> None:
        """Start a loaded program; memory that it does not use may be written and read. ``record`` needs a device that sees writes."""

    @abstractmethod
    def finish(self) -> Launch:
        """Wait for the end of the program that was started, good or bad."""

    def launch(self, program: Program, placement: Placement, *, record: bool = False) -> Launch:
        """Start a loaded program and wait for its end."""
        self.start(program, placement, record=record)
        return self.finish()

    def close(self) -> None:
        """Give back what the device holds; nothing, unless a device says otherwise."""
        return

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, program: Program, inputs: Mapping[str, np.ndarray]) -> tuple[Tensors, Counters]:
        """Run the program on each image.

        Parameters
        ----------
        program : compiled for this device's architecture, else DeviceError
        inputs : for each input of the program integer codes (N, C, H, W), or (C, H, W) for one image

        Returns
        -------
        outputs : integer codes by name, with the batch axis if the inputs had it
        counters : sums over all images of what the device counts (``hw.spec.regs.COUNTERS`` of a core), and RETIRED

        While an image is computed the next one is written and the one before is read, where memory holds two. A program that ends with
        an error raises CoreFault.
        """
        from sw.runtime.pipeline import Pipeline, fitting_depth

        images, batched = _images(program, inputs)
        with Pipeline(self, program, depth=min(len(images), fitting_depth(self, program))) as pipeline:
            runs = list(pipeline.map(images))
        outputs = {name: np.stack([run.outputs[name] for run in runs]) for name in runs[0].outputs}
        counters = {name: sum(run.launch.counters[name] for run in runs) for name in runs[0].launch.counters}
        return (outputs if batched else {name: codes[0] for name, codes in outputs.items()}), counters

    def load(self, program: Program) -> Placement:
        """Check that the program fits the device, place it and write its image and parameters."""
        return self.load_buffers(program, 1)[0]

    def load_buffers(self, program: Program, count: int) -> tuple[Placement, ...]:
        """As `load`, with ``count`` buffers for inputs and outputs: placements that differ in nothing else."""
        self.check(program)
        placements = place_buffers(program, count, base=self.memory_base, size=self.memory_bytes)
        for placement in placements:
            for layout in (*program.inputs, *program.outputs):
                placement.tensor_address(layout)
        for address, data in contents(program, placements[0]):
            self.write_memory(address, data)
        return placements

    def check(self, program: Program) -> None:
        """DeviceError where the program was compiled for another architecture."""
        self._check_arch(program.arch)

    def check_training(self, program: TrainingProgram) -> None:
        """Likewise of a training program."""
        self._check_arch(program.arch)

    def _check_arch(self, arch: Arch) -> None:
        ours, theirs = self.arch_id, arch.arch_id
        if ours is not None and ours != theirs:
            raise DeviceError(
                f"the program was compiled for arch_id {theirs:016x} and the device is {ours:016x}: "
                "compile it for this device's architecture"
            )

    def run_image(
        self, program: Program, placement: Placement, image: Mapping[str, np.ndarray], *, record: bool = False
    ) -> ImageRun:
        """One image (C, H, W) per input through a loaded program."""
        self.write_inputs(program, placement, image)
        launch = self.launch(program, placement, record=record)
        raise_fault(launch.outcome, program, launch.late)
        return ImageRun(outputs=self.read_outputs(program, placement), launch=launch)

    def write_inputs(self, program: Program, placement: Placement, image: Mapping[str, np.ndarray]) -> None:
        """Pack codes (C, H, W) of every input and put them where the program reads them; all are packed before any is written."""
        packed = [(placement.tensor_address(layout), layout.pack(image[layout.name])) for layout in program.inputs]
        for address, data in packed:
            self.write_memory(address, data)

    def read_outputs(self, program: Program, placement: Placement) -> Tensors:
        """Codes (C, H, W) of every output."""
        return {
            layout.name: layout.unpack(self.read_memory(placement.tensor_address(layout), layout.size))
            for layout in program.outputs
        }

    def open_session(
        self, program: TrainingProgram, state: Mapping[str, np.ndarray], *, steps: int = 0, record: bool = False
    ) -> TrainingSession:
        """A training session: the program and its state are loaded, weights are prepared; ``steps`` were made before. Errors as
        TrainingSession's."""
        from sw.runtime.training import TrainingSession

        return TrainingSession(self, program, state, steps=steps, record=record)

    def dirty(self, program: Program, seed: int) -> None:
        """Fill the memory that the program will use with random bytes, as another program would leave it."""
        end = place(program, base=self.memory_base, size=self.memory_bytes).end
        rng = np.random.default_rng(seed)
        self.write_memory(self.memory_base, rng.integers(0, 256, end - self.memory_base, np.uint8).tobytes())


def _images(program: Program, inputs: Mapping[str, np.ndarray]) -> tuple[list[Tensors], bool]:
    """Inputs as one dict per image, and whether they came with a batch axis."""
    wanted = [layout.name for layout in program.inputs]
    if sorted(inputs) != sorted(wanted):
        raise DeviceError(f"the program's inputs are {sorted(wanted)}, not {sorted(inputs)}")
    arrays = {name: np.asarray(codes) for name, codes in inputs.items()}
    axes = {array.ndim for array in arrays.values()}
    if axes not in ({3}, {4}):
        raise DeviceError(f"inputs must all be (N, C, H, W) or all (C, H, W), not {[a.shape for a in arrays.values()]}")
    if axes == {3}:
        return [arrays], False
    counts = {len(array) for array in arrays.values()}
    if len(counts) != 1 or 0 in counts:
        raise DeviceError(f"inputs must have one common number of images, at least 1, not {sorted(counts)}")
    return [{name: array[i] for name, array in arrays.items()} for i in range(counts.pop())], True
