"""The whole top of the ULX3S in Verilator, driven over its simulated serial line: what is built is what runs here.

The short test has a faster line and a smaller core; the slow ones have the very texts of the bitstream's plan.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from boards.board import Board, load_board, load_board_arch
from boards.build import plan
from boards.simulation import SimulatedLine, build_line
from hw.spec.deform import DeformArch
from hw.spec.uart import Operation, Request
from sw.compiler import compile_graph
from sw.data.digits import INPUT_FORMAT, load_digits
from sw.graph import IntegerGraph
from sw.models.shufflenet_digits import DigitsNet
from sw.quant import Recipe, codes_of, export
from sw.quant.train import TrainConfig, Trainer
from sw.runtime.device import Tensors
from sw.runtime.driver import CoreDevice
from sw.runtime.uart import UartTransport
from tests.e2e.tiny import ARCH, make_tiny

PLL_MODEL = Path(__file__).resolve().parents[2] / "boards" / "ulx3s" / "pll_model.v"
BUILD_ID = 0xB10C_0DE5_1234_5678
BUSY, DONE, ERROR, STUCK, RECEIVED, SENT, HEARTBEAT, RUNNING = (1 << i for i in range(8))

Open = Callable[..., SimulatedLine]


def simulate(board: Board, arch: DeformArch) -> Iterator[Open]:
    planned = plan(board, arch, build_id=BUILD_ID)
    library = build_line(planned.sources | {PLL_MODEL.name: PLL_MODEL.read_text()}, board.top)
    lines: list[SimulatedLine] = []

    def opened(**options: float) -> SimulatedLine:
        lines.append(SimulatedLine(library, board, **options))
        return lines[-1]

    yield opened
    for line in lines:
        line.close()


@pytest.fixture(scope="module")
def small() -> Iterator[Open]:
    """A small core; the line runs at 8 cycles per bit."""
    board = load_board("ulx3s")
    yield from simulate(dataclasses.replace(board, baud=board.clock_hz // 8), ARCH)


def run_over(line: SimulatedLine, arch: DeformArch, graph: IntegerGraph, inputs: Tensors, timeout: float) -> tuple[Tensors, int]:
    """Runs a network over the line; its outputs and how many codes of them were compared with the graph's, all equal."""
    device = CoreDevice(UartTransport(line, timeout=timeout, pause=0.03))
    assert device.arch_id == arch.arch_id and device.driver.identity.build_id == BUILD_ID
    outputs, counters = device.run(compile_graph(graph, arch), inputs)
    wanted = graph(inputs)
    assert outputs.keys() == wanted.keys() and counters["CYCLES"] > 0 and counters["RETIRED"] > 0
    for name, codes in wanted.items():
        assert np.array_equal(outputs[name], codes)
    assert line.broken == 0
    return outputs, sum(codes.size for codes in wanted.values())


def run_tiny(line: SimulatedLine, arch: DeformArch, images: int, timeout: float) -> int:
    tiny = make_tiny(4)
    return run_over(line, arch, tiny.graph, {"image": tiny.inputs["image"][:images]}, timeout)[1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Digits:
    """A network that was trained for eight epochs, and codes (N, 1, 8, 8) and labels of held-out digits."""

    graph: IntegerGraph
    codes: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = load_digits()
    config = TrainConfig(float_epochs=6, fixed_epochs=2, calibration_images=128)
    trained = Trainer(DigitsNet, data, Recipe(input_format=INPUT_FORMAT), config).run()
    assert trained is not None
    graph = export(trained.model, data.test_images)
    return Digits(graph=graph, codes=codes_of(trained.model, data.test_images), labels=data.test_labels.numpy())


def classify(line: SimulatedLine, arch: DeformArch, digits: Digits, images: int, timeout: float) -> int:
    """Classifies the first images over the line; returns the number of scores compared. Most are right, or nothing was learnt."""
    (name,) = digits.graph.inputs
    outputs, compared = run_over(line, arch, digits.graph, {name: digits.codes[:images]}, timeout)
    classes = outputs[digits.graph.outputs[0]].reshape(images, 10).argmax(axis=1)
    wanted = digits.graph({name: digits.codes[:images]})[digits.graph.outputs[0]].reshape(images, 10).argmax(axis=1)
    assert np.array_equal(classes, wanted) and (classes == digits.labels[:images]).mean() > 0.6
    return compared


def test_network_over_the_line(small: Open) -> None:
    line = small(state_seed=3)
    line.run(8)
    assert not line.lamps & RUNNING and line.wifi_gpio0
    line.run(100)
    assert line.lamps & RUNNING and not line.lamps & (BUSY | DONE | ERROR | STUCK)
    assert run_tiny(line, ARCH, 2, timeout=0.01) == 20
    assert line.lamps & (RECEIVED | SENT) == RECEIVED | SENT


def test_garbage_and_reset_and_an_error_lamp(small: Open) -> None:
    """After noise the next request is answered; a bad program lights the error lamp; the button starts all anew."""
    line, rng = small(state_seed=4, baud_error=0.02), random.Random(6)
    line.run(200)
    for _ in range(3):
        line.write(rng.randbytes(200) + Request(operation=Operation.WRITE_MEMORY, tag=1, length=900, payload=b"cut").encode()[:9])
        line.run(50_000)
        line.read(4096, 1e-6)
    transport = UartTransport(line, timeout=0.01, pause=0.03)
    assert transport.bridge.dropped > 0
    device = CoreDevice(transport)
    with pytest.raises(Exception, match="the core stopped with"):
        program = make_tiny(2).program
        placement = device.load(program)
        transport.write_memory(placement.program_address, bytes(16))
        device.run_image(program, placement, {"image": make_tiny(2).inputs["image"][0]})
    transport.write_register(0x30, 0)
    line.press(True)
    line.run(100)
    assert not line.lamps & RUNNING
    line.press(False)
    line.run(100)
    assert transport.identify().dropped == 0 and line.lamps & RUNNING


@pytest.mark.slow
def test_digits_over_the_line(small: Open, digits: Digits) -> None:
    assert classify(small(state_seed=8), ARCH, digits, 6, timeout=0.05) == 60


@pytest.mark.slow
def test_networks_on_the_built_texts(digits: Digits) -> None:
    """The plan of the bitstream, unchanged: same core, same baud rate, an end whose clock is 1 % off."""
    board, arch = load_board("ulx3s"), load_board_arch("ulx3s")
    simulation = simulate(board, arch)
    opened = next(simulation)
    assert run_tiny(opened(state_seed=5, baud_error=0.01), arch, 2, timeout=0.05) == 20
    assert classify(opened(state_seed=6, baud_error=-0.01), arch, digits, 20, timeout=0.05) == 200
    assert next(simulation, None) is None
