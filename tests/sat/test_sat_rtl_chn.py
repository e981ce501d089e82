"""Channel programs in Verilator against the machine; a BatchNorm of sums, programs and affine operations against torch in float64."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch

from hw.spec.sat import SatArch
from hw.spec.sat.channel import CONSTANTS, PROGRAMS, RECORD, Op
from hw.spec.sat.instructions import CHANNEL_PROGRAMS, RECORD_WORDS, VEC_AFFINE, VEC_SUMS
from hw.spec.sat.timing.chn import step_cycles
from tests.sat.engine_bench import EngineBench, filled

ARCH = SatArch(vec_words=128, chn_words=192)
BANK, CHN = ARCH.vec_words, ARCH.chn_words
CONST = 160
"""Where the constants lie; records lie below."""

NUMBER = {name: number for number, name in enumerate(CHANNEL_PROGRAMS)}


@functools.cache
def simulated() -> EngineBench:
    return EngineBench(ARCH, ("VEC", "CHN"))


@pytest.fixture
def bench() -> EngineBench:
    """The one bench, with all memories full of random bytes."""
    bench = simulated()
    bench.load(vec=filled(1, 3 * BANK), chn=filled(2, CHN))
    return bench


def records(values: np.ndarray, sums: list[tuple[int, int, int]]) -> np.ndarray:
    """Words of records with FP32 values (channels, 16) and integers, and a spare word that nothing may change."""
    words = np.full((len(values), RECORD_WORDS, 16), 0xA5, np.uint8)
    words[:, :4] = values.astype(np.float32).view(np.uint8).reshape(len(values), 4, 16)
    for channel, integers in enumerate(sums):
        for number, value in enumerate(integers):
            words[channel, 4 + number] = np.frombuffer((value % (1 << 128)).to_bytes(16, "little"), np.uint8)
    return words.reshape(-1, 16)


def constants(**values: float) -> np.ndarray:
    """The words of a record of constants; those that are not named are 0."""
    row = np.array([values.get(name, 0) for name in CONSTANTS] + [0] * (16 - len(CONSTANTS)), np.float32)
    return row.view(np.uint8).reshape(4, 16)


def put(bench: EngineBench, at: int, words: np.ndarray) -> None:
    bench.machine.chip["chn"][at : at + len(words)] = words
    bench.load()


def random_state(rng: np.random.Generator, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Records and constants as programs find them: moderate numbers, sums that belong together, some channels constant or all zero."""
    values, sums = rng.standard_normal((channels, 16)) * 2.0 ** rng.integers(-6, 6, (channels, 16)), []
    values[:, RECORD.index("running_variance")] **= 2
    count = int(rng.integers(1, 200))
    for channel in range(channels):
        y = (rng.standard_normal(count) * 2.0 ** rng.integers(-12, 8)).astype(np.float16)
        if channel % 3 == 1:
            y[:] = y[0] * (channel % 2)
        whole = [int(v) for v in y.astype(np.float64) * 2**24]
        sums.append((sum(whole), sum(v * v for v in whole), sum(whole) + int(rng.integers(-5, 5))))
    words = constants(one=1, zero=0, inverse_count=1 / count, inverse_square=count**-2.0, epsilon=1e-5, running_weight=0.1,
                      unbiased=count / max(1, count - 1), inverse_loss_scale=2.0**-10, momentum=0.9, learning_rate=0.1,
                      scale_decay=5e-4, bias_decay=1e-4)  # fmt: skip
    return records(values, sums), words


@pytest.mark.parametrize("program", CHANNEL_PROGRAMS)
def test_programs_on_what_they_are_for(bench, program):
    rng = np.random.default_rng(NUMBER[program])
    for channels in (1, 2, 7):
        state, words = random_state(rng, channels)
        put(bench, 3, state)
        put(bench, CONST, words)
        count = int(rng.integers(1 << 23))
        bench.check("CHN", program=NUMBER[program], channels=channels, chn_addr=3, const_addr=CONST, count=count, idle=channels % 3)
    assert bench.strays() == 0


@pytest.mark.parametrize("program", CHANNEL_PROGRAMS)
def test_programs_on_random_bytes(bench, program):
    """Every pattern of numbers, Inf and NaN, negative variances, integers of full width, and all counts' ends."""
    for number, count in enumerate((0, 1, (1 << 23) - 1, 0x2AAAAA)):
        bench.load(chn=filled(100 + number, CHN))
        bench.check("CHN", program=NUMBER[program], channels=5, chn_addr=number, const_addr=CONST, count=count)


