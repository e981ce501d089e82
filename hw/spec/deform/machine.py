"""The inference core's machine: what each instruction does to memory, word by word.

It computes on tiled word memory from the descriptors alone and calls none of the whole-tensor operations of ``hw.spec.ops``, so
that their agreement is evidence. Only the requantise arithmetic (``shift_saturating``) is shared, which has oracles of its own.
"""

from __future__ import annotations

import numpy as np

from hw.spec.deform import addresses
from hw.spec.deform.addresses import ADDR_MASK
from hw.spec.deform.arch import LANES, ROW_BANKS, DeformArch
from hw.spec.deform.digits import taken, weight_digits
from hw.spec.deform.instructions import (
    DW_CONV,
    DW_DEFORM,
    DW_MAX,
    DW_SAMPLE,
    MERGE_ADD,
    MERGE_ZIP,
    TABLE_BYTES,
    WINDOW_MAX,
)
from hw.spec.fixed import Rounding
from hw.spec.isa import Instruction
from hw.spec.machine import CoreError
from hw.spec.ops import OFFSET_MAX, OFFSET_MIN, shift_saturating
from hw.spec.regs import ErrorCode
from hw.spec.transfer import TransferMachine

ROUNDINGS = (Rounding.TRN, Rounding.RND, Rounding.RND_CONV)
RECORD_WORDS = 8
"""Parameter words of one output word's 16 requantise records."""

_P_BITS = 48


