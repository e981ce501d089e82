"""The inference core: instruction table, architecture, machine, timing."""

from hw.spec.deform.arch import LANES, ROW_BANKS, DeformArch
from hw.spec.deform.instructions import INSTRUCTIONS

ARCH = DeformArch
__all__ = ["ARCH", "INSTRUCTIONS", "LANES", "ROW_BANKS", "DeformArch"]
