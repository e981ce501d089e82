"""The training core's machine: what each instruction does to memory, word by word.

It computes on tiled word memory from the descriptors alone and calls none of the whole-tensor operations of
``hw.spec.training``, so that their agreement is evidence. Only scalar arithmetic (``hw.spec.floats``) is shared, which has
oracles of its own.
"""

from __future__ import annotations

import numpy as np

from hw.spec import floats
from hw.spec.isa import Instruction
from hw.spec.machine import CoreError
from hw.spec.regs import ErrorCode
from hw.spec.sat import gemm, prune, vector
from hw.spec.sat.arch import FP32_LANES, LANES, SLOTS, SatArch
from hw.spec.sat.channel import CROSS_BITS, FIRST_BITS, PROGRAMS, RECORD_VALUES, REGISTERS, SECOND_BITS, Op, Step
from hw.spec.sat.instructions import (
    CHANNEL_PROGRAMS,
    DRAIN_FP16,
    DRAIN_FP32,
    RECORD_WORDS,
    TABLE_ENTRIES,
    VEC_FLAG,
    VEC_SUMS,
)
from hw.spec.sat.words import as_words, fp16_values, fp32_values, integer, integer_word, wrapped
from hw.spec.transfer import ADDR_MASK, TransferMachine

VALUE_WORDS = RECORD_VALUES // FP32_LANES
SUM_1, SUM_2, KEPT = (VALUE_WORDS + i for i in range(3))
"""Words of a record with its integers."""


