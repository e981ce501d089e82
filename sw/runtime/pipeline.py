"""Many images through a device that does not wait for its host: while one is computed, the next is written and the last is read.

    with Pipeline(device, program) as pipeline:
        for run in pipeline.map(images):
            ...

Each image in flight has inputs and outputs of its own in the device's memory (``placement.place_buffers``); parameters, scratch and
program are shared.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from hw.spec.program import Program
from sw.runtime.device import Device, ImageRun, Launch
from sw.runtime.errors import DeviceError, raise_fault
from sw.runtime.placement import Placement, place_buffers

__all__ = ["Pipeline", "fitting_depth"]

DEPTH = 2
"""Buffers that hide all transfers where they take no longer than the computation."""


class Pipeline:
    """A program on a device, with up to ``depth`` images in flight.

    `submit` and `wait` may also be called one by one, in any order that keeps images in flight between 0 and ``depth``. The device
    belongs to the pipeline until `close`. DeviceError where the program does not fit the device, or ``depth`` buffers not its memory.
    """

    def __init__(self, device: Device, program: Program, *, depth: int = DEPTH) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, not {depth}")
        self.device, self.program, self.depth = device, program, depth
        self._free = deque(device.load_buffers(program, depth))
        self._waiting: deque[Placement] = deque()
        """Written and not started, in order."""
        self._running: Placement | None = None

    @property
    def in_flight(self) -> int:
        """Images that were submitted and not waited for."""
        return self.depth - len(self._free)

    def submit(self, image: Mapping[str, np.ndarray]) -> None:
        """Write an image, codes (C, H, W) of each input, and start it as soon as the core is free.

        DeviceError where ``depth`` images are in flight; ValueError for codes that do not fit, and nothing is written.
        """
        if not self._free:
            raise DeviceError(f"{self.depth} images are in flight, which is the pipeline's depth: wait for one first")
        placement = self._free[0]
        self.device.write_inputs(self.program, placement, image)
        self._waiting.append(self._free.popleft())
        self._start_next()

    def wait(self) -> ImageRun:
        """The result of the oldest image in flight; the next one is started before its outputs are read.

        CoreFault where its program ended with an error; the images behind it stay in flight.
        """
        self._start_next()
        if self._running is None:
            raise DeviceError("no image is in flight: submit one first")
        placement = self._running
        launch = self._finish()
        raise_fault(launch.outcome, self.program, launch.late)
        self._start_next()
        outputs = self.device.read_outputs(self.program, placement)
        return ImageRun(outputs=outputs, launch=launch)

    def map(self, images: Iterable[Mapping[str, np.ndarray]]) -> Iterator[ImageRun]:
        """The results of all images, in order."""
        for image in images:
            if not self._free:
                yield self.wait()
            self.submit(image)
        while self.in_flight:
            yield self.wait()

    def close(self) -> None:
        """Let the program that runs come to its end; images in flight are dropped."""
        if self._running is not None:
            self._finish()
        self._free += self._waiting
        self._waiting.clear()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start_next(self) -> None:
        if self._running is None and self._waiting:
            self.device.start(self.program, self._waiting[0])
            self._running = self._waiting.popleft()

    def _finish(self) -> Launch:
        """The end of the program that runs; its buffer is free from then on, and its outputs stay until another image is written."""
        assert self._running is not None
        placement, self._running = self._running, None
        self._free.append(placement)
        return self.device.finish()


def fitting_depth(device: Device, program: Program) -> int:
    """`DEPTH`, or 1 where the device's memory holds no second buffer."""
    device.check(program)
    try:
        place_buffers(program, DEPTH, base=device.memory_base, size=device.memory_bytes)
    except DeviceError:
        return 1
    return DEPTH
