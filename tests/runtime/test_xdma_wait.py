"""Waiting for a program on a card: the interrupt, an earlier one, none, none in time; what someone left running."""

from __future__ import annotations

import errno

import numpy as np
import pytest

from hw.spec.regs import BY_NAME
from sw.runtime.errors import DeviceError
from sw.runtime.xdma import MissedInterrupt
from tests.runtime.copy_program import copy_program, image
from tests.runtime.xdma_cores import SlowCore
from tests.runtime.xdma_nodes import Call, open_soft, soft_nodes


def test_an_interrupt_of_an_earlier_program_ends_no_wait() -> None:
    """The driver's latch is set when the program starts; the program ends later."""
    nodes = soft_nodes()
    with open_soft(nodes) as device:
        nodes.pending = True
        outputs, _ = device.run(copy_program(), {"x": image(2)})
        assert np.array_equal(outputs["y"], image(2)) and not nodes.pending
        assert sum(call.kind == "poll" for call in nodes.calls) >= 2 and device.link.missed == 0


def test_a_program_that_ended_before_the_wait_leaves_no_interrupt() -> None:
    nodes = soft_nodes()
    core = nodes.core
    assert isinstance(core, SlowCore)
    core.delay = 1
    with open_soft(nodes) as device:
        nodes.meddle = lambda call: (
            nodes.run(1) and None if (call.kind, call.at) == ("pread", BY_NAME["STATUS"].offset) else None
        )
        device.run(copy_program(), {"x": image(2)})
        assert not nodes.pending and device.link.missed == 0


def test_without_an_events_node_the_core_is_looked_at() -> None:
    nodes = soft_nodes(events=False)
    with open_soft(nodes) as device:
        outputs, _ = device.run(copy_program(), {"x": image(5)})
    assert np.array_equal(outputs["y"], image(5))
    assert {call.kind for call in nodes.calls} == {"open", "close", "pread", "pwrite", "sleep"}
    assert 0.002 < nodes.now < 0.01


def test_an_interrupt_that_is_lost_costs_time_and_warns_once() -> None:
    nodes = soft_nodes(wired=False)
    with open_soft(nodes) as device, pytest.warns(MissedInterrupt, match=r"xdma0_events_0 told of no interrupt") as warned:
        outputs, _ = device.run(copy_program(), {"x": image(1, 2)})
    assert np.array_equal(outputs["y"], image(1, 2)) and device.link.missed == 2 and len(warned) == 1
    assert 1.0 <= nodes.now < 1.1


@pytest.mark.parametrize("events", [True, False])
def test_a_program_that_does_not_end_is_aborted_in_time(events: bool) -> None:
    nodes = soft_nodes(events=events)
    assert isinstance(nodes.core, SlowCore)
    nodes.core.delay = None
    with open_soft(nodes, timeout=3.25) as device:
        with pytest.raises(DeviceError, match=r"(?i)aborted at instruction 1"):
            device.run(copy_program(), {"x": image(1)})
        assert 3.25 <= nodes.now < 3.3
        nodes.core.delay = 10
        assert np.array_equal(device.run(copy_program(), {"x": image(4)})[0]["y"], image(4))


def test_a_signal_in_the_read_of_an_event_is_no_error() -> None:
    nodes = soft_nodes()
    failed = 0

    def meddle(call: Call) -> None:
        nonlocal failed
        if call.node == "xdma0_events_0" and call.kind == "pread" and call.number == 0:
            failed += 1
            raise BlockingIOError(errno.EAGAIN, "try again")

    nodes.meddle = meddle
    with open_soft(nodes) as device:
        assert np.array_equal(device.run(copy_program(), {"x": image(4)})[0]["y"], image(4)) and failed == 1


def test_a_program_that_someone_left_running() -> None:
    nodes = soft_nodes()
    assert isinstance(nodes.core, SlowCore)
    nodes.core.delay = None

    def interrupt(call: Call) -> None:
        if call.kind == "poll":
            raise KeyboardInterrupt

    nodes.meddle = interrupt
    with pytest.raises(KeyboardInterrupt), open_soft(nodes) as device:
        device.run(copy_program(), {"x": image(1)})
    nodes.meddle, nodes.core.delay = lambda call: None, 100
    with open_soft(nodes) as device:
        with pytest.raises(DeviceError, match="busy with another program"):
            device.run(copy_program(), {"x": image(1)})
        device.abort()
        assert (writes := sum(call.kind == "pwrite" for call in nodes.calls))
        device.abort()
        assert writes == sum(call.kind == "pwrite" for call in nodes.calls), "an idle core is left alone"
        assert np.array_equal(device.run(copy_program(), {"x": image(6)})[0]["y"], image(6))
