"""Proofs of the queues and register slices, and the faults that they must find."""

from __future__ import annotations

import pytest
from amaranth.lib import fifo

from hw.rtl.common import bursts, runs, store
from hw.rtl.common.store import QUEUE_MARGIN
from hw.rtl.deform.store import PREFETCH
from hw.rtl.formal import cover, prove
from hw.spec.arch import Arch
from hw.spec.deform import DeformArch
from tests.formal.mutants import Fault, expect_counterexample, parameters
from tests.formal.streams_proof import FifoProof, LookupProof
from tests.formal.transfers_proof import LoopProof, PrefetchProof

ARCH = Arch(managers=2, region_manager=(0, 1, 0, 1))
LENGTH, PLACE, WORD = 8, 24, 128
"""Bits of what is queued: a burst's length, a place on chip, a memory word."""

FIFOS = ((LENGTH, ARCH.outstanding), (WORD, PREFETCH), (PLACE, ARCH.outstanding + QUEUE_MARGIN))
OTHER_FIFOS = ((LENGTH, 2), (LENGTH, 8), (LENGTH, 16), (PLACE, 5), (PLACE, 6), (PLACE, 12), (PLACE, 20))
"""Of other architectures."""

FIFO_FAULTS = (
    Fault(name="writes when full", module=fifo, old="w_port.en.eq(self.w_en & self.w_rdy)",
          new="w_port.en.eq(self.w_en)", fails="order"),
    Fault(name="one place too many", module=fifo, old="self.w_rdy.eq(self.level != self.depth)",
          new="self.w_rdy.eq(1)", fails="writable"),
    Fault(name="reads when empty", module=fifo, old="self.r_rdy.eq(self.level != 0)", new="self.r_rdy.eq(1)", fails="readable"),
    Fault(name="counts wrong when both", module=fifo, old="with m.If(do_read & ~do_write)",
          new="with m.If(do_read)", fails="writable"),
    Fault(name="reads twice", module=fifo, old="consume.eq(_incr(consume, self.depth))",
          new="consume.eq(consume)", fails="order"),
    Fault(name="goes on without a read", module=fifo, old="with m.If(do_read):\n            m.d.sync += consume.eq",
          new="with m.If(self.r_en):\n            m.d.sync += consume.eq", fails="order"),
)  # fmt: skip
LOOKUP_FAULTS = (
    Fault(name="accepts onto a run", module=bursts, old="~self.flush & (~full | self.o.ready)",
          new="~self.flush", fails="ready"),
    Fault(name="falls without ready", module=bursts, old="with m.If(self.o.ready | self.flush)",
          new="with m.If(1)", fails="hold"),
    Fault(name="flush keeps the run", module=bursts, old="with m.If(self.o.ready | self.flush)",
          new="with m.If(self.o.ready)", fails="valid"),
    Fault(name="size of another region", module=bursts, old="located.size.eq(window.size[SIZE_WORD:])",
          new="located.size.eq(self.program.size[SIZE_WORD:])", fails="payload"),
    Fault(name="last word one too far", module=bursts, old="(run.words - 1)[:16]", new="run.words", fails="payload"),
)  # fmt: skip
LOOP_FAULTS = (
    Fault(name="queue overrun", module=runs, old="legal & queue.w_rdy", new="legal", fails="room"),
    Fault(
        name="request withdrawn",
        module=runs,
        old="with m.If(~legal):",
        new="with m.If(~legal | ~self.request.ready):",
        fails="holds",
    ),
)
PREFETCH_FAULTS = (
    Fault(name="reads without a place", module=store, old="active & (places != 0)", new="active", fails="room"),
    Fault(name="one place too many", module=store, old="places.eq(prefetch)", new="places.eq(prefetch + 1)", fails="room"),
    Fault(name="place back too early", module=store, old="sent.eq(words.r_rdy & self.runs.data.ready)",
          new="sent.eq(self.runs.data.ready)", fails="room"),
)  # fmt: skip


@pytest.mark.parametrize(("width", "depth"), FIFOS)
def test_fifo(width: int, depth: int) -> None:
    prove(FifoProof(fifo, width, depth), 1)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "depth"), OTHER_FIFOS)
def test_other_fifo(width: int, depth: int) -> None:
    prove(FifoProof(fifo, width, depth), 1)


def test_fifo_is_exercised() -> None:
    assert cover(FifoProof(fifo, WORD, PREFETCH), 8) == ("full", "order")


@parameters(FIFO_FAULTS)
def test_faulty_fifo(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: FifoProof(module, LENGTH, 3), 8)


def test_lookup() -> None:
    prove(LookupProof(bursts, ARCH), 1)
    assert cover(LookupProof(bursts, ARCH), 5) == ("one_after_the_other", "unknown_region", "waited")


@parameters(LOOKUP_FAULTS)
def test_faulty_lookup(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: LookupProof(module, ARCH), 4)


def test_run_loop() -> None:
    prove(LoopProof(runs, 8), 1)
    assert cover(LoopProof(runs, 2), 8) == ("full", "waited")


@parameters(LOOP_FAULTS)
def test_faulty_run_loop(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: LoopProof(module, 2), 8)


def test_prefetch() -> None:
    prove(PrefetchProof(store, DeformArch()), 1)
    assert cover(PrefetchProof(store, DeformArch()), 14) == ("full", "sent_while_read")


@parameters(PREFETCH_FAULTS)
def test_faulty_prefetch(fault: Fault) -> None:
    expect_counterexample(fault, lambda module: PrefetchProof(module, DeformArch()), 14)
