"""Pipeline lengths of the inference core in cycles: what its timing model is made of.

The RTL composes its own latencies from its parts and refuses to elaborate where they differ from these.
"""

MEMORY_READ = 2
"""On-chip memory: cycle of the address to the cycle in which the data can be used."""

REQUANTISE = 5
"""Requantise unit: accumulator in to byte out (add bias, multiply, multiply, shift and round, clip)."""

CELL = 3
"""Multiplier cell: operands in to accumulator updated (operand, product, accumulator register)."""
