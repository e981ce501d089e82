"""Random programs for the training core, of shapes that fit small memories; some instructions break a rule on purpose.

They keep what the machine leaves undefined out: no word is written twice, nothing is read that the same instruction writes (VEC reads
the lower half of each bank and writes the upper one) but where it is the same word of the same output; GEMM resumes only a tile of
the same interleave in the same program; accumulators and pixel table are loaded from their own areas only
(:mod:`hw.sim.sat_contents`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hw.sim.draws import OPCODE, VERSION, WRAP, Draws, patched
from hw.sim.sat_contents import OWN_AREA, areas, region_words
from hw.spec.isa import HEADER
from hw.spec.sat import FP32_LANES, LANES, SatArch
from hw.spec.sat.instructions import (
    CHANNEL_PROGRAMS,
    DRAIN_FP16,
    DRAIN_FP32,
    RECORD_WORDS,
    SPACES,
    TABLE_ENTRIES,
    VEC_AFFINE,
    VEC_FLAG,
    VEC_SUMS,
)

LEAST = {"act_words": 256, "wgt_words": 128, "vec_words": 256, "chn_words": 256, "tbl_words": 64}
"""Sizes of on-chip memories that the largest drawn shapes fit."""

MOST_PRODUCTS = 2500
"""Products of a processing element in one instruction."""

STORED = ("acc", "vec", "chn")
LONGEST = 120
"""Words of a transfer."""

CONSTANT_WORDS, AFFINE_WORD, SUMS_WORD = 4, 2, 4
"""Words of a record of constants; where the constants of VEC lie in a channel's record, and its sums."""


