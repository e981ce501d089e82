"""The program container: what a compiler writes, a runtime loads and a core fetches.

A program file is one file: an outer frame (magic, JSON manifest, blobs, CRC-32 of everything) around

* the *image*, which the core fetches: a 64-byte header and 64 bytes per instruction;
* for each memory region its size, kind, and for parameter regions the initial bytes;
* metadata: the architecture, and name, logical shape, format and place of every input and output.

The core checks the image itself (``hw.spec.regs.ErrorCode``); :meth:`Program.load` checks the whole file first.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw.spec.arch import CONTAINER_VERSION, WORD_BYTES, Arch
from hw.spec.fixed import FixedFormat
from hw.spec.isa import INSTRUCTION_BYTES, Instruction, seal

MAGIC = b"BTLMPROG"
FILE_MAGIC = b"BITLOOM\x01"
TRAINING_MAGIC = b"BTLMTRN\x01"
"""Of files of ``hw.spec.training_program``."""
HEADER_BYTES = INSTRUCTION_BYTES
REGION_KINDS = ("parameters", "input", "output", "scratch")


class ProgramError(ValueError):
    """A program file that cannot be used; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Region:
    """A memory region: the host opens ``size`` bytes (a multiple of 16) for it; ``data`` is its initial content, if any."""

    name: str
    kind: str
    size: int
    data: bytes = b""

    def __post_init__(self) -> None:
        _check_name("a region's name", self.name)
        object.__setattr__(self, "size", _integer(f"size of region {self.name}", self.size))
        if self.kind not in REGION_KINDS:
            raise ValueError(f"region kind must be one of {REGION_KINDS}, not {self.kind!r}")
        if self.size % WORD_BYTES or len(self.data) > self.size:
            raise ValueError(
                f"region {self.name} must have a size that is a multiple of 16 and holds its {len(self.data)} bytes, "
                f"not {self.size}"
            )


@dataclass(frozen=True, kw_only=True)
class WindowLayout:
    """An input that is stored window by window: a pixel of the device holds ``rows`` x ``columns`` pixels of the image.

    Channel ``(i * columns + j) * C + c`` of device pixel (y, x) is channel c of image pixel (y * stride - padding + i,
    x * stride - padding + j), 0 outside the image.
    """

    rows: int
    columns: int
    stride: int
    padding: int

    def __post_init__(self) -> None:
        for name, low in (("rows", 1), ("columns", 1), ("stride", 1), ("padding", 0)):
            object.__setattr__(self, name, _integer(f"{name} of a window", getattr(self, name), low))
        if self.padding >= min(self.rows, self.columns):
            raise ValueError(f"padding of a window must be below its {self.rows} rows and {self.columns} columns, not {self.padding}")

    def shape(self, image: tuple[int, int, int]) -> tuple[int, int, int]:
        """(C, H, W) on the device, of an image's."""
        channels, height, width = image
        down, across = (
            (size + 2 * self.padding - kernel) // self.stride + 1 for size, kernel in ((height, self.rows), (width, self.columns))
        )
        return channels * self.rows * self.columns, down, across

    def of(self, image: np.ndarray) -> np.ndarray:
        """Windows of an image (C, H, W)."""
        channels, down, across = self.shape(image.shape)
        padded = np.pad(image, ((0, 0), (self.padding,) * 2, (self.padding,) * 2))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (self.rows, self.columns), axis=(1, 2))
        chosen = windows[:, :: self.stride, :: self.stride][:, :down, :across]
        return chosen.transpose(3, 4, 0, 1, 2).reshape(channels, down, across)


