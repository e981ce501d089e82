"""Architecture, registers and the program container: identity, round trips, damaged files."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hw.spec.arch import Arch
from hw.spec.deform import INSTRUCTIONS, DeformArch
from hw.spec.fixed import FixedFormat
from hw.spec.program import Program, ProgramError, Region, TensorLayout, build_image, default_slots
from hw.spec.reference import pages
from hw.spec.regs import ERROR_ADVICE, ErrorCode, all_registers, to_c_header, to_markdown

ARCH = DeformArch(rows=4)


def layout(**changes: object) -> TensorLayout:
    fields = dict(name="x", region=1, offset=0, shape=(20, 3, 2), fmt=FixedFormat(8, 4), slots=default_slots(20))
    return TensorLayout(**{**fields, **changes})


def program() -> Program:
    image = build_image(ARCH, [INSTRUCTIONS.encode("LOAD"), INSTRUCTIONS.encode("STORE", region=2)])
    regions = (
        Region(name="parameters", kind="parameters", size=32, data=bytes(range(32))),
        Region(name="in", kind="input", size=64),
    )
    return Program(
        arch=ARCH, image=image, regions=regions, inputs=(layout(),), outputs=(layout(name="y", region=2),), layers=("a", "b")
    )


def test_arch_round_trip_and_identity() -> None:
    assert Arch.from_dict(ARCH.to_dict()) == ARCH
    variants = [
        replace(ARCH, rows=5),
        replace(ARCH, managers=2),
        replace(ARCH, feature_words=1024),
        DeformArch(rows=4, columns=64),
    ]
    assert len({a.arch_id for a in [ARCH, *variants]}) == 5
    assert 0 <= ARCH.arch_id < 1 << 64


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"core": "tpu"}, "core must be one of"),
        ({"core": "deform", "rows": 17}, "rows must be in 1..16, not 17"),
        ({"core": "deform", "columns": 48}, "columns must be 32 or 64"),
        ({"core": "deform", "speed": 9}, r"no parameter \['speed'\]"),
        ({"core": "deform", "region_manager": [0, 0, 0, 1]}, "one manager below 1 per region"),
        ({"core": "deform", "burst_beats": 48}, "power of two"),
    ],
)
def test_bad_architectures_are_refused(data: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Arch.from_dict(data)


def test_program_round_trip(tmp_path: Path) -> None:
    before = program()
    before.save(tmp_path / "p.bitloom")
    after = Program.load(tmp_path / "p.bitloom")
    assert after == before
    assert after.digest == before.digest
    assert [i.name for i in after.instructions()] == ["LOAD", "STORE"]
    assert [p.name for p in tmp_path.iterdir()] == ["p.bitloom"]


def test_every_damaged_byte_of_a_program_file_is_seen() -> None:
    data = program().to_bytes()
    refused = 0
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(ProgramError):
            Program.from_bytes(bytes(damaged))
        refused += 1
    for length in range(0, len(data), 7):
        with pytest.raises(ProgramError):
            Program.from_bytes(data[:length])
        refused += 1
    assert refused > len(data)


def test_pack_and_unpack_are_inverse_and_pads_are_zero() -> None:
    rng = np.random.default_rng(0)
    slots = rng.permutation([*range(20), *[-1] * 12])
    for fmt in (FixedFormat(8, 3), FixedFormat(8, 0, False), FixedFormat(4, 9)):
        tensor = layout(fmt=fmt, slots=tuple(int(s) for s in slots))
        codes = rng.integers(fmt.min_code, fmt.max_code, tensor.shape, endpoint=True)
        packed = tensor.pack(codes)
        assert len(packed) == tensor.size == 3 * 2 * 32
        np.testing.assert_array_equal(tensor.unpack(packed), codes)
        words = np.frombuffer(packed, np.uint8).reshape(3, 2, 32)
        assert not words[:, :, slots < 0].any()
        channel = int(np.argmax(slots == 7))
        np.testing.assert_array_equal(words[:, :, channel], codes[7].astype(np.uint8))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: layout(slots=default_slots(21)), "each of 20 channels once"),
        (lambda: layout(slots=tuple(range(20))), "words of 16"),
        (lambda: layout(fmt=FixedFormat(9, 0)), "at most 8 bits"),
        (lambda: layout().pack(np.zeros((20, 2, 3), int)), "must have shape"),
        (lambda: layout().pack(np.full((20, 3, 2), 128)), "must have codes in -128..127"),
        (lambda: layout().pack(np.zeros((20, 3, 2))), "must be integer codes"),
        (lambda: layout().unpack(b"abc"), "must be 192 bytes, not 3"),
        (lambda: Region(name="r", kind="input", size=17), "multiple of 16"),
        (lambda: Region(name="r", kind="attic", size=16), "kind must be one of"),
    ],
)
def test_bad_layouts_are_refused(act: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()  # type: ignore[operator]


def test_register_table_is_consistent() -> None:
    registers = all_registers(16)
    offsets = [r.offset for r in registers]
    assert len(set(offsets)) == len(offsets) == len({r.name for r in registers})
    assert all(o % 4 == 0 and o < 4096 for o in offsets)
    assert set(ERROR_ADVICE) == set(ErrorCode)
    assert all(r.name in to_markdown(16) for r in registers)


def test_c_header_compiles_and_agrees(tmp_path: Path) -> None:
    """A C compiler reads the generated header and prints the values back."""
    (tmp_path / "regs.h").write_text(to_c_header(2))
    names = [r.name for r in all_registers(2)]
    prints = "".join(f'printf("%u\\n", (unsigned)BITLOOM_{n});' for n in names)
    (tmp_path / "main.c").write_text(f'#include <stdio.h>\n#include "regs.h"\nint main(void) {{ {prints} return 0; }}')
    subprocess.run(["g++", "-x", "c", "main.c", "-x", "none", "-o", "main"], cwd=tmp_path, check=True)
    got = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.split()
    assert [int(v) for v in got] == [r.offset for r in all_registers(2)]
    assert len(got) > 30


def test_reference_pages_are_current() -> None:
    """The committed pages are what the tables say; ``python -m hw.spec.reference`` writes them."""
    folder = Path(__file__).parents[2] / "docs" / "reference"
    assert {p.name: p.read_text() for p in folder.iterdir()} == pages()
    assert len(pages()) == 4
