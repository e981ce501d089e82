"""Ways to damage a program, and what must come of each where the damage alone determines it."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import numpy as np

from hw.spec.arch import CONTAINER_VERSION
from hw.spec.deform.instructions import SPACES
from hw.spec.isa import CRC_OFFSET, HEADER, INSTRUCTION_BYTES, PAYLOAD_END, TOKEN_MAX, Field, seal
from hw.spec.machine import OpenRegion, Outcome
from hw.spec.program import HEADER_BYTES, MAGIC, build_image
from hw.spec.regs import NO_INSTRUCTION, ErrorCode
from tests.fuzz.programs import BASE, END, TOP, Case, legal_program, operation_of, patched, pristine, region_bytes
from tests.sim.core_bench import ARCH, DATA, DIRT, PROGRAM, REGIONS, RESULT, SIZE

GOOD = ErrorCode.NONE
HEADER_PARTS = ((0, 8), (8, 12), (12, 16), (16, 24), (24, HEADER_BYTES - 4))
"""[start, end) of magic, container version, count, arch_id and zeros."""

SIZES = {"n0", "n1", "n2", "out_rows", "out_cols", "out_words", "words", "in_words", "kernel_h", "kernel_w"}
"""Fields that count loops."""


class Damager:
    """Draws one damaged program; the same seeds give the same case, whatever was drawn before."""

    def __init__(self, *seed: int) -> None:
        self.number = seed[-1]
        self.rng = np.random.default_rng(list(seed))
        self.lines = legal_program(*seed, 1)
        self.line = self.below(len(self.lines))

    def draw(self) -> Case:
        """The damage of this number: the kinds take turns, so that as many cases as DRAWN has entries hold each of them."""
        return DAMAGES[DRAWN[self.number % len(DRAWN)]](self)

    def below(self, limit: int) -> int:
        return int(self.rng.integers(limit))

    def bits(self, count: int) -> int:
        """Any integer of that many bits."""
        return int.from_bytes(self.rng.bytes(-(-count // 8)), "little") >> (-count % 8)

    def case(self, kind: str, lines: Sequence[bytes] | None = None, expected: Outcome | None = None) -> Case:
        """The program with other lines and a right header."""
        image = build_image(ARCH, self.lines if lines is None else lines)
        return Case(kind=kind, image=image, length=len(image), expected=expected)

    def with_line(self, kind: str, raw: bytes, code: ErrorCode | None = None) -> Case:
        """The program with its chosen line replaced; ``code`` is what must end it there."""
        lines = [*self.lines[: self.line], raw, *self.lines[self.line + 1 :]]
        return self.case(kind, lines, None if code is None else at(code, self.line))

    def any_field(self, accept: Callable[[Field], bool]) -> Field | None:
        """A field of the chosen line's operation."""
        fields = [f for f in HEADER[2:] + operation_of(self.lines[self.line]).fields if accept(f)]
        return fields[self.below(len(fields))] if fields else None


def at(code: ErrorCode, index: int) -> Outcome:
    """An error of an instruction, all before it retired."""
    return Outcome(error=code, index=index, retired=index)


def before(code: ErrorCode) -> Outcome:
    """An error before the first instruction."""
    return Outcome(error=code, index=NO_INSTRUCTION, retired=0)


def well(count: int) -> Outcome:
    return Outcome(error=GOOD, index=0, retired=count)


# bits -----------------------------------------------------------------------------------------------------------------------


