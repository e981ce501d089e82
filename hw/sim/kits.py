"""What the checks of a design need to know of its core: a kit per core, in ``hw.sim.<core>_kit``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hw.spec.arch import Arch


class ProgramGenerator(Protocol):
    """Draws programs of legal instructions, and instructions that may break a rule."""

    def program(self, length: int) -> list[bytes]:
        """About ``length`` legal instructions; a core must run them from whatever its memories hold after ``Kit.dirt``."""

    def faulty(self) -> bytes:
        """An instruction of which the core may refuse something, at issue or while it runs."""


@dataclass(frozen=True, kw_only=True)
class Kit:
    """Of a core.

    Parameters
    ----------
    generator : (arch, seed, memory) to a ProgramGenerator with a method per operation, in lower case, that draws one instruction
    compute : operations whose cycles the COMPUTE counter adds up
    copied : fields of LOAD and STORE that name a memory which both can reach and which holds any bytes, and its words
    run_words : words of a space that one run can fill
    settle : instructions after which a core holds nothing, beside its on-chip memories, that a program before left undefined
    dirt : instructions that fill every on-chip memory from region 0
    dirt_words : words of region 0
    plant : put into random bytes of region 0 and what follows it what the core's units need to be exercised
    outside : programs that end with BUFFER_RANGE
    endless : programs that run far longer than any test waits, by the operation that runs when they are ended; without LOAD and STORE
    """

    generator: Callable[[Any, Any, Callable[[int, int, int], bytes]], Any]
    compute: tuple[str, ...]
    copied: Callable[[Any], tuple[Mapping[str, int], int]]
    run_words: Callable[[Any, str], int]
    settle: Callable[[Any], list[bytes]]
    dirt: Callable[[Any], list[bytes]]
    dirt_words: Callable[[Any], int]
    plant: Callable[[Any, np.random.Generator, np.ndarray], None]
    outside: Callable[[Any, Any], Iterator[list[bytes]]]
    endless: Callable[[Any], dict[str, list[bytes]]]


def kit_for(arch: Arch) -> Kit:
    """The kit of an architecture's core."""
    kit: Kit = importlib.import_module(f"hw.sim.{arch.core}_kit").KIT
    return kit
