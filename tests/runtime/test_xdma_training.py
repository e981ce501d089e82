"""Training on a card that is lost: the last saved state goes on, bit for bit, on the device that is opened next."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from hw.sim.build import SimulationBuild
from hw.sim.core import build_core
from hw.spec.sat import SatArch
from hw.spec.training import Hyper
from hw.spec.training_program import TrainingProgram
from sw.compiler.training import compile_training
from sw.runtime.errors import DeviceError
from sw.runtime.placement import MEMORY_BASE
from sw.runtime.sim import SimDevice
from sw.runtime.training import Arrays, StepReport
from sw.runtime.xdma import DeviceLost, XdmaDevice, open_xdma
from tests.runtime.xdma_cores import VerilatedCore
from tests.runtime.xdma_nodes import Call, SimulatedNodes
from tests.sat.small_graphs import random_batch, residual_network

ARCH = SatArch(rows=4, columns=4)
HYPER = Hyper(learning_rate=0.05, weight_decay=1e-4)
SIZE, CHUNK, STEPS = 1 << 20, 4096, 3
GRAPH = residual_network((2, 8), size=4)
BATCHES = [random_batch(GRAPH, step) for step in range(STEPS)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Uninterrupted:
    """States before and after each step of a run on the simulated device, and the steps' reports."""

    build: SimulationBuild
    program: TrainingProgram
    states: list[Arrays]
    reports: list[StepReport]


@pytest.fixture(scope="module")
def run() -> Uninterrupted:
    build, program = build_core(ARCH), compile_training(GRAPH, ARCH)
    with SimDevice(ARCH, build=build, memory_bytes=SIZE, state_seed=1) as device:
        session = device.open_session(program, GRAPH.state.arrays())
        states, reports = [session.state()], []
        for batch in BATCHES:
            reports.append(session.step(batch, HYPER))
            states.append(session.state())
    return Uninterrupted(build=build, program=program, states=states, reports=reports)


@pytest.fixture
def nodes(run: Uninterrupted) -> Iterator[SimulatedNodes]:
    with SimDevice(ARCH, build=run.build, memory_bytes=SIZE, state_seed=2) as device:
        yield SimulatedNodes(VerilatedCore(device))


def opened(nodes: SimulatedNodes) -> XdmaDevice:
    return open_xdma(calls=nodes, memory_base=MEMORY_BASE, memory_bytes=SIZE, chunk=CHUNK, timeout=5.0)


def same(state: Arrays, wanted: Arrays) -> int:
    """Values that are equal bit for bit; all must be."""
    assert state.keys() == wanted.keys()
    for name, array in wanted.items():
        assert state[name].tobytes() == array.tobytes(), name
    return sum(array.size for array in wanted.values())


def test_the_states_are_alive(run: Uninterrupted) -> None:
    """Each step changes masters, velocities and statistics, so that a step too many or too few shows."""
    for before, after in zip(run.states, run.states[1:], strict=False):
        changed = sum(np.mean(before[name] != after[name]) > 0.5 for name in before)
        assert changed >= len(before) - 2
    assert not any(report.skipped for report in run.reports)


def test_steps_are_those_of_the_simulated_device(run: Uninterrupted, nodes: SimulatedNodes) -> None:
    with opened(nodes) as device:
        session = device.open_session(run.program, GRAPH.state.arrays())
        report = session.step(BATCHES[0], HYPER)
        assert same(session.state(), run.states[1]) > 2000
        assert device.link.missed == 0
    wanted = run.reports[0]
    assert report.loss == wanted.loss and report.logits.tobytes() == wanted.logits.tobytes() and report.logits.size == 20
    assert report.launches.keys() == wanted.launches.keys() == {"forward", "backward", "update"}
    for name, launch in report.launches.items():
        assert launch.counters == wanted.launches[name].counters and launch.counters["CYCLES"] > 10_000


Moment = Callable[[SimulatedNodes, Call], bool]


def transfer(node: str, number: int) -> Moment:
    """While that transfer of a node runs, counted from the start of the step: half of it arrives."""
    return lambda nodes, call: call.node == f"xdma0_{node}" and call.kind != "open" and call.number == number


def running(launch: int) -> Moment:
    """While that program of the step runs, 20,000 cycles after its start. A launch polls twice: to wait, and for what is left."""
    return lambda nodes, call: call.kind == "poll" and call.number == 2 * launch and nodes.run(20_000) == 20_000


