"""Ways to damage files: their bytes, the JSON or TOML inside, and the zip archive of a graph."""

from __future__ import annotations

import copy
import io
import json
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from hw.spec.program import FILE_MAGIC

ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 16, 2**31, 2**63, -(2**63) - 1, 10**30, 1e308, -0.5, 2.0, float("nan"), float("inf"), "",
    "x", "1", "deform", "é" * 9, [], [0], [[]], {}, {"a": 1}, {"array": "0.weight"}, {"rounding": "RND"}, {"requant": {}},
    [1] * 40, [8, 0, True], [8, 0, 1], list(range(16)), [10**12, 1, 1], "u8f4", [None, "a", 2.5],
)  # fmt: skip
"""Values of a wrong type, a wrong size, or right in another place."""

NOT_JSON = (
    b"",
    b"[" * 100_000,
    b"{" * 5,
    b"\xff\xfe{}",
    b"1" * 5000,
    b'{"a":1,"a":2}',
    b"null",
    b"[]",
    b'"x"',
    b"nan",
    b"\x00" * 64,
)
"""In place of a manifest."""


class Chance:
    """Random choices from a seed."""

    def __init__(self, *seed: int) -> None:
        self.rng = np.random.default_rng(list(seed))

    def below(self, limit: int) -> int:
        return int(self.rng.integers(limit))

    def of(self, options: Any) -> Any:
        return options[self.below(len(options))]


def damaged_bytes(chance: Chance, data: bytes) -> bytes:
    """Bits flipped, parts cut out, doubled, replaced by noise, or appended."""
    out, kind = bytearray(data), chance.below(6)
    start = chance.below(len(out))
    end = min(len(out), start + chance.of((1, 4, 16, 200, len(out))))
    if kind == 0:
        for _ in range(1 + chance.below(8)):
            out[chance.below(len(out))] ^= 1 << chance.below(8)
    elif kind == 1:
        del out[start:end]
    elif kind == 2:
        out[start:start] = out[start:end]
    elif kind == 3:
        out[start:end] = chance.rng.bytes(end - start)
    elif kind == 4:
        out += chance.rng.bytes(1 + chance.below(100))
    else:
        out[start:end] = bytes([chance.of((0, 255, 0x7F, ord("["), ord("9")))]) * (end - start)
    return bytes(out)


def damaged_value(chance: Chance, value: Any) -> Any:
    """A copy of JSON-like data with 1 or 2 values replaced, deleted, added, doubled or swapped."""
    value = copy.deepcopy(value)
    for _ in range(1 + chance.below(2)):
        value = _damage_once(chance, value)
    return value


def _damage_once(chance: Chance, value: Any) -> Any:
    places = list(_places(value))
    if not places or not chance.below(40):
        return chance.of(ODD_VALUES)
    holder, key = chance.of(places)
    kind = chance.below(6)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[chance.of(("x", "name", "", "data", "op"))] = chance.of(ODD_VALUES)
    elif kind == 1:
        holder.insert(chance.below(len(holder) + 1), copy.deepcopy(holder[key]))
    elif kind == 2:
        holder[key] = copy.deepcopy(chance.of(places)[0])
    elif kind == 3 and isinstance(holder[key], int):
        holder[key] += chance.of((-1, 1, 16, -16, 1 << 20, 1 << 64))
    else:
        holder[key] = copy.deepcopy(chance.of(ODD_VALUES))
    return value


def _places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value inside."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        found += [(value, key), *_places(item)]
    return found


def json_bytes(chance: Chance, value: Any) -> bytes:
    """JSON text, mostly as a program file writes it."""
    if not chance.below(12):
        return chance.of(NOT_JSON)
    return json.dumps(
        value, sort_keys=bool(chance.below(8)), separators=chance.of(((",", ":"), (",", ":"), (", ", ": ")))
    ).encode()


# program files --------------------------------------------------------------------------------------------------------------


def damaged_program(chance: Chance, data: bytes) -> bytes:
    """A damaged program file; half the time with a right CRC, so that the damage reaches the parser."""
    kind = chance.below(4)
    if kind == 0:
        return damaged_bytes(chance, data)
    if kind == 1:
        return _sealed(damaged_bytes(chance, data[:-4]))
    start = len(FILE_MAGIC) + 8
    end = start + int.from_bytes(data[len(FILE_MAGIC) : start], "little")
    text = json_bytes(chance, damaged_value(chance, json.loads(data[start:end])))
    size = len(text) if chance.below(10) else chance.of((0, len(text) - 1, 2**40, 2**64 - 1))
    return _sealed(FILE_MAGIC + (size % 2**64).to_bytes(8, "little") + text + data[end:-4])


