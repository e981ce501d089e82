"""Transfers between memory and on-chip memories, which every core has: their fields, and what they do in a machine.

A transfer is three loops: ``n2`` planes of ``n1`` runs of ``n0`` words, contiguous on both sides. On-chip addresses are 20 bits,
in words of 16 bytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from hw.spec.arch import WORD_BYTES, Arch
from hw.spec.isa import Field, Instruction
from hw.spec.machine import CoreError, Machine
from hw.spec.regs import ErrorCode

ADDR_BITS = 20
ADDR_MASK = (1 << ADDR_BITS) - 1


def addr(name: str, doc: str) -> Field:
    """A field with an on-chip address or distance."""
    return Field(name=name, width=ADDR_BITS, doc=doc)


def size(name: str, doc: str, width: int = 16) -> Field:
    """A field with a count of at least 1."""
    return Field(name=name, width=width, minimum=1, doc=doc)


def transfer_fields(*, place: str = "", plane: str = "", step: str = "") -> tuple[Field, ...]:
    """The fields of a transfer; what a core's banked memories add is said in words by the arguments."""
    return (
        Field(name="region", width=4, doc="memory region"),
        Field(name="offset", width=32, doc="first word within the region"),
        addr("chip_addr", f"first on-chip word{place}"),
        size("n0", "words of a run, contiguous on both sides"),
        size("n1", "runs of a plane"),
        size("n2", f"planes{plane}"),
        Field(name="stride1", width=32, doc="words from run to run in memory"),
        Field(name="stride2", width=32, doc="words from plane to plane in memory"),
        addr("chip_stride1", "words from run to run on chip"),
        addr("chip_stride2", f"words from plane to plane on chip{step}"),
    )


class TransferMachine(Machine):
    """A machine with on-chip memories, and LOAD and STORE between them and memory.

    Parameters: ``sizes`` words of each on-chip memory by name, in the order of LOAD's ``space``; ``seed`` fills them with dirt, None
    with zeros. ``chip`` holds them as bytes (words, 16).
    """

    spaces: tuple[str, ...]

    def __init__(self, arch: Arch, sizes: dict[str, int], seed: int | None = None) -> None:
        super().__init__(arch)
        rng = None if seed is None else np.random.default_rng(seed)
        self.spaces = tuple(sizes)
        self.chip: dict[str, np.ndarray] = {}
        for space, words in sizes.items():
            dirt = np.zeros((words, WORD_BYTES), np.uint8) if rng is None else rng.integers(0, 256, (words, WORD_BYTES), np.uint8)
            self.chip[space] = dirt

    def _read_chip(self, space: str, addresses: np.ndarray) -> np.ndarray:
        """Words (..., 16) at 20-bit addresses; BUFFER_RANGE where one lies outside."""
        return self.chip[space][self._inside(space, addresses)]

    def _write_chip(self, space: str, addresses: np.ndarray, data: np.ndarray) -> None:
        """Write words and record them; BUFFER_RANGE where one lies outside."""
        addresses = self._inside(space, addresses)
        self.chip[space][addresses] = data
        self.writes.add(space, addresses, data)

    def _inside(self, space: str, addresses: np.ndarray) -> np.ndarray:
        addresses = np.asarray(addresses) & ADDR_MASK
        if addresses.size and addresses.max() >= len(self.chip[space]):
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return addresses

    def _runs(self, i: Instruction, space: str) -> Iterator[tuple[int, int]]:
        """(memory word, on-chip word) of each run, checked just before it starts."""
        for plane in range(i["n2"]):
            for run in range(i["n1"]):
                yield i["offset"] + plane * i["stride2"] + run * i["stride1"], self._run_chip(i, space, plane, run)

    def _run_chip(self, i: Instruction, space: str, plane: int, run: int) -> int:
        """First on-chip word of a run; BUFFER_RANGE where it does not fit."""
        at = (i["chip_addr"] + plane * i["chip_stride2"] + run * i["chip_stride1"]) & ADDR_MASK
        if at + i["n0"] > len(self.chip[space]):
            raise CoreError(ErrorCode.BUFFER_RANGE)
        return at

    def _load(self, i: Instruction) -> None:
        space, loaded = self.spaces[i["space"]], bytearray()
        for word, at in self._runs(i, space):
            data = self.memory.read(self.region_address(i["region"], word, i["n0"]), i["n0"] * WORD_BYTES)
            self._write_chip(space, np.arange(at, at + i["n0"]), data.reshape(-1, WORD_BYTES))
            loaded += data.tobytes()
        if i["check_crc"] and zlib.crc32(loaded) != i["crc"]:
            raise CoreError(ErrorCode.BLOB_CRC)

    def _store_from(self, i: Instruction, space: str) -> None:
        for word, at in self._runs(i, space):
            address = self.region_address(i["region"], word, i["n0"])
            data = self._read_chip(space, np.arange(at, at + i["n0"]))
            self.memory.write(address, data.reshape(-1))
            # Bus addresses have 64 bits, one more than numpy's default integer.
            self.writes.add("memory", np.uint64(address) + np.arange(i["n0"], dtype=np.uint64) * np.uint64(WORD_BYTES), data)
