"""Compiled exact kernels: each computes what a definition in `hw.spec` says, in one pass over memory.

They are small C++ files, compiled by g++ at first use into the user's cache. Without g++, or with ``BITLOOM_KERNELS=off``
in the environment, `available` is false and callers use their torch definition, which gives the same values.
"""

from sw.kernels.build import KernelBuildError, available

__all__ = ["KernelBuildError", "available"]