def test_zero_variance_and_the_ends_of_the_integers(bench):
    """Equal values leave nothing but epsilon; the smallest and largest sums wrap as the machine's do; flags tell of saturation."""
    ends = [-(1 << 63), (1 << 63) - 1, 0, -1]
    sums = [(a, b, c) for a in ends for b in (-(1 << 103), (1 << 103) - 1, 0) for c in (ends[0], ends[1])][:18]
    values = np.ones((len(sums), 16))
    put(bench, 0, records(values, sums))
    put(bench, CONST, constants(one=1, inverse_count=1, inverse_square=1, epsilon=1e-5, unbiased=1, running_weight=0.5))
    for program in ("NORM_FORWARD", "NORM_BACKWARD", "BIAS_BACKWARD"):
        for count in (0, 5, (1 << 23) - 1):
            bench.check("CHN", program=NUMBER[program], channels=len(sums), const_addr=CONST, count=count)
    equal = 3 << 20
    put(bench, 0, records(np.ones((1, 16)), [(7 * equal, 7 * equal**2, 0)]))
    bench.check("CHN", program=NUMBER["NORM_FORWARD"], channels=1, const_addr=CONST, count=7)
    found = bench.stored()["chn"][:4].reshape(-1).view(np.float32)
    assert found[RECORD.index("inverse_deviation")] == np.float32(1) / np.sqrt(np.float32(1e-5))


def test_saturation_is_an_event_and_nothing_else_is(bench):
    for rate, wanted in ((1.0, False), (3e38, True)):
        bench.resume_from_bench()
        put(bench, 0, records(np.full((2, 16), 4.0), [(0, 0, 0)] * 2))
        put(bench, CONST, constants(one=1, inverse_loss_scale=1, momentum=1, learning_rate=rate))
        bench.check("CHN", program=NUMBER["UPDATE"], channels=2, const_addr=CONST)
        assert bench.machine.saturated == wanted


def run_random(bench: EngineBench, seed: int, jobs: int) -> None:
    rng = np.random.default_rng(seed)
    for job in range(jobs):
        channels = int(rng.integers(1, 6))
        at = int(rng.integers(CONST - channels * RECORD_WORDS))
        if job % 2:
            state, words = random_state(rng, channels)
            put(bench, at, state)
            put(bench, CONST, words)
        else:
            bench.load(chn=filled(int(rng.integers(1 << 30)), CHN))
        program = int(rng.integers(len(CHANNEL_PROGRAMS)))
        bench.check("CHN", program=program, channels=channels, chn_addr=at, const_addr=CONST, count=int(rng.integers(1 << 23)),
                    idle=int(rng.integers(3)))  # fmt: skip
        bench.check("CHN", program=5 - program, channels=1, chn_addr=at, const_addr=CONST, count=job, compare=job % 3 != 0)
    assert bench.strays() == 0


def test_random_instructions(bench):
    run_random(bench, seed=3, jobs=120)


@pytest.mark.slow
def test_many_random_instructions(bench):
    run_random(bench, seed=4, jobs=5_000)


def test_what_reaches_outside_is_noticed(bench):
    """Records are read up to their seventh word, constants are four."""
    fields = dict(program=NUMBER["BIAS_FORWARD"])
    bench.check("CHN", **fields, channels=2, chn_addr=CHN - 15)
    bench.check("CHN", **fields, channels=2, chn_addr=CHN - 14, outside=True)
    bench.check("CHN", **fields, channels=1, const_addr=CHN - 4)
    bench.check("CHN", **fields, channels=1, const_addr=CHN - 3, outside=True)


def test_reset_at_any_time(bench):
    for cycles in (*range(1, 20), *range(20, 400, 23)):
        bench.cut("CHN", cycles, program=NUMBER["NORM_FORWARD"], channels=2, const_addr=CONST, count=9)
        bench.check("CHN", program=cycles % len(CHANNEL_PROGRAMS), channels=1, chn_addr=40, const_addr=CONST, count=77)
    assert bench.strays() == 0


def test_what_a_reset_cuts_off_disturbs_nothing(bench):
    """The next instruction's conversion at every distance from a cross sum that was cut off, which would end with one of its own."""
    for cycles in range(40, 140):
        bench.cut("CHN", cycles, written=False, program=NUMBER["NORM_FORWARD"], channels=1, const_addr=CONST, count=9)
        bench.check("CHN", program=NUMBER["BIAS_BACKWARD"], channels=2, chn_addr=8, const_addr=CONST, count=77)


def test_cycles_are_those_of_the_steps(bench):
    """BIAS_FORWARD is three additions: fetch of two operands, six cycles, write; and what a channel and an instruction cost."""
    assert step_cycles(Op.ADD) == 9 and step_cycles(Op.KEEP) == 3
    before = bench.cycles
    bench.check("CHN", program=NUMBER["BIAS_FORWARD"], channels=3, const_addr=CONST)
    assert bench.cycles - before == 6 + 3 * (9 + 3 * 9 + 5) + 2
    assert all(len(PROGRAMS[name]) for name in CHANNEL_PROGRAMS)


