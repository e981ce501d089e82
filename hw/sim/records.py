"""The records of hw/sim/records.h, as numpy and ctypes see them, field by field."""

from __future__ import annotations

import ctypes

import numpy as np

CHANNELS = ("aw", "w", "b", "ar", "r", "control")
NEVER = np.iinfo(np.int64).max

INSTRUCTION = np.dtype([("issue", "<i8"), ("retire", "<i8"), ("index", "<u4"), ("reserved", "<u4")])
MEMORY_WRITE = np.dtype(
    [("cycle", "<i8"), ("address", "<u8"), ("index", "<u4"), ("manager", "<u2"), ("strobe", "<u2"), ("data", "u1", 16)]
)
CHIP_WRITE = np.dtype(
    [("cycle", "<i8"), ("index", "<u4"), ("space", "<u4"), ("address", "<u4"), ("lane", "<u4"), ("data", "u1", 16)]
)
BUS_ERROR = np.dtype([("cycle", "<i8"), ("address", "<u8"), ("manager", "<u4"), ("is_write", "<u2"), ("response", "<u2")])


class Config(ctypes.Structure):
    """`struct Config`."""

    _fields_ = [
        ("memory_base", ctypes.c_uint64),
        ("memory_bytes", ctypes.c_uint64),
        ("stall_seed", ctypes.c_uint64),
        ("state_seed", ctypes.c_uint64),
        ("read_latency", ctypes.c_uint32),
        ("write_latency", ctypes.c_uint32),
        ("read_interval", ctypes.c_uint32),
        ("read_beats", ctypes.c_uint32),
        ("write_interval", ctypes.c_uint32),
        ("write_beats", ctypes.c_uint32),
        ("stall", ctypes.c_uint32 * len(CHANNELS)),
        ("trace_writes", ctypes.c_uint32),
        ("random_state", ctypes.c_uint32),
    ]


class FaultRange(ctypes.Structure):
    """`struct FaultRange`."""

    _fields_ = [("start", ctypes.c_uint64), ("end", ctypes.c_uint64), ("response", ctypes.c_uint64)]
