"""Training sessions: a compiled training step on a device, batch after batch, with its state in the device's memory.

The host computes the loss and its gradient only. State comes and goes as named arrays, the same names as
``sw.training_graph.TrainingState.arrays()`` has, so that a session can be saved, moved to another device and resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hw.spec.sat.channel import CONSTANTS, RECORD, RECORD_VALUES
from hw.spec.training import Hyper, softmax_cross_entropy
from hw.spec.training.rounded import watching
from hw.spec.training_program import RECORD_FLOATS, RECORDS, Place, TrainingProgram
from sw.runtime.errors import DeviceError, raise_fault
from sw.runtime.placement import Placement, contents, place

if TYPE_CHECKING:
    from sw.runtime.device import Device, Launch

Arrays = dict[str, np.ndarray]
NORM_PARTS = ("scale", "bias", "scale_velocity", "bias_velocity", "running_mean", "running_variance")
BIAS_PARTS = NORM_PARTS[:4]
PARTS = {"norm": NORM_PARTS, "bias": BIAS_PARTS}


@dataclass(frozen=True, kw_only=True, eq=False)
class StepReport:
    """One training step: mean loss, logits (N, classes), whether it was skipped because a gradient saturated.

    ``activations_saturated``: something saturated in the forward pass; the step counts all the same. ``launches``: the programs that
    ran, with counters and, where the session records, with what they wrote.
    """

    loss: float
    logits: np.ndarray
    skipped: bool
    activations_saturated: bool
    launches: dict[str, Launch]


class TrainingSession:
    """A training program on a device.

    Parameters: ``device`` (its memory must hold all regions: DeviceError otherwise), ``program``, ``state`` arrays to begin with,
    ``steps`` that were made before; ``record`` keeps what every program writes, on a device that sees it.

    What ends with an error, CoreFault or another, leaves half of a state in memory: the session then refuses everything but
    `load_state`. A step that failed does not count in ``steps``.
    """

    def __init__(
        self, device: Device, program: TrainingProgram, state: Mapping[str, np.ndarray], *, steps: int = 0, record: bool = False
    ) -> None:
        device.check_training(program)
        self.device, self.program, self.record = device, program, record
        self.launches: dict[str, Launch] = {}
        """The last launch of each program that ran."""
        longest = max(program.images, key=lambda name: len(program.images[name]))
        self._placement = place(program.program(longest), base=device.memory_base, size=device.memory_bytes)
        for address, data in contents(program.program(longest), self._placement):
            device.write_memory(address, data)
        self.steps, self._whole = steps, False
        self.load_state(state)

    @property
    def batch_shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C) of a step's images."""
        n, h, w, c = self.program.places["images"].shape
        return n, h, w, c

    def step(self, batch: tuple[np.ndarray, np.ndarray], hyper: Hyper) -> StepReport:
        """Train on a batch: images float16 (N, H, W, C) and labels (N,)."""
        images, labels = batch
        checked = self._checked_images(images)
        with self._changing():
            return self._step(checked, np.asarray(labels), hyper)

    def _step(self, images: np.ndarray, labels: np.ndarray, hyper: Hyper) -> StepReport:
        launches: dict[str, Launch] = {}
        self._write("images", images)
        self._write("hyper", hyper_words(hyper))
        launches["forward"] = self._run("forward")
        logits = self._logits()
        with watching() as watch:
            loss, gradient = softmax_cross_entropy(logits, labels, hyper.loss_scale)
        self._write("gradient", gradient.reshape(self.program.places["gradient"].shape))
        launches["backward"] = self._run("backward")
        flags = self._flags()
        skipped = watch.saturated or flags[1]
        if not skipped:
            launches["update"] = self._run("update")
        self.steps += 1
        return StepReport(loss=loss, logits=logits, skipped=skipped, activations_saturated=flags[0], launches=launches)

    def infer(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of a batch with the running statistics."""
        checked = self._checked_images(images)
        with self._changing():
            self._write("images", checked)
            self._run("infer")
            return self._logits()

    def state(self) -> Arrays:
        """All parameters, velocities and statistics by name."""
        self._demand_whole()
        found: Arrays = {}
        for name, entry in self._state_places().items():
            data = self._read(name)
            if entry.kind in RECORDS:
                node = name.removesuffix(".record")
                found |= {f"{node}.{part}": data[:, RECORD.index(part)].copy() for part in PARTS[entry.kind]}
            else:
                found[name] = data
        return found

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace the state, and make the FP16 weights from it. Nothing is written where an array is missing, foreign or not finite."""
        packed = {name: self._packed(name, entry, state) for name, entry in self._state_places().items()}
        if unknown := sorted(set(state) - self._state_names()):
            raise DeviceError(f"the program has no state {unknown}; it has {sorted(self._state_names())}")
        self._whole = False
        for name, data in packed.items():
            self.device.write_memory(self._address(self.program.places[name]), data)
        self._run("prepare")
        self._whole = True

    # ----------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """What is in memory is whole before and after, and not where an error comes between."""
        self._demand_whole()
        self._whole = False
        yield
        self._whole = True

    def _demand_whole(self) -> None:
        if not self._whole:
            raise DeviceError("an earlier step failed, and the state in the device's memory is half of it: load_state() a saved one")

    def _state_places(self) -> dict[str, Place]:
        return {n: p for n, p in self.program.places.items() if n.endswith((".master", ".velocity", ".record"))}

    def _state_names(self) -> set[str]:
        names = set()
        for name, entry in self._state_places().items():
            node = name.removesuffix(".record")
            names |= {f"{node}.{part}" for part in PARTS[entry.kind]} if entry.kind in RECORDS else {name}
        return names

    def _packed(self, name: str, entry: Place, state: Mapping[str, np.ndarray]) -> bytes:
        if entry.kind not in RECORDS:
            return entry.pack(_finite(name, state.get(name), entry.shape))
        node = name.removesuffix(".record")
        records = np.zeros((*entry.shape, RECORD_FLOATS), np.float32)
        for part in PARTS[entry.kind]:
            records[:, RECORD.index(part)] = _finite(f"{node}.{part}", state.get(f"{node}.{part}"), entry.shape)
        return entry.pack(records)

    def _checked_images(self, images: np.ndarray) -> np.ndarray:
        images = np.asarray(images)
        if images.dtype != np.float16 or images.shape != self.batch_shape or not np.isfinite(images).all():
            raise DeviceError(f"images must be finite float16 of shape {self.batch_shape}, not {images.dtype} {images.shape}")
        return images

    def _run(self, name: str) -> Launch:
        program = self.program.program(name)
        self.device.write_memory(self._placement.program_address, program.image)
        launch = self.device.launch(program, replace(self._placement, program_length=len(program.image)), record=self.record)
        raise_fault(launch.outcome, program, launch.late)
        self.launches[name] = launch
        return launch

    def _logits(self) -> np.ndarray:
        logits = self._read("logits")
        return logits.reshape(len(logits), -1)

    def _flags(self) -> list[bool]:
        return [bool(flag) for flag in self._read("flags").view(np.uint32)[:, 0]]

    def _address(self, entry: Place) -> int:
        return self._placement.regions[entry.region].base + 16 * entry.offset

    def _write(self, name: str, array: np.ndarray) -> None:
        entry = self.program.places[name]
        self.device.write_memory(self._address(entry), entry.pack(array))

    def _read(self, name: str) -> np.ndarray:
        entry = self.program.places[name]
        return entry.unpack(self.device.read_memory(self._address(entry), entry.size))

    @property
    def placement(self) -> Placement:
        """Where everything lies in the device's memory."""
        return self._placement


def _finite(name: str, array: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    if array is None or array.dtype != np.float32 or array.shape != shape or not np.isfinite(array).all():
        found = "missing" if array is None else f"{array.dtype} {array.shape}, or not finite"
        raise DeviceError(f"state {name} must be finite float32 of shape {shape}, not {found}")
    return array


def hyper_words(hyper: Hyper) -> np.ndarray:
    """What a step's programs read of the hyper-parameters: constants of CHN, then S and T of the three steps of an update; (8, 4)."""
    values = np.zeros((8, 4), np.float32)
    scale, decay = 1 / hyper.loss_scale, hyper.weight_decay if hyper.decay_norm else 0.0
    named: dict[str, float] = {
        "one": 1.0, "inverse_loss_scale": scale, "momentum": hyper.momentum, "learning_rate": hyper.learning_rate,
        "scale_decay": decay, "bias_decay": decay,
    }  # fmt: skip
    constants = values[: RECORD_VALUES // 4].reshape(-1)
    for name, value in named.items():
        constants[CONSTANTS.index(name)] = value
    values[4, :2] = hyper.weight_decay, scale
    values[5, :2] = hyper.momentum, 1.0
    values[6, :2] = 1.0, -np.float32(hyper.learning_rate)
    return values


__all__ = ["StepReport", "TrainingSession", "hyper_words"]
