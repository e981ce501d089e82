"""What is binned of the training core's instructions beside the fields of its table."""

from __future__ import annotations

from collections.abc import Iterator

from hw.sim.coverage import CoverageTable, Property, transfer_properties
from hw.spec.isa import Instruction
from hw.spec.machine import Writes
from hw.spec.sat import LANES, SatArch
from hw.spec.sat.instructions import BANKS, DRAIN_FP16, DRAIN_FP32, VEC_AFFINE, VEC_FLAG, VEC_SUMS

CROSSES = (
    ("LOAD", "space", "check_crc"),
    ("GEMM", "a_log2", "b_log2"),
    ("GEMM", "channels", "a_log2"),
    ("GEMM", "channels", "sparse"),
    ("GEMM", "chunk_log2", "sparse"),
    ("GEMM", "preload", "drain"),
    ("GEMM", "resume", "drain"),
    ("VEC", "op", "masked"),
    ("VEC", "op", "out_bank"),
    ("VEC", "fp32", "use_b"),
    ("VEC", "fp32", "use_u"),
    ("VEC", "fp32", "masked"),
    ("VEC", "fp32", "relu"),
    ("PRUNE", "transpose", "chunk_log2"),
    ("PRUNE", "transpose", "group_log2"),
    ("PRUNE", "chunk_log2", "group_log2"),
)
"""Pairs of fields of an operation of which every legal combination must occur."""

FLAGS = {0: "VEC: the flag is low", 1: "VEC: the flag is raised"}


def _outputs(i: Instruction) -> int:
    return 1 << i["a_log2"] + i["b_log2"]


def _negative(name: str) -> Property:
    return Property(operation="GEMM", name=f"negative {name}", holds=lambda arch, i: i[name] < 0)


def _sums(square: int, resume: int) -> Property:
    return Property(
        operation="VEC", name=f"sums, square={square}, resume={resume}",
        holds=lambda arch, i: i["op"] == VEC_SUMS and (i["square"], i["resume"]) == (square, resume),
    )  # fmt: skip


def _drained(bank: int) -> Property:
    return Property(
        operation="GEMM", name=f"to bank {bank}", holds=lambda arch, i: i["drain"] == DRAIN_FP16 and i["out_bank"] == bank
    )


PROPERTIES = (
    *transfer_properties(lambda arch: 3 * arch.vec_words),
    Property(operation="GEMM", name="fewer outputs than the adder's latency", holds=lambda arch, i: _outputs(i) < arch.latency),
    Property(operation="GEMM", name="as many outputs as the adder's latency", holds=lambda arch, i: _outputs(i) >= arch.latency),
    Property(operation="GEMM", name="mask of kernel rows goes round", holds=lambda arch, i: i["tap_row"] + i["kernel_h"] > 8),
    Property(operation="GEMM", name="mask of kernel columns goes round", holds=lambda arch, i: i["tap_col"] + i["kernel_w"] > 8),
    Property(operation="GEMM", name="in place in acc memory", holds=lambda arch, i: i["preload"] and i["drain"] == DRAIN_FP32),
    Property(
        operation="GEMM", name="rows that are not written",
        holds=lambda arch, i: i["drain"] == DRAIN_FP16 and i["out_rows"] < arch.rows << i["a_log2"],
    ),
    Property(
        operation="GEMM", name="more rows than there are",
        holds=lambda arch, i: i["drain"] == DRAIN_FP16 and i["out_rows"] > arch.rows << i["a_log2"],
    ),
    Property(
        operation="GEMM", name="from the upper half of a word on",
        holds=lambda arch, i: i["drain"] == DRAIN_FP16 and i["out_addr"] % 2 == 1,
        possible=lambda arch: arch.columns < LANES,
    ),
    *(_drained(bank) for bank in range(BANKS)),
    _negative("row_step"),
    _negative("col_step"),
    *(_sums(square, resume) for square in (0, 1) for resume in (0, 1)),
    Property(operation="VEC", name="one record for all", holds=lambda arch, i: i["op"] == VEC_AFFINE and i["chn_pitch"] == 0),
    Property(operation="PRUNE", name="all of a group kept", holds=lambda arch, i: i["keep"] == 1 << i["group_log2"]),
    Property(operation="PRUNE", name="one of sixteen kept", holds=lambda arch, i: i["keep"] == 1 and i["group_log2"] == 4),
)  # fmt: skip


def _measured(arch: SatArch) -> Iterator[str]:
    yield from FLAGS.values()


def _met(instruction: Instruction, writes: Writes) -> Iterator[str]:
    if instruction.name == "VEC" and instruction["op"] == VEC_FLAG:
        yield FLAGS[int(writes.sorted("vec")[1][0, 0])]


def _possible(instruction: Instruction) -> Iterator[str]:
    if instruction.name == "VEC" and instruction["op"] == VEC_FLAG:
        yield from FLAGS.values()


TABLE = CoverageTable(
    crosses=CROSSES, properties=PROPERTIES, limits=lambda arch: {}, measured=_measured, met=_met, possible=_possible
)
