"""Instruction table of the inference core, version 3.

Addresses of on-chip memories are in 16-byte words (weight memory in PW: in weight words), memory offsets and strides in
16-byte words too, so nothing can be misaligned. On-chip address arithmetic is modulo 2**20; an access at or above a memory's
size ends the instruction with BUFFER_RANGE. What an instruction writes to feature memory must not overlap what it reads there, and
no word may be written twice: the machine reads everything first, the core as it goes, and what such a program computes is undefined
(it stays harmless: addresses are checked all the same). The compiler proves that its programs do neither. What the machine
does with each field is in ``hw/spec/deform/machine.py``.
"""

from __future__ import annotations

from hw.spec.isa import Field, InstructionSet, Operation, Rule
from hw.spec.transfer import ADDR_BITS as ADDR_BITS
from hw.spec.transfer import addr, size, transfer_fields

SPACES = ("fm", "row", "wgt", "par", "tbl")
MERGE_NONE, MERGE_ZIP, MERGE_ADD = 0, 1, 2
DW_CONV, DW_DEFORM, DW_MAX, DW_SUM, DW_SAMPLE = 0, 1, 2, 3, 4
ROUNDING_CODES = {"TRN": 0, "RND": 1, "RND_CONV": 2}
TABLE_BYTES = 256
"""Of a table activation: entry b is what a result byte b becomes."""

TABLES_MAX = 8
WINDOW_MAX = 3
"""Rows and columns of the largest window with weights."""

SAMPLE_SIDE = 2
"""Rows and columns of the pixels that a bilinear sample lies between."""

OFFSET_PAIRS = 8
"""Pairs of a row and a column offset in a word of the offset map."""

_WINDOWS = {DW_CONV: (1, WINDOW_MAX), DW_DEFORM: (WINDOW_MAX, WINDOW_MAX), DW_SAMPLE: (SAMPLE_SIDE, SAMPLE_SIDE)}
"""Smallest and largest side of the window in the modes that do not take any."""


_TRANSFER = transfer_fields(
    place="; for the row memory a word within bank 0",
    plane="; for the row memory plane y goes to bank y mod 9",
    step="; for the row memory from plane y to y + 9",
)

_REQUANTISE = (
    Field(name="in_unsigned", width=1, doc="activations are unsigned bytes"),
    Field(name="rounding", width=2, maximum=2, doc="0 TRN, 1 RND, 2 RND_CONV"),
    Field(name="clip_lo", width=9, signed=True, doc="smallest output code"),
    Field(name="clip_hi", width=9, signed=True, doc="largest output code"),
)

_TABLE = Field(
    name="table",
    width=4,
    maximum=TABLES_MAX,
    doc="0 none, t + 1: each byte after the clips is replaced by its entry of table t",
)

LOAD = Operation(
    name="LOAD",
    opcode=1,
    doc="Memory to an on-chip memory, three loops. With check_crc the CRC-32 of all bytes in transfer order must equal crc.",
    fields=(
        *_TRANSFER,
        Field(
            name="space",
            width=3,
            maximum=len(SPACES) - 1,
            doc="0 feature, 1 row, 2 weight, 3 parameter, 4 table memory (16 words per table)",
        ),
        Field(name="check_crc", width=1, doc="compare crc at the end; error BLOB_CRC"),
        Field(name="crc", width=32, doc="expected CRC-32 of the transferred bytes"),
        Field(name="overlap", width=1, maximum=0, doc="reserved: overlapping words at 8-byte steps for the first layer"),
    ),
)

STORE = Operation(name="STORE", opcode=2, doc="Feature memory to memory, three loops.", fields=_TRANSFER)

