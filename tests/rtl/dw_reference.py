"""What a DW instruction does, written down once more in plain Python integers, and memories to run it on.

The memories have all 2**20 addresses: a word that nothing wrote has a content of its own, a hash of its address. So any descriptor
has a defined result, address arithmetic that wraps included.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from hw.spec.deform import INSTRUCTIONS, LANES, ROW_BANKS
from hw.spec.deform.instructions import ADDR_BITS, DW_CONV, DW_DEFORM, DW_MAX, DW_SAMPLE, DW_SUM, TABLE_BYTES, TABLES_MAX
from hw.spec.fixed import Rounding
from hw.spec.isa import Instruction
from hw.spec.ops import Requant

ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)
CONV, DEFORM, MAX, SUM, SAMPLE = DW_CONV, DW_DEFORM, DW_MAX, DW_SUM, DW_SAMPLE


class WordMemory:
    """16-byte words at 20-bit addresses, of any content to begin with."""

    def __init__(self, seed: int, bank: int = 0) -> None:
        self._key = bytes([seed & 0xFF, seed >> 8 & 0xFF, bank])
        self._words: dict[int, bytes] = {}

    def __getitem__(self, addr: int) -> bytes:
        if addr not in self._words:
            self._words[addr] = hashlib.blake2b(addr.to_bytes(3, "little"), digest_size=16, key=self._key).digest()
        return self._words[addr]

    def __setitem__(self, addr: int, word: bytes) -> None:
        assert len(word) == LANES
        self._words[addr & ((1 << ADDR_BITS) - 1)] = bytes(word)


@dataclass(kw_only=True)
class Memories:
    """On-chip memories: parameters, feature memory, nine banks of row memory, and tables of 256 bytes."""

    par: WordMemory
    feature: WordMemory
    rows: list[WordMemory]
    tables: list[bytes]

    @classmethod
    def dirty(cls, seed: int) -> Memories:
        banks = [WordMemory(seed, 3 + bank) for bank in range(ROW_BANKS)]
        tables = [np.random.default_rng((seed, number)).bytes(TABLE_BYTES) for number in range(TABLES_MAX)]
        return cls(par=WordMemory(seed, 1), feature=WordMemory(seed, 2), rows=banks, tables=tables)

    def put_requant(self, addr: int, requant: Requant) -> None:
        """Requantise records of 16 channels."""
        records = zip(requant.bias, requant.multiplier, requant.shift, strict=True)
        raw = b"".join(
            int(b).to_bytes(4, "little", signed=True) + int(k).to_bytes(2, "little") + bytes([int(n) & 0xFF, 0])
            for b, k, n in records
        )
        for i in range(len(raw) // LANES):
            self.par[addr + i] = raw[LANES * i : LANES * (i + 1)]

    def put_weights(self, addr: int, weight: np.ndarray) -> None:
        """Weights (16, 3, 3), taps row-major."""
        for tap, word in enumerate(weight.reshape(LANES, 9).T):
            self.par[addr + tap] = word.astype(np.int8).tobytes()


@dataclass(kw_only=True)
class Effects:
    """Every memory access in its order: feature memory writes (address, word), row memory reads (tap row, bank, address)."""

    writes: list[tuple[int, bytes]] = field(default_factory=list)
    reads: list[tuple[int, int, int]] = field(default_factory=list)


def descriptor(**fields: int) -> Instruction:
    """A DW instruction as the core decodes it."""
    return INSTRUCTIONS.decode(INSTRUCTIONS.encode("DW", **fields))


def wrap(addr: int) -> int:
    return addr & ((1 << ADDR_BITS) - 1)


def signed_byte(byte: int) -> int:
    return byte - 256 if byte >= 128 else byte


def requant_at(i: Instruction, memories: Memories, addr: int) -> Requant:
    """The 16 records at an address of parameter memory."""
    raw = b"".join(memories.par[wrap(addr + n)] for n in range(8))
    records = [raw[8 * n : 8 * n + 8] for n in range(LANES)]
    shifts = [(r[6] & 63) - 64 if r[6] & 32 else r[6] & 63 for r in records]
    return Requant(
        bias=np.array([int.from_bytes(r[:4], "little", signed=True) for r in records]),
        multiplier=np.array([int.from_bytes(r[4:6], "little") for r in records]),
        shift=np.array(shifts),
        rounding=ROUNDINGS[i["rounding"]],
        lo=i["clip_lo"],
        hi=i["clip_hi"],
    )


def reference(i: Instruction, memories: Memories) -> Effects:
    """The instruction's effects, one channel word, output pixel and tap after the other."""
    effects = Effects()
    for word in range(i["words"]):
        requant = requant_at(i, memories, i["param_addr"] + 8 * word)
        for pixel in range(i["out_rows"] * i["out_cols"]):
            acc = _window(i, memories, word, pixel, effects)
            codes = bytes(int(c) & 0xFF for c in requant(np.array([acc], dtype=np.int64))[0])
            out = wrap(i["out_addr"] + pixel * i["out_pitch"] + word)
            effects.writes.append((out, through_table(i["table"], memories, codes)))
    return effects