MOMENTS: dict[str, Moment] = {
    "writing images": transfer("h2c_0", 0),
    "writing the gradient": transfer("h2c_0", 5),
    "reading logits": transfer("c2h_0", 0),
    "reading flags": transfer("c2h_0", 1),
    "running forward": running(0),
    "running backward": running(1),
    "running update": running(2),
    "reading the state": transfer("c2h_0", 4),
}


def lose_at(nodes: SimulatedNodes, moment: Moment) -> None:
    """From now on calls count from 0, and at that moment the link dies."""
    nodes.calls.clear()

    def meddle(call: Call) -> int | None:
        if nodes.dead or not moment(nodes, call):
            return None
        nodes.die()
        return call.count // 2 if call.kind in ("pread", "pwrite") else None

    nodes.meddle = meddle


def recovered(nodes: SimulatedNodes) -> XdmaDevice:
    nodes.meddle = lambda call: None
    nodes.replace()
    return opened(nodes)


@pytest.mark.parametrize("when", MOMENTS)
def test_a_session_goes_on_from_its_last_state(run: Uninterrupted, nodes: SimulatedNodes, when: str) -> None:
    """The step that was lost is not counted; done again from the state before it, it ends in the same weights."""
    with opened(nodes) as device:
        session = device.open_session(run.program, run.states[1])
        saved = session.state()
        assert same(saved, run.states[1]) > 2000
        lose_at(nodes, MOMENTS[when])
        with pytest.raises(DeviceLost, match="a training session goes on from its last saved state"):
            session.step(BATCHES[1], HYPER)
            assert when == "reading the state" and session.steps == 1
            session.state()
        assert nodes.dead and session.steps == (when == "reading the state")
        words = "IDENTITY reads 0xffffffff" if when == "reading the state" else "an earlier step failed, and the state .* is half of it"
        for use in (session.state, lambda: session.infer(BATCHES[1][0])):
            with pytest.raises(DeviceError, match=words):
                use()
        with pytest.raises(DeviceLost):
            session.load_state(saved)
    with recovered(nodes) as device:
        session = device.open_session(run.program, saved, steps=1)
        assert session.step(BATCHES[1], HYPER).loss == run.reports[1].loss and session.steps == 2
        assert same(session.state(), run.states[2]) > 2000


def test_a_transfer_that_fails_on_a_card_that_is_there(run: Uninterrupted, nodes: SimulatedNodes) -> None:
    """The device works on, and so does the session once the last state is loaded again: forward changed statistics already."""
    with opened(nodes) as device:
        session = device.open_session(run.program, run.states[1])
        saved = session.state()
        nodes.calls.clear()

        def meddle(call: Call) -> None:
            if MOMENTS["writing the gradient"](nodes, call):
                raise OSError(errno.EIO, "I/O error")

        nodes.meddle = meddle
        with pytest.raises(DeviceError, match="EIO, the card's engine stopped") as caught:
            session.step(BATCHES[1], HYPER)
        assert not isinstance(caught.value, DeviceLost) and session.steps == 0
        nodes.meddle = lambda call: None
        for use in (session.state, lambda: session.infer(BATCHES[1][0]), lambda: session.step(BATCHES[1], HYPER)):
            with pytest.raises(DeviceError, match=r"an earlier step failed, .* load_state\(\) a saved one"):
                use()
        with pytest.raises(DeviceError, match="images must be finite float16"):
            session.infer(BATCHES[1][0].astype(np.float32))
        session.load_state(saved)
        session.step(BATCHES[1], HYPER)
        assert same(session.state(), run.states[2]) > 2000


def test_losses_one_after_another(run: Uninterrupted, nodes: SimulatedNodes) -> None:
    """As a user trains: save after each step, and on a loss open again; lost in a step, then while the state is loaded again."""
    moments = [running(1), transfer("h2c_0", 7)]
    device = opened(nodes)
    state, done, session, losses = GRAPH.state.arrays(), 0, None, 0
    while done < STEPS:
        try:
            session = session or device.open_session(run.program, state)
            if done == 1 and moments and not losses:
                lose_at(nodes, moments[0])
            session.step(BATCHES[done], HYPER)
            state, done = session.state(), done + 1
        except DeviceLost:
            losses += 1
            device.close()
            device, session = recovered(nodes), None
            if losses == 1:
                lose_at(nodes, moments[1])
    device.close()
    assert losses == 2 and same(state, run.states[STEPS]) > 2000
