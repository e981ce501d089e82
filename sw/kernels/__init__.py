"""Compiled exact kernels: each computes what its definition in `hw.spec` or in torch or numpy beside it says, but fast.

They are small C++ files, compiled by g++ at first use into the user's cache. Without g++, or with ``BITLOOM_KERNELS=off``
in the environment, `available` is false and callers use that definition, which gives the same values.
"""

from sw.kernels.build import KernelBuildError, available

__all__ = ["KernelBuildError", "available"]