PW = Operation(
    name="PW",
    opcode=3,
    doc="K x K convolution of feature memory on the array: pointwise, standard and linear layers.",
    fields=(
        addr("in_addr", "word of input pixel (-pad_top, -pad_left), channel word 0, modulo 2**20"),
        size("in_words", "channel words per tap"),
        size("kernel_h", "rows of the kernel", 8),
        size("kernel_w", "columns of the kernel", 8),
        size("in_rows", "rows of the input that exist; outside is 0"),
        size("in_cols", "columns of the input that exist"),
        Field(name="pad_top", width=8, doc="input row of the first tap of output row 0 is -pad_top"),
        Field(name="pad_left", width=8, doc="input column of the first tap of output column 0 is -pad_left"),
        Field(name="stride", width=4, minimum=1, maximum=8, doc="stride, both ways"),
        addr("pixel_step", "words from an output pixel's input to the next's: stride * kx_step"),
        addr("row_step", "words from an output row's input to the next's: stride * ky_step"),
        addr("kx_step", "words from input pixel to input pixel"),
        addr("ky_step", "words from input row to input row"),
        size("out_rows", "output rows"),
        size("out_cols", "output columns"),
        size("out_words", "output words of 16 channels per pixel, before a merge"),
        addr("out_addr", "first output word"),
        addr("out_pitch", "words from output pixel to output pixel"),
        addr("weight_addr", "first weight word"),
        addr("param_addr", "first requantise record word: 8 words per output word"),
        Field(name="merge", width=2, maximum=MERGE_ADD, doc="0 none, 1 zip with the left half, 2 add the residual and clip"),
        addr("merge_addr", "first word of the left half or residual"),
        addr("merge_pitch", "words from pixel to pixel of it"),
        Field(
            name="wide_weights", width=1, doc="0: 4-bit weights, two channels per cell; 1: 8-bit weights, one channel per cell"
        ),
        *_REQUANTISE,
        _TABLE,
        Field(name="merge_unsigned", width=1, doc="bytes that are added are unsigned"),
        Field(name="merge_lo", width=9, signed=True, doc="smallest sum of an addition"),
        Field(name="merge_hi", width=9, signed=True, doc="largest sum of an addition"),
    ),
)

DW = Operation(
    name="DW",
    opcode=4,
    doc="Per-channel convolution of up to 3 x 3, square deformable 3 x 3 convolution, pooling or bilinear sampling of row memory; "
    "16 channels at a time.",
    fields=(
        Field(name="mode", width=3, maximum=DW_SAMPLE, doc="0 convolution, 1 deformable, 2 maximum, 3 sum, 4 bilinear sample"),
        size("words", "channel words"),
        addr("pitch", "words from pixel to pixel of a row"),
        addr("row_pitch", "words from row y to row y + 9"),
        size("in_rows", "rows that exist; row 0 is the first loaded"),
        size("in_cols", "columns that exist"),
        Field(name="row0", width=16, signed=True, doc="middle row of the first three taps of output row 0"),
        Field(name="bank0", width=4, maximum=8, doc="bank of row0"),
        addr("row0_addr", "address of row0, channel word 0, within its bank"),
        Field(
            name="col0", width=16, signed=True, doc="column of the first tap of output column 0 (deformable: of the middle tap)"
        ),
        size("kernel_h", "rows of the window; 1 to 3 for convolutions, 3 for deformable ones, 2 for samples", 8),
        size("kernel_w", "columns of the window; 1 to 3 for convolutions, 3 for deformable ones, 2 for samples", 8),
        Field(name="stride", width=4, minimum=1, maximum=8, doc="stride, both ways"),
        size("out_rows", "output rows"),
        size("out_cols", "output columns"),
        addr("out_addr", "first output word"),
        addr("out_pitch", "words from output pixel to output pixel"),
        addr("weight_addr", "first weight word in parameter memory: 9 words per channel word, word 3 * i + j for tap (i, j)"),
        addr("param_addr", "first requantise record word: 8 words per channel word"),
        addr("offset_addr", "first word of the offset map in feature memory; lane 0 is s"),
        addr("offset_pitch", "words from pixel to pixel of the offset map"),
        Field(name="upsample", width=1, maximum=0, doc="reserved: read (y >> 1, x >> 1)"),
        *_REQUANTISE,
        _TABLE,
        Field(name="offset_pair", width=3, doc="sample: lane 2 * offset_pair of a word is the row offset, the next the column offset"),
        Field(name="offset_frac", width=3, doc="sample: fraction bits of the offsets"),
    ),
    rules=tuple(
        Rule(when="mode", values=(mode,), field=name, minimum=least, maximum=most)
        for mode, (least, most) in _WINDOWS.items()
        for name in ("kernel_h", "kernel_w")
    ),
)

INSTRUCTIONS = InstructionSet(core="deform", version=3, operations=(LOAD, STORE, PW, DW))
