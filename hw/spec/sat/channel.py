"""Scalar programs on channel records: what CHN executes, once per channel, one FP32 operation after the other.

A program is data: the machine interprets it, the hardware runs it from a table, and its cycles are the sum of its steps'. Values
are registers: 0..15 the record's FP32 values, 16..31 the constants, 32..39 temporaries. Each step is one operation of
``hw.spec.floats``, rounded once, so an order of steps is an order of roundings.

The integers are exact: ``SUM_1`` and ``SUM_2`` are a channel's sums of values (unit 2**-24) and of products (2**-48), and
``count * SUM_2 - SUM_1 * KEPT`` is ``count**2`` times the variance (KEPT = SUM_1) or covariance (KEPT = the forward SUM_1), so that
nothing cancels before the one rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hw.spec.sat.instructions import CHANNEL_PROGRAMS

RECORD_VALUES = 16
REGISTERS = 40

FIRST_BITS, SECOND_BITS = 64, 104
"""Widths of the sums of values and of products: room for 2**23 values. Records hold them sign-extended to 128 bits."""

CROSS_BITS = 128


class Op(IntEnum):
    """Operations of a step. The last three have no operands; KEEP copies SUM_1 to KEPT and writes no register."""

    ADD = 0
    SUB = 1
    MUL = 2
    DIV = 3
    SQRT = 4
    SUM_1 = 5
    SUM_2 = 6
    CROSS = 7
    KEEP = 8


@dataclass(frozen=True)
class Step:
    """``target = op(a, b)``."""

    op: Op
    target: int = 0
    a: int = 0
    b: int = 0


RECORD = (
    "scale", "bias", "scale_velocity", "bias_velocity", "running_mean", "running_variance", "mean", "inverse_deviation",
    "s", "t", "u", "scale_gradient", "bias_gradient",
)  # fmt: skip
"""Names of a record's FP32 values. ``s``, ``t``, ``u`` are the constants of VEC's affine operation (record word 2)."""

CONSTANTS = (
    "one", "zero", "inverse_count", "inverse_square", "epsilon", "running_weight", "unbiased", "inverse_loss_scale",
    "momentum", "learning_rate", "scale_decay", "bias_decay",
)  # fmt: skip
"""Names of the constants. ``inverse_count`` is 1/n, ``inverse_square`` 1/n**2, ``unbiased`` n/(n - 1), each FP32 nearest to it;
``running_weight`` what a batch counts in the running statistics."""

R = {name: number for number, name in enumerate(RECORD)}
C = {name: RECORD_VALUES + number for number, name in enumerate(CONSTANTS)}
T0, T1 = 2 * RECORD_VALUES, 2 * RECORD_VALUES + 1

_AFFINE = (
    Step(Op.MUL, R["s"], R["scale"], R["inverse_deviation"]),
    Step(Op.ADD, R["t"], C["one"], C["zero"]),
)


def _running(name: str, value: int) -> tuple[Step, ...]:
    """``running += (value - running) * running_weight``."""
    return (
        Step(Op.SUB, T1, value, R[name]),
        Step(Op.MUL, T1, T1, C["running_weight"]),
        Step(Op.ADD, R[name], R[name], T1),
    )


NORM_FORWARD = (
    Step(Op.SUM_1, T0),
    Step(Op.MUL, R["mean"], T0, C["inverse_count"]),
    Step(Op.KEEP),
    Step(Op.CROSS, T0),
    Step(Op.MUL, T0, T0, C["inverse_square"]),
    Step(Op.ADD, T1, T0, C["epsilon"]),
    Step(Op.SQRT, T1, T1),
    Step(Op.DIV, R["inverse_deviation"], C["one"], T1),
    *_AFFINE,
    Step(Op.MUL, T1, R["mean"], R["s"]),
    Step(Op.SUB, R["u"], R["bias"], T1),
    *_running("running_mean", R["mean"]),
    Step(Op.MUL, T0, T0, C["unbiased"]),
    *_running("running_variance", T0),
)
"""Batch statistics to y * s + u, and the running ones."""

NORM_BACKWARD = (
    Step(Op.SUM_1, R["bias_gradient"]),
    Step(Op.CROSS, T0),
    Step(Op.MUL, T0, T0, C["inverse_count"]),
    Step(Op.MUL, R["scale_gradient"], T0, R["inverse_deviation"]),
    Step(Op.MUL, R["s"], R["scale"], R["inverse_deviation"]),
    Step(Op.MUL, T0, R["scale_gradient"], C["inverse_count"]),
    Step(Op.MUL, T0, T0, R["inverse_deviation"]),
    Step(Op.MUL, T0, T0, R["s"]),
    Step(Op.SUB, R["t"], C["zero"], T0),
    Step(Op.MUL, T0, R["bias_gradient"], C["inverse_count"]),
    Step(Op.MUL, T0, T0, R["s"]),
    Step(Op.MUL, T1, R["t"], R["mean"]),
    Step(Op.ADD, T0, T0, T1),
    Step(Op.SUB, R["u"], C["zero"], T0),
)
"""Sums of g and g * y to the gradient of y: g * s + y * t + u, and to the gradients of scale and bias."""

NORM_FIXED = (
    Step(Op.ADD, T0, R["running_variance"], C["epsilon"]),
    Step(Op.SQRT, T0, T0),
    Step(Op.DIV, R["inverse_deviation"], C["one"], T0),
    *_AFFINE,
    Step(Op.MUL, T0, R["running_mean"], R["s"]),
    Step(Op.SUB, R["u"], R["bias"], T0),
)
"""Running statistics to y * s + u: inference."""

BIAS_FORWARD = (
    Step(Op.ADD, R["s"], C["one"], C["zero"]),
    Step(Op.ADD, R["t"], C["one"], C["zero"]),
    Step(Op.ADD, R["u"], R["bias"], C["zero"]),
)
"""A bias alone: y * 1 + bias."""

BIAS_BACKWARD = (Step(Op.SUM_1, R["bias_gradient"]),)
"""The sum of g is the gradient of a bias."""


def _updated(name: str) -> tuple[Step, ...]:
    """``velocity = velocity * momentum + (gradient / loss scale + value * decay); value -= velocity * learning_rate``."""
    value, velocity = R[name], R[f"{name}_velocity"]
    return (
        Step(Op.MUL, T0, R[f"{name}_gradient"], C["inverse_loss_scale"]),
        Step(Op.MUL, T1, value, C[f"{name}_decay"]),
        Step(Op.ADD, T0, T0, T1),
        Step(Op.MUL, T1, velocity, C["momentum"]),
        Step(Op.ADD, velocity, T1, T0),
        Step(Op.MUL, T1, velocity, C["learning_rate"]),
        Step(Op.SUB, value, value, T1),
    )


UPDATE = (*_updated("scale"), *_updated("bias"))
"""Momentum SGD of scale and bias."""

PROGRAMS: dict[str, tuple[Step, ...]] = {
    "NORM_FORWARD": NORM_FORWARD, "NORM_BACKWARD": NORM_BACKWARD, "NORM_FIXED": NORM_FIXED,
    "BIAS_FORWARD": BIAS_FORWARD, "BIAS_BACKWARD": BIAS_BACKWARD, "UPDATE": UPDATE,
}  # fmt: skip

assert tuple(PROGRAMS) == CHANNEL_PROGRAMS
