"""Instruction table of the training core, version 1.

Numbers: FP16 and FP32 as ``hw.spec.floats`` defines them: IEEE formats, round to nearest even, gradual underflow, overflow to the
largest finite number. An operand whose exponent is all ones (Inf or NaN, which no unit writes) reads as the largest finite number
of its sign. Memory words are 16 bytes: eight FP16 or four FP32 values. On-chip addresses are modulo 2**20; an access at or above a
memory's size ends the instruction with BUFFER_RANGE. What an instruction writes must not overlap what it reads, and no word may be
written twice; such programs are harmless, but what they compute is undefined. What each field does: ``hw/spec/sat/machine.py``.
"""

from __future__ import annotations

from hw.spec.isa import Field, InstructionSet, Operation, Rule
from hw.spec.transfer import addr, size, transfer_fields

SPACES = ("act", "wgt", "idx", "acc", "vec", "chn", "tbl")
BANKS = 3
"""Banks of the vector memory, one after the other in its address space: operands a, b and c of VEC lie in banks 0, 1 and 2."""

TABLE_ENTRIES = 4
"""Entries of the pixel table in a word: base (16 bits), mask of kernel rows (8 bits), mask of kernel columns (8 bits)."""

INTERLEAVE_LOG2 = 4
"""Most interleaved outputs of a processing element, as a power of two."""

RECORD_WORDS = 8
"""Words of a channel's record: 16 FP32 values, then three signed 128-bit integers (two sums, and one that is kept), a spare word."""

DRAIN_NONE, DRAIN_FP32, DRAIN_FP16 = 0, 1, 2
VEC_AFFINE, VEC_MAX, VEC_EQUAL, VEC_UNEQUAL, VEC_SUMS, VEC_FLAG = range(6)
CHANNEL_PROGRAMS = ("NORM_FORWARD", "NORM_BACKWARD", "NORM_FIXED", "BIAS_FORWARD", "BIAS_BACKWARD", "UPDATE")


def _flag(name: str, doc: str) -> Field:
    return Field(name=name, width=1, doc=doc)


def _signed(name: str, width: int, doc: str) -> Field:
    return Field(name=name, width=width, signed=True, doc=doc)


def _choice(name: str, width: int, maximum: int, doc: str) -> Field:
    return Field(name=name, width=width, maximum=maximum, doc=doc)


LOAD = Operation(
    name="LOAD",
    opcode=1,
    doc="Memory to an on-chip memory, three loops. With check_crc the CRC-32 of all bytes in transfer order must equal crc. "
    "Indices of the idx space are 16-bit values of which the low four bits are kept.",
    fields=(
        *transfer_fields(),
        _choice("space", 3, len(SPACES) - 1, ", ".join(f"{i} {name}" for i, name in enumerate(SPACES))),
        _flag("check_crc", "compare crc at the end; error BLOB_CRC"),
        Field(name="crc", width=32, doc="expected CRC-32 of the transferred bytes"),
    ),
)

STORE = Operation(
    name="STORE",
    opcode=2,
    doc="An on-chip memory to memory, three loops.",
    fields=(*transfer_fields(), Field(name="space", width=3, minimum=3, maximum=5, doc="3 acc, 4 vec, 5 chn")),
)

GEMM = Operation(
    name="GEMM",
    opcode=3,
    doc="One tile of a product on the array: rows x a by columns x b outputs, each the sum of its products in ascending order of k.",
    fields=(
        _flag("channels", "rows of the array are 0 pixels, 1 channels (weight gradients)"),
        _choice("a_log2", 2, 2, "row interleave a: output row q = ai * rows + r"),
        _choice("b_log2", 3, INTERLEAVE_LOG2, "column interleave b: output column bi * columns + c; a * b <= 16"),
        _choice("chunk_log2", 1, 1, "activation words of a chunk: 1 (8 values of k) or 2 (16)"),
        Field(name="steps", width=5, minimum=1, maximum=16, doc="products per output and chunk; at most a chunk's values"),
        _flag("sparse", "the value of k within the chunk is 0 the step's number, 1 the position in idx memory"),
        addr("table_addr", "first entry of the pixel table; entries are counted modulo 2**20"),
        Field(name="act_addr", width=16, doc="added to each entry's base, modulo 2**16"),
        Field(name="tap_row", width=3, doc="bit of the entries' row mask for the first kernel row"),
        Field(name="tap_col", width=3, doc="bit of the entries' column mask for the first kernel column"),
        Field(name="kernel_h", width=4, minimum=1, maximum=8, doc="kernel rows; bit (tap_row + row) mod 8 of the mask counts"),
        Field(name="kernel_w", width=4, minimum=1, maximum=8, doc="kernel columns, likewise"),
        _signed("row_step", 16, "activation words from kernel row to kernel row"),
        _signed("col_step", 16, "activation words from kernel column to kernel column"),
        size("chunks", "chunks of each tap: of channels, or of pixels"),
        addr("wgt_addr", "first weight word: step t and bi read word wgt_addr + t * wgt_pitch + bi"),
        addr("idx_addr", "first word of positions, likewise"),
        addr("wgt_pitch", "weight words from step to step"),
        _flag("preload", "accumulators begin with words of acc memory, not with +0"),
        addr("acc_addr", "acc memory: word acc_addr + q * b + bi has output row q, columns bi * columns and on"),
        _choice("drain", 2, DRAIN_FP16, "0 keep the sums in the array, 1 to acc memory, 2 to the vector memory, rounded to FP16"),
        _flag("resume", "accumulators begin with what the array kept"),
        _choice("out_bank", 2, BANKS - 1, "bank of the vector memory"),
        addr("out_addr", "first column word (columns FP16 values) of the bank, for output row 0"),
        addr("out_pitch", "column words from output row to output row"),
        size("out_rows", "output rows that are written with drain 2; the first ones"),
        size("out_words", "column words that are written of each row with drain 2, at most b", 5),
    ),
    rules=(
        *(Rule(when="a_log2", values=(a,), field="b_log2", minimum=0, maximum=INTERLEAVE_LOG2 - a) for a in (1, 2)),
        Rule(when="chunk_log2", values=(1,), field="a_log2", minimum=0, maximum=1),
        Rule(when="chunk_log2", values=(0,), field="steps", minimum=1, maximum=8),
        Rule(when="channels", values=(1,), field="chunk_log2", minimum=0, maximum=0),
        Rule(when="channels", values=(1,), field="kernel_h", minimum=1, maximum=1),
        Rule(when="channels", values=(1,), field="kernel_w", minimum=1, maximum=1),
        Rule(when="preload", values=(1,), field="resume", minimum=0, maximum=0),
        *(Rule(when="b_log2", values=(b,), field="out_words", minimum=1, maximum=1 << b) for b in range(INTERLEAVE_LOG2 + 1)),
    ),
)

