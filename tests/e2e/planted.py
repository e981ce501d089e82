"""Faults to plant in the generated Verilog: small edits of one module, each of which must find its place exactly once."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``pattern`` (a regular expression) of module ``module`` becomes ``replacement``."""

    name: str
    module: str
    pattern: str
    replacement: str

    def plant(self, verilog: str) -> str:
        """The text with the fault; ValueError where the place is not there exactly once."""
        parts = re.split(r"(?m)^(?=module )", verilog)
        mine = [i for i, part in enumerate(parts) if re.match(rf"module \\?{re.escape(self.module)} ?\(", part)]
        if len(mine) != 1:
            raise ValueError(f"module {self.module} must be there once, not {len(mine)} times")
        changed, count = re.subn(self.pattern, self.replacement, parts[mine[0]])
        if count != 1:
            raise ValueError(f"{self.pattern!r} must be found once in {self.module}, not {count} times")
        parts[mine[0]] = changed
        return "".join(parts)


ROUNDING_BIT = Fault(
    name="rounding bit",
    module="deform_core.requantise.lane_5",
    pattern=r"= half_4 & [^;]+;",
    replacement="= 1'h0;",
)
DROPPED_TAP = Fault(
    name="dropped tap",
    module="deform_core.dw.lanes.lane3",
    pattern=r"= enabled\[1\] \?",
    replacement="= 1'h0 ?",
)
ADDRESS_CARRY = Fault(
    name="address carry",
    module="deform_core.shell.read.splitter",
    pattern=r"= burst__payload\[59:0\] \+ beats;",
    replacement="= { burst__payload[59:8], burst__payload[7:0] + beats[7:0] };",
)
FAULTS = (ROUNDING_BIT, DROPPED_TAP, ADDRESS_CARRY)