# BatchNorm against torch ---------------------------------------------------------------------------------------------------

CHANNELS, PIXELS = 16, 40
EPSILON, WEIGHT = 1e-5, 0.1


def torch_norm(y: np.ndarray, g: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """Forward and backward of torch's BatchNorm in float64: its output, gradients, and running statistics from 0 and 1."""
    norm = torch.nn.BatchNorm1d(CHANNELS, eps=EPSILON, momentum=WEIGHT, dtype=torch.float64)
    with torch.no_grad():
        norm.weight.copy_(torch.from_numpy(scale))
        norm.bias.copy_(torch.from_numpy(bias))
    x = torch.from_numpy(y.astype(np.float64)).requires_grad_()
    z = norm(x)
    z.backward(torch.from_numpy(g.astype(np.float64)))
    found = {"z": z, "dy": x.grad, "scale_gradient": norm.weight.grad, "bias_gradient": norm.bias.grad,
             "running_mean": norm.running_mean, "running_variance": norm.running_var}  # fmt: skip
    return {name: value.detach().numpy() for name, value in found.items()}


def run_norm(bench: EngineBench, y: np.ndarray, g: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
    """The same by seven instructions."""
    words = CHANNELS // 8
    values = np.zeros((CHANNELS, 16))
    for name, data in (("scale", scale), ("bias", bias), ("running_variance", np.ones(CHANNELS))):
        values[:, RECORD.index(name)] = data
    put(bench, 0, records(values, [(0, 0, 0)] * CHANNELS))
    put(bench, CONST, constants(one=1, inverse_count=1 / PIXELS, inverse_square=PIXELS**-2.0, epsilon=EPSILON, running_weight=WEIGHT,
                                unbiased=PIXELS / (PIXELS - 1)))  # fmt: skip
    dense = dict(words=words, pixels=PIXELS, chn_pitch=8, **{f"{name}_pitch": words for name in ("a", "b", "c", "out")})
    program = dict(channels=CHANNELS, const_addr=CONST, count=PIXELS)
    found = {}

    def bank(number: int) -> np.ndarray:
        return bench.stored()["vec"].reshape(3, -1)[number, : PIXELS * CHANNELS * 2].view(np.float16).reshape(PIXELS, CHANNELS)

    bench.load(vec=y)
    bench.check("VEC", op=VEC_SUMS, square=1, chn_addr=4, **dense)
    bench.check("CHN", program=NUMBER["NORM_FORWARD"], **program)
    bench.check("VEC", op=VEC_AFFINE, use_u=1, chn_addr=2, out_bank=2, **dense)
    found["z"] = bank(2)
    bench.machine.chip["vec"].reshape(3, -1)[:2, : y.nbytes] = np.stack([g, y]).view(np.uint8).reshape(2, -1)
    bench.load()
    bench.check("VEC", op=VEC_SUMS, chn_addr=4, **dense)
    bench.check("CHN", program=NUMBER["NORM_BACKWARD"], **program)
    bench.check("VEC", op=VEC_AFFINE, use_b=1, use_u=1, chn_addr=2, out_bank=2, **dense)
    found["dy"] = bank(2)
    after = bench.stored()["chn"][: CHANNELS * RECORD_WORDS].view(np.float32).reshape(CHANNELS, -1)
    return found | {name: after[:, RECORD.index(name)] for name in RECORD}


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_batch_norm_against_torch_in_float64(bench, offset):
    """Results in FP16 within half a unit of FP16 and what FP32 constants lose beside a mean of ``offset`` deviations."""
    rng = np.random.default_rng(12)
    y = (rng.standard_normal((PIXELS, CHANNELS)) + offset).astype(np.float16)
    g = rng.standard_normal((PIXELS, CHANNELS)).astype(np.float16)
    scale, bias = (rng.uniform(0.5, 1.5, CHANNELS).astype(np.float32).astype(np.float64) for _ in range(2))
    wanted, found = torch_norm(y, g, scale, bias), run_norm(bench, y, g, scale, bias)
    largest = {name: np.abs(value).max() for name, value in wanted.items()}
    # Sums in FP16: half a unit of the result; in FP32: a few units of the largest term, which is offset deviations away from the sum.
    single = 8 * 2.0**-24 * (1 + offset)
    for name in ("z", "dy"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=2.0**-11, atol=single * largest[name])
    for name in ("scale_gradient", "bias_gradient", "running_mean", "running_variance"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=single, atol=single * largest[name])
    assert found["z"].size == found["dy"].size == PIXELS * CHANNELS
