"""Names in C++: identifiers of tensors, the top function's name, and text that may stand in a comment."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sw.bridges.errors import BridgeError

__all__ = ["DEFAULT_PART", "check_part", "check_period", "check_top", "comment", "identifiers"]

_LONGEST = 40

RESERVED = frozenset(
    "alignas alignof and and_eq asm assert auto bitand bitor bool break case catch char class compl const constexpr const_cast "
    "continue decltype default delete do double dynamic_cast else enum errno explicit export extern false float for friend goto if "
    "inline int linux long main mutable namespace new noexcept not not_eq nullptr operator or or_eq private protected public "
    "register reinterpret_cast return short signed sizeof static static_assert static_cast std stderr stdin stdout struct switch "
    "template this thread_local throw true try typedef typeid typename union unix unsigned using virtual void volatile wchar_t "
    "while xor xor_eq argc argv bilinear code_of codes from_code images input limit output pixel wrong".split()
)
"""Words of C++ and of its headers, and what a generated source itself defines."""


def check_top(name: str) -> str:
    """The name of the top function and of its files; BridgeError where C++ or a file system would not take it."""
    fits = isinstance(name, str) and re.fullmatch(r"[a-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", name) and len(name) <= _LONGEST
    if not fits or name in RESERVED or re.match(r"(ap|hls|t[0-9]+)_", name):
        raise BridgeError(
            f"the name must be a C++ identifier that starts with a small letter, of at most {_LONGEST} letters, digits and "
            f"single underscores, no word of C++ and not ap_..., hls_... or t0_..., not {name!r}: use 'network'"
        )
    return name


def check_part(part: str) -> str:
    """The name of a device with its package and speed grade, as Vitis HLS takes it."""
    if not isinstance(part, str) or not re.fullmatch(r"x[acq][a-z0-9]+(-[A-Za-z0-9]+)+", part):
        raise BridgeError(f"the part must be a device's name with package and speed grade, such as {DEFAULT_PART}, not {part!r}")
    return part


def check_period(period: float) -> float:
    """A clock period in ns."""
    number = isinstance(period, int | float) and not isinstance(period, bool)
    if not number or not 0 < period <= _LONGEST_PERIOD:
        raise BridgeError(f"the period must be a number above 0 and at most {_LONGEST_PERIOD} ns, not {period!r}")
    return period


_LONGEST_PERIOD = 1000
DEFAULT_PART = "xczu3eg-sbva484-1-i"
"""The Ultra96-V2's device."""


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """A C++ identifier of each tensor: ``t`` and its number, which makes it unique, then what C++ takes of its name."""
    return {name: f"t{index}_{_plain(name)}" for index, name in enumerate(names)}


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:_LONGEST].rstrip("_") or "x"


def comment(text: str) -> str:
    """Text that cannot end its comment, continue it on the next line or leave a table's cell."""
    return re.sub(r"[^ -~]|[\\|`*]", "?", text)