class SatMachine(TransferMachine):
    """Interpreter of the training core. ``seed`` fills the on-chip memories with dirt; None with zeros.

    ``kept`` is what the array's accumulators hold between instructions, (slot, row, column) with slot = ai * b + bi; ``saturated``
    tells whether anything saturated since the last flag was taken. Both are undefined before a program sets them.
    """

    arch: SatArch

    def __init__(self, arch: SatArch, seed: int | None = None) -> None:
        super().__init__(arch, arch.space_units(), seed)
        self.kept = np.zeros((SLOTS, arch.rows, arch.columns), np.float32)
        self.saturated = False

    def execute(self, instruction: Instruction) -> None:
        {
            "LOAD": self._load, "STORE": self._store, "GEMM": self._gemm, "VEC": self._vec, "CHN": self._chn, "PRUNE": self._prune,
        }[instruction.name](instruction)  # fmt: skip

    def _write_chip(self, space: str, addresses: np.ndarray, data: np.ndarray) -> None:
        if space == "idx":
            data = np.asarray(data, np.uint8) & np.tile(np.array([0x0F, 0], np.uint8), LANES)
        super()._write_chip(space, addresses, data)

    def _store(self, i: Instruction) -> None:
        self._store_from(i, self.spaces[i["space"]])

    def _bank(self, bank: int, words: np.ndarray) -> np.ndarray:
        """Addresses in the vector memory of words of a bank; BUFFER_RANGE where one lies outside of it."""
        words = np.asarray(words) & ADDR_MASK
        if words.size and words.max() >= self.arch.vec_words:
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return bank * self.arch.vec_words + words

    def _to_fp16(self, values: np.ndarray) -> np.ndarray:
        self.saturated |= bool(floats.saturates_fp16(values).any())
        return floats.to_fp16(values)

    # GEMM ---------------------------------------------------------------------------------------------------------------

    def _gemm(self, i: Instruction) -> None:
        acc = self._begin(i)
        for chunk in range(gemm.chunk_count(i)):
            weights, positions = self._weights(i, chunk)
            acc = gemm.accumulate(acc, self._activations(i, chunk), weights, positions)
        self._keep(i, acc)
        if i["drain"] == DRAIN_FP32:
            self._write_chip("acc", self._acc_units(i).reshape(-1), as_words(acc).reshape(-1, 16))
        elif i["drain"] == DRAIN_FP16:
            self._drain_fp16(i, acc)

    def _begin(self, i: Instruction) -> np.ndarray:
        """Accumulators (output rows, columns) at the beginning."""
        a, b = gemm.interleave(i)
        if i["resume"]:
            slots = self.kept[: a * b].reshape(a, b, self.arch.rows, self.arch.columns)
            return slots.transpose(0, 2, 1, 3).reshape(a * self.arch.rows, b * self.arch.columns)
        if i["preload"]:
            words = self._read_chip("acc", self._acc_units(i))
            return words.view("<f4").reshape(a * self.arch.rows, -1)
        return np.zeros((a * self.arch.rows, b * self.arch.columns), np.float32)

    def _keep(self, i: Instruction, acc: np.ndarray) -> None:
        a, b = gemm.interleave(i)
        tiles = acc.reshape(a, self.arch.rows, b, self.arch.columns).transpose(0, 2, 1, 3)
        self.kept[: a * b] = tiles.reshape(a * b, self.arch.rows, self.arch.columns)

    def _acc_units(self, i: Instruction) -> np.ndarray:
        """16-byte words of acc memory (output rows, words) of the tile."""
        a, b = gemm.interleave(i)
        units = self.arch.columns // FP32_LANES
        words = i["acc_addr"] + np.arange(a * self.arch.rows * b).reshape(-1, b)
        if ((words & ADDR_MASK) >= self.arch.acc_words).any():
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return ((words & ADDR_MASK)[:, :, None] * units + np.arange(units)).reshape(len(words), -1)

    def _activations(self, i: Instruction, chunk: int) -> np.ndarray:
        """Operands (output rows, values of k) of a chunk."""
        numbers = gemm.entry_numbers(i, self.arch, chunk) & ADDR_MASK
        entries = self._read_chip("tbl", numbers // TABLE_ENTRIES).reshape(len(numbers), TABLE_ENTRIES, 4)
        found = gemm.gather(i, self.arch, chunk, entries[np.arange(len(numbers)), numbers % TABLE_ENTRIES])
        words = np.zeros((*found.words.shape, 16), np.uint8)
        words[found.exists] = self._read_chip("act", found.words[found.exists])
        return gemm.operands(i, self.arch, fp16_values(words))

    def _weights(self, i: Instruction, chunk: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights and positions (steps, columns) of a chunk."""
        offsets = gemm.weight_words(i, chunk)
        weights = fp16_values(self._column_words("wgt", i["wgt_addr"] + offsets))
        if not i["sparse"]:
            return weights, np.broadcast_to(np.arange(len(offsets))[:, None], weights.shape)
        positions = self._column_words("idx", i["idx_addr"] + offsets).view("<u2") & gemm.chunk_values(i) - 1
        return weights, positions.astype(np.int64)

    def _column_words(self, space: str, words: np.ndarray) -> np.ndarray:
        """Words of ``columns`` 16-bit values (steps, b) of a memory as bytes (steps, bytes)."""
        words = words & ADDR_MASK
        if words.max() >= self.arch.wgt_words:
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return self.chip[space].reshape(self.arch.wgt_words, 2 * self.arch.columns)[words].reshape(len(words), -1)

    def _drain_fp16(self, i: Instruction, acc: np.ndarray) -> None:
        """Rounded results to the vector memory; a word of four columns is half of a memory word and written by itself."""
        columns = self.arch.columns
        rows, words = min(i["out_rows"], len(acc)), i["out_words"]
        values = self._to_fp16(acc[:rows, : words * columns]).reshape(rows * words, columns)
        places = (i["out_addr"] + np.arange(rows)[:, None] * i["out_pitch"] + np.arange(words)) & ADDR_MASK
        self._write_columns(i["out_bank"], places.reshape(-1), np.ascontiguousarray(values).view(np.uint8))

    def _write_columns(self, bank: int, places: np.ndarray, data: np.ndarray) -> None:
        """Write column words (n, 2 * columns bytes) at column-word addresses of a bank."""
        size = data.shape[1]
        if size >= 16:
            units = size // 16
            words = places[:, None] * units + np.arange(units)
            if words.size and words.max() >= self.arch.vec_words:
                raise CoreError(ErrorCode.BUFFER_RANGE)
            return self._write_chip("vec", self._bank(bank, words).reshape(-1), data.reshape(-1, 16))
        for half in range(2):
            chosen = places % 2 == half
            self._write_half(self._bank(bank, places[chosen] // 2), data[chosen], half)

    def _write_half(self, addresses: np.ndarray, data: np.ndarray, half: int) -> None:
        """Write eight bytes of each word; what is recorded has zeros in the other half."""
        written = np.zeros((len(data), 16), np.uint8)
        written[:, 8 * half : 8 * half + 8] = data
        self.chip["vec"][addresses, 8 * half : 8 * half + 8] = data
        self.writes.add("vec", addresses, written)

    # VEC ----------------------------------------------------------------------------------------------------------------

    def _vec(self, i: Instruction) -> None:
        if i["op"] == VEC_FLAG:
            flag = np.zeros((1, 16), np.uint8)
            flag[0, 0], self.saturated = self.saturated, False
            return self._write_chip("vec", self._bank(i["out_bank"], np.array([i["out_addr"]])), flag)
        for word in range(i["words"]):
            if i["op"] == VEC_SUMS:
                self._sums(i, word)
            else:
                self._element_wise(i, word)

    def _element_wise(self, i: Instruction, word: int) -> None:
        a, b, c = (self._operand(i, name, word) for name in "abc")
        if i["op"] == vector.VEC_AFFINE:
            constants = self._constants(i, word, a.shape[1])
            values, saturated = vector.affine(i, a, b, c, constants)
            self.saturated |= saturated
            values = values if i["fp32"] else self._to_fp16(values)
        else:
            values = vector.chosen(i, a, b, c)
        places = i["out_addr"] + np.arange(i["pixels"]) * i["out_pitch"] + word
        self._write_chip("vec", self._bank(i["out_bank"], places), as_words(values).reshape(-1, 16))

    def _operand(self, i: Instruction, name: str, word: int) -> np.ndarray:
        """Values (pixels, lanes) of an operand; zeros where the instruction does not use it."""
        if name not in vector.used(i):
            return np.zeros((i["pixels"], FP32_LANES if i["fp32"] else LANES), np.float32 if i["fp32"] else np.float16)
        words = i[f"{name}_addr"] + np.arange(i["pixels"]) * i[f"{name}_pitch"] + word
        data = self._read_chip("vec", self._bank("abc".index(name), words))
        return fp32_values(data) if i["fp32"] else fp16_values(data)

    def _channel_words(self, i: Instruction, word: int, lanes: int) -> np.ndarray:
        return i["chn_addr"] + (word * lanes + np.arange(lanes)) * i["chn_pitch"]

    def _constants(self, i: Instruction, word: int, lanes: int) -> np.ndarray:
        """S, T, U (lanes, 4 values) of a channel word."""
        return fp32_values(self._read_chip("chn", self._channel_words(i, word, lanes)))

    def _sums(self, i: Instruction, word: int) -> None:
        a, b, c = (self._operand(i, name, word) for name in "abc")
        places = self._channel_words(i, word, LANES)[:, None] + np.arange(2)
        before = self._read_chip("chn", places)
        after = np.zeros_like(before)
        for number, (added, bits) in enumerate(zip(vector.sums(i, a, b, c), (FIRST_BITS, SECOND_BITS), strict=True)):
            for lane in range(LANES):
                start = integer(before[lane, number], bits) if i["resume"] else 0
                after[lane, number] = integer_word(start + added[lane], bits)
        self._write_chip("chn", places.reshape(-1), after.reshape(-1, 16))

    # CHN ----------------------------------------------------------------------------------------------------------------

    def _chn(self, i: Instruction) -> None:
        program = PROGRAMS[CHANNEL_PROGRAMS[i["program"]]]
        constants = fp32_values(self._read_chip("chn", i["const_addr"] + np.arange(VALUE_WORDS))).reshape(-1)
        for channel in range(i["channels"]):
            places = i["chn_addr"] + channel * RECORD_WORDS + np.arange(RECORD_WORDS - 1)
            words = self._read_chip("chn", places)
            registers = np.zeros(REGISTERS, np.float32)
            registers[:RECORD_VALUES] = fp32_values(words[:VALUE_WORDS]).reshape(-1)
            registers[RECORD_VALUES : 2 * RECORD_VALUES] = constants
            widths = (FIRST_BITS, SECOND_BITS, FIRST_BITS)
            sums = [integer(word, bits) for word, bits in zip(words[VALUE_WORDS:], widths, strict=True)]
            kept = self._channel(program, registers, sums, i["count"])
            values = as_words(registers[:RECORD_VALUES])
            self._write_chip("chn", places[:VALUE_WORDS], values)
            self._write_chip("chn", places[KEPT:], integer_word(kept, FIRST_BITS)[None])

    def _channel(self, program: tuple[Step, ...], registers: np.ndarray, sums: list[int], count: int) -> int:
        """Run a program on a channel's registers; returns what KEPT holds then."""
        first, second, kept = sums
        for step in program:
            if step.op is Op.KEEP:
                kept = first
                continue
            exact = {Op.SUM_1: (first, -24), Op.SUM_2: (second, -48), Op.CROSS: (count * second - first * kept, -48)}
            if step.op in exact:
                value, exponent = exact[step.op]
                value = wrapped(value, CROSS_BITS)
                self.saturated |= bool(floats.saturates_from_int(value, exponent))
                registers[step.target] = floats.fp32_from_int(value, exponent)
            else:
                registers[step.target] = self._scalar(step.op, registers[step.a], registers[step.b])
        return kept

    def _scalar(self, op: Op, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        if op is Op.SUB:
            op, b = Op.ADD, -b
        if op is Op.SQRT:
            return floats.fp32_sqrt(a)
        compute, saturates = {
            Op.ADD: (floats.fp32_add, floats.saturates_add),
            Op.MUL: (floats.fp32_mul, floats.saturates_mul),
            Op.DIV: (floats.fp32_div, floats.saturates_div),
        }[op]
        self.saturated |= bool(saturates(a, b))
        return compute(a, b)

    # PRUNE --------------------------------------------------------------------------------------------------------------

    def _prune(self, i: Instruction) -> None:
        for chunk in range(i["chunks"]):
            for word in range(i["words"]):
                masters = fp32_values(self._read_chip("vec", self._bank(0, prune.master_words(i, chunk, word))))
                values, positions = prune.select(i, prune.by_lane(i, masters))
                places = i["out_addr"] + (chunk * len(values) + np.arange(len(values))) * i["out_pitch"] + word
                for bank, words in ((1, self._to_fp16(values)), (2, positions)):
                    self._write_chip("vec", self._bank(bank, places), as_words(words).reshape(-1, 16))