class DeformMachine(TransferMachine):
    """Interpreter of the inference core. ``seed`` fills the on-chip memories with dirt; None with zeros."""

    arch: DeformArch

    def __init__(self, arch: DeformArch, seed: int | None = None) -> None:
        super().__init__(arch, arch.space_units(), seed)

    def execute(self, instruction: Instruction) -> None:
        {"LOAD": self._load, "STORE": self._store, "PW": self._pw, "DW": self._dw}[instruction.name](instruction)

    def _run_chip(self, i: Instruction, space: str, plane: int, run: int) -> int:
        if space != "row":
            return super()._run_chip(i, space, plane, run)
        at = (i["chip_addr"] + plane // ROW_BANKS * i["chip_stride2"] + run * i["chip_stride1"]) & ADDR_MASK
        if at + i["n0"] > self.arch.row_words:
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return plane % ROW_BANKS * self.arch.row_words + at

    def _store(self, i: Instruction) -> None:
        self._store_from(i, "fm")

    # requantise ---------------------------------------------------------------------------------------------------------

    def _requantise(self, i: Instruction, acc: np.ndarray, record_addr: int) -> np.ndarray:
        """Accumulators (n, 16) with the 16 records at an address of parameter memory, to bytes (n, 16)."""
        words = self._read_chip("par", record_addr + np.arange(RECORD_WORDS))
        records = words.reshape(LANES, 8)
        bias = np.ascontiguousarray(records[:, :4]).view("<i4")[:, 0].astype(np.int64)
        multiplier = np.ascontiguousarray(records[:, 4:6]).view("<u2")[:, 0].astype(np.int64)
        shift = sign_extend(records[:, 6].astype(np.int64), 6)
        scaled = (acc + bias) * multiplier
        codes = shift_saturating(scaled, np.broadcast_to(shift, acc.shape), ROUNDINGS[i["rounding"]])
        return self._table(i, clipped(codes, i["clip_lo"], i["clip_hi"]))

    def _table(self, i: Instruction, results: np.ndarray) -> np.ndarray:
        """Bytes through the instruction's table, if it has one; BUFFER_RANGE where the core has no such table."""
        if not i["table"]:
            return results
        if i["table"] > self.arch.tables:
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return self.chip["tbl"].reshape(-1, TABLE_BYTES)[i["table"] - 1][results]

    # PW -----------------------------------------------------------------------------------------------------------------

    def _pw(self, i: Instruction) -> None:
        activations = self._pw_activations(i)
        per_tile = self.arch.cells // LANES * (1 if i["wide_weights"] else 2)
        for first in range(0, i["out_words"], per_tile):
            low, high = self._pw_accumulate(i, activations, first // per_tile)
            lanes = sign_extend(16 * high + low if i["wide_weights"] else np.concatenate([low, high], axis=1), 32)
            for word in range(first, min(first + per_tile, i["out_words"])):
                acc = lanes[:, (word - first) * LANES : (word - first + 1) * LANES]
                self._pw_merge(i, word, self._requantise(i, acc, i["param_addr"] + RECORD_WORDS * word))

    def _pw_activations(self, i: Instruction) -> np.ndarray:
        """Operands (pixels, K) in the order of the weight words."""
        addr, inside = addresses.pw_taps(i)
        words = np.zeros((*addr.shape, LANES), np.uint8)
        words[inside] = self._read_chip("fm", addr[inside])
        return operand(words, i["in_unsigned"]).reshape(len(addr), -1)

    def _pw_accumulate(self, i: Instruction, activations: np.ndarray, tile: int) -> tuple[np.ndarray, np.ndarray]:
        """The lower and the upper sums of the cells (pixels, cells) after the K loop of one tile of output words."""
        steps, units = activations.shape[1], self.arch.weight_word_units
        word = (i["weight_addr"] + tile * steps + np.arange(steps)) & ADDR_MASK
        if word.max() >= self.arch.weight_words:
            raise CoreError(ErrorCode.BUFFER_RANGE)
        weights = self.chip["wgt"].reshape(self.arch.weight_words, units * LANES)[word].astype(np.int64)
        high, low = (taken(digit, self.arch.weight_terms) for digit in weight_digits(weights))
        # Sums wrap; int64 products wrap at 64 bits, which keeps the lower ones exact.
        if self.arch.weight_terms:
            low_sum, high_sum = (sign_extend(_wrapping_matmul(activations, digit), self.arch.field_bits) for digit in (low, high))
            return low_sum, high_sum
        packed = sign_extend(_wrapping_matmul(activations, (high << self.arch.field_bits) + low), _P_BITS)
        low = sign_extend(packed, self.arch.field_bits)
        return low, (packed >> self.arch.field_bits) + (low < 0)

    def _pw_merge(self, i: Instruction, word: int, y: np.ndarray) -> None:
        """Write one output word of every pixel, y (pixels, 16), alone, added to the residual or zipped with the left half."""
        if i["merge"] == MERGE_ADD:
            y = self._pw_add(i, y, self._read_chip("fm", addresses.pw_merged(i, word)))
        if i["merge"] != MERGE_ZIP:
            return self._write_chip("fm", addresses.output(i, word), y)
        left = self._read_chip("fm", addresses.pw_merged(i, word))
        zipped = np.stack([left, y], axis=2).reshape(len(y), 2 * LANES)
        self._write_chip("fm", addresses.output(i, 2 * word), zipped[:, :LANES])
        self._write_chip("fm", addresses.output(i, 2 * word + 1), zipped[:, LANES:])

    def _pw_add(self, i: Instruction, y: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """Sum of two words of bytes, read alike and clipped."""
        total = operand(y, i["merge_unsigned"]) + operand(residual, i["merge_unsigned"])
        return clipped(total, i["merge_lo"], i["merge_hi"])

    # DW -----------------------------------------------------------------------------------------------------------------

    def _dw(self, i: Instruction) -> None:
        rows, cols, window = self._dw_taps(i)
        inside = window & (rows >= 0) & (rows < i["in_rows"]) & (cols >= 0) & (cols < i["in_cols"])
        turn, bank = np.divmod(i["bank0"] + rows - i["row0"], ROW_BANKS)
        addr = i["row0_addr"] + i["row_pitch"] * turn + i["pitch"] * cols
        for word in range(i["words"]):
            taps = np.zeros((*rows.shape, LANES), np.int64)
            taps[inside] = operand(self._read_row(bank[inside], addr[inside] + word), i["in_unsigned"])
            y = self._requantise(i, self._dw_reduce(i, taps, inside, word), i["param_addr"] + RECORD_WORDS * word)
            self._write_chip("fm", addresses.output(i, word), y)

    def _dw_taps(self, i: Instruction) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Row and column of each tap (pixels, taps), and which taps belong to the window."""
        ky, kx = self._dw_window(i)
        oy, ox = (a[:, None] * i["stride"] for a in np.divmod(addresses.pixels(i), i["out_cols"]))
        rows, cols, step = i["row0"] + oy, i["col0"] + ox, 1
        if i["mode"] == DW_DEFORM:
            step = np.clip(self._offset_bytes(i)[:, :1], OFFSET_MIN, OFFSET_MAX)
            cols = cols + step * (kx - 1)
        elif i["mode"] == DW_SAMPLE:
            down, right = self._sample_offsets(i)
            self._note_places(i, ("above", "below"), rows - 1, down, i["in_rows"])
            self._note_places(i, ("left", "right"), cols, right, i["in_cols"])
            rows, cols = rows + (down >> i["offset_frac"]), cols + (right >> i["offset_frac"]) + kx
        else:
            cols = cols + kx
        rows = rows + step * (ky % 3 - 1) + 3 * (ky // 3)
        return rows, cols, np.broadcast_to(ky < i["kernel_h"], rows.shape)

    def _dw_window(self, i: Instruction) -> tuple[np.ndarray, np.ndarray]:
        """Row and column (1, taps) of each tap in the window, whose rows are filled up to threes."""
        groups = -(-i["kernel_h"] // 3)
        ky, kx = np.meshgrid(np.arange(3 * groups), np.arange(i["kernel_w"]), indexing="ij")
        return ky.reshape(1, -1), kx.reshape(1, -1)

    def _offset_bytes(self, i: Instruction) -> np.ndarray:
        """The offset map's words (pixels, 16) as signed bytes."""
        return operand(self._read_chip("fm", addresses.dw_offsets(i)), 0)

    def _sample_offsets(self, i: Instruction) -> tuple[np.ndarray, np.ndarray]:
        """Row and column offset of each pixel (pixels, 1), with ``offset_frac`` fraction bits."""
        words, lane = self._offset_bytes(i), 2 * i["offset_pair"]
        return words[:, lane : lane + 1], words[:, lane + 1 : lane + 2]

    def _note_places(self, i: Instruction, sides: tuple[str, str], place: np.ndarray, offset: np.ndarray, size: int) -> None:
        """Whether samples lie between an inner and an outer pixel of a border, beyond it, or inside and far from where they would lie
        without an offset: more than two turns of the banks; along one axis of ``size`` pixels."""
        frac = i["offset_frac"]
        shift, between = offset >> frac, offset & ((1 << frac) - 1) != 0
        first, far = place + shift, 2 * ROW_BANKS
        inside = (first >= 0) & (first < size)
        found = {f"across {sides[0]}": between & (first == -1), f"across {sides[1]}": between & (first == size - 1),
                 f"beyond {sides[0]}": first < -1, f"beyond {sides[1]}": first >= size,
                 f"far {sides[0]}": inside & (shift < -far), f"far {sides[1]}": inside & (shift > far)}
        self.writes.met |= {name for name, where in found.items() if where.any()}

    def _read_row(self, bank: np.ndarray, addr: np.ndarray) -> np.ndarray:
        addr = addr & ADDR_MASK
        if addr.size and addr.max() >= self.arch.row_words:
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return self._read_chip("row", bank * self.arch.row_words + addr)

    def _dw_reduce(self, i: Instruction, taps: np.ndarray, inside: np.ndarray, word: int) -> np.ndarray:
        """Taps (pixels, taps, 16) to accumulators (pixels, 16)."""
        if i["mode"] == DW_MAX:
            return np.where(inside[:, :, None], taps, -256).max(axis=1)
        if i["mode"] in (DW_CONV, DW_DEFORM):
            return (taps * self._dw_weights(i, word)).sum(axis=1)
        if i["mode"] == DW_SAMPLE:
            return (taps * self._sample_weights(i)[:, :, None]).sum(axis=1)
        return sign_extend(taps.sum(axis=1), 32)

    def _dw_weights(self, i: Instruction, word: int) -> np.ndarray:
        """Weights (taps, 16) of a channel word in the order of the taps; rows beyond the window meet taps that are zero."""
        words = self._read_chip("par", i["weight_addr"] + WINDOW_MAX**2 * word + np.arange(WINDOW_MAX**2))
        grid = operand(words, 0).reshape(WINDOW_MAX, WINDOW_MAX, LANES)
        return grid[:, : i["kernel_w"]].reshape(-1, LANES)

    def _sample_weights(self, i: Instruction) -> np.ndarray:
        """Weights (pixels, taps) of a sample's neighbours: products of what the row's and the column's distance leave of 1."""
        one = 1 << i["offset_frac"]
        ky, kx = self._dw_window(i)
        down, right = (offset & (one - 1) for offset in self._sample_offsets(i))
        return np.where(ky == 0, one - down, down) * np.where(kx == 0, one - right, right)


def sign_extend(values: np.ndarray, bits: int) -> np.ndarray:
    """The low ``bits`` of int64 values as two's complement."""
    half = 1 << (bits - 1)
    return ((values + half) & ((1 << bits) - 1)) - half


def clipped(codes: np.ndarray, low: int, high: int) -> np.ndarray:
    """Codes between two clips, as bytes; where the clips cross, the lower one wins."""
    return np.maximum(np.minimum(codes, high), low).astype(np.uint8)


def operand(words: np.ndarray, unsigned: int) -> np.ndarray:
    """Bytes as 9-bit multiplier operands."""
    return words.astype(np.int64) if unsigned else words.view(np.int8).astype(np.int64)


def _wrapping_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer product a (n, k) @ b (k, m), exact modulo 2**64.

    Operands are at most 2**8 and 2**27 so up to 2**16 terms stay below 2**53 and float64 is exact.
    """
    if a.shape[1] > 1 << 16:
        return a @ b
    return (a.astype(np.float64) @ b.astype(np.float64)).astype(np.int64)