@dataclass(frozen=True, kw_only=True)
class TensorLayout:
    """Where a tensor lies on the device and how its words map to logical channels.

    The device stores (H, W, words, 16) bytes; ``slots[i]`` is the logical channel of slot i, or -1 for a pad. Pads of inputs are
    zero; what a program leaves in other pads is of no matter. With ``window`` pixels and channels on the device are those of
    the windows; ``shape`` is the image's.
    """

    name: str
    region: int
    offset: int
    shape: tuple[int, int, int]
    fmt: FixedFormat
    slots: tuple[int, ...]
    window: WindowLayout | None = None

    def __post_init__(self) -> None:
        _check_name("a tensor's name", self.name)
        for name in ("region", "offset"):
            object.__setattr__(self, name, _integer(f"{name} of tensor {self.name}", getattr(self, name)))
        object.__setattr__(self, "shape", tuple(_integer(f"shape of tensor {self.name}", d, 1) for d in self.shape))
        object.__setattr__(self, "slots", tuple(_integer(f"a slot of tensor {self.name}", s, -1) for s in self.slots))
        if len(self.shape) != 3:
            raise ValueError(f"tensor {self.name} must have shape (C, H, W), not {self.shape}")
        if len(self.slots) % WORD_BYTES:
            raise ValueError(f"tensor {self.name} must have slots in words of 16, not {len(self.slots)}")
        used = sorted(s for s in self.slots if s >= 0)
        if min(self.device_shape) < 1:
            raise ValueError(f"tensor {self.name}: no window of {self.window} fits into its shape {self.shape}")
        channels = self.device_shape[0]
        if len(used) != channels or used != list(range(len(used))):
            raise ValueError(f"tensor {self.name}: slots must hold each of {channels} channels once")
        if self.fmt.width > 8:
            raise ValueError(f"tensor {self.name} must have at most 8 bits, not {self.fmt.width}")

    @property
    def device_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns on the device."""
        return self.window.shape(self.shape) if self.window else self.shape

    @property
    def words(self) -> int:
        """16-byte words per pixel of the device."""
        return len(self.slots) // WORD_BYTES

    @property
    def size(self) -> int:
        """Bytes on the device."""
        return self.device_shape[1] * self.device_shape[2] * len(self.slots)

    def pack(self, codes: np.ndarray) -> bytes:
        """Logical codes (C, H, W) to device bytes."""
        codes = np.asarray(codes)
        if codes.shape != self.shape:
            raise ValueError(f"tensor {self.name} must have shape {self.shape}, not {codes.shape}")
        if codes.dtype.kind not in "iu":
            raise ValueError(f"tensor {self.name} must be integer codes, not {codes.dtype}")
        if codes.size and (codes.min() < self.fmt.min_code or codes.max() > self.fmt.max_code):
            raise ValueError(
                f"tensor {self.name} must have codes in {self.fmt.min_code}..{self.fmt.max_code}, "
                f"not {codes.min()}..{codes.max()}"
            )
        stored = self.window.of(codes) if self.window else codes
        return slot_bytes(stored.transpose(1, 2, 0), self.slots).tobytes()

    def unpack(self, data: bytes) -> np.ndarray:
        """Device bytes to logical int64 codes (C, H, W); of an input that is stored in windows ValueError."""
        if self.window:
            raise ValueError(f"tensor {self.name} is an input stored in windows, which are not read back")
        if len(data) != self.size:
            raise ValueError(f"tensor {self.name} must be {self.size} bytes, not {len(data)}")
        raw = np.frombuffer(data, np.int8 if self.fmt.signed else np.uint8).reshape(*self.shape[1:], len(self.slots))
        where = np.argsort([s if s >= 0 else len(self.slots) for s in self.slots], kind="stable")[: self.shape[0]]
        return raw[:, :, where].transpose(2, 0, 1).astype(np.int64)

    def to_dict(self) -> dict[str, Any]:
        fmt = [self.fmt.width, self.fmt.frac, self.fmt.signed]
        window = {"window": asdict(self.window)} if self.window else {}
        return {**{k: getattr(self, k) for k in ("name", "region", "offset", "shape", "slots")}, "fmt": fmt, **window}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> TensorLayout:
        window = WindowLayout(**data["window"]) if "window" in data else None
        return TensorLayout(**{**data, "fmt": FixedFormat(*data["fmt"]), "window": window})


@dataclass(frozen=True, kw_only=True)
class Intermediate:
    """A tensor that the program leaves in memory on its way: whole once instruction ``after`` retired, later overwritten perhaps."""

    after: int
    layout: TensorLayout

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", _integer(f"after of tensor {self.layout.name}", self.after))


def _integer(name: str, value: Any, low: int = 0) -> int:
    """An integer of at least ``low``; files hold anything, numpy integers come from compilers."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value < low:
        raise ValueError(f"{name} must be an integer of at least {low}, not {value!r}")
    return int(value)


def _check_name(what: str, value: Any) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{what} must be text, not {value!r}")


def slot_bytes(codes: np.ndarray, slots: Sequence[int]) -> np.ndarray:
    """Codes (..., C) to uint8 (..., len(slots)); pads are zero."""
    order = np.asarray(slots)
    return np.where(order >= 0, codes[..., np.maximum(order, 0)], 0).astype(np.uint8)


def default_slots(channels: int) -> tuple[int, ...]:
    """Channels in order, padded to whole words."""
    return tuple(range(channels)) + (-1,) * (-channels % WORD_BYTES)


@dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled program: architecture, image, regions, tensors, and notes for people (layer names by instruction)."""

    arch: Arch
    image: bytes
    regions: tuple[Region, ...]
    inputs: tuple[TensorLayout, ...]
    outputs: tuple[TensorLayout, ...]
    layers: tuple[str, ...] = ()
    """For each instruction the name of the layer that it serves."""
    intermediates: tuple[Intermediate, ...] = ()
    """What a check can look at between inputs and outputs, in the order of ``after``."""

    def __post_init__(self) -> None:
        for layout in (*self.outputs, *(entry.layout for entry in self.intermediates)):
            if layout.window:
                raise ValueError(f"tensor {layout.name} is no input, and only inputs are stored in windows")

    @property
    def digest(self) -> str:
        """SHA-256 of the file's bytes: the program's identity."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @property
    def instruction_count(self) -> int:
        return len(self.image) // INSTRUCTION_BYTES - 1

    def instructions(self) -> list[Instruction]:
        """The decoded instructions; raises InstructionError on the first that a core would refuse."""
        starts = range(HEADER_BYTES, len(self.image), INSTRUCTION_BYTES)
        return [self.arch.instructions.decode(self.image[i : i + INSTRUCTION_BYTES]) for i in starts]

    def to_bytes(self) -> bytes:
        manifest = {
            "arch": self.arch.to_dict(),
            "image_bytes": len(self.image),
            "regions": [{**asdict(r), "data": len(r.data)} for r in self.regions],
            "inputs": [t.to_dict() for t in self.inputs],
            "outputs": [t.to_dict() for t in self.outputs],
            "layers": list(self.layers),
            "intermediates": [{"after": i.after, "layout": i.layout.to_dict()} for i in self.intermediates],
        }
        text = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        body = FILE_MAGIC + len(text).to_bytes(8, "little") + text + self.image + b"".join(r.data for r in self.regions)
        return body + zlib.crc32(body).to_bytes(4, "little")

    @staticmethod
    def from_bytes(data: bytes, where: str = "program") -> Program:
        """The program in a file's bytes; ProgramError names what is wrong.

        Only bytes that :meth:`to_bytes` writes are taken: each program has one file, and ``digest`` is its hash.
        """
        if data.startswith(TRAINING_MAGIC):
            raise ProgramError(f"{where} is a training program: it runs in a session of the training core, Device.open_session")
        if not data.startswith(FILE_MAGIC):
            raise ProgramError(f"{where} is not a Bitloom program file; write one with 'bitloom compile'")
        if len(data) < len(FILE_MAGIC) + 12 or zlib.crc32(data[:-4]).to_bytes(4, "little") != data[-4:]:
            raise ProgramError(f"{where} is damaged or truncated (CRC-32 differs); compile it again")
        try:
            program = Program._parse(data)
            if program.to_bytes() != data:
                raise ValueError("its manifest is not written as this version writes it")
            return program
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ProgramError(f"{where} does not hold a valid program ({error}); compile it with this version") from error

    @staticmethod
    def _parse(data: bytes) -> Program:
        start = len(FILE_MAGIC) + 8
        at = start + int.from_bytes(data[len(FILE_MAGIC) : start], "little")
        manifest = json.loads(data[start:at])
        if not isinstance(manifest, dict):
            raise ValueError("its manifest must be a table")
        size = _integer("image_bytes", manifest["image_bytes"])
        image, at = data[at : at + size], at + size
        regions = []
        for entry in manifest["regions"]:
            size = _integer("the bytes of a region", entry["data"])
            regions.append(Region(**{**entry, "data": data[at : at + size]}))
            at += size
        if at != len(data) - 4:
            raise ValueError(f"its parts cover {at} of {len(data) - 4} bytes")
        for layer in manifest["layers"]:
            _check_name("a layer's name", layer)
        return Program(
            arch=Arch.from_dict(manifest["arch"]),
            image=image,
            regions=tuple(regions),
            inputs=tuple(TensorLayout.from_dict(t) for t in manifest["inputs"]),
            outputs=tuple(TensorLayout.from_dict(t) for t in manifest["outputs"]),
            layers=tuple(manifest["layers"]),
            intermediates=tuple(
                Intermediate(after=i["after"], layout=TensorLayout.from_dict(i["layout"])) for i in manifest["intermediates"]
            ),
        )

    def save(self, path: str | Path) -> None:
        """Write the file whole or not at all."""
        write_atomically(path, self.to_bytes())

    @staticmethod
    def load(path: str | Path) -> Program:
        return Program.from_bytes(Path(path).read_bytes(), str(path))


def build_image(arch: Arch, instructions: Sequence[bytes]) -> bytes:
    """Header and instructions: what the core fetches."""
    return build_header(arch.arch_id, len(instructions)) + b"".join(instructions)


def build_header(arch_id: int, count: int) -> bytes:
    """64 bytes: magic (8), container version (4), instruction count (4), arch_id (8), zeros, CRC-32 of the first 60 (4)."""
    body = MAGIC + CONTAINER_VERSION.to_bytes(4, "little") + count.to_bytes(4, "little") + arch_id.to_bytes(8, "little")
    return seal(body.ljust(HEADER_BYTES - 4, b"\0"))


def write_atomically(path: str | Path, data: bytes) -> None:
    """Replace a file by new content in one step: a reader or a crash sees the old or the new file, never a part."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder: name a file", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