def through_table(table: int, memories: Memories, codes: bytes) -> bytes:
    """Result bytes after the instruction's table, if it has one."""
    return bytes(memories.tables[table - 1][code] for code in codes) if table else codes


def _window(i: Instruction, memories: Memories, word: int, pixel: int, effects: Effects) -> list[int]:
    """The 16 accumulators of one output word."""
    if i["mode"] == SAMPLE:
        return _sample(i, memories, word, pixel, effects)
    oy, ox = divmod(pixel, i["out_cols"])
    s = 1
    if i["mode"] == DEFORM:
        s = signed_byte(memories.feature[wrap(i["offset_addr"] + pixel * i["offset_pitch"])][0])
        s = max(-7, min(8, s))
    acc = [-256 if i["mode"] == MAX else 0] * LANES
    for group in range((i["kernel_h"] + 2) // 3):
        for kx in range(i["kernel_w"]):
            for ky in range(3):
                if 3 * group + ky >= i["kernel_h"]:
                    continue
                y = i["row0"] + oy * i["stride"] + 3 * group + s * (ky - 1)
                x = i["col0"] + ox * i["stride"] + (s * (kx - 1) if i["mode"] == DEFORM else kx)
                if 0 <= y < i["in_rows"] and 0 <= x < i["in_cols"]:
                    read = _row_address(i, y, x, word)
                    effects.reads.append((ky, *read))
                    _accumulate(i, memories, acc, memories.rows[read[0]][read[1]], word, 3 * ky + kx)
    return acc


def _sample(i: Instruction, memories: Memories, word: int, pixel: int, effects: Effects) -> list[int]:
    """The 16 accumulators of a bilinear sample: its place in units of 2 ** -offset_frac pixels, then the pixels within one of it."""
    oy, ox = divmod(pixel, i["out_cols"])
    offsets = memories.feature[wrap(i["offset_addr"] + pixel * i["offset_pitch"])][2 * i["offset_pair"] :]
    one = 2 ** i["offset_frac"]
    y = (i["row0"] - 1 + oy * i["stride"]) * one + signed_byte(offsets[0])
    x = (i["col0"] + ox * i["stride"]) * one + signed_byte(offsets[1])
    acc = [0] * LANES
    for ky in range(2):
        for kx in range(2):
            row, col = y // one + ky, x // one + kx
            weight = (one - abs(y - row * one)) * (one - abs(x - col * one))
            if 0 <= row < i["in_rows"] and 0 <= col < i["in_cols"]:
                read = _row_address(i, row, col, word)
                effects.reads.append((ky, *read))
                taps = memories.rows[read[0]][read[1]]
                acc = [a + weight * (t if i["in_unsigned"] else signed_byte(t)) for a, t in zip(acc, taps, strict=True)]
    return acc


def _row_address(i: Instruction, y: int, x: int, word: int) -> tuple[int, int]:
    turn, bank = divmod(i["bank0"] + y - i["row0"], ROW_BANKS)
    return bank, wrap(i["row0_addr"] + i["row_pitch"] * turn + x * i["pitch"] + word)


def _accumulate(i: Instruction, memories: Memories, acc: list[int], taps: bytes, word: int, tap: int) -> None:
    weights = memories.par[wrap(i["weight_addr"] + 9 * word + tap)] if i["mode"] in (CONV, DEFORM) else bytes([1] * LANES)
    for lane in range(LANES):
        x = taps[lane] if i["in_unsigned"] else signed_byte(taps[lane])
        if i["mode"] == MAX:
            acc[lane] = max(acc[lane], x)
        else:
            acc[lane] += signed_byte(weights[lane]) * x
