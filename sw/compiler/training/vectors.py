"""Element-wise work: BatchNorm, biases, residual sums, sums of gradients. Instructions of the vector unit and of CHN.

A tensor is a row of pixels of some words each; as many pixels at a time as half a bank of the vector memory holds, a group of
channel words at a time for which the channel memory has room. Channel records lie from 0, then come the constants of CHN and a word
of ones for the vector unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hw.spec.sat import LANES, SatArch
from hw.spec.sat.channel import CONSTANTS, RECORD_VALUES
from hw.spec.sat.instructions import (
    CHANNEL_PROGRAMS,
    RECORD_WORDS,
    VEC_AFFINE,
    VEC_FLAG,
    VEC_SUMS,
)
from hw.spec.training.norm import unbias
from hw.spec.training_program import Place
from sw.compiler.emit import Axis
from sw.compiler.problems import CompileError, Problem
from sw.compiler.training.emit import STATE, Emitter, flat
from sw.compiler.training.memory import Tensor
from sw.training_graph import ChannelNode

S_WORD = 2
"""Word of a record with S, T, U."""

SUM_WORD = 4
"""First word of a record with sums."""

CONSTANT_WORDS = RECORD_VALUES // 4
A, B, C = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class Part:
    """Pixels start..stop-1 of a tensor, channel words ``word`` and on."""

    start: int
    stop: int
    word: int
    words: int

    @property
    def pixels(self) -> int:
        return self.stop - self.start


def constants(node: ChannelNode | None, count: int) -> bytes:
    """A record of constants for a layer of ``count`` values per channel; what the host gives per step is zero."""
    values = np.zeros(RECORD_VALUES, np.float32)
    norm = None if node is None else node.constants
    known = {"one": 1.0, "inverse_count": 1 / count, "inverse_square": 1 / count**2, "unbiased": float(unbias(count))}
    if norm is not None:
        known |= {"epsilon": norm.epsilon, "running_weight": norm.running_weight}
    for name, value in known.items():
        values[CONSTANTS.index(name)] = value
    return values.tobytes()


def scale_words(*factors: float) -> bytes:
    """Words of S, T, U for the vector unit: each factor as S and T, U zero."""
    return b"".join(np.array([factor, factor, 0, 0], np.float32).tobytes() for factor in factors)


class VectorWork:
    """Lowers the element-wise nodes of a graph into one program."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter

    @property
    def arch(self) -> SatArch:
        return self.emitter.arch

    @property
    def half(self) -> int:
        """Words of half a bank: operands below, results above."""
        return self.arch.vec_words // 2

    # channels -------------------------------------------------------------------------------------------------------------

    @property
    def _record_room(self) -> int:
        """Channel words whose records fit."""
        return (self.arch.chn_words - CONSTANT_WORDS - 1) // (RECORD_WORDS * LANES)

    def _groups(self, words: int) -> Iterator[range]:
        room = min(self._record_room, self.half)
        if room < 1:
            need = RECORD_WORDS * LANES + CONSTANT_WORDS + 1
            reason = f"the records of {LANES} channels need {need} words of the channel memory, it has {self.arch.chn_words}"
            raise CompileError([Problem(place=self.emitter.layer, reason=reason, advice="raise chn_words of the architecture")])
        return (range(at, min(at + room, words)) for at in range(0, words, room))

    def _parts(self, tensor: Tensor, group: range) -> list[Part]:
        most = self.half // len(group)
        return [
            Part(start=at, stop=min(at + most, tensor.pixels), word=group.start, words=len(group))
            for at in range(0, tensor.pixels, most)
        ]

    def _const_addr(self, group: range) -> int:
        return RECORD_WORDS * LANES * len(group)

    def _ones_addr(self, group: range) -> int:
        return self._const_addr(group) + CONSTANT_WORDS

    def _load_records(self, records: Place, group: range, node: ChannelNode | None, count: int) -> None:
        size = RECORD_WORDS * LANES
        self.emitter.load("chn", STATE, records.offset + group.start * size, 0, flat(len(group) * size))
        self.emitter.load_parameters("chn", constants(node, count), self._const_addr(group))
        self.emitter.load_parameters("chn", scale_words(1.0), self._ones_addr(group))

    def _store_records(self, records: Place, group: range) -> None:
        size = RECORD_WORDS * LANES
        self.emitter.store("chn", STATE, records.offset + group.start * size, 0, flat(len(group) * size))

    def _chn(self, program: str, group: range, count: int) -> None:
        self.emitter.add(
            "CHN", program=CHANNEL_PROGRAMS.index(program), channels=len(group) * LANES, const_addr=self._const_addr(group), count=count
        )

    # pixels ---------------------------------------------------------------------------------------------------------------

    def bank(self, bank: int, at: int = 0) -> int:
        return bank * self.arch.vec_words + at

    def _load(self, tensor: Tensor, part: Part, bank: int) -> None:
        place = tensor.offset + part.start * tensor.words + part.word
        self.emitter.load("vec", tensor.region, place, self.bank(bank), _axes(tensor, part))

    def _store(self, tensor: Tensor, part: Part, bank: int, at: int) -> None:
        place = tensor.offset + part.start * tensor.words + part.word
        self.emitter.store("vec", tensor.region, place, self.bank(bank, at), _axes(tensor, part))

    def vec(self, op: int, part: Part, **fields: int) -> None:
        pitches = {f"{name}_pitch": part.words for name in "abc"}
        self.emitter.add("VEC", op=op, words=part.words, pixels=part.pixels, out_pitch=part.words, **{**pitches, **fields})

    # BatchNorm and biases -------------------------------------------------------------------------------------------------

    def channel_forward(self, node: ChannelNode, x: Tensor, z: Tensor, residual: Tensor | None, records: Place, *, fixed: bool) -> None:
        """Statistics (if they are the batch's) and constants, then the affine result."""
        batch = node.constants is not None and not fixed
        program = "BIAS_FORWARD" if node.constants is None else "NORM_FIXED" if fixed else "NORM_FORWARD"
        for group in self._groups(x.words):
            parts = self._parts(x, group)
            self._load_records(records, group, node, x.pixels)
            for part in parts if batch else []:
                self._load(x, part, A)
                self.vec(VEC_SUMS, part, chn_addr=SUM_WORD, chn_pitch=RECORD_WORDS, square=1, resume=int(part is not parts[0]))
            self._chn(program, group, x.pixels)
            for part in parts:
                if not batch or len(parts) > 1:
                    self._load(x, part, A)
                if residual is not None:
                    self._load(residual, part, B)
                self.vec(
                    VEC_AFFINE, part, chn_addr=S_WORD, chn_pitch=RECORD_WORDS, use_b=int(residual is not None), use_u=1,
                    relu=int(node.relu), out_bank=C,
                )  # fmt: skip
                self._store(z, part, C, 0)
            if not fixed:
                self._store_records(records, group)

    def channel_backward(
        self, node: ChannelNode, dz: Tensor, x: Tensor, z: Tensor, dx: Tensor | None, residual: Tensor | None, records: Place
    ) -> None:
        """Sums, the parameters' gradients, the gradient of x (None: it is dz itself) and of the residual (None: dz, or not wanted)."""
        norm = node.constants is not None
        for group in self._groups(x.words):
            parts = self._parts(x, group)
            self._load_records(records, group, node, x.pixels)
            for part in parts:
                self._load_operands(node, part, dz, x if norm else None, z)
                self.vec(
                    VEC_SUMS, part, chn_addr=SUM_WORD, chn_pitch=RECORD_WORDS, square=int(not norm), masked=int(node.relu),
                    resume=int(part is not parts[0]),
                )  # fmt: skip
            self._chn("NORM_BACKWARD" if norm else "BIAS_BACKWARD", group, x.pixels)
            for part in parts if dx is not None or residual is not None else []:
                if len(parts) > 1:
                    self._load_operands(node, part, dz, x if norm else None, z)
                self._gradients(node, part, group, dx if norm else None, residual if norm else dx or residual)
            self._store_records(records, group)

    def _load_operands(self, node: ChannelNode, part: Part, dz: Tensor, x: Tensor | None, z: Tensor) -> None:
        self._load(dz, part, A)
        if x is not None:
            self._load(x, part, B)
        if node.relu:
            self._load(z, part, C)

    def _gradients(self, node: ChannelNode, part: Part, group: range, dx: Tensor | None, g: Tensor | None) -> None:
        """The gradient of a normalised tensor, and the masked gradient alone."""
        if dx is not None:
            self.vec(
                VEC_AFFINE, part, chn_addr=S_WORD, chn_pitch=RECORD_WORDS, use_b=1, use_u=1, masked=int(node.relu),
                out_bank=A, out_addr=self.half,
            )  # fmt: skip
            self._store(dx, part, A, self.half)
        if g is not None:
            self.vec(VEC_AFFINE, part, chn_addr=self._ones_addr(group), masked=int(node.relu), out_bank=B, out_addr=self.half)
            self._store(g, part, B, self.half)

    def add(self, a: Tensor, b: Tensor, total: Tensor, *, relu: bool = False) -> None:
        """Sum of two tensors."""
        self.emitter.load_parameters("chn", scale_words(1.0), 0)
        for group in (range(at, min(at + self.half, a.words)) for at in range(0, a.words, self.half)):
            for part in self._parts(a, group):
                self._load(a, part, A)
                self._load(b, part, B)
                self.vec(VEC_AFFINE, part, use_b=1, relu=int(relu), out_bank=C)
                self._store(total, part, C, 0)

    def mask(self, dz: Tensor, z: Tensor, g: Tensor) -> None:
        """The gradient before a ReLU whose result is z."""
        self.emitter.load_parameters("chn", scale_words(1.0), 0)
        for group in (range(at, min(at + self.half, z.words)) for at in range(0, z.words, self.half)):
            for part in self._parts(z, group):
                self._load(dz, part, A)
                self._load(z, part, C)
                self.vec(VEC_AFFINE, part, masked=1, out_bank=B)
                self._store(g, part, B, 0)

    # saturation flag --------------------------------------------------------------------------------------------------------

    def clear_flag(self) -> None:
        self.emitter.add("VEC", op=VEC_FLAG, out_bank=A)

    def store_flag(self, place: Place, number: int) -> None:
        self.emitter.add("VEC", op=VEC_FLAG, out_bank=A)
        self.emitter.store("vec", place.region, place.offset + number, 0, flat(1))


def _axes(tensor: Tensor, part: Part) -> list[Axis]:
    return [Axis(count=part.pixels, memory=tensor.words, chip=part.words), Axis(count=part.words, memory=1, chip=1)]

