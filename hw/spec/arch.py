"""Architecture parameters: what a core is built with, and its identity.

``Arch`` holds what the shell of every core needs; a core's own package extends it (``hw.spec.deform.DeformArch``).
Architectures are plain data (``to_dict``/``from_dict``), because programs embed them as JSON.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

from hw.spec.isa import InstructionSet

CONTAINER_VERSION = 1
"""Version of the program container; part of every architecture's identity."""

WORD_BYTES = 16
"""Bytes of a memory word and of an AXI beat: 16 channels of 8 bits."""

CORES = ("deform", "sat")


def _require(ok: bool, name: str, rule: str, value: object) -> None:
    if not ok:
        raise ValueError(f"architecture parameter {name} must be {rule}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Arch:
    """Shell parameters, shared by all cores.

    Parameters
    ----------
    regions : memory regions that a host can open to the core, 1..16
    managers : AXI4 managers, 1..4
    region_manager : for each region the manager that reaches it; programs are fetched through manager 0
    burst_beats : longest burst in 16-byte beats, a power of two in 1..256
    outstanding : most bursts of one direction in flight, a power of two in 1..16
    """

    core: ClassVar[str] = ""
    instructions: ClassVar[InstructionSet]

    regions: int = 4
    managers: int = 1
    region_manager: tuple[int, ...] = (0, 0, 0, 0)
    burst_beats: int = 64
    outstanding: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.region_manager, list):
            object.__setattr__(self, "region_manager", tuple(self.region_manager))
        for entry in fields(self):
            kind, value = type(entry.default), getattr(self, entry.name)
            _require(type(value) is kind, entry.name, f"of type {kind.__name__}", value)
        _require(1 <= self.regions <= 16, "regions", "in 1..16", self.regions)
        _require(1 <= self.managers <= 4, "managers", "in 1..4", self.managers)
        reached = [type(m) is int and 0 <= m < self.managers for m in self.region_manager]
        mapped = len(reached) == self.regions and all(reached)
        _require(mapped, "region_manager", f"one manager below {self.managers} per region", self.region_manager)
        _require(self.burst_beats in [1 << i for i in range(9)], "burst_beats", "a power of two in 1..256", self.burst_beats)
        _require(self.outstanding in [1 << i for i in range(5)], "outstanding", "a power of two in 1..16", self.outstanding)

    def to_dict(self) -> dict[str, Any]:
        """Plain data: numbers, strings and lists only."""
        return {"core": self.core, **json.loads(json.dumps(asdict(self)))}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Arch:
        """The architecture that plain data describes; unknown cores and parameters are refused by name."""
        if not isinstance(data, Mapping):
            raise ValueError(f"an architecture must be a table of parameters, not {data!r}")
        core = data.get("core")
        if core not in CORES:
            raise ValueError(f"architecture core must be one of {list(CORES)}, not {core!r}")
        cls: type[Arch] = importlib.import_module(f"hw.spec.{core}").ARCH
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(data) - known - {"core"}, key=str):
            raise ValueError(f"architecture of core {core} has no parameter {unknown}; it has {sorted(known)}")
        return cls(**{key: value for key, value in data.items() if key != "core"})

    @cached_property
    def arch_id(self) -> int:
        """First 64 bits of SHA-256 over canonical JSON of architecture, instruction table and container version."""
        identity = {"arch": self.to_dict(), "instructions": self.instructions.describe(), "container": CONTAINER_VERSION}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
