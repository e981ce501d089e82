"""GEMM of the training core's machine against ordered sums over whole tensors, written independently."""

from __future__ import annotations

import numpy as np
import pytest

from hw.spec.isa import Instruction
from hw.spec.machine import CoreError
from hw.spec.sat import SatArch
from hw.spec.sat.machine import SatMachine

ARCH = SatArch(rows=4, columns=4)


def decoded(arch: SatArch, name: str, **fields: int) -> Instruction:
    return arch.instructions.decode(arch.instructions.encode(name, **fields))


def put(machine: SatMachine, space: str, at: int, values: np.ndarray) -> None:
    """Values of any type at a 16-byte word of an on-chip memory."""
    data = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 16)
    machine.chip[space][at : at + len(data)] = data


def halves(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.standard_normal(shape) * 2.0 ** rng.integers(-8, 8, shape)).astype(np.float16)


def ordered(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """x (rows, K) by w (K, columns), k ascending."""
    acc = np.zeros((len(x), w.shape[1]), np.float32)
    for k in range(x.shape[1]):
        acc += x[:, k : k + 1].astype(np.float32) * w[k].astype(np.float32)
    return acc


def entry(base: int, rows: int, cols: int) -> bytes:
    return (base & 0xFFFF).to_bytes(2, "little") + bytes([rows, cols])


def convolution_table(size: int, words: int, count: int) -> bytes:
    """Entries of a 3 x 3 convolution with padding 1 over a size x size image; pixels beyond it do not exist."""
    entries = b""
    for pixel in range(count):
        y, x = divmod(pixel, size)
        rows = sum(1 << k for k in range(3) if 0 <= y + k - 1 < size) if pixel < size * size else 0
        cols = sum(1 << k for k in range(3) if 0 <= x + k - 1 < size)
        entries += entry((y - 1) * size * words + (x - 1) * words, rows, cols)
    return entries


def columns_of(image: np.ndarray) -> np.ndarray:
    """im2col of (H, W, C), K in the order (kh, kw, c)."""
    h, w, _ = image.shape
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    return np.stack([np.concatenate([padded[y + i, x + j] for i in range(3) for j in range(3)]) for y in range(h) for x in range(w)])


@pytest.mark.parametrize("a_log2, b_log2", [(0, 2), (1, 1), (2, 1), (2, 2)])
def test_a_convolution_is_the_ordered_sum(a_log2: int, b_log2: int) -> None:
    rng, machine = np.random.default_rng(a_log2), SatMachine(ARCH, 3)
    size, words, b = 4, 2, 1 << b_log2
    image, weights = halves(rng, size, size, 8 * words), halves(rng, 72 * words, 4 * b)
    rows = ARCH.rows << a_log2
    put(machine, "act", 5, image)
    put(machine, "wgt", 7, weights)
    put(machine, "tbl", 1, np.frombuffer(convolution_table(size, words, 16), np.uint8))
    expected = ordered(columns_of(image)[:rows], weights)
    fields = dict(
        a_log2=a_log2, b_log2=b_log2, steps=8, table_addr=4, act_addr=5, kernel_h=3, kernel_w=3, row_step=size * words,
        col_step=words, chunks=words, wgt_addr=7 * 2, wgt_pitch=b, acc_addr=3,
    )  # fmt: skip
    machine.execute(decoded(ARCH, "GEMM", drain=1, **fields))
    got = machine.chip["acc"].reshape(-1).view("<f4")[3 * 4 : (3 + rows * b) * 4].reshape(rows, 4 * b)
    np.testing.assert_array_equal(got.view(np.uint32), expected.view(np.uint32))
    assert np.count_nonzero(got) > 0.9 * got.size
    machine.execute(decoded(ARCH, "GEMM", drain=2, out_bank=1, out_addr=10 * b, out_pitch=b, out_rows=rows, out_words=b, **fields))
    half = machine.chip["vec"].reshape(-1).view("<f2")[ARCH.vec_words * 8 + 10 * b * 4 :][: rows * 4 * b]
    np.testing.assert_array_equal(half, np.clip(expected, -65504, 65504).astype(np.float16).reshape(-1))


def test_partial_sums_go_on_where_they_ended() -> None:
    rng, machine = np.random.default_rng(1), SatMachine(ARCH, 4)
    image, weights = halves(rng, 16, 16), halves(rng, 16, 8)
    put(machine, "act", 0, image)
    put(machine, "wgt", 0, weights)
    table = b"".join(entry(2 * p, 1, 1) for p in range(16))
    put(machine, "tbl", 0, np.frombuffer(table, np.uint8))
    whole = dict(a_log2=2, b_log2=1, steps=8, wgt_pitch=2)
    machine.execute(decoded(ARCH, "GEMM", chunks=2, drain=1, acc_addr=100, **whole))
    expected = ordered(image, weights)
    for how in ({"preload": 1}, {"resume": 1}):
        machine.execute(decoded(ARCH, "GEMM", chunks=1, drain=1, **whole))
        machine.execute(decoded(ARCH, "GEMM", chunks=1, act_addr=1, wgt_addr=16, drain=1, **how, **whole))
        for at in (0, 100):
            got = machine.chip["acc"].reshape(-1).view("<f4")[at * 4 : (at + 32) * 4].reshape(16, 8)
            np.testing.assert_array_equal(got, expected)


def test_a_weight_gradient_sums_over_pixels() -> None:
    rng, machine = np.random.default_rng(2), SatMachine(ARCH, 5)
    pixels, gradients = halves(rng, 16, 16), halves(rng, 16, 8)
    put(machine, "act", 0, pixels)
    put(machine, "wgt", 0, gradients)
    put(machine, "tbl", 0, np.frombuffer(b"".join(entry(2 * p, p != 3, 1) for p in range(16)), np.uint8))
    machine.execute(decoded(ARCH, "GEMM", channels=1, a_log2=2, b_log2=1, steps=8, chunks=2, wgt_pitch=2, drain=1))
    got = machine.chip["acc"].reshape(-1).view("<f4")[:128].reshape(16, 8)
    pixels[3] = 0
    np.testing.assert_array_equal(got, ordered(pixels.T, gradients))


PATTERNS = [(0, 1, 1), (0, 2, 1), (0, 4, 2), (0, 4, 1), (0, 8, 2), (1, 16, 2), (0, 8, 4)]
"""(chunk_log2, m, n): 1:1, 1:2, 2:4, 1:4, 2:8, 2:16, 4:8."""


@pytest.mark.parametrize("chunk_log2, group, keep", PATTERNS)
@pytest.mark.parametrize("seed", range(4))
def test_sparse_is_masked_dense(chunk_log2: int, group: int, keep: int, seed: int) -> None:
    """Random numbers of chunks and of outputs; zeros of both signs among operands and weights; in one go and in two parts."""
    rng, machine, chunk = np.random.default_rng((seed, group, keep)), SatMachine(ARCH, 6), 8 << chunk_log2
    chunks, a_log2, b_log2 = int(rng.integers(2, 5)), int(rng.integers(0, 2)), int(rng.integers(1, 3))
    k, rows, columns = chunk * chunks, ARCH.rows << a_log2, ARCH.columns << b_log2
    image, masters = halves(rng, rows, k), halves(rng, k, columns).astype(np.float32)
    for values in (image, masters):
        values[rng.random(values.shape) < 0.2] = 0
        values[rng.random(values.shape) < 0.2] *= values.dtype.type(-0.0)
    put(machine, "act", 0, image)
    put(machine, "vec", 0, masters)
    put(machine, "tbl", 0, np.frombuffer(b"".join(entry(k // 8 * p, 1, 1) for p in range(rows)), np.uint8))
    steps = chunk // group * keep
    prune = dict(group_log2=group.bit_length() - 1, keep=keep, words=columns // 8, in_pitch=columns // 4, out_pitch=columns // 8)
    machine.execute(decoded(ARCH, "PRUNE", chunk_log2=chunk_log2, chunks=chunks, **prune))
    count = chunks * steps * columns // 8
    put(machine, "wgt", 0, machine.chip["vec"][ARCH.vec_words : ARCH.vec_words + count])
    put(machine, "idx", 0, machine.chip["vec"][2 * ARCH.vec_words : 2 * ARCH.vec_words + count])
    shape = dict(a_log2=a_log2, b_log2=b_log2, chunk_log2=chunk_log2, steps=steps, wgt_pitch=1 << b_log2, sparse=1, drain=1)
    mask = np.zeros((k, columns), bool)
    for start in range(0, k, group):
        for column in range(columns):
            ranked = sorted(range(group), key=lambda e: (-abs(masters[start + e, column]), e))[:keep]
            mask[[start + e for e in ranked], column] = True
    expected = ordered(image, np.where(mask, masters, 0).astype(np.float16)).view(np.uint32)
    words = rows * columns
    machine.execute(decoded(ARCH, "GEMM", chunks=chunks, **shape))
    got = machine.chip["acc"].reshape(-1).view("<u4")[:words].reshape(rows, columns)
    np.testing.assert_array_equal(got, expected)
    weights = steps << b_log2
    machine.execute(decoded(ARCH, "GEMM", chunks=1, **shape))
    rest = dict(act_addr=chunk // 8, wgt_addr=weights, idx_addr=weights)
    machine.execute(decoded(ARCH, "GEMM", chunks=chunks - 1, preload=1, **rest, **shape))
    got = machine.chip["acc"].reshape(-1).view("<u4")[:words].reshape(rows, columns)
    np.testing.assert_array_equal(got, expected)
    assert np.count_nonzero(expected) > 0.7 * expected.size


def test_an_access_outside_a_memory_is_an_error() -> None:
    machine = SatMachine(ARCH, 7)
    with pytest.raises(CoreError, match="BUFFER_RANGE"):
        machine.execute(decoded(ARCH, "GEMM", steps=8, wgt_addr=ARCH.wgt_words - 7))
    with pytest.raises(CoreError, match="BUFFER_RANGE"):
        machine.execute(decoded(ARCH, "GEMM", steps=1, drain=1, acc_addr=ARCH.acc_words - 3))
