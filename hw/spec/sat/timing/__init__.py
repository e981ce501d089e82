"""Cycles of the training core's instructions, in closed form where no bus is involved."""