def flipped_bits(d: Damager) -> Case:
    """1 to 8 bits of the image, CRCs left as they were: the first damaged unit is refused by its CRC."""
    good, where = build_image(ARCH, d.lines), d.rng.choice(8 * 64 * (len(d.lines) + 1), d.below(8) + 1, replace=False)
    image = bytearray(good)
    for bit in where.tolist():
        image[bit // 8] ^= 1 << bit % 8
    unit = int(where.min()) // (8 * INSTRUCTION_BYTES)
    expected = at(ErrorCode.INSTRUCTION_CRC, unit - 1) if unit else before(ErrorCode.HEADER_CRC)
    return Case(kind="bits", image=bytes(image), length=len(image), expected=expected)


def flipped_header(d: Damager) -> Case:
    """1 or 2 bits of the header, sealed again: of each of its parts as often. Its zeros are not looked at."""
    image = bytearray(build_image(ARCH, d.lines))
    for _ in range(d.below(2) + 1):
        start, end = HEADER_PARTS[d.below(len(HEADER_PARTS))]
        image[start + d.below(end - start)] ^= 1 << d.below(8)
    image[:HEADER_BYTES] = seal(bytes(image[: HEADER_BYTES - 4]))
    return Case(kind="header bits, sealed", image=bytes(image), length=len(image), expected=_header(image, len(d.lines)))


def _header(image: bytes | bytearray, count: int) -> Outcome:
    checks = (
        (image[:8] == MAGIC, ErrorCode.BAD_MAGIC),
        (image[8:12] == CONTAINER_VERSION.to_bytes(4, "little"), ErrorCode.CONTAINER_VERSION),
        (image[16:24] == ARCH.arch_id.to_bytes(8, "little"), ErrorCode.WRONG_ARCH),
        (image[12:16] == count.to_bytes(4, "little"), ErrorCode.BAD_LENGTH),
    )
    return next((before(code) for ok, code in checks if not ok), well(count))


def flipped_sealed(d: Damager) -> Case:
    """1 to 3 bits of an instruction, sealed again: legal or not, the machine decides."""
    raw = bytearray(d.lines[d.line][:CRC_OFFSET])
    for _ in range(d.below(3) + 1):
        raw[d.below(CRC_OFFSET)] ^= 1 << d.below(8)
    return d.with_line("instruction bits, sealed", seal(bytes(raw)))


def reserved_bit(d: Damager) -> Case:
    """A bit that no field claims."""
    op, word = operation_of(d.lines[d.line]), int.from_bytes(d.lines[d.line][:CRC_OFFSET], "little")
    bit = op.used_bits + d.below(PAYLOAD_END - op.used_bits)
    return d.with_line("reserved bit", seal((word | 1 << bit).to_bytes(CRC_OFFSET, "little")), ErrorCode.RESERVED)


def random_line(d: Damager) -> Case:
    """60 random bytes with a right CRC, of a right version and opcode or not."""
    raw = bytearray(d.rng.bytes(CRC_OFFSET))
    if d.below(3):
        raw[:2] = bytes([1 + d.below(4), ARCH.instructions.version])
    return d.with_line("random instruction", seal(bytes(raw)))


def random_image(d: Damager) -> Case:
    """Noise in place of a program."""
    image = d.rng.bytes(64 * (1 + d.below(8)))
    return Case(kind="noise", image=image, length=len(image), expected=before(ErrorCode.HEADER_CRC))


# lengths and places ---------------------------------------------------------------------------------------------------------


def wrong_length(d: Damager) -> Case:
    """The length register does not fit the header."""
    image = build_image(ARCH, d.lines)
    wrong = (d.below(len(image)), len(image) + 64 * (1 + d.below(3)), len(image) - 64, 0, d.bits(32), d.bits(26) << 6)
    length = wrong[d.below(len(wrong))]
    expected = well(len(d.lines)) if length == len(image) else before(ErrorCode.BAD_LENGTH)
    return Case(kind="length", image=image, length=length, expected=expected)


def truncated(d: Damager) -> Case:
    """Only the first bytes reached memory."""
    image = build_image(ARCH, d.lines)
    kept = d.below(len(image) - 1)
    stale = pristine()[PROGRAM - BASE :][: len(image)].tobytes()
    differs = next((i for i in range(kept, len(image)) if stale[i] != image[i]), None)
    expected = well(len(d.lines))
    if differs is not None:
        unit = differs // INSTRUCTION_BYTES
        expected = at(ErrorCode.INSTRUCTION_CRC, unit - 1) if unit else before(ErrorCode.HEADER_CRC)
    return Case(kind="truncated", image=image[:kept], length=len(image), expected=expected)


def extended(d: Damager) -> Case:
    """More instructions than the header counts: they are not looked at, or the length is wrong."""
    image, extra = build_image(ARCH, d.lines), d.rng.bytes(64 * (1 + d.below(3)))
    counted = bool(d.below(2))
    expected = before(ErrorCode.BAD_LENGTH) if counted else well(len(d.lines))
    return Case(kind="extended", image=image + extra, length=len(image) + len(extra) * counted, expected=expected)


def wrong_address(d: Damager) -> Case:
    """The address register points beside the program, or out of memory."""
    image = build_image(ARCH, d.lines)
    places = (PROGRAM + 1 + d.below(63), PROGRAM + 16, d.bits(58) << 6, d.bits(64), END - 64, BASE - 64)
    address = places[d.below(len(places))]
    expected = before(ErrorCode.BAD_LENGTH) if address % 64 else None
    return Case(kind="address", image=b"", length=len(image), address=address, expected=expected)


def moved_regions(d: Damager) -> Case:
    """Regions of any size at any place: closed, overlapping, half outside of memory, over the program too."""
    made = []
    for region in REGIONS:
        sizes = (0, 16, 16 * d.below(600), region.size, 16 * d.bits(36), SIZE)
        bases = (region.base, BASE + 16 * d.below(SIZE // 16), 16 * d.bits(59), END - 16 * d.below(200), DIRT[0], RESULT[0])
        chosen = OpenRegion(base=bases[d.below(len(bases))], size=sizes[d.below(len(sizes))])
        made.append(chosen if d.below(3) else region)
    image = build_image(ARCH, d.lines)
    return Case(kind="regions", image=image, length=len(image), regions=tuple(made))


def far_regions(d: Damager) -> Case:
    """Regions around 2**63 and at the end of the addresses, some of them past it; bases and sizes that are no multiples of 16."""
    made = []
    for region in REGIONS:
        odd = OpenRegion(base=region.base + d.below(16), size=region.size + d.below(16))
        places = (
            (1 << 63) - 16 * d.below(40),
            (1 << 63) + 16 * d.below(40),
            TOP - 16 - 16 * d.below(40),
            TOP - 1 - d.below(600),
        )
        far = OpenRegion(base=places[d.below(4)], size=(16, d.below(640), region.size, d.bits(64))[d.below(4)])
        made.append((region, odd, odd, far, far)[d.below(5)])
    image = build_image(ARCH, d.lines)
    return Case(kind="far regions", image=image, length=len(image), regions=tuple(made))


# fields ---------------------------------------------------------------------------------------------------------------------


def any_value(d: Damager) -> Case:
    """1 to 3 fields with any bits."""
    changes = {}
    for _ in range(d.below(3) + 1):
        chosen = d.any_field(lambda f: True)
        assert chosen is not None
        changes[chosen.name] = d.bits(chosen.width)
    return d.with_line("any values", patched(d.lines[d.line], **changes))


def legal_value(d: Damager) -> Case:
    """A field with another legal value, mostly small."""
    chosen = d.any_field(lambda f: f.low < f.high and f.name not in ("wait", "push"))
    assert chosen is not None
    span = min(chosen.high - chosen.low + 1, (4, 32, 600, 1 << 32)[d.below(4)])
    return d.with_line("legal value", patched(d.lines[d.line], **{chosen.name: chosen.low + d.below(span)}))


def illegal_value(d: Damager) -> Case:
    """A value that the table forbids."""
    chosen = d.any_field(lambda f: f.type_min < f.low or f.high < f.type_max)
    assert chosen is not None
    illegal = [*range(chosen.type_min, chosen.low), *range(chosen.high + 1, chosen.type_max + 1)]
    value = illegal[d.below(len(illegal))]
    return d.with_line("illegal value", patched(d.lines[d.line], **{chosen.name: value}), ErrorCode.FIELD_RANGE)


def huge_loop(d: Damager) -> Case:
    """Loops that would run for hours."""
    raw = d.lines[d.line]
    names = sorted(SIZES & {f.name for f in operation_of(raw).fields})
    chosen = d.rng.choice(names, d.below(2) + 1, replace=False).tolist()
    changes = {name: (1 << 16) - 1 - d.below(1 << 12) for name in chosen}
    still = {name: 0 for name in ("stride1", "stride2", "chip_stride1", "chip_stride2", "out_pitch") if d.below(2)}
    known = {f.name for f in operation_of(raw).fields}
    return d.with_line("huge loop", patched(raw, **changes, **{name: 0 for name in still if name in known}))


def other_opcode(d: Damager) -> Case:
    """An opcode that the core does not have."""
    raw = bytearray(d.lines[d.line][:CRC_OFFSET])
    raw[0] = (0, *range(5, 256))[d.below(252)]
    return d.with_line("opcode", seal(bytes(raw)), ErrorCode.OPCODE)


def other_version(d: Damager) -> Case:
    """A version of the instruction table that the core does not have."""
    raw = bytearray(d.lines[d.line][:CRC_OFFSET])
    raw[1] ^= 1 + d.below(255)
    return d.with_line("version", seal(bytes(raw)), ErrorCode.INSTRUCTION_VERSION)


# parameters, order, tokens --------------------------------------------------------------------------------------------------


def checked_load(d: Damager) -> bytes:
    """A LOAD with a right CRC of one run of region 1."""
    n0, offset = 1 + d.below(64), d.below(400)
    crc = zlib.crc32(region_bytes(1, offset, n0))
    return ARCH.instructions.encode("LOAD", region=1, offset=offset, n0=n0, space=d.below(len(SPACES)), check_crc=1, crc=crc)


def wrong_blob_crc(d: Damager) -> Case:
    """The CRC that stands for a parameter blob."""
    raw = checked_load(d)
    crc = ARCH.instructions.decode(raw)["crc"] ^ 1 << d.below(32)
    return d.with_line("blob CRC", patched(raw, crc=crc), ErrorCode.BLOB_CRC)


def damaged_blob(d: Damager) -> Case:
    """A byte of a parameter blob. A LOAD before it may check the same byte, so the machine says where the program ends."""
    d.lines[d.line] = raw = checked_load(d)
    decoded = ARCH.instructions.decode(raw)
    address = DATA[0] + 16 * decoded["offset"] + d.below(16 * decoded["n0"])
    poke = (address, region_bytes(1, 0, 512)[address - DATA[0]] ^ 1 << d.below(8))
    image = build_image(ARCH, d.lines)
    return Case(kind="blob", image=image, length=len(image), pokes=(poke,))


def shuffled(d: Damager) -> Case:
    """Instructions in another order, doubled or missing: legal as long as no tokens say otherwise."""
    lines = [d.lines[i] for i in d.rng.integers(len(d.lines), size=d.below(9))]
    return d.case("order", lines)


def swapped_tokens(d: Damager) -> Case:
    """A chain of tokens, two instructions of it swapped, or random masks."""
    chain = [patched(raw, wait=1 << i >> 1, push=1 << i) for i, raw in enumerate(d.lines)]
    if d.below(2):
        i, j = d.below(len(chain)), d.below(len(chain))
        chain[i], chain[j] = chain[j], chain[i]
    else:
        chain = [patched(raw, push=d.bits(16) & d.bits(16), wait=d.bits(16) & d.bits(16) & d.bits(16)) for raw in chain]
    return d.case("tokens", chain, tokens_end(chain))


def many_tokens(d: Damager) -> Case:
    """One token pushed until it is one too many."""
    token, count = 1 << d.below(16), 12 + d.below(8)
    load = ARCH.instructions.encode("LOAD", region=1, n0=1, push=token)
    lines = [patched(load, wait=token if i and not d.below(6) else 0) for i in range(count)]
    return d.case("many tokens", lines, tokens_end(lines))


def tokens_end(lines: Sequence[bytes]) -> Outcome:
    """How legal instructions with these masks must end."""
    held = [0] * 16
    for index, raw in enumerate(lines):
        wait, push = int.from_bytes(raw[4:6], "little"), int.from_bytes(raw[6:8], "little")
        after = [n - (wait >> i & 1) + (push >> i & 1) for i, n in enumerate(held)]
        if any(wait >> i & 1 and not n for i, n in enumerate(held)) or max(after) > TOKEN_MAX:
            return at(ErrorCode.TOKEN, index)
        held = after
    return well(len(lines))


DAMAGES: dict[str, Callable[[Damager], Case]] = {
    "bits": flipped_bits,
    "header bits, sealed": flipped_header,
    "instruction bits, sealed": flipped_sealed,
    "reserved bit": reserved_bit,
    "random instruction": random_line,
    "noise": random_image,
    "length": wrong_length,
    "truncated": truncated,
    "extended": extended,
    "address": wrong_address,
    "regions": moved_regions,
    "far regions": far_regions,
    "any values": any_value,
    "legal value": legal_value,
    "illegal value": illegal_value,
    "huge loop": huge_loop,
    "opcode": other_opcode,
    "version": other_version,
    "blob CRC": wrong_blob_crc,
    "blob": damaged_blob,
    "order": shuffled,
    "tokens": swapped_tokens,
    "many tokens": many_tokens,
}
"""Every kind of damage, by the ``kind`` of its cases."""

DRAWN = (*DAMAGES, "instruction bits, sealed", "regions", "any values", "legal value", "legal value", "huge loop")
"""What a campaign draws in turn: each kind, and those with the most ways twice or more."""
