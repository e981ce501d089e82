"""What a core certainly needs of a part, known before anything is synthesised: block memories and multipliers.

Both numbers are exact where synthesis uses the blocks; look-up tables are left to :mod:`boards.synth`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Block memories by name, and multipliers of array, requantise unit and depthwise lanes."""

    memories: dict[str, float]
    multipliers: dict[str, int]

    def by_resource(self) -> dict[str, Mapping[str, float]]:
        """The needs by the part's resource names."""
        return {"BRAM36": self.memories, "DSP48E2": self.multipliers}


def needs(arch: Arch) -> Needs:
    """What the core needs on UltraScale+, at least: small multiplications of addresses come on top where synthesis uses blocks."""
    if isinstance(arch, DeformArch):
        return _deform_needs(arch)
    if isinstance(arch, sat.SatArch):
        return _sat_needs(arch)
    raise ValueError(f"what core {arch.core!r} needs of a part is not known")


def _deform_needs(arch: DeformArch) -> Needs:
    bits = 8 * WORD_BYTES
    return Needs(
        memories={
            "feature": brams(arch.feature_words, bits),
            "row": ROW_BANKS * brams(arch.row_words, bits),
            "weight": brams(arch.weight_words, bits * arch.weight_word_units),
            "parameter": brams(arch.parameter_words, bits),
            **({"tables": LANES * brams(arch.tables * TABLE_BYTES // PART_BYTES, 8 * PART_BYTES)} if arch.tables else {}),
        },
        multipliers={"array": arch.rows * arch.cells, "requantise": REQUANTISE_MULTIPLIERS, "depthwise": TAP_MULTIPLIERS},
    )


def _sat_needs(arch: sat.SatArch) -> Needs:
    """Operand stores of the array are distributed memory."""
    bits, units, halves = 8 * WORD_BYTES, max(arch.columns // sat.LANES, 1), max(sat.LANES // arch.columns, 1)
    return Needs(
        memories={
            "activation": arch.copies * brams(arch.act_words, bits),
            "table": arch.copies * brams(arch.tbl_words, bits),
            "weight": brams(arch.wgt_words // halves, bits * units),
            "position": brams(arch.wgt_words // halves, bits * units // 4),
            "accumulator": brams(arch.acc_words, 32 * arch.columns),
            "vector": BANKS * brams(arch.vec_words // units, bits * units),
            "channel": brams(arch.chn_words, bits),
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
    """Raises ValueError, with every number, where the part has too few block memories or multipliers."""
    refusals = []
    for resource, needed in needs(arch).by_resource().items():
        total, available = sum(needed.values()), part.resources.get(resource)
        if available is not None and total > available:
            parts = " + ".join(f"{count:g} {name}" for name, count in needed.items())
            refusals.append(f"{resource}: {total:g} needed ({parts}), {available} there")
    if refusals:
        raise ValueError(f"the core does not fit {part.name}: {'; '.join(refusals)}. Make its memories or its array smaller")
