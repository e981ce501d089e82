"""The one interface of every device: give it a program and inputs, get outputs and counters.

A device owns a flat memory and something that runs a program in it. What is common lives here: the refusal of a foreign program,
placement, packing of tensors, the loop over images, faults in words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from hw.spec.machine import Outcome
from hw.spec.program import Program
from sw.runtime.errors import DeviceError, raise_fault
from sw.runtime.placement import Placement, contents, place
from sw.runtime.records import RunRecord

if TYPE_CHECKING:
    from hw.spec.training_program import TrainingProgram
    from sw.runtime.training import TrainingSession

Tensors = dict[str, np.ndarray]
Counters = dict[str, int]
Self = TypeVar("Self", bound="Device")


@dataclass(frozen=True, kw_only=True, eq=False)
class Launch:
    """One start of a program: how it ended, counters, and what it wrote where the device was asked to record that."""

    outcome: Outcome
    counters: Counters
    record: RunRecord | None = None


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
    def launch(self, program: Program, placement: Placement, *, record: bool = False) -> Launch:
        """Start a loaded program and wait for its end, good or bad. ``record`` needs a device that can see writes."""

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

        A program that ends with an error raises CoreFault.
        """
        images, batched = _images(program, inputs)
        placement = self.load(program)
        runs = [self.run_image(program, placement, image) for image in images]
        outputs = {name: np.stack([run.outputs[name] for run in runs]) for name in runs[0].outputs}
        counters = {name: sum(run.launch.counters[name] for run in runs) for name in runs[0].launch.counters}
        return (outputs if batched else {name: codes[0] for name, codes in outputs.items()}), counters

    def load(self, program: Program) -> Placement:
        """Check that the program fits the device, place it and write its image and parameters."""
        self.check(program)
        placement = place(program, base=self.memory_base, size=self.memory_bytes)
        for layout in (*program.inputs, *program.outputs):
            placement.tensor_address(layout)
        for address, data in contents(program, placement):
            self.write_memory(address, data)
        return placement

    def check(self, program: Program) -> None:
        """DeviceError where the program was compiled for another architecture."""
        ours, theirs = self.arch_id, program.arch.arch_id
        if ours is not None and ours != theirs:
            raise DeviceError(
                f"the program was compiled for arch_id {theirs:016x} and the device is {ours:016x}: "
                "compile it for this device's architecture"
            )

    def run_image(
        self, program: Program, placement: Placement, image: Mapping[str, np.ndarray], *, record: bool = False
    ) -> ImageRun:
        """One image (C, H, W) per input through a loaded program."""
        for layout in program.inputs:
            self.write_memory(placement.tensor_address(layout), layout.pack(image[layout.name]))
        launch = self.launch(program, placement, record=record)
        raise_fault(launch.outcome, program)
        outputs = {
            layout.name: layout.unpack(self.read_memory(placement.tensor_address(layout), layout.size))
            for layout in program.outputs
        }
        return ImageRun(outputs=outputs, launch=launch)

    def open_session(self, program: TrainingProgram, state: Mapping[str, np.ndarray]) -> TrainingSession:
        """A training session: the program and its state are loaded, weights are prepared. Errors as TrainingSession's."""
        from sw.runtime.training import TrainingSession

        return TrainingSession(self, program, state)

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
