"""The container of a compiled training step: several programs over the same memory regions, and where everything lies.

A file is a frame (magic, JSON manifest, blobs, CRC-32 of everything), as that of ``hw.spec.program``. The programs:

====================  ========================================================================================================
``prepare``           FP16 weights from the masters: once, after a state was loaded
``forward``           images to logits, batch statistics
``backward``          gradient of the logits to all gradients
``update``            new masters, scales and biases, and the FP16 weights of the next step
``infer``             images to logits with the running statistics
====================  ========================================================================================================
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.arch import WORD_BYTES, Arch
from hw.spec.program import TRAINING_MAGIC, Program, ProgramError, Region, write_atomically

PROGRAMS = ("prepare", "forward", "backward", "update", "infer")
KINDS = {"fp16": (np.float16, 2), "fp32": (np.float32, 4), "norm": (np.float32, 4), "bias": (np.float32, 4)}
RECORDS = ("norm", "bias")
RECORD_FLOATS = 32
"""FP32-sized values of a channel record."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where an array lies: ``offset`` in words of its region.

    Kind fp16 or fp32: an array of ``shape`` whose axes are padded to ``padded``, zeros there, last axis innermost. Kind norm or bias:
    ``padded[0]`` channel records of BatchNorm or of a bias, of which the first ``shape[0]`` count.
    """

    name: str
    kind: str
    region: int
    offset: int
    shape: tuple[int, ...]
    padded: tuple[int, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))
        object.__setattr__(self, "padded", tuple(self.padded))
        if self.kind not in KINDS or len(self.shape) != len(self.padded):
            raise ValueError(f"place {self.name} must be of a kind in {sorted(KINDS)} and padded in each axis, not {self}")
        if any(s > p or s < 1 for s, p in zip(self.shape, self.padded, strict=True)) or self.size % WORD_BYTES:
            raise ValueError(f"place {self.name}: {self.shape} must fit {self.padded}, a whole number of words")

    @property
    def size(self) -> int:
        """Bytes."""
        values = int(np.prod(self.padded)) * (RECORD_FLOATS if self.kind in RECORDS else 1)
        return values * KINDS[self.kind][1]

    @property
    def words(self) -> int:
        return self.size // WORD_BYTES

    def pack(self, array: np.ndarray) -> bytes:
        """Device bytes of an array; of records (channels, 32) as float32 bit patterns."""
        dtype = np.dtype(KINDS[self.kind][0])
        shape = (*self.shape, RECORD_FLOATS) if self.kind in RECORDS else self.shape
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(f"{self.name} must be {dtype} {shape}, not {array.dtype} {array.shape}")
        more = [(0, p - s) for s, p in zip(self.shape, self.padded, strict=True)] + [(0, 0)] * (array.ndim - len(self.shape))
        return np.pad(array, more).tobytes()

    def unpack(self, data: bytes) -> np.ndarray:
        """The array in device bytes."""
        dtype = np.dtype(KINDS[self.kind][0])
        padded = (*self.padded, RECORD_FLOATS) if self.kind in RECORDS else self.padded
        return np.frombuffer(data, dtype).reshape(padded)[tuple(slice(s) for s in self.shape)].copy()


@dataclass(frozen=True, kw_only=True)
class TrainingProgram:
    """A compiled training step.

    Parameters
    ----------
    arch, regions : as of a program; all programs share them
    images : program name to header and instructions
    layers : program name to each instruction's layer
    places : arrays by name: ``images``, ``logits``, ``gradient``, ``flags``, ``hyper``, ``<node>.master``, ``<node>.record``, ...
    graph_sha256 : identity of the graph's structure
    """

    arch: Arch
    regions: tuple[Region, ...]
    images: Mapping[str, bytes]
    layers: Mapping[str, tuple[str, ...]]
    places: Mapping[str, Place]
    graph_sha256: str

    def __post_init__(self) -> None:
        if set(self.images) != set(PROGRAMS) or set(self.layers) != set(PROGRAMS):
            raise ValueError(f"a training program must hold {PROGRAMS}, not {sorted(self.images)}")
        for place in self.places.values():
            if place.region >= len(self.regions) or WORD_BYTES * place.offset + place.size > self.regions[place.region].size:
                raise ValueError(f"place {place.name} lies outside of its region")

    def program(self, name: str) -> Program:
        """One of the programs as such."""
        return Program(arch=self.arch, image=self.images[name], regions=self.regions, inputs=(), outputs=(), layers=self.layers[name])

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def to_bytes(self) -> bytes:
        manifest = {
            "arch": self.arch.to_dict(),
            "regions": [{**asdict(r), "data": len(r.data)} for r in self.regions],
            "images": {name: len(self.images[name]) for name in PROGRAMS},
            "layers": {name: list(self.layers[name]) for name in PROGRAMS},
            "places": [asdict(place) for place in self.places.values()],
            "graph_sha256": self.graph_sha256,
        }
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        blobs = b"".join(self.images[name] for name in PROGRAMS) + b"".join(r.data for r in self.regions)
        body = TRAINING_MAGIC + len(text).to_bytes(8, "little") + text + blobs
        return body + zlib.crc32(body).to_bytes(4, "little")

    @staticmethod
    def from_bytes(data: bytes, where: str = "training program") -> TrainingProgram:
        """The program in a file's bytes; ProgramError names what is wrong. Only bytes that :meth:`to_bytes` writes are taken."""
        if not data.startswith(TRAINING_MAGIC):
            raise ProgramError(f"{where} is not a Bitloom training program; write one with 'bitloom compile'")
        if len(data) < len(TRAINING_MAGIC) + 12 or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise ProgramError(f"{where} is damaged or truncated (CRC-32 differs); compile it again")
        try:
            program = _parse(data)
            if program.to_bytes() != data:
                raise ValueError("its manifest is not written as this version writes it")
            return program
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ProgramError(f"{where} does not hold a valid training program ({error}); compile it with this version") from error

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        write_atomically(path, self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> TrainingProgram:
        return TrainingProgram.from_bytes(Path(path).read_bytes(), str(path))


def _parse(data: bytes) -> TrainingProgram:
    start = len(TRAINING_MAGIC) + 8
    at = start + int.from_bytes(data[len(TRAINING_MAGIC) : start], "little")
    manifest: dict[str, Any] = json.loads(data[start:at])

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        return data[at - size : at]

    images = {name: take(manifest["images"][name]) for name in PROGRAMS}
    regions = tuple(replace(Region(**{**entry, "data": b""}), data=take(entry["data"])) for entry in manifest["regions"])
    if at != len(data) - 4:
        raise ValueError(f"its parts cover {at} of {len(data) - 4} bytes")
    return TrainingProgram(
        arch=Arch.from_dict(manifest["arch"]), regions=regions, images=images,
        layers={name: tuple(manifest["layers"][name]) for name in PROGRAMS},
        places={entry["name"]: Place(**entry) for entry in manifest["places"]}, graph_sha256=manifest["graph_sha256"],
    )  # fmt: skip
