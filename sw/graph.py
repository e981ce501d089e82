"""Integer graphs: an executable network of golden operations, one file each, numpy only.

A graph is a list of nodes in execution order; each node calls one operation of ``hw.spec.ops`` on named tensors. Running the graph
*is* the definition of the deployed network: the compiler's program must compute the same codes.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import OPERATIONS, Requant
from hw.spec.program import write_atomically

GRAPH_VERSION = 1


class GraphError(ValueError):
    """A graph that does not hold together, or a file that is not one; the message says where."""


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """Shape (C, H, W) and format of a tensor; batches come in front when a graph runs."""

    shape: tuple[int, int, int]
    fmt: FixedFormat

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(d) for d in self.shape))
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GraphError(f"a tensor's shape must be (C, H, W), each at least 1, not {self.shape}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Node:
    """One operation: ``name`` is the layer's place in the model, ``inputs`` and ``output`` are tensor names."""

    name: str
    operation: Any
    inputs: tuple[str, ...]
    output: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", tuple(self.inputs))
        if type(self.operation) not in OPERATIONS.values():
            raise GraphError(f"node {self.name}: {type(self.operation).__name__} is not an operation of hw.spec.ops")


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerGraph:
    """A network in integers.

    Parameters
    ----------
    tensors : every tensor's name to its shape and format
    inputs, outputs : names of the graph's own inputs and outputs
    nodes : in execution order; each tensor but the inputs is written once, before it is read
    """

    tensors: Mapping[str, TensorSpec]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        for name in ("inputs", "outputs", "nodes"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        known = set(self.inputs)
        for node in self.nodes:
            if missing := [t for t in node.inputs if t not in known]:
                raise GraphError(f"node {node.name} reads {missing} before anything writes it")
            if node.output in known:
                raise GraphError(f"node {node.name} writes {node.output}, which is already written")
            known.add(node.output)
        if missing := sorted((known | set(self.outputs)) - set(self.tensors)) + sorted(set(self.outputs) - known):
            raise GraphError(f"tensors {missing} have no shape and format, or nothing writes them")

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Codes (N, C, H, W) of every input to codes of every output."""
        values = self.trace(inputs)
        return {name: values[name] for name in self.outputs}

    def trace(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Like a call, with every intermediate tensor too."""
        values = {name: self._checked(name, np.asarray(inputs[name])) for name in self.inputs}
        for node in self.nodes:
            values[node.output] = self._checked(node.output, node.operation(*(values[t] for t in node.inputs)))
        return values

    def _checked(self, name: str, codes: np.ndarray) -> np.ndarray:
        spec = self.tensors[name]
        if codes.dtype.kind not in "iu" or codes.shape[1:] != spec.shape:
            raise GraphError(f"tensor {name} must be integer codes (N, {spec.shape}), not {codes.dtype} {codes.shape}")
        low, high = spec.fmt.min_code, spec.fmt.max_code
        if codes.size and (codes.min() < low or codes.max() > high):
            raise GraphError(f"tensor {name} must have codes in {low}..{high}, not {codes.min()}..{codes.max()}")
        return codes.astype(np.int64)

    def macs(self) -> int:
        """Multiply-accumulates of one image: of the logical tensors, without pads."""
        return sum(node_macs(node, self.tensors[node.output].shape) for node in self.nodes)

    def to_bytes(self) -> bytes:
        """The graph's file: a zip with manifest.json and one .npy per array, no timestamps, so equal graphs have equal bytes."""
        arrays: dict[str, np.ndarray] = {}
        manifest = {
            "bitloom_graph": GRAPH_VERSION,
            "tensors": {k: {"shape": t.shape, "fmt": _format(t.fmt)} for k, t in self.tensors.items()},
            "inputs": self.inputs,
            "outputs": self.outputs,
            "nodes": [
                {
                    "name": n.name,
                    "op": n.operation.op,
                    "inputs": n.inputs,
                    "output": n.output,
                    "attributes": _pack(n.operation, f"{i}", arrays),
                }
                for i, n in enumerate(self.nodes)
            ],
        }
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            _add(archive, "manifest.json", json.dumps(manifest, sort_keys=True, indent=1).encode())
            for key, array in arrays.items():
                npy = io.BytesIO()
                np.save(npy, array, allow_pickle=False)
                _add(archive, f"{key}.npy", npy.getvalue())
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        write_atomically(path, self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> IntegerGraph:
        return IntegerGraph.from_bytes(Path(path).read_bytes(), str(path))

    @staticmethod
    def from_bytes(data: bytes, where: str = "graph") -> IntegerGraph:
        """The graph in a file's bytes; GraphError says what is wrong."""
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                manifest = json.loads(archive.read("manifest.json"))
                arrays = {
                    name[:-4]: np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                    for name in archive.namelist()
                    if name.endswith(".npy")
                }
            if manifest.get("bitloom_graph") != GRAPH_VERSION:
                raise GraphError(f"graph version must be {GRAPH_VERSION}, not {manifest.get('bitloom_graph')}")
            return IntegerGraph(
                tensors={k: TensorSpec(shape=t["shape"], fmt=FixedFormat(*t["fmt"])) for k, t in manifest["tensors"].items()},
                inputs=manifest["inputs"],
                outputs=manifest["outputs"],
                nodes=tuple(_node(entry, arrays) for entry in manifest["nodes"]),
            )
        except (zipfile.BadZipFile, KeyError, TypeError, ValueError, EOFError, AttributeError) as error:
            raise GraphError(f"{where} is not a usable integer graph ({error}); export it again") from error


def node_macs(node: Node, output_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of one node for one image."""
    weight = getattr(node.operation, "weight", None)
    pixels = output_shape[1] * output_shape[2]
    return 0 if weight is None else int(weight.size) * pixels


def _format(fmt: FixedFormat) -> tuple[int, int, bool]:
    return fmt.width, fmt.frac, fmt.signed


def _pack(value: Any, key: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A dataclass's fields as JSON; arrays go to ``arrays`` by key."""
    return {name: _pack_value(item, f"{key}.{name}", arrays) for name, item in _items(value)}


def _pack_value(item: Any, key: str, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(item, np.ndarray):
        arrays[key] = item
        return {"array": key}
    if isinstance(item, Requant):
        return {"requant": _pack(item, key, arrays)}
    if isinstance(item, Rounding):
        return {"rounding": item.name}
    return item


def _items(value: Any) -> Iterator[tuple[str, Any]]:
    return ((f.name, getattr(value, f.name)) for f in fields(value))


def _unpack_value(item: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(item, dict):
        return item
    ((kind, content),) = item.items()
    if kind == "array":
        return arrays[content]
    if kind == "rounding":
        return Rounding[content]
    return Requant(**{k: _unpack_value(v, arrays) for k, v in content.items()})


def _node(entry: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Node:
    attributes = {k: _unpack_value(v, arrays) for k, v in entry["attributes"].items()}
    operation = OPERATIONS[entry["op"]](**attributes)
    return Node(name=entry["name"], operation=operation, inputs=tuple(entry["inputs"]), output=entry["output"])


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
