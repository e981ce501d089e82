"""The random instructions of the package, under the name that the tests know."""

from hw.sim.random_programs import Generator

__all__ = ["Generator"]
