"""Files of graphs: a zip of ``manifest.json`` and one .npy per array. Equal contents have equal bytes; damaged ones are refused.

What a manifest means is its graph's to say; here are the parts that every such file shares, numpy only.
"""

from __future__ import annotations

import io
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["UNUSABLE", "ArchiveError", "ArrayKind", "pack", "unpack"]

MANIFEST = "manifest.json"
_ZIP = b"PK\x03\x04"
_MARKS = {
    "bitloom_graph": "an integer graph: its core is the inference core",
    "bitloom_training_graph": "a training graph: its core is the training core, and --arch must name an architecture of that",
}
"""Entry of a manifest that gives its version, to the kind of graph."""

UNUSABLE = (
    zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError, RecursionError,
    LookupError, TypeError, ValueError, EOFError, AttributeError, OverflowError, tokenize.TokenError, SyntaxError,
)  # fmt: skip
"""What zipfile, json, numpy and the constructors raise for contents that are none."""


class ArchiveError(ValueError):
    """Contents that such a file does not hold; the message says which."""


@dataclass(frozen=True, kw_only=True)
class ArrayKind:
    """The element types that a file may hold: ``words`` for messages, ``accepts`` a type in the file, ``to`` the loaded one.

    ``mark``: the entry of the manifest that gives the version, and so tells one kind of graph from another.
    """

    mark: str
    words: str
    accepts: Callable[[np.dtype[Any]], bool]
    to: type[np.generic]


def pack(manifest: Any, arrays: Mapping[str, np.ndarray], *, limit: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """The file's bytes, without timestamps. ArchiveError where the contents are more than ``limit`` bytes."""
    members = {MANIFEST: json.dumps(manifest, sort_keys=True, indent=1).encode()}
    for key, array in arrays.items():
        npy = io.BytesIO()
        np.save(npy, array, allow_pickle=False)
        members[f"{key}.npy"] = npy.getvalue()
    _check_size(sum(map(len, members.values())), limit)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), data, method)
    return buffer.getvalue()


def unpack(data: bytes, kind: ArrayKind, *, limit: int) -> tuple[Any, dict[str, np.ndarray]]:
    """The manifest and the arrays by key. Raises one of `UNUSABLE` for anything else; nothing is allocated on a header's word."""
    if not data.startswith(_ZIP):
        raise ArchiveError("it is no graph, or its beginning is lost")
    try:
        members = _read_members(data, limit)
    except zipfile.BadZipFile as error:
        raise ArchiveError("it is damaged or truncated") from error
    manifest = json.loads(members.pop(MANIFEST), object_pairs_hook=_table)
    if isinstance(manifest, dict) and kind.mark not in manifest and (others := _MARKS.keys() & manifest.keys()):
        raise ArchiveError(f"it is {_MARKS[min(others)]}")
    return manifest, {name.removesuffix(".npy"): _read_array(name, content, kind) for name, content in members.items()}


def _read_members(data: bytes, limit: int) -> dict[str, bytes]:
    """The archive's files by name: the manifest and arrays, each once, none encrypted, of bounded size."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names):
            raise ArchiveError("it holds a file twice")
        for entry in entries:
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ArchiveError(f"{entry.filename} is encrypted or packed in another way than deflate")
            if entry.filename != MANIFEST and not entry.filename.endswith(".npy"):
                raise ArchiveError(f"{entry.filename} is neither {MANIFEST} nor an array")
        _check_size(sum(entry.file_size for entry in entries), limit)
        return {name: archive.read(name) for name in names}


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise ArchiveError(f"a graph's contents must be at most {limit} bytes, not {size}")


def _read_array(name: str, data: bytes, kind: ArrayKind) -> np.ndarray:
    """A .npy file. The header is believed only as far as the bytes go: nothing is allocated for it."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ArchiveError(f"array {name} must be of npy version 1.0 or 2.0, not {version}")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read_header(stream)
    if not kind.accepts(dtype):
        raise ArchiveError(f"array {name} must be {kind.words}, not {dtype}")
    if min(shape, default=0) < 0 or len(data) - stream.tell() != math.prod(shape) * dtype.itemsize:
        raise ArchiveError(f"array {name} must hold {shape} values of {dtype}, not {len(data) - stream.tell()} bytes")
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").astype(kind.to)


def _table(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that stands there twice would silently lose its first value."""
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ArchiveError(f"its manifest has a key twice among {[key for key, _ in pairs]}")
    return table
