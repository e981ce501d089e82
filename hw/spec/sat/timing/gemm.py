"""How long a GEMM instruction takes, in cycles from ``start`` to ``done``; it does not depend on the data.

Two halves of the operand stores are filled and used in turn: a chunk is fed while the one before it is computed. Then the sums settle
and are drained. A preload goes on beside the first feeds.
"""

from __future__ import annotations

from hw.spec.isa import Instruction
from hw.spec.sat.arch import SatArch
from hw.spec.sat.gemm import chunk_count, chunk_values
from hw.spec.sat.instructions import DRAIN_FP16, DRAIN_NONE
from hw.spec.sat.latency import FP16_NORMALISE, FP16_PRODUCT, FP32_TO_FP16, MEMORY_READ

ENTRY = 2
"""Cycles from a pixel-table word to the read of the activation that it names: choice of the entry, address."""

QUEUE = 1 + FP16_NORMALISE
"""Cycles from an activation word to its first operand at the array: queue, normalised."""

OPERAND = 1 + MEMORY_READ + ENTRY + MEMORY_READ + QUEUE + 2
"""Cycles from the control of an operand to when element (0, 0) can use it; first a register before the table, last the element's
own and its store."""

STEP = OPERAND - 1
"""Cycles from a step's control to when element (0, 0) uses its operand. One less than OPERAND: a chunk's first step in the cycle
after the last one of its feed uses what that brought, and what is fed from the cycle after a chunk's last step on overwrites
nothing that is still used."""

COLUMN = 1 + FP16_NORMALISE
"""Cycles from a weight word to column 0 of the array: finite, normalised."""

ISSUE = STEP - MEMORY_READ - COLUMN - 1
"""Cycles from a step's control to the read of its weights; the element's own register comes last."""

BROADCAST = 2
"""Cycles from a broadcast to when the elements do it."""

TOP = BROADCAST + 1
"""Cycles from asking for a slot's sums to that of the uppermost row at the array's top."""


def feed_cycles(i: Instruction, arch: SatArch) -> int:
    """Cycles in which a chunk is fed: ``feed`` operands of each row per cycle; weight gradients one."""
    return (chunk_values(i) << i["a_log2"]) // (1 if i["channels"] else arch.feed)


def step_cycles(i: Instruction, arch: SatArch) -> int:
    """Cycles of a step: one for each of the element's sums, but not less than the adder takes."""
    return max(1 << i["a_log2"] + i["b_log2"], arch.latency)


def tile_rows(i: Instruction, arch: SatArch) -> int:
    """Rows of ``columns`` sums in the array."""
    return arch.rows << i["a_log2"] + i["b_log2"]


def settle_cycles(arch: SatArch) -> int:
    """Cycles from the last step's control to the drain's first broadcast, which finds the last element's last sum; or to ``done``.

    The sums of slot 0, which are drained first, are there ``latency`` - 1 cycles earlier.
    """
    return STEP + arch.rows + arch.columns - 2 + FP16_PRODUCT + arch.latency - BROADCAST


def loop_cycles(*, chunks: int, feed: int, compute: int, preload: int) -> int:
    """Cycles from the first one of the first feed until all chunks are computed.

    The longest of the paths through this recurrence, in ends of feeds F and of computations C::

        F[i] = max(F[i - 1], C[i - 2]) + feed           C[i] = max(C[i - 1], F[i], preload) + compute
    """
    paths = [feed + chunks * compute, chunks * feed + compute, preload + chunks * compute]
    if chunks > 2:
        paths.append(preload + 2 * compute + (chunks - 2) * feed)
    return max(paths)


def drain_cycles(i: Instruction, arch: SatArch) -> int:
    """Cycles from the drain's first broadcast to the one after the last write."""
    if i["drain"] == DRAIN_NONE:
        return 0
    return tile_rows(i, arch) + TOP + (FP32_TO_FP16 if i["drain"] == DRAIN_FP16 else 0)


def gemm_cycles(i: Instruction, arch: SatArch) -> int:
    """Cycles of a GEMM instruction on ``arch``; exact."""
    loop = loop_cycles(
        chunks=chunk_count(i),
        feed=feed_cycles(i, arch),
        compute=i["steps"] * step_cycles(i, arch),
        preload=tile_rows(i, arch) if i["preload"] else 0,
    )
    return loop + settle_cycles(arch) + drain_cycles(i, arch)
