"""The training core's kit: contents of its memories that exercise its units, and programs that it must end."""

from __future__ import annotations

from collections.abc import Iterator

from hw.sim.draws import WRAP
from hw.sim.kits import Kit
from hw.sim.sat_contents import areas, plant, region_words
from hw.sim.sat_programs import STORED, Generator
from hw.spec.sat import SatArch
from hw.spec.sat.instructions import SPACES, VEC_FLAG

COMPUTE = ("GEMM", "VEC", "CHN", "PRUNE")
LONGEST_RUN = 1 << 15
MOST = (1 << 16) - 1
"""Of a field of 16 bits."""


def dirt(arch: SatArch) -> list[bytes]:
    """Fills every on-chip memory from region 0."""
    encode, program, units = arch.instructions.encode, [], arch.space_units()
    for space, name in enumerate(SPACES):
        for start in range(0, units[name], LONGEST_RUN):
            count = min(LONGEST_RUN, units[name] - start)
            program.append(encode("LOAD", space=space, n0=count, chip_addr=start, offset=areas(arch)[name] + start))
    return program


def outside(arch: SatArch, generator: Generator) -> Iterator[list[bytes]]:
    """An access outside a memory, by each field that can lead there, after a LOAD that ends well; some by one word only."""
    load = arch.instructions.encode("LOAD", region=1, n0=5)
    for number in range(len(COMPUTE)):
        for field in generator.fields_beyond(number):
            yield from ([load, generator.beyond(number, field)] for _ in range(3))
    for name in STORED:
        space, size = SPACES.index(name), arch.space_units()[name]
        yield from ([load, arch.instructions.encode("STORE", space=space, region=2, chip_addr=at)] for at in (size, WRAP))


def endless(arch: SatArch) -> dict[str, list[bytes]]:
    encode = arch.instructions.encode
    return {
        "GEMM": [encode("GEMM", b_log2=4, kernel_h=8, kernel_w=8, chunks=MOST, chunk_log2=1, steps=16)],
        "VEC": [encode("VEC", words=MOST, pixels=(1 << 20) - 1)],
        "CHN": [encode("CHN", program=1, channels=MOST)],
        "PRUNE": [encode("PRUNE", chunks=MOST, words=MOST)],
    }


KIT = Kit(
    generator=Generator,
    compute=COMPUTE,
    copied=lambda arch: ({"space": SPACES.index("vec")}, arch.space_units()["vec"]),
    run_words=lambda arch, space: arch.space_units()[space],
    settle=lambda arch: [arch.instructions.encode("VEC", op=VEC_FLAG)],
    dirt=dirt,
    dirt_words=region_words,
    plant=plant,
    outside=outside,
    endless=endless,
)