def _sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


# graph files ----------------------------------------------------------------------------------------------------------------


def damaged_graph(chance: Chance, data: bytes) -> bytes:
    """A damaged graph file: its bytes, its manifest, an array, or its list of files."""
    kind = chance.below(5)
    if kind == 0:
        return damaged_bytes(chance, data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    if kind <= 2:
        text = json_bytes(chance, damaged_value(chance, json.loads(members[0][1])))
        members[0] = ("manifest.json", text)
    elif kind == 3:
        at = 1 + chance.below(len(members) - 1)
        members[at] = (members[at][0], damaged_array(chance, members[at][1]))
    else:
        members = damaged_members(chance, members)
    packed = zipped(chance, members)
    return packed if chance.below(6) else damaged_bytes(chance, packed)


def damaged_array(chance: Chance, npy: bytes) -> bytes:
    """Another array, or what only looks like one."""
    array = np.load(io.BytesIO(npy))
    replacements: tuple[Callable[[], bytes], ...] = (
        lambda: damaged_bytes(chance, npy),
        lambda: saved(array.astype(chance.of(("f8", "i1", "u8", ">i4", "c16", "?", "S3", "i4", "f2")))),
        lambda: saved(array.reshape(-1)),
        lambda: saved(np.asfortranarray(array)),
        lambda: saved(array[..., None]),
        lambda: saved(array * chance.of((-1, 1000, 2**40))),
        lambda: saved(np.zeros(0, np.int64)),
        lambda: saved(np.array(3)),
        lambda: saved(np.array([{"a": 1}, None], object)),
        lambda: npy.replace(b"(", b"(9" * chance.of((1, 30)), 1),
        lambda: npy.replace(b"<i8", b"|O8", 1),
        lambda: npy.replace(b"'shape'", b"'shepa'", 1),
        lambda: npy[: chance.below(len(npy))],
        lambda: npy + bytes(8),
        lambda: npy[:6] + bytes([chance.below(256), chance.below(256)]) + npy[8:],
    )
    return chance.of(replacements)()


def saved(array: np.ndarray) -> bytes:
    """A .npy file, pickled if it must be."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def damaged_members(chance: Chance, members: list[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """Files of the archive missing, doubled, renamed, emptied or new."""
    members, at, kind = list(members), chance.below(len(members)), chance.below(5)
    name, data = members[at]
    if kind == 0:
        del members[at]
    elif kind == 1:
        members.append((name, chance.of(members)[1]))
    elif kind == 2:
        members[at] = (chance.of(("../x.npy", "x", "/etc/x.npy", name.upper(), "manifest.json", "9" * 300 + ".npy")), data)
    elif kind == 3:
        members[at] = (name, b"")
    else:
        members.insert(at, ("more.npy", chance.of(members)[1]))
    return members


def zipped(chance: Chance, members: list[tuple[str, bytes]]) -> bytes:
    """A zip archive; now and then with a field of its directory that is odd."""
    stream = io.BytesIO()
    method = chance.of((zipfile.ZIP_DEFLATED,) * 8 + (zipfile.ZIP_STORED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # names that stand there twice are meant
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, method)
        if not chance.below(20):
            archive.comment = b"a comment"
    out = bytearray(stream.getvalue())
    if not chance.below(4):
        at = out.find(b"PK\x01\x02", chance.below(len(out)))
        if at >= 0:
            out[at + 4 + chance.below(42)] = chance.below(256)
    return bytes(out)


# recipes --------------------------------------------------------------------------------------------------------------------


def damaged_recipe(chance: Chance, data: bytes) -> bytes:
    """A damaged TOML file: its bytes, its lines, or its values."""
    kind = chance.below(3)
    if kind == 0:
        return damaged_bytes(chance, data)
    lines = data.decode().splitlines()
    at = chance.below(len(lines))
    if kind == 1:
        lines[at:at] = [chance.of(lines)]
        del lines[chance.below(len(lines))]
    elif "=" in lines[at]:
        lines[at] = lines[at].split("=")[0] + "= " + chance.of(TOML_VALUES)
    return "\n".join(lines).encode()


TOML_VALUES = (
    "1", "4", "9", "-1", "1e400", "nan", "inf", "true", '""', '"RND"', '"TRN_ZERO"', "[]", "[[]]", "{}", "{a=1}", '["a", 1]', '"u8f4"',
    '"u8f99999999999999999999"', '"s8f-24"', "1979-05-27", "9" * 5000, "[" * 5000,
    "0x" + "f" * 400, "2000-13-01", '"""', "'", "{x=[{}]}",
)  # fmt: skip
"""Right-hand sides."""
