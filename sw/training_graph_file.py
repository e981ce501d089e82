"""The file of a training graph: nodes in manifest.json, every array of the state as float32; see `sw.archive`.

Arrays are stored, not deflated: trained weights do not shrink, and a checkpoint is written in the time that the disk takes.
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np

from hw.spec.training import BiasState, Geometry, NormConstants, NormState, PoolWindow
from sw.archive import UNUSABLE, ArchiveError, ArrayKind, pack, unpack
from sw.training_graph import (
    ChannelNode,
    ConvNode,
    Node,
    PoolNode,
    SumNode,
    TrainingGraph,
    TrainingGraphError,
    TrainingState,
    WeightState,
)

__all__ = ["MAX_TRAINING_GRAPH_BYTES", "TRAINING_GRAPH_VERSION", "from_bytes", "to_bytes"]

TRAINING_GRAPH_VERSION = 1

MAX_TRAINING_GRAPH_BYTES = 1 << 30
"""Most bytes of a file's contents: weights and velocities of 130 million parameters."""

_KINDS: dict[str, type[Any]] = {"conv": ConvNode, "channel": ChannelNode, "pool": PoolNode, "sum": SumNode}
_FLOATS = ArrayKind(mark="bitloom_training_graph", words="float32", accepts=lambda dtype: dtype == np.dtype("<f4"), to=np.float32)


def to_bytes(graph: TrainingGraph) -> bytes:
    """The graph's file. TrainingGraphError for what `from_bytes` would not take: a file that is written can be read."""
    try:
        manifest, arrays = _contents(graph)
        _graph(json.loads(json.dumps(manifest)), arrays)
        return pack(manifest, arrays, limit=MAX_TRAINING_GRAPH_BYTES, method=zipfile.ZIP_STORED)
    except (ArchiveError, TypeError) as error:
        raise TrainingGraphError(f"the training graph cannot be saved: {error}") from error


def from_bytes(data: bytes, where: str) -> TrainingGraph:
    """The graph in a file's bytes; TrainingGraphError says what is wrong. What the graph would not save again is refused too."""
    try:
        return _graph(*unpack(data, _FLOATS, limit=MAX_TRAINING_GRAPH_BYTES))
    except UNUSABLE as error:
        raise TrainingGraphError(f"{where} is not a usable training graph ({error}); name another file, or export it again") from error


def _contents(graph: TrainingGraph) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The manifest, and the arrays by place of their node and part. Arrays of no node keep their own name."""
    kinds = {kind: name for name, kind in _KINDS.items()}
    places = {node.name: f"{i}" for i, node in enumerate(graph.nodes)}
    arrays = {}
    for name, array in graph.state.arrays().items():
        node, _, part = name.rpartition(".")
        arrays[f"{places.get(node, node)}.{part}"] = np.ascontiguousarray(array)
    manifest = {
        "bitloom_training_graph": TRAINING_GRAPH_VERSION, "batch": graph.batch, "shape": graph.shape, "output": graph.output,
        "nodes": [{"kind": kinds[type(node)], **asdict(node)} for node in graph.nodes],
    }  # fmt: skip
    return manifest, arrays


def _graph(manifest: Any, arrays: Mapping[str, np.ndarray]) -> TrainingGraph:
    if not isinstance(manifest, dict) or manifest.get("bitloom_training_graph") != TRAINING_GRAPH_VERSION:
        found = manifest.get("bitloom_training_graph") if isinstance(manifest, dict) else manifest
        raise TrainingGraphError(f"training graph version must be {TRAINING_GRAPH_VERSION}, not {found!r}")
    nodes = tuple(_node(entry) for entry in _typed("nodes", list, manifest["nodes"]))
    graph = TrainingGraph(
        batch=_value("batch", "int", manifest["batch"]), shape=_value("shape", "tuple[int, int, int]", manifest["shape"]),
        output=_value("output", "str", manifest["output"]), nodes=nodes, state=_state(nodes, arrays),
    )  # fmt: skip
    ours, our_arrays = _contents(graph)
    if json.dumps(ours, sort_keys=True) != json.dumps(manifest, sort_keys=True):
        raise TrainingGraphError("its manifest holds what this version does not write")
    if unused := sorted(set(arrays) - set(our_arrays)):
        raise TrainingGraphError(f"no node uses its arrays {unused}")
    return graph


def _state(nodes: tuple[Node, ...], arrays: Mapping[str, np.ndarray]) -> TrainingState:
    weights, channels = {}, {}
    for i, node in enumerate(nodes):
        if isinstance(node, ConvNode):
            weights[node.name] = WeightState(**_parts(i, WeightState, arrays))
        elif isinstance(node, ChannelNode):
            kind = NormState if node.constants else BiasState
            channels[node.name] = kind(**_parts(i, kind, arrays))
    return TrainingState(weights=weights, channels=channels)


def _parts(place: int, kind: type[Any], arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    names = [entry.name for entry in fields(kind)]
    if missing := [f"{place}.{name}" for name in names if f"{place}.{name}" not in arrays]:
        raise TrainingGraphError(f"arrays {missing} are missing")
    return {name: arrays[f"{place}.{name}"] for name in names}


def _node(entry: Any) -> Node:
    entry = _typed("a node", dict, entry)
    kind = _KINDS.get(_value("the kind of a node", "str", entry["kind"]))
    if kind is None:
        raise TrainingGraphError(f"the kind of a node must be one of {', '.join(_KINDS)}, not {entry['kind']!r}")
    node: Node = _record(f"node {entry.get('name')}", kind, {k: v for k, v in entry.items() if k != "kind"})
    return node


def _record(where: str, kind: type[Any], entry: Any) -> Any:
    """A dataclass from JSON: every field, no other, each of its declared type."""
    entry, wanted = _typed(where, dict, entry), {f.name: str(f.type) for f in fields(kind)}
    if set(entry) != set(wanted):
        raise TrainingGraphError(f"{where} must have {', '.join(wanted)}, not {', '.join(entry)}")
    return kind(**{name: _value(f"{where}: {name}", wanted[name], value) for name, value in entry.items()})


def _typed(where: str, kind: type[Any], value: Any) -> Any:
    if not isinstance(value, kind):
        raise TrainingGraphError(f"{where} must be a {kind.__name__}, not {value!r}")
    return value


def _integers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(type(v) is int for v in value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "int": lambda value: type(value) is int,
    "bool": lambda value: type(value) is bool,
    "float": lambda value: type(value) is float and math.isfinite(value),
    "str": lambda value: isinstance(value, str),
    "str | None": lambda value: value is None or isinstance(value, str),
    "Pattern": lambda value: value is None or _integers(value, 2),
    "tuple[int, int]": lambda value: _integers(value, 2),
    "tuple[int, int, int]": lambda value: _integers(value, 3),
}
"""By the declared type of a field, whether a value from a file is of it. The constructors check ranges, not types."""


def _value(where: str, kind: str, value: Any) -> Any:
    if kind == "Geometry":
        return _record(where, Geometry, value)
    if kind == "PoolWindow":
        return _record(where, PoolWindow, value)
    if kind == "NormConstants | None":
        return None if value is None else _record(where, NormConstants, value)
    if not _CHECKS[kind](value):
        raise TrainingGraphError(f"{where} must be of type {kind}, not {value!r}")
    return tuple(value) if isinstance(value, list) else value
