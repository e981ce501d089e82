"""The training core: instruction table, architecture, machine, timing."""

from hw.spec.sat.arch import FP32_LANES, LANES, SLOTS, SatArch
from hw.spec.sat.instructions import INSTRUCTIONS

ARCH = SatArch
__all__ = ["ARCH", "FP32_LANES", "INSTRUCTIONS", "LANES", "SLOTS", "SatArch"]
