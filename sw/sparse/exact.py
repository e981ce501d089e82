"""Training steps that are the core's, bit for bit: a `TrainingGraph` with compiled products, fed from torch or numpy."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hw.spec.floats import FP16_MAX
from hw.spec.program import write_atomically
from hw.spec.training import Hyper
from sw.kernels.products import ordered_products
from sw.sparse.scaling import LossScaling, Scale
from sw.training_graph import StepResult, TrainingGraph, TrainingState

__all__ = ["CheckpointError", "ExactTrainer", "StepRecord", "half_images"]

Array = np.ndarray
_VERSION = 1


class CheckpointError(ValueError):
    """A checkpoint that does not continue this training; the message says why."""


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What a step did: its mean loss before the update, the loss scale, and whether its update was skipped as gradients saturated."""

    loss: float
    loss_scale: float
    skipped: bool


def half_images(images: Tensor | Array) -> Array:
    """Images (N, C, H, W) of any float type as the core takes them: float16 (N, H, W, C), each value rounded once to nearest even.

    Raises ValueError for integers (normalise them first), for NaN and infinities, and for values beyond 65504.
    """
    values = images.detach().cpu() if isinstance(images, Tensor) else np.asarray(images)
    if isinstance(values, Tensor):
        values = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    if values.dtype.kind != "f" or values.ndim != 4:
        raise ValueError(f"images must be floats (N, C, H, W), not {values.dtype} of shape {values.shape}")
    if wrong := int((~np.isfinite(values)).sum()):
        raise ValueError(f"images must be finite, and {wrong} of {values.size} values are NaN or infinite: look for damaged data")
    largest = float(np.abs(values).max(initial=0))  # as float: numpy compares with an FP16 in FP16
    if largest > float(FP16_MAX):
        raise ValueError(f"images must be at most {FP16_MAX:g} in magnitude, not {largest:g}: normalise them")
    return np.ascontiguousarray(values.transpose(0, 2, 3, 1).astype(np.float16))


class ExactTrainer:
    """Trains a graph step by step; ``state`` is what a core would hold after the same steps.

    Parameters
    ----------
    graph : from `sw.sparse.export`, or loaded
    scaling : how the loss scale moves
    threads : of the products; results do not depend on it

    Members: ``state``; ``scale`` of the next step; ``history``, a record per step.
    """

    def __init__(self, graph: TrainingGraph, *, scaling: LossScaling | None = None, threads: int = 1) -> None:
        self.graph, self.scaling = graph, scaling or LossScaling()
        self.state: TrainingState = graph.state
        self.scale = Scale(value=self.scaling.initial)
        self.history: list[StepRecord] = []
        self._products = ordered_products(threads)

    def step(self, images: Tensor | Array, labels: Tensor | Array, hyper: Hyper) -> StepResult:
        """One step on images (N, C, H, W), floats, and labels (N,), integers.

        The loss scale is the trainer's, not that of ``hyper``. A step whose gradients saturate updates the running statistics alone
        and halves the scale; `DivergedError` at the smallest, with the trainer as it was before the step.
        """
        hyper = replace(hyper, loss_scale=self.scale.value)
        classes = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        if classes.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers (N,), not {classes.dtype} of shape {classes.shape}")
        result = self.graph.step(self.state, half_images(images), classes, hyper, self._products)
        scale = self.scale.after(result.skipped, self.scaling)
        self.state, self.scale = result.state, scale
        self.history.append(StepRecord(loss=result.loss, loss_scale=hyper.loss_scale, skipped=result.skipped))
        return result

    def logits(self, images: Tensor | Array) -> Array:
        """float16 (N, classes) of any number of images, with the running statistics."""
        return self.graph.infer(self.state, half_images(images), self._products).reshape(len(images), -1)

    def trained(self) -> TrainingGraph:
        """The graph with the present state as its start: to save it, or to compile it."""
        return replace(self.graph, state=self.state)

    # -- checkpoints --------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that a training goes on from, as tensors and plain values: `torch.save` keeps it, weights_only reads it."""
        return {
            "version": _VERSION, "graph": fingerprint(self.graph), "scaling": asdict(self.scaling), "scale": asdict(self.scale),
            "history": [asdict(record) for record in self.history],
            "arrays": {name: torch.from_numpy(np.array(array)) for name, array in self.state.arrays().items()},
        }  # fmt: skip

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Go on from a `state_dict` of a trainer of the same graph and scaling. CheckpointError otherwise; nothing has changed then."""
        try:
            self._check(content)
            state = _state(self.state, content["arrays"])
            self.graph.check_state(state)
            scale = _record(Scale, content["scale"])
            history = [_record(StepRecord, entry) for entry in content["history"]]
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise CheckpointError(f"the checkpoint does not continue this training: {error}") from error
        self.state, self.scale, self.history = state, scale, history

    def save(self, path: str | Path) -> None:
        """Write a checkpoint whole or not at all."""
        buffer = io.BytesIO()
        torch.save(self.state_dict(), buffer)
        write_atomically(path, buffer.getvalue())

    def load(self, path: str | Path) -> None:
        """Go on from a file of `save`. CheckpointError for anything else."""
        data = Path(path).read_bytes()
        try:
            content = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except (RuntimeError, OSError, pickle.UnpicklingError, EOFError, ValueError, LookupError) as error:
            raise CheckpointError(f"{path} is not a usable checkpoint ({error})") from error
        self.load_state_dict(content)

    def _check(self, content: Mapping[str, Any]) -> None:
        if content["version"] != _VERSION:
            raise ValueError(f"its version must be {_VERSION}, not {content['version']!r}")
        if content["graph"] != fingerprint(self.graph):
            raise ValueError("it is of another graph: other layers, patterns or batch")
        if content["scaling"] != asdict(self.scaling):
            raise ValueError(f"its loss scaling is {content['scaling']}, not {asdict(self.scaling)}")


def fingerprint(graph: TrainingGraph) -> str:
    """SHA-256 of what training does not change: batch, shape, nodes and output."""
    parts = [graph.batch, graph.shape, graph.output, [[type(node).__name__, asdict(node)] for node in graph.nodes]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _state(like: TrainingState, arrays: Mapping[str, Tensor]) -> TrainingState:
    """A state with the parts of ``like`` from arrays by name."""
    if set(arrays) != set(like.arrays()):
        raise ValueError(f"arrays {sorted(set(arrays) ^ set(like.arrays()))} are in one of them only")

    def filled(name: str, part: Any) -> Any:
        return replace(part, **{f.name: arrays[f"{name}.{f.name}"].numpy().copy() for f in fields(part)})

    return TrainingState(weights={n: filled(n, part) for n, part in like.weights.items()},
                         channels={n: filled(n, part) for n, part in like.channels.items()})


def _record(kind: type[Any], entry: Mapping[str, Any]) -> Any:
    """A dataclass from its fields, each of its declared type."""
    wanted = {f.name: f.type for f in fields(kind)}
    if {name: type(value).__name__ for name, value in entry.items()} != wanted:
        raise ValueError(f"{kind.__name__} must have {wanted}, not {dict(entry)}")
    return kind(**entry)
