"""One link of the chain: how much was compared, how much differed, and the first differences in words.

Comparisons are whole-array: words are only made for the few differences that are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hw.spec.arch import WORD_BYTES
from sw.runtime.records import WriteLog

SHOWN = 5
"""Differences described in words, per link."""


@dataclass(kw_only=True)
class Link:
    """A running count; ``unit`` is what is counted. Nothing compared is not well."""

    name: str
    unit: str
    compared: int = 0
    mismatches: int = 0
    first: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.compared > 0 and not self.mismatches

    def add(self, compared: int, mismatches: int = 0) -> None:
        self.compared += compared
        self.mismatches += mismatches

    def show(self, words: str) -> None:
        """Keep a difference in words, if it is among the first."""
        if len(self.first) < SHOWN:
            self.first.append(words)

    def differ(self, words: str) -> None:
        """One difference that is not a number: an error, a missing tensor."""
        self.add(1, 1)
        self.show(words)

    def codes(self, what: str, expected: np.ndarray, got: np.ndarray) -> None:
        """Integer codes (N, ...) of a tensor."""
        expected, got = np.asarray(expected), np.asarray(got)
        if expected.shape != got.shape or got.dtype.kind not in "iu":
            return self.differ(
                f"{what}: expected integer codes of shape {expected.shape}, got {got.dtype} of shape {got.shape}"
            )
        wrong = expected != got
        self.add(wrong.size, int(np.count_nonzero(wrong)))
        for place in np.argwhere(wrong)[:SHOWN]:
            at = tuple(int(i) for i in place)
            self.show(f"{what} at {at}: expected {expected[at]}, got {got[at]}")

    def to_dict(self) -> dict[str, Any]:
        return {"compared": self.compared, "mismatches": self.mismatches}


def compare_writes(link: Link, expected: WriteLog, got: WriteLog, describe: Callable[[int, int], str]) -> None:
    """Compare what was written as a map (instruction, address) to byte; the order of writes to different words is free.

    A word that is written again counts again. ``describe(instruction, address)`` names a word.
    """
    one, other = expected.ordered(), got.ordered()
    if not (np.array_equal(one.index, other.index) and np.array_equal(one.address, other.address)):
        mine, theirs = _match(one, other)
        _lonely(link, one, mine, lambda at: f"{describe(*at)}: expected a write, which did not happen")
        _lonely(link, other, theirs, lambda at: f"{describe(*at)}: written, which was not expected")
        one, other = one.where(mine), other.where(theirs)
    wrong = (one.data != other.data) | (_written(one) != _written(other))
    link.add(wrong.size, int(np.count_nonzero(wrong)))
    for row, byte in np.argwhere(wrong)[:SHOWN]:
        word = describe(int(one.index[row]), int(one.address[row]))
        value = f"{other.data[row, byte]:#04x}" if other.strobe[row] >> byte & 1 else "no write"
        link.show(f"{word} byte {byte}: expected {one.data[row, byte]:#04x}, got {value}")


def _written(log: WriteLog) -> np.ndarray:
    """The strobes as booleans (n, 16)."""
    return (log.strobe[:, None] >> np.arange(WORD_BYTES, dtype=np.uint16)) & 1 == 1


def _lonely(link: Link, log: WriteLog, matched: np.ndarray, words: Callable[[tuple[int, int]], str]) -> None:
    """Count and describe the words of a log that have no partner."""
    alone = np.ones(len(log.index), bool)
    alone[matched] = False
    count = int(np.count_nonzero(alone)) * WORD_BYTES
    link.add(count, count)
    for row in np.flatnonzero(alone)[:SHOWN]:
        link.show(words((int(log.index[row]), int(log.address[row]))))


def _match(one: WriteLog, other: WriteLog) -> tuple[np.ndarray, np.ndarray]:
    """Positions in both logs of the words that both have, by instruction, address and how often it was written before."""
    n = len(one.index)
    index, address = np.concatenate([one.index, other.index]), np.concatenate([one.address, other.address])
    repeat = np.concatenate([_repeats(one), _repeats(other)])
    _, key = np.unique(np.stack([index, address, repeat]), axis=1, return_inverse=True)
    _, mine, theirs = np.intersect1d(key.reshape(-1)[:n], key.reshape(-1)[n:], assume_unique=True, return_indices=True)
    return np.asarray(mine), np.asarray(theirs)


def _repeats(log: WriteLog) -> np.ndarray:
    """For each word of an ordered log how many of the same instruction and address stand before it."""
    n = len(log.index)
    new = np.ones(n, bool)
    new[1:] = (np.diff(log.index) != 0) | (np.diff(log.address) != 0)
    starts = np.flatnonzero(new)
    return np.arange(n) - np.repeat(starts, np.diff(np.append(starts, n)))
