"""The header of a .bit file: what it is of, for which part, and when it was made.

Its fields are known from public readers, PYNQ's among them, not from a bitstream of this project. A field is a letter and a counted
text that ends with a zero byte; the last, "e", counts the configuration itself in four bytes.
"""

from __future__ import annotations

from dataclasses import dataclass

from boards.ecp5 import ToolError

PREAMBLE = bytes.fromhex("00090ff00ff00ff00ff0000001")
FIELDS = {"a": "design", "b": "part", "c": "date", "d": "time"}


@dataclass(frozen=True, kw_only=True)
class BitHeader:
    """Members: ``design``, the top's name, "" where it is not told; ``part``; ``date``, ``time``; ``version`` of Vivado or None;
    ``size`` of the configuration in bytes."""

    design: str
    part: str
    date: str
    time: str
    version: str | None
    size: int

    def __post_init__(self) -> None:
        if not self.part or self.size <= 0:
            raise ValueError(f"a bitstream must name a part and hold bytes, not {self.part!r} and {self.size}")


def read_header(data: bytes, name: str) -> BitHeader:
    """The header of a whole .bit file. ToolError where it is none, or cut off."""
    if not data.startswith(PREAMBLE):
        raise ToolError(f"{name} is no bitstream with a header: it begins with {data[:13].hex() or 'nothing'}")
    texts, at = {}, len(PREAMBLE)
    while (key := data[at : at + 1].decode("latin-1")) in FIELDS:
        size = int.from_bytes(data[at + 1 : at + 3], "big")
        texts[FIELDS[key]] = data[at + 3 : at + 3 + size].rstrip(b"\0").decode("latin-1")
        at += 3 + size
    size = int.from_bytes(data[at + 1 : at + 5], "big")
    if key != "e" or set(texts) != set(FIELDS.values()) or size != len(data) - at - 5:
        there = max(len(data) - at - 5, 0)
        raise ToolError(f"{name} is cut off or damaged: its header counts {size} bytes of configuration, {there} there")
    return _header(texts, size, name)


def _header(texts: dict[str, str], size: int, name: str) -> BitHeader:
    design, *properties = texts.pop("design").split(";")
    told = dict(entry.split("=", 1) for entry in properties if "=" in entry)
    version = ".".join(told["Version"].split(".")[:2]) if "Version" in told else None
    try:
        return BitHeader(design=design, **texts, version=version, size=size)
    except ValueError as error:
        raise ToolError(f"{name}: {error}") from error
