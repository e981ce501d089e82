"""A .bit file that PYNQ reads as one of Vivado's, with a fingerprint in place of the configuration."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

PART = "xczu3eg-sbva484-1-i"
MAGIC = b"BITLOOM SIMULATED CONFIGURATION\0"
_PREAMBLE = bytes.fromhex("0ff00ff00ff00ff000")


def payload(verilog_sha256: str, hwh: str) -> bytes:
    """What stands for the configuration: the hash of the core's Verilog, and that of the .hwh text.

    PYNQ keeps what it read of a .hwh file under the hash of its .bit file, so that another .hwh text must give another .bit file.
    """
    return MAGIC + bytes.fromhex(verilog_sha256) + hashlib.sha256(hwh.encode()).digest()


def bit_file(data: bytes, *, part: str = PART, design: str = "bitloom") -> bytes:
    """``data``, whole words, under the header of a .bit file."""
    if len(data) % 4:
        raise ValueError(f"a configuration must be whole words of 4 bytes, not {len(data)} bytes")
    texts = {b"a": f"{design};Version=2022.1", b"b": part.removeprefix("xc"), b"c": "2024/01/01", b"d": "00:00:00"}
    fields = b"".join(key + _counted(text.encode() + b"\0") for key, text in texts.items())
    return _counted(_PREAMBLE) + struct.pack(">H", 1) + fields + b"e" + struct.pack(">I", len(data)) + data


def write_bitstream(path: Path, hwh: str, *, verilog_sha256: str, part: str = PART) -> Path:
    """A .bit file at ``path``, and the .hwh file beside it."""
    path.write_bytes(bit_file(payload(verilog_sha256, hwh), part=part, design=path.stem))
    path.with_suffix(".hwh").write_text(hwh)
    return path


def _counted(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data
