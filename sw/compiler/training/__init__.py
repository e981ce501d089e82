"""Training graphs to programs of the training core: memory, tiles, instructions."""

from sw.compiler.training.compile import compile_training

__all__ = ["compile_training"]
