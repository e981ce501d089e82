"""The scalar programs of ``hw.spec.sat.channel`` as a table in logic, one step after the other."""

from amaranth.hdl import Array, C, Value
from amaranth.lib import data

from hw.spec.sat.channel import PROGRAMS, REGISTERS, Op, Step
from hw.spec.sat.instructions import CHANNEL_PROGRAMS

OP_BITS = max(Op).bit_length()

StepLayout = data.StructLayout(
    {"op": OP_BITS, "target": range(REGISTERS), "a": range(REGISTERS), "b": range(REGISTERS), "last": 1}
)
"""A step; ``last`` of its program."""


def steps() -> list[tuple[Step, bool]]:
    """All programs' steps in a row, and whether each is its program's last."""
    return [(step, step is program[-1]) for program in (PROGRAMS[name] for name in CHANNEL_PROGRAMS) for step in program]


def starts() -> list[int]:
    """Where each program begins."""
    lengths = [len(PROGRAMS[name]) for name in CHANNEL_PROGRAMS]
    return [sum(lengths[:number]) for number in range(len(lengths))]


def step_at(counter: Value) -> data.View:
    """The step with that number."""
    words = [
        StepLayout.const({"op": step.op, "target": step.target, "a": step.a, "b": step.b, "last": last}).as_bits()
        for step, last in steps()
    ]
    return data.View(StepLayout, Array(C(word, StepLayout.size) for word in words)[counter])


def start_of(program: Value) -> Value:
    """The number of a program's first step."""
    return Array(C(number, range(len(steps()))) for number in starts())[program]
