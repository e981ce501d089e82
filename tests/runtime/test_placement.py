"""Placement: alignment, no overlap, what a tensor's address is, refusals."""

from __future__ import annotations

import dataclasses

import pytest

from hw.spec.program import Region
from sw.runtime.errors import DeviceError
from sw.runtime.placement import MEMORY_BASE, PAGE_BYTES, contents, place
from tests.runtime.copy_program import PARAMETERS, copy_program


def test_regions_are_aligned_apart_and_of_the_stated_size():
    program = copy_program()
    placement = place(program)
    assert placement.program_address == MEMORY_BASE and placement.program_length == len(program.image)
    ends = [placement.program_address + placement.program_length]
    for region, opened in zip(program.regions, placement.regions, strict=True):
        assert opened.base % PAGE_BYTES == 0 and opened.size == region.size
        assert opened.base >= ends[-1] + PAGE_BYTES
        ends.append(opened.base + opened.size)
    assert placement.end == ends[-1] and len(ends) == 4


def test_an_empty_region_is_closed():
    program = copy_program()
    empty = dataclasses.replace(program, regions=(*program.regions, Region(name="none", kind="scratch", size=0)))
    closed = place(empty).regions[3]
    assert (closed.base, closed.size) == (0, 0)


def test_contents_are_image_and_parameters():
    program = copy_program()
    placement = place(program)
    assert list(contents(program, placement)) == [
        (placement.program_address, program.image),
        (placement.regions[0].base, PARAMETERS),
    ]


def test_a_tensor_lies_at_its_offset_in_its_region():
    program = copy_program()
    placement = place(program)
    assert placement.tensor_address(program.outputs[0]) == placement.regions[2].base + 32


@pytest.mark.parametrize(("change", "words"), [({"region": 3}, "there are 3"), ({"offset": 48}, "must lie inside region 2")])
def test_a_tensor_outside_its_region_is_refused(change, words):
    program = copy_program()
    with pytest.raises(DeviceError, match=words):
        place(program).tensor_address(dataclasses.replace(program.outputs[0], **change))


def test_a_program_too_large_for_memory_is_refused():
    with pytest.raises(DeviceError, match=r"needs \d+ bytes of memory and the device offers 4096: give it more"):
        place(copy_program(), size=4096)


def test_an_unaligned_base_is_refused():
    with pytest.raises(ValueError, match="multiple of 64"):
        place(copy_program(), base=0x1010)
