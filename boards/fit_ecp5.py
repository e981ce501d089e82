"""What a core on an ECP5 board certainly needs: multipliers and block RAMs, with the memory and the line's buffer beside it.

The counts are those of synthesis but for a few multipliers of addresses, which come on top: 112 and 147 for the ULX3S's own core,
where nextpnr counts 118 and 147 (``docs/ulx3s.md``). A core that fits may still be more than the router can do.
"""

from __future__ import annotations

from boards.board import Board, BoardError
from boards.fit import Memory, Needs, needs, refuse, shortage
from boards.synth import PARTS, Part
from hw.rtl.common.uart_bridge import BridgeParameters
from hw.spec.arch import WORD_BYTES
from hw.spec.deform import LANES, ROW_BANKS, DeformArch

SHAPES = ((16384, 1), (8192, 2), (4096, 4), (2048, 9), (1024, 18), (512, 36))
"""(words, bits) that one block RAM can be."""

LEAST_WORDS = 64
"""Of a memory in block RAM; synthesis puts smaller ones into look-up tables."""

BLOCK_RAMS, MULTIPLIERS = "DP16KD", "MULT18X18D"
_BYTE, _TAPS = 8, 3


def block_rams(words: int, bits: int) -> int:
    """Block RAMs of a memory: stripes of the best shapes above each other."""
    if words < LEAST_WORDS:
        return 0
    return min(_stripes(words, bits, depth, width) for depth, width in SHAPES)


def _stripes(words: int, bits: int, depth: int, width: int) -> int:
    whole = max(words // depth, 1)
    return whole * -(-bits // width) + block_rams(words - whole * depth, bits)


def board_needs(board: Board, arch: DeformArch, bridge: BridgeParameters) -> tuple[dict[str, int], dict[str, int]]:
    """Block RAMs and multipliers by what takes them. Bytes that are written apart lie in memories of their own."""
    core: Needs = needs(arch)
    copies = {"row": Memory(copies=_TAPS * LANES, words=ROW_BANKS << (arch.row_words - 1).bit_length(), bits=_BYTE)}
    memories = {
        **core.memories,
        **(copies if board.row_memory == "copies" else {}),
        "memory behind it": Memory(copies=WORD_BYTES, words=board.ram.words, bits=_BYTE),
        "line": Memory(words=bridge.block_bytes, bits=_BYTE),
    }
    return {name: each.copies * block_rams(each.words, each.bits) for name, each in memories.items()}, core.multipliers


def check_fits_board(board: Board, arch: DeformArch, bridge: BridgeParameters) -> None:
    """BoardError, with every number, where the board's part has too few."""
    part = _part(board)
    rams, multipliers = board_needs(board, arch, bridge)
    try:
        refuse(part, shortage(BLOCK_RAMS, rams, part), shortage(MULTIPLIERS, multipliers, part))
    except ValueError as error:
        raise BoardError(f"{board.title}: {error}") from error


def larger(board: Board, arch: DeformArch, own: DeformArch, bridge: BridgeParameters) -> str:
    """What a core needs more of than the board's own, of which it is known that it can be routed; "" where that is nothing."""
    pairs = zip(("block RAMs", "multipliers"), board_needs(board, arch, bridge), board_needs(board, own, bridge), strict=True)
    more = [
        f"{sum(wanted.values())} {words}, not {sum(known.values())}"
        for words, wanted, known in pairs
        if sum(wanted.values()) > sum(known.values())
    ]
    if not more:
        return ""
    return (
        f"this core is larger than the board's own ({', '.join(more)}), the only one that is known to be routed: "
        f"place and route may take hours and fail in the end"
    )


def _part(board: Board) -> Part:
    for part in PARTS.values():
        if part.family == "ecp5" and board.part.startswith(part.name):
            return part
    raise BoardError(f"{board.title}: boards/synth.py does not say how much {board.part} has: add it to PARTS")
