"""Where a program's image and regions lie in a device's memory.

Every device uses the same layout, so that addresses that the interpreter and a core write can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hw.spec.isa import INSTRUCTION_BYTES
from hw.spec.machine import OpenRegion
from hw.spec.program import Program, TensorLayout
from sw.runtime.errors import DeviceError

PAGE_BYTES = 4096
MEMORY_BASE = 0x8_0000_0000
"""Default base of a device's memory: above 4 GB, so that every address needs its upper half."""

MEMORY_BYTES = 1 << 26
"""Default size of a device's memory; untouched pages cost nothing."""

BUFFERED = ("input", "output")
"""Kinds of regions that every image in flight needs for itself."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Byte addresses of a loaded program: its image, and each region's base and size. ``end`` is the first free byte."""

    program_address: int
    program_length: int
    regions: tuple[OpenRegion, ...]
    end: int

    def tensor_address(self, layout: TensorLayout) -> int:
        """First byte of an input or output; DeviceError where its region does not hold it."""
        if layout.region >= len(self.regions):
            raise DeviceError(f"tensor {layout.name} lies in region {layout.region}, and there are {len(self.regions)}")
        region = self.regions[layout.region]
        if layout.offset < 0 or layout.offset + layout.size > region.size:
            raise DeviceError(
                f"tensor {layout.name} must lie inside region {layout.region} of {region.size} bytes, "
                f"not at {layout.offset}..{layout.offset + layout.size}: compile the program again"
            )
        return region.base + layout.offset


def place(program: Program, *, base: int = MEMORY_BASE, size: int = MEMORY_BYTES) -> Placement:
    """Image first (64-byte aligned), then each region on a page of its own; DeviceError where memory is too small.

    An empty page lies between two regions: a core that leaves its region does not meet the next one's bytes by chance.
    """
    if base % INSTRUCTION_BYTES:
        raise ValueError(f"memory base must be a multiple of {INSTRUCTION_BYTES}, not {base:#x}")
    at, regions = base + len(program.image), []
    for region in program.regions:
        at = page_after(at) + PAGE_BYTES
        regions.append(OpenRegion(base=at if region.size else 0, size=region.size))
        at += region.size
    if at > base + size:
        raise DeviceError(
            f"the program needs {at - base} bytes of memory and the device offers {size}: give it more with memory_bytes"
        )
    return Placement(program_address=base, program_length=len(program.image), regions=tuple(regions), end=at)


def place_buffers(program: Program, count: int, *, base: int = MEMORY_BASE, size: int = MEMORY_BYTES) -> tuple[Placement, ...]:
    """``count`` placements with inputs and outputs of their own, and all else in common; DeviceError where memory is too small.

    The first is that of `place`; the inputs and outputs of the others lie behind it.
    """
    first = place(program, base=base, size=size)
    made, at = [first], first.end
    for _ in range(count - 1):
        regions = []
        for region, where in zip(program.regions, first.regions, strict=True):
            if region.kind not in BUFFERED or not region.size:
                regions.append(where)
                continue
            at = page_after(at) + PAGE_BYTES
            regions.append(OpenRegion(base=at, size=region.size))
            at += region.size
        made.append(replace(first, regions=tuple(regions), end=at))
    if at > base + size:
        raise DeviceError(
            f"{count} buffers of the program's inputs and outputs need {at - base} bytes of memory and the device offers {size}: use "
            "fewer, or give it more with memory_bytes"
        )
    return tuple(made)


def contents(program: Program, placement: Placement) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of everything that must be in memory before the program starts, inputs apart."""
    yield placement.program_address, program.image
    for region, where in zip(program.regions, placement.regions, strict=True):
        if region.data:
            yield where.base, region.data


def page_after(address: int) -> int:
    """The first page boundary at or after an address."""
    return -(-address // PAGE_BYTES) * PAGE_BYTES