_OPERANDS = tuple(
    field
    for name, where in (("a", "bank 0"), ("b", "bank 1"), ("c", "bank 2"))
    for field in (addr(f"{name}_addr", f"first word of operand {name}, in {where}"), addr(f"{name}_pitch", "words from pixel to pixel"))
)

VEC = Operation(
    name="VEC",
    opcode=4,
    doc="Element-wise work on the vector memory, a word of each operand per cycle, and sums over pixels.",
    fields=(
        _choice("op", 3, VEC_FLAG, "0 affine, 1 maximum, 2 equal, 3 unequal, 4 sums, 5 flag"),
        size("words", "channel words: the outer loop"),
        size("pixels", "pixels: the inner loop", 20),
        *_OPERANDS,
        _choice("out_bank", 2, BANKS - 1, "bank of the results"),
        addr("out_addr", "first result word"),
        addr("out_pitch", "words from pixel to pixel"),
        addr("chn_addr", "record word with the constants (affine) or sums (sums) of the first channel"),
        Field(name="chn_pitch", width=4, doc="record words from channel to channel; 0: one record for all"),
        _flag("fp32", "affine only: four FP32 values a word, not eight FP16"),
        _flag("use_b", "affine: add b * T"),
        _flag("use_u", "affine: add U"),
        _flag("masked", "operand a counts only where c is above zero, elsewhere it is +0"),
        _flag("relu", "affine: results that are negative or -0 become +0"),
        _flag("resume", "sums: go on from the records' sums, not from 0"),
        _flag("square", "sums: operand a in place of b"),
    ),
    rules=tuple(Rule(when="op", values=(op,), field="fp32", minimum=0, maximum=0) for op in range(VEC_MAX, VEC_FLAG + 1)),
)

CHN = Operation(
    name="CHN",
    opcode=5,
    doc="A scalar program on each channel's record: statistics to constants, gradients of scales and biases, their update.",
    fields=(
        _choice("program", 3, len(CHANNEL_PROGRAMS) - 1, ", ".join(f"{i} {name}" for i, name in enumerate(CHANNEL_PROGRAMS))),
        size("channels", "records"),
        addr("chn_addr", "first record, 8 words each"),
        addr("const_addr", "record of constants: 4 words"),
        Field(name="count", width=23, doc="values that the sums are of: images x pixels"),
    ),
)

PRUNE = Operation(
    name="PRUNE",
    opcode=6,
    doc="FP32 masters in vector memory bank 0 to FP16 weights in bank 1 and their positions in bank 2: of each group along k the n of "
    "largest magnitude (ties: lowest k), in ascending order of k.",
    fields=(
        _flag("transpose", "k runs along 0 rows, 1 columns of the masters"),
        _choice("chunk_log2", 1, 1, "values of k in a chunk: 8 or 16; positions count within it"),
        _choice("group_log2", 3, 4, "values of k in a group: 1, 2, 4, 8 or 16, at most a chunk"),
        Field(name="keep", width=5, minimum=1, maximum=16, doc="values kept of each group"),
        size("chunks", "chunks along k"),
        size("words", "result words of 8 lanes: the other axis"),
        addr("in_addr", "first master word"),
        addr("in_pitch", "words from row to row of the masters"),
        addr("out_addr", "first result word; step t and lane word w lie at out_addr + t * out_pitch + w, in either bank"),
        addr("out_pitch", "words from step to step"),
    ),
    rules=(
        *(Rule(when="group_log2", values=(g,), field="keep", minimum=1, maximum=1 << g) for g in range(5)),
        Rule(when="group_log2", values=(4,), field="chunk_log2", minimum=1, maximum=1),
    ),
)

INSTRUCTIONS = InstructionSet(core="sat", version=1, operations=(LOAD, STORE, GEMM, VEC, CHN, PRUNE))
