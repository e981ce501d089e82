"""The optimiser's step on masters, and the FP16 copies of the weights: instructions of the vector unit and of PRUNE."""

from __future__ import annotations

from hw.spec.sat import FP32_LANES, LANES
from hw.spec.sat.instructions import CHANNEL_PROGRAMS, RECORD_WORDS, VEC_AFFINE
from hw.spec.training_program import Place
from sw.compiler.emit import Axis
from sw.compiler.problems import CompileError, Problem
from sw.compiler.training.emit import HYPER, STATE, WEIGHTS, Emitter, flat
from sw.compiler.training.memory import HYPER_WORDS, Copy
from sw.compiler.training.vectors import A, B, C

CHN_WORDS, STEP_WORDS = 0, 4
"""In the hyper region: the constants of CHN's update, then S, T, U of the three steps of a master's."""


def load_hyper(emitter: Emitter) -> None:
    """The step's constants to the end of the channel memory."""
    emitter.load("chn", HYPER, 0, hyper_addr(emitter), flat(HYPER_WORDS))


def hyper_addr(emitter: Emitter) -> int:
    return emitter.arch.chn_words - HYPER_WORDS


def update_masters(emitter: Emitter, master: Place, velocity: Place, gradient: Place) -> None:
    """``d = w * decay + g / scale; v = v * momentum + d; w = w + v * -rate``, a quarter of a bank at a time."""
    quarter = emitter.arch.vec_words // 4
    bank = emitter.arch.vec_words
    for start in range(0, master.words, quarter):
        words = min(quarter, master.words - start)
        for place, at in ((master, A * bank), (gradient, B * bank), (velocity, A * bank + quarter)):
            emitter.load("vec", place.region, place.offset + start, at, flat(words))
        step, moved = quarter, 2 * quarter
        for number, fields in enumerate((
            {"out_bank": B, "out_addr": step},
            {"a_addr": quarter, "b_addr": step, "out_bank": B, "out_addr": moved},
            {"b_addr": moved, "out_bank": C},
        )):
            emitter.add(
                "VEC", op=VEC_AFFINE, fp32=1, use_b=1, words=1, pixels=words, a_pitch=1, b_pitch=1, out_pitch=1,
                chn_addr=hyper_addr(emitter) + STEP_WORDS + number, **fields,
            )  # fmt: skip
        emitter.store("vec", STATE, velocity.offset + start, B * bank + moved, flat(words))
        emitter.store("vec", STATE, master.offset + start, C * bank, flat(words))


def update_channels(emitter: Emitter, records: Place) -> None:
    """Scales and biases, on their records."""
    most = hyper_addr(emitter) // RECORD_WORDS
    for start in range(0, records.padded[0], most):
        count = min(most, records.padded[0] - start)
        place, words = records.offset + start * RECORD_WORDS, flat(count * RECORD_WORDS)
        emitter.load("chn", STATE, place, 0, words)
        emitter.add("CHN", program=CHANNEL_PROGRAMS.index("UPDATE"), channels=count, const_addr=hyper_addr(emitter) + CHN_WORDS)
        emitter.store("chn", STATE, place, 0, words)


def prune(emitter: Emitter, master: Place, copy: Copy, pattern: tuple[int, int] | None, *, transposed: bool) -> None:
    """FP16 weights of a direction from the masters; transposed ones tap by tap in flipped order."""
    kernel_h, kernel_w, inner, outer = master.padded
    taps, lanes = kernel_h * kernel_w, (inner if transposed else outer)
    per_tap = copy.rows // taps // copy.steps * copy.chunk
    # Taps whose input channels are all taken lie behind each other.
    together = taps if not transposed and per_tap == inner else 1
    reduced, row_words = per_tap * together, outer // FP32_LANES
    for tap in range(0, taps, together):
        stored = (taps - 1 - tap if transposed else tap) * copy.rows // taps
        first = master.offset + tap * inner * row_words
        for k0, k_count, word0, words in _blocks(emitter, copy, reduced, lanes // LANES):
            _load_masters(emitter, first, row_words, (k0, k_count), (word0, words), transposed=transposed)
            group = 1 if pattern is None else pattern[1]
            rows = k_count // copy.chunk * copy.steps
            emitter.add(
                "PRUNE", transpose=int(transposed), chunk_log2=int(copy.chunk > LANES), group_log2=group.bit_length() - 1,
                keep=1 if pattern is None else pattern[0], chunks=k_count // copy.chunk, words=words,
                in_pitch=(k_count if transposed else words * LANES) // FP32_LANES, out_pitch=words,
            )  # fmt: skip
            axes = [Axis(count=rows, memory=copy.words, chip=words), Axis(count=words, memory=1, chip=1)]
            at = (stored + k0 // copy.chunk * copy.steps) * copy.words + word0
            emitter.store("vec", WEIGHTS, copy.offset + at, B * emitter.arch.vec_words, axes)
            if copy.sparse:
                emitter.store("vec", WEIGHTS, copy.positions + at, C * emitter.arch.vec_words, axes)


def _blocks(emitter: Emitter, copy: Copy, reduced: int, words: int) -> list[tuple[int, int, int, int]]:
    """(first k, values of k, first lane word, lane words) of blocks of masters that fill at most a bank."""
    room = emitter.arch.vec_words
    k_count = min(reduced, room * FP32_LANES // LANES // copy.chunk * copy.chunk)
    if k_count < copy.chunk:
        reason = f"a chunk of masters needs {copy.chunk * LANES // FP32_LANES} words of the vector memory, it has {room}"
        raise CompileError([Problem(place=emitter.layer, reason=reason, advice="raise vec_words of the architecture")])
    width = max(1, min(words, room * FP32_LANES // LANES // k_count))
    return [
        (k, min(k_count, reduced - k), word, min(width, words - word))
        for k in range(0, reduced, k_count) for word in range(0, words, width)
    ]  # fmt: skip


def _load_masters(
    emitter: Emitter, first: int, row_words: int, k: tuple[int, int], lane: tuple[int, int], *, transposed: bool
) -> None:
    """A block of masters to bank 0, its rows behind each other."""
    lanes = (lane[0] * LANES, lane[1] * LANES)
    rows, cols = (lanes, k) if transposed else (k, lanes)
    words = cols[1] // FP32_LANES
    axes = [Axis(count=rows[1], memory=row_words, chip=words), Axis(count=words, memory=1, chip=1)]
    emitter.load("vec", STATE, first + rows[0] * row_words + cols[0] // FP32_LANES, A * emitter.arch.vec_words, axes)
