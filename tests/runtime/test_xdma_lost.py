"""A card that is lost, at every moment of a run: never a wrong result, always the same words, and the next device runs."""

from __future__ import annotations

import errno
from collections import Counter

import numpy as np
import pytest

from sw.runtime.errors import DeviceError
from sw.runtime.xdma import DeviceLost, XdmaDevice
from tests.runtime.copy_program import copy_program, image
from tests.runtime.xdma_nodes import BASE, Call, SimulatedNodes, open_soft, soft_nodes

WORDS = r"the card of /dev/xdma0_\* is lost: .*rescan the bus .*reset the card or load its bitstream again; then open the device anew"


def runs(device: XdmaDevice, seed: int) -> bool:
    return np.array_equal(device.run(copy_program(), {"x": image(seed, 2)})[0]["y"], image(seed, 2))


def calls_of_a_run(**options: object) -> tuple[int, int]:
    """Numbers of the first and the last call of a device's second run."""
    nodes = soft_nodes(**options)
    with open_soft(nodes) as device:
        assert runs(device, 1)
        first = len(nodes.calls)
        assert runs(device, 2)
    return first, len(nodes.calls) - 4


def at(nodes: SimulatedNodes, moment: int, happen: str) -> None:
    """Let something happen to the card before the call of that number."""

    def meddle(call: Call) -> None:
        if len(nodes.calls) == moment + 1:
            getattr(nodes, happen)()

    nodes.meddle = meddle


def still_lost(device: XdmaDevice, nodes: SimulatedNodes, message: str) -> None:
    """Also when the link is back: what the memory holds is not what the user put there. No call is made."""
    nodes.revive()
    before = len(nodes.calls)
    for use in (lambda: device.link.read_register(0), lambda: device.read_memory(BASE, 16), lambda: runs(device, 1)):
        with pytest.raises(DeviceLost) as caught:
            use()
        assert str(caught.value) == message
    assert len(nodes.calls) == before


@pytest.mark.parametrize("options", [{}, {"events": False}, {"dead_errno": errno.EIO}, {"dead_errno": 512}, {"wired": False}])
@pytest.mark.filterwarnings("ignore::sw.runtime.xdma.MissedInterrupt")
def test_a_link_that_dies_at_any_moment(options: dict[str, int]) -> None:
    """Before each call of a run: DeviceLost, for good; everything is closed; on the replaced card the next program runs."""
    first, last = calls_of_a_run(**options)
    assert last - first > 90
    for moment in range(first, last):
        nodes = soft_nodes(**options)
        with open_soft(nodes) as device:
            assert runs(device, 1)
            at(nodes, moment, "die")
            with pytest.raises(DeviceLost, match=WORDS) as caught:
                runs(device, 2)
            still_lost(device, nodes, str(caught.value))
        assert nodes.files == {}
        nodes.replace()
        with open_soft(nodes) as device:
            assert runs(device, 3)


def test_a_reset_that_nobody_tells_of() -> None:
    """The link is up, registers are cleared and memory holds anything: no result is taken from such a core.

    The driver itself meets it in a few moments: registers that it set just before START, and a DONE that it was just told of.
    """
    first, last = calls_of_a_run()
    ends: Counter[str] = Counter()
    for moment in range(first, last):
        nodes = soft_nodes()
        with open_soft(nodes) as device:
            assert runs(device, 1)
            at(nodes, moment, "reset_unseen")
            with pytest.raises(DeviceError) as caught:
                runs(device, 2)
            ends[type(caught.value).__name__] += 1
    assert sum(ends.values()) == last - first > 90
    assert ends["CoreFault"] <= 2 and ends["DeviceError"] <= 4, ends


def test_nothing_is_written_to_a_card_that_was_reset() -> None:
    nodes = soft_nodes()
    device = open_soft(nodes)
    assert runs(device, 1)
    nodes.reset_unseen()
    before = len(nodes.calls)
    with pytest.raises(DeviceLost, match=r"the core was reset since its program was started \(IRQ_ENABLE reads 0, not 1\)"):
        device.write_memory(BASE, bytes(16))
    assert [call.kind for call in nodes.calls[before:]] == ["pread"]


def test_a_card_that_is_dead_when_it_is_open_soft() -> None:
    nodes = soft_nodes()
    nodes.die()
    with pytest.raises(DeviceLost, match="register 0x000 reads 0xffffffff, and IDENTITY reads 0xffffffff"):
        open_soft(nodes)
    assert nodes.files == {}
    nodes.revive()
    with open_soft(nodes) as device:
        assert runs(device, 1)


def test_a_transfer_that_stops_halfway() -> None:
    """The short count is retried; the retry fails, and the identity register tells why."""
    nodes = soft_nodes()
    device = open_soft(nodes)

    def meddle(call: Call) -> int | None:
        if "h2c" in call.node and call.number == 0 and call.kind == "pwrite":
            nodes.die()
            return 1000
        return None

    nodes.meddle = meddle
    with pytest.raises(DeviceLost, match=r"from byte 1000 on, failed \(.*\), and IDENTITY reads 0xffffffff"):
        device.write_memory(BASE, bytes(8192))
    assert device.link.nodes.short_counts == 1


def test_old_files_of_a_removed_card_lead_nowhere() -> None:
    nodes = soft_nodes()
    device = open_soft(nodes)
    nodes.removed = True
    with pytest.raises(DeviceLost, match="found no device"):
        runs(device, 1)
    device.close()
    with pytest.raises(DeviceError, match="there is no such node"):
        open_soft(nodes)


def test_closing_a_card_that_fails_to_close() -> None:
    nodes = soft_nodes()
    device = open_soft(nodes)
    tried = []

    def fail(file: int) -> None:
        tried.append(file)
        raise OSError(errno.EIO, "I/O error")

    nodes.close = fail  # type: ignore[method-assign]
    device.close()
    assert len(tried) == 4
