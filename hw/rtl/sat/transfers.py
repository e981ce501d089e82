"""LOAD and STORE of the training core: which on-chip memories they fill and read."""

from __future__ import annotations

from hw.rtl.common.load import LoadEngine, LoadSpace
from hw.rtl.common.store import StoreEngine, StoreSpace
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import SPACES, STORE
from hw.spec.sat.latency import MEMORY_READ, VECTOR_READ

_FIELD = next(field for field in STORE.fields if field.name == "space")
STORED = SPACES[_FIELD.low : _FIELD.high + 1]
"""Spaces that STORE reads."""

if MEMORY_READ != VECTOR_READ:
    raise AssertionError(f"VECTOR_READ must be MEMORY_READ, {MEMORY_READ}, for STORE, not {VECTOR_READ}")


def load_engine(arch: SatArch) -> LoadEngine:
    """LOAD, with a port of 16-byte words for each space, of its name."""
    units = arch.space_units()
    return LoadEngine(arch, [LoadSpace(port=name, words=units[name]) for name in SPACES])


def store_engine(arch: SatArch) -> StoreEngine:
    """STORE, likewise for the spaces that it reads."""
    units = arch.space_units()
    spaces = [StoreSpace(number=SPACES.index(name), port=name, words=units[name]) for name in STORED]
    return StoreEngine(arch, spaces, latency=MEMORY_READ)
