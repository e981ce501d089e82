"""Pipeline lengths of the training core's units in cycles: what its timing model is made of.

Operands in a cycle, result so many cycles later. The RTL refuses to elaborate where it has another number of stages.
"""

from __future__ import annotations

MEMORY_READ = 2
"""On-chip memory: cycle of the address to the cycle in which the data can be used."""

FP16_NORMALISE = 1
"""FP16 in to sign, exponent and normalised significand out."""

FP16_PRODUCT = 3
"""Normalised FP16 operands in to FP32 product out (operands, product, normalise)."""

MAC_ADDER = (4, 5, 6)
"""Accumulator and product in to accumulator out, the accumulator's own register included: the lengths that are offered."""

FP32_ADD = 6
"""Operands in to sum out (compare, align, add, count zeros, normalise, round)."""

FP32_MULTIPLY = 6
"""Operands in to product out (unpack, normalise, multiply, sum, align, round)."""

FP32_TO_FP16 = 2
"""FP32 in to FP16 out (align, round)."""

FP16_TO_FP32 = 1
"""FP16 in to FP32 out."""

FP32_DIVIDE = 28
"""Cycle of ``start`` to that of ``done`` (unpack, normalise with the first quotient bit, 24 more, align, round)."""

FP32_SQRT = 27
"""Cycle of ``start`` to that of ``done`` (unpack, normalise with the first root bit, 24 more, round)."""

INT_TO_FP32 = 12
"""Cycle of ``start`` to that of ``done`` (operand, magnitude, seven shifts by 16, normalise, align, round)."""