class Generator(Draws):
    """Draws programs for an architecture; ``memory`` (region, word, count) gives the bytes that a LOAD will see.

    ``gemm``, ``vec`` and so on draw one legal instruction that does not depend on others; ``changes`` are fields that must be so.
    """

    arch: SatArch

    def __init__(self, arch: SatArch, seed: int | Sequence[int], memory: Callable[[int, int, int], bytes]) -> None:
        super().__init__(arch, seed, memory)
        self.require(LEAST | {"acc_words": 16 * arch.rows})
        self._units = arch.space_units()
        self._placed: list[str] = []
        self._beyond, self._went = "", False

    def program(self, length: int) -> list[bytes]:
        """Legal instructions; of GEMM now and then a second one that resumes the first."""
        found: list[bytes] = []
        while len(found) < length:
            draw = self._draws()[self.below(7)]
            found.append(draw())
            if draw == self.gemm and self.below(3) == 0:
                first = self.arch.instructions.decode(found[-1])
                found.append(self.gemm(resume=1, a_log2=first["a_log2"], b_log2=first["b_log2"]))
        return found

    def _draws(self) -> tuple[Callable[..., bytes], ...]:
        return (self.load, self.store, self.gemm, self.gemm, self.vec, self.chn, self.prune)

    # What is refused --------------------------------------------------------------------------------------------------------

    def faulty(self) -> bytes:
        """An instruction of which the core may refuse something, at issue or while it runs; none that does what is undefined."""
        kind = self.below(6)
        if kind == 0:
            data = bytearray(self._draws()[self.below(7)]())
            data[self.below(len(data))] ^= 1 << self.below(8)
            return bytes(data)
        if kind == 1:
            return self._damaged()
        if kind == 2:
            loaded = self.one_of(*(number for number, name in enumerate(SPACES) if name not in OWN_AREA))
            return self.load(space=loaded, region=self.between(0, 5), offset=self.one_of(0, 500, 2048, 1 << 31))
        if kind == 3:
            return self.store(region=self.one_of(1, 2, 2, 3, 15), chip_addr=self.one_of(0, 3 * self.arch.vec_words - 2, WRAP))
        if kind == 4:
            return self.beyond(self.one_of(0, 1, 2, 3))
        return self.load(check_crc=1, crc=self.below(1 << 32))

    def _damaged(self) -> bytes:
        """Refused at issue, with a right CRC."""
        raw, kind = self._draws()[self.below(7)](), self.below(5)
        operation = self.arch.instructions.decode(raw).operation
        if kind == 0:
            return patched(raw, 8 * OPCODE, 8, self.one_of(0, self.between(7, 255)))
        if kind == 1:
            return patched(raw, 8 * VERSION, 8, self.one_of(0, self.between(2, 255)))
        if kind == 2:
            return patched(raw, self.between(operation.used_bits, 479), 1, 1)
        offsets = {field.name: operation.offsets[field.name] for field in HEADER}
        return patched(raw, offsets["flags" if kind == 3 else "wait"] + self.below(16), 1, 1)

    def fields_beyond(self, number: int) -> list[str]:
        """Fields of GEMM, VEC, CHN or PRUNE that :meth:`beyond` can move, found by drawing."""
        found: dict[str, None] = {}
        for _ in range(40):
            self._placed = []
            (self.gemm, self.vec, self.chn, self.prune)[number]()
            found |= dict.fromkeys(self._placed)
        return list(found)

    def beyond(self, number: int, field: str = "") -> bytes:
        """GEMM, VEC, CHN or PRUNE of which an access lies outside a memory, perhaps only the last; by that field, or any."""
        draw = (self.gemm, self.vec, self.chn, self.prune)[number]
        if not field:
            self._placed = []
            draw()
            field = str(self.rng.choice(self._placed))
        self._beyond, self._went = field, False
        while not self._went:
            raw = draw()
        self._beyond = ""
        return raw

    def _place(self, field: str, span: int, size: int, low: int = 0, high: int | None = None) -> int:
        """First of ``span`` words in low..high of a memory of ``size``; or, where it is this field's turn, one that is too far."""
        high = size if high is None else high
        if high - low < span:
            raise ValueError(f"{field} must have room for {span} words in {low}..{high}")
        self._placed.append(field)
        if field == self._beyond:
            self._went = True
            return self.one_of(size - span + 1, size - span + 1 + self.below(span), size, WRAP)
        return self.one_of(low, high - span, low + self.below(high - low - span + 1), low + self.below(high - low - span + 1))

    def _rows(self, name: str, count: int, width: int, size: int, *, low: int = 0, high: int | None = None) -> dict[str, int]:
        """``name``_addr and ``name``_pitch of ``count`` rows of ``width`` words that do not overlap; now and then from the last to
        the first."""
        pitch = width + self.one_of(0, 0, 1)
        if (count - 1) * pitch + width > (size if high is None else high) - low:
            pitch = width
        at = self._place(f"{name}_addr", (count - 1) * pitch + width, size, low, high)
        if f"{name}_addr" != self._beyond and self.below(8) == 0:
            return {f"{name}_addr": at + (count - 1) * pitch, f"{name}_pitch": -pitch & WRAP}
        return {f"{name}_addr": at, f"{name}_pitch": pitch}

    # Transfers --------------------------------------------------------------------------------------------------------------

    def load(self, **changes: int) -> bytes:
        space = changes.get("space", self.below(len(SPACES)))
        name = SPACES[space]
        size = self._units[name]
        shape = self._transfer(min(size // 4, LONGEST))
        used, region = shape["n0"] * shape["n1"] * shape["n2"], self.below(2)
        extent = (shape["n2"] - 1) * shape["stride2"] + (shape["n1"] - 1) * shape["stride1"] + shape["n0"]
        if name in OWN_AREA:
            region, shape["offset"] = 0, areas(self.arch)[name] + self.below(size - extent + 1)
        elif region == 0:
            shape["offset"] = self.below(region_words(self.arch) - extent)
        fields = {"space": space, "region": region, **shape, "chip_addr": self.below(size - used + 1)}
        if self.below(2):
            fields |= {"check_crc": 1, "crc": self._crc(fields)}
        return self.arch.instructions.encode("LOAD", **fields | changes)

    def store(self, **changes: int) -> bytes:
        space = changes.get("space", SPACES.index(str(self.rng.choice(STORED))))
        shape = self._transfer(min(self._units[SPACES[space]], 100))
        used = shape["n0"] * shape["n1"] * shape["n2"]
        fields = {"space": space, "region": 2, "chip_addr": self.below(self._units[SPACES[space]] - used + 1), **shape}
        return self.arch.instructions.encode("STORE", **fields | changes)

    # GEMM -------------------------------------------------------------------------------------------------------------------

    def gemm(self, **changes: int) -> bytes:
        fields = self._tile(changes)
        fields |= self._products(fields, changes)
        fields |= self._pixels(fields)
        resume = changes.get("resume", 0)
        preload = changes.get("preload", 0 if resume else self.below(2))
        fields |= {"preload": preload, "resume": resume, "drain": changes.get("drain", self.below(3))}
        fields |= self._results(fields)
        return self.arch.instructions.encode("GEMM", **fields | changes)

    def _tile(self, changes: dict[str, int]) -> dict[str, int]:
        a, b, chunk, channels = (changes.get(name) for name in ("a_log2", "b_log2", "chunk_log2", "channels"))
        if channels is None:
            channels = 0 if chunk == 1 else self.one_of(0, 0, 1)
        if chunk is None:
            chunk = 0 if channels or a == 2 else self.below(2)
        if a is None:
            a = self.below(min(2 if chunk else 3, 5 - (b or 0)))
        if b is None:
            b = self.below(5 - a)
        return {"a_log2": a, "b_log2": b, "chunk_log2": chunk, "channels": channels}

    def _products(self, tile: dict[str, int], changes: dict[str, int]) -> dict[str, int]:
        """Kernel, chunks, steps and weights: as many products as the weight memory has room for."""
        kernel = [(self.between(1, 8), 1), (1, self.between(1, 8)), (3, 3), (self.between(1, 3), self.between(1, 3)), (1, 1), (1, 1)]
        height, width = (1, 1) if tile["channels"] else kernel[self.below(len(kernel))]
        chunks, steps, b = self.between(1, 3), self.between(1, LANES << tile["chunk_log2"]), 1 << tile["b_log2"]
        room, most = self.arch.wgt_words // (b + 1), MOST_PRODUCTS >> tile["a_log2"] + tile["b_log2"]
        while height * width * chunks * steps > min(room, most):
            if chunks > 1:
                chunks -= 1
            elif steps > 1:
                steps //= 2
            else:
                height, width = max(height // 2, 1), max(width // 2, 1)
        total, sparse = height * width * chunks * steps, self.below(2)
        pitch = self.one_of(b, b, b + 1, 0)
        span, back = (total - 1) * pitch + b, self.below(8) == 0 and not self._beyond
        fields = {f"{name}_addr": self._place(f"{name}_addr", span, self.arch.wgt_words) + back * (total - 1) * pitch
                  for name in ("wgt", "idx") if sparse or name == "wgt"}  # fmt: skip
        return fields | {
            "kernel_h": height, "kernel_w": width, "chunks": chunks, "steps": steps, "sparse": sparse,
            "wgt_pitch": -pitch & WRAP if back else pitch,
        }  # fmt: skip

    def _pixels(self, fields: dict[str, int]) -> dict[str, int]:
        """Where the operands come from; bases lie in the second quarter, so a sixteenth to each side is free for three reasons."""
        entries = LANES * fields["chunks"] if fields["channels"] else self.arch.rows << fields["a_log2"]
        free = self.arch.act_words // 16

        def step(taps: int) -> int:
            return self.between(-(free // max(taps - 1, 1)), free // max(taps - 1, 1))

        return {
            "table_addr": self._place("table_addr", entries, self.arch.tbl_words * TABLE_ENTRIES),
            "act_addr": self.between(-free, free) & 0xFFFF, "row_step": step(fields["kernel_h"]), "col_step": step(fields["kernel_w"]),
            "tap_row": self.below(8), "tap_col": self.below(8),
        }  # fmt: skip

    def _results(self, fields: dict[str, int]) -> dict[str, int]:
        rows, b, found = self.arch.rows << fields["a_log2"], 1 << fields["b_log2"], {}
        if fields["preload"] or fields["drain"] == DRAIN_FP32:
            found["acc_addr"] = self._place("acc_addr", rows * b, self.arch.acc_words)
        if fields["drain"] == DRAIN_FP16:
            size = self.arch.vec_words * LANES // self.arch.columns
            words = self.between(1, min(b, size))
            written = min(rows, size // words)
            chosen = self.one_of(written, self.between(1, written))
            beyond = self.below(3) if chosen == rows else 0
            found |= {"out_bank": self.below(3), "out_rows": chosen + beyond, "out_words": words}
            found |= self._rows("out", chosen, words, size)
        return found

    # Vectors, channels, pruning ---------------------------------------------------------------------------------------------

    def vec(self, **changes: int) -> bytes:
        op = changes.get("op", self.below(VEC_FLAG + 1))
        words, pixels = self.between(1, 3), self.one_of(1, 2, self.between(1, 20), self.between(1, 20))
        flags = {name: self.below(2) for name in ("use_b", "use_u", "masked", "relu", "resume", "square")}
        fields = {"op": op, "words": words, "pixels": pixels, "fp32": self.below(2) if op == VEC_AFFINE else 0, **flags}
        size, half = self.arch.vec_words, self.arch.vec_words // 2
        if op == VEC_FLAG:
            fields |= {"out_addr": self._place("out_addr", 1, size)}
        else:
            fields |= self._operands(fields, half) | self._records(fields)
        if op not in (VEC_FLAG, VEC_SUMS):
            fields |= self._rows("out", pixels, words, size, low=half)
        return self.arch.instructions.encode("VEC", **fields | {"out_bank": self.below(3)} | changes)

    def _operands(self, fields: dict[str, int], half: int) -> dict[str, int]:
        second = fields["use_b"] if fields["op"] == VEC_AFFINE else not (fields["op"] == VEC_SUMS and fields["square"])
        third = fields["masked"] if fields["op"] in (VEC_AFFINE, VEC_SUMS) else fields["op"] != 1
        found = {}
        for name, read in (("a", True), ("b", second), ("c", third)):
            if read:
                found |= self._rows(name, fields["pixels"], fields["words"], self.arch.vec_words, high=half)
                if self.below(6) == 0 and f"{name}_addr" != self._beyond:
                    found[f"{name}_pitch"] = 0
        return found

    def _records(self, fields: dict[str, int]) -> dict[str, int]:
        """Records of the channels: constants may be shared, sums may not overlap."""
        sums, size = fields["op"] == VEC_SUMS, self.arch.chn_words
        if not sums and fields["op"] != VEC_AFFINE:
            return {}
        lanes = fields["words"] * (FP32_LANES if fields["fp32"] else LANES)
        pitch = self.one_of(RECORD_WORDS, RECORD_WORDS, *((self.between(2, 15),) if sums else (0, self.between(0, 15))))
        pitch = min(pitch, (size - 2) // lanes)
        at = self._place("chn_addr", (lanes - 1) * pitch + 1 + sums, size)
        if pitch == RECORD_WORDS and not self._beyond and self.below(4):
            place = SUMS_WORD if sums else AFFINE_WORD
            at = min(at // RECORD_WORDS, size // RECORD_WORDS - lanes) * RECORD_WORDS + place
        return {"chn_addr": at, "chn_pitch": pitch}

    def chn(self, **changes: int) -> bytes:
        half, channels = self.arch.chn_words // 2, self.between(1, 6)
        at = self._place("chn_addr", channels * RECORD_WORDS - 1, self.arch.chn_words, high=half)
        if not self._beyond and self.below(4):
            at = at // RECORD_WORDS * RECORD_WORDS
        fields = {
            "program": self.below(len(CHANNEL_PROGRAMS)), "channels": channels, "chn_addr": at,
            "const_addr": self._place("const_addr", CONSTANT_WORDS, self.arch.chn_words, low=half),
            "count": self.one_of(0, 1, self.between(1, 1 << 10), self.below(1 << 23)),
        }  # fmt: skip
        return self.arch.instructions.encode("CHN", **fields | changes)

    def prune(self, **changes: int) -> bytes:
        group = changes.get("group_log2", self.below(5))
        chunk = changes.get("chunk_log2", 1 if group == 4 else self.below(2))
        keep = self.one_of(1, 1 << group, self.between(1, 1 << group))
        transpose, chunks, words, size = self.below(2), self.between(1, 3), self.between(1, 3), self.arch.vec_words

        def extents() -> tuple[int, int]:
            """Rows of masters and their words."""
            k, lanes = chunks * (LANES << chunk), words * LANES
            return (lanes, k // FP32_LANES) if transpose else (k, lanes // FP32_LANES)

        while extents()[0] * extents()[1] > size:
            chunks, words = max(chunks - 1, 1), max(words - (chunks == 1), 1)
        steps = chunks * ((LANES << chunk) >> group) * keep
        fields = {"transpose": transpose, "chunk_log2": chunk, "group_log2": group, "keep": keep, "chunks": chunks, "words": words}
        fields |= self._rows("in", *extents(), size) | self._rows("out", steps, words, size)
        return self.arch.instructions.encode("PRUNE", **fields | changes)
