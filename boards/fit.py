"""What a core certainly needs of a part, known before anything is synthesised: block memories and multipliers.

Both numbers are exact where synthesis uses the blocks; look-up tables are left to :mod:`boards.synth`. A memory lies in block RAMs or,
where the part has them, in UltraRAMs: a core fits if some choice fits. What an ECP5 board needs is in :mod:`boards.fit_ecp5`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

from boards.synth import Part
from hw.spec import sat
from hw.spec.arch import WORD_BYTES, Arch
from hw.spec.deform import LANES, ROW_BANKS, DeformArch
from hw.spec.deform.instructions import TABLE_BYTES
from hw.spec.sat.instructions import BANKS

BRAM36_SHAPES = ((512, 72), (1024, 36), (2048, 18), (4096, 9), (8192, 4), (16384, 2), (32768, 1))
"""(words, bits) that one BRAM36 can be; its halves have half the words each."""

REQUANTISE_MULTIPLIERS = 2 * LANES
"""Two partial products per lane."""

PART_BYTES = 4
"""A lane's copy of the tables has words of four entries."""

TAP_MULTIPLIERS = 3 * LANES
"""Three taps per depthwise lane."""


ULTRA_WORDS, ULTRA_BITS = 4096, 72
"""Words and bits of one URAM288."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """``copies`` of ``words`` x ``bits`` on chip."""

    words: int
    bits: int
    copies: int = 1

    @property
    def brams(self) -> float:
        """BRAM36 that hold it."""
        return self.copies * brams(self.words, self.bits)

    @property
    def urams(self) -> int:
        """URAM288 that hold it."""
        return self.copies * _blocks(self.words, self.bits, ULTRA_WORDS, ULTRA_BITS)


@dataclass(frozen=True, kw_only=True)
class Needs:
    """On-chip memories by name, and multipliers of array, requantise unit and depthwise lanes."""

    memories: dict[str, Memory]
    multipliers: dict[str, int]


def needs(arch: Arch) -> Needs:
    """What the core needs on UltraScale+, at least: small multiplications of addresses come on top where synthesis uses blocks."""
    if isinstance(arch, DeformArch):
        return _deform_needs(arch)
    if isinstance(arch, sat.SatArch):
        return _sat_needs(arch)
    raise ValueError(f"what core {arch.core!r} needs of a part is not known")


def _deform_needs(arch: DeformArch) -> Needs:
    bits = 8 * WORD_BYTES
    tables = {"tables": Memory(copies=LANES, words=arch.tables * TABLE_BYTES // PART_BYTES, bits=8 * PART_BYTES)}
    return Needs(
        memories={
            "feature": Memory(words=arch.feature_words, bits=bits),
            "row": Memory(copies=ROW_BANKS, words=arch.row_words, bits=bits),
            "weight": Memory(words=arch.weight_words, bits=bits * arch.weight_word_units),
            "parameter": Memory(words=arch.parameter_words, bits=bits),
            **(tables if arch.tables else {}),
        },
        multipliers={"array": arch.rows * arch.cells, "requantise": REQUANTISE_MULTIPLIERS, "depthwise": TAP_MULTIPLIERS},
    )


def _sat_needs(arch: sat.SatArch) -> Needs:
    """Operand stores of the array are distributed memory."""
    bits, units, halves = 8 * WORD_BYTES, max(arch.columns // sat.LANES, 1), max(sat.LANES // arch.columns, 1)
    return Needs(
        memories={
            "activation": Memory(copies=arch.copies, words=arch.act_words, bits=bits),
            "table": Memory(copies=arch.copies, words=arch.tbl_words, bits=bits),
            "weight": Memory(words=arch.wgt_words // halves, bits=bits * units),
            "position": Memory(words=arch.wgt_words // halves, bits=bits * units // 4),
            "accumulator": Memory(words=arch.acc_words, bits=32 * arch.columns),
            "vector": Memory(copies=BANKS, words=arch.vec_words // units, bits=bits * units),
            "channel": Memory(words=arch.chn_words, bits=bits),
        },
        multipliers={"array": arch.rows * arch.columns},
    )


def brams(words: int, bits: int) -> float:
    """BRAM36 of a memory, in the best of their shapes; all whole or all halves."""
    whole = (_blocks(words, bits, depth, width) for depth, width in BRAM36_SHAPES)
    halves = (_blocks(words, bits, depth // 2, width) / 2 for depth, width in BRAM36_SHAPES[1:])
    return min(*whole, *halves)


def _blocks(words: int, bits: int, depth: int, width: int) -> int:
    return -(-words // depth) * -(-bits // width)


def check_fits(arch: Arch, part: Part) -> None:
    """Raises ValueError, with every number, where the part has too few memories or multipliers."""
    needed = needs(arch)
    refuse(part, _memory_refusal(needed.memories, part), shortage("DSP48E2", needed.multipliers, part))


def refuse(part: Part, *shortages: str | None) -> None:
    """ValueError where there is one."""
    if said := "; ".join(words for words in shortages if words):
        raise ValueError(f"the core does not fit {part.name}: {said}. Make its memories or its array smaller")


def shortage(resource: str, needed: Mapping[str, float], part: Part) -> str | None:
    """In words, where the part has too few; None where they suffice, or the part has none of that kind."""
    total, available = sum(needed.values()), part.resources.get(resource)
    if available is None or total <= available:
        return None
    return f"{resource}: {total:g} needed ({' + '.join(f'{count:g} {name}' for name, count in needed.items())}), {available} there"


def _memory_refusal(memories: Mapping[str, Memory], part: Part) -> str | None:
    """None where some choice of UltraRAM or block RAM for each memory fits, all block RAM the first."""
    refusal = shortage("BRAM36", {name: memory.brams for name, memory in memories.items()}, part)
    ultra = part.resources.get("URAM288", 0)
    if refusal is None or not ultra:
        return refusal
    for choice in product((False, True), repeat=len(memories)):
        chosen = list(zip(memories.values(), choice, strict=True))
        fits = sum(memory.brams for memory, in_ultra in chosen if not in_ultra) <= part.resources["BRAM36"]
        if fits and sum(memory.urams for memory, in_ultra in chosen if in_ultra) <= ultra:
            return None
    counts = " + ".join(f"{memory.urams} {name}" for name, memory in memories.items())
    return f"{refusal}, and no choice fits that puts some in URAM288 ({counts}), {ultra} there"
