"""The three transfer loops: for each plane, for each run, where it starts in memory and on chip, without a multiplier."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Module, Mux, ResetInserter, Signal, Value, ValueLike
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from hw.rtl.arith.delay import data_register
from hw.rtl.common.interfaces import Run
from hw.spec.regs import ErrorCode

CHIP_BITS = 20
SIZE_BITS = CHIP_BITS + 4
BANK_BITS = 4

TransferFields = data.StructLayout({
    "region": 4, "offset": 32, "chip_addr": CHIP_BITS, "n0": 16, "n1": 16, "n2": 16,
    "stride1": 32, "stride2": 32, "chip_stride1": CHIP_BITS, "chip_stride2": CHIP_BITS,
})  # fmt: skip
"""An instruction's fields of these names: run (plane, run) is n0 words at memory word offset + plane * stride2 + run * stride1
and at on-chip word chip_addr + plane * chip_stride2 + run * chip_stride1 (modulo 2**20)."""

ChipRun = data.StructLayout({"addr": CHIP_BITS, "bank": BANK_BITS})
"""Where a run starts on chip."""


Place = data.StructLayout({"offset": 33, "chip": ChipRun})
"""Where a run starts; bit 32 of ``offset`` tells that it cannot be requested."""


@dataclass(frozen=True, kw_only=True)
class RunLoopParameters:
    """Parameters of :class:`RunLoop`.

    ``banks`` (1..16): with ``banked``, plane y lies in bank y mod ``banks``, and the on-chip address steps after the last bank
    only. ``queue`` (at least 1): accepted runs that may wait on ``chip``.
    """

    banks: int
    queue: int

    def __post_init__(self) -> None:
        if not 1 <= self.banks <= 1 << BANK_BITS:
            raise ValueError(f"banks must be in 1..{1 << BANK_BITS}, not {self.banks}")
        if self.queue < 1:
            raise ValueError(f"queue must be at least 1, not {self.queue}")


class RunWalker(wiring.Component):
    """Walks over the runs of a transfer, with one addition per step and kind of address.

    ``place`` is the first run's in the cycle after ``start`` and the next run's in the cycle after ``advance``. ``last``: it is
    the last run's. For ``banks`` see :class:`RunLoopParameters`.
    """

    def __init__(self, *, banks: int) -> None:
        self._banks = banks
        super().__init__({
            "start": In(1),
            "fields": In(TransferFields),
            "banked": In(1),
            "advance": In(1),
            "place": Out(Place),
            "last": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fields = self.fields
        plane = Signal(Place, reset_less=True)
        run = Signal(Place, reset_less=True)
        runs_left = Signal(16, reset_less=True)
        planes_left = Signal(16, reset_less=True)
        plane_ends = Signal(reset_less=True)  # one run of the plane is left
        top_bank = Signal()
        target = Signal(Place)
        chip_stride2 = Mux(self.banked & ~top_bank, 0, fields.chip_stride2)
        next_bank = Mux(top_bank, 0, run.chip.bank + 1)

        def step(origin: tuple[Value, Value], strides: tuple[Value, Value]) -> Value:
            """One adder: from the plane's first run to the next plane's, or from run to run."""
            return Mux(plane_ends, origin[0], origin[1]) + Mux(plane_ends, strides[0], strides[1])

        m.d.comb += [
            self.place.eq(run),
            self.last.eq(plane_ends & (planes_left == 1)),
            top_bank.eq(run.chip.bank == self._banks - 1),
            target.offset.eq(step((plane.offset, run.offset), (fields.stride2, fields.stride1))),
            target.chip.addr.eq(step((plane.chip.addr, run.chip.addr), (chip_stride2, fields.chip_stride1))),
            target.chip.bank.eq(Mux(plane_ends & self.banked, next_bank, run.chip.bank)),
        ]
        with m.If(self.advance):
            m.d.sync += [run.eq(target), runs_left.eq(Mux(plane_ends, fields.n1, runs_left - 1))]
            m.d.sync += plane_ends.eq(Mux(plane_ends, fields.n1 == 1, runs_left == 2))
            with m.If(plane_ends):
                m.d.sync += [plane.eq(target), planes_left.eq(planes_left - 1)]
        with m.If(self.start):
            for place in (plane, run):
                m.d.sync += [place.offset.eq(fields.offset), place.chip.addr.eq(fields.chip_addr), place.chip.bank.eq(0)]
            m.d.sync += [runs_left.eq(fields.n1), planes_left.eq(fields.n2), plane_ends.eq(fields.n1 == 1)]
        return m


class RunLoop(wiring.Component):
    """Requests all runs of a transfer, in order, and tells for each accepted one where it lies on chip.

    The first request is valid 2 cycles after ``start``, later ones 2 cycles after the one before was accepted. A run is
    checked before it is requested: on chip first (``bad_chip``), then against the 32 bits that memory offsets have
    (``bad_region``; larger offsets lie in no region that a master could check). Either, or ``stop``, ends the loop.

    Members
    -------
    start : begin; ``fields``, ``size`` and ``banked`` hold still from here to the end
    size : on-chip words (of one bank)
    request : runs to a master
    chip : the accepted ones' place on chip; emptied by ``start``
    stop : the master refused a run, or the memory answered one with an error
    busy : more runs may come
    bad_chip, bad_region : why the loop ended early; cleared by ``start``
    """

    def __init__(self, parameters: RunLoopParameters) -> None:
        self._banks, self._queue = parameters.banks, parameters.queue
        super().__init__({
            "start": In(1),
            "fields": In(TransferFields),
            "size": In(SIZE_BITS),
            "banked": In(1),
            "request": Out(stream.Signature(Run)),
            "chip": Out(stream.Signature(ChipRun)),
            "stop": In(1),
            "busy": Out(1),
            "bad_chip": Out(1),
            "bad_region": Out(1),
        })

    def elaborate(self, platform: object) -> Module:
        m = Module()
        m.submodules.walker = walker = RunWalker(banks=self._banks)
        m.submodules.queue = queue = ResetInserter(self.start)(SyncFIFO(width=ChipRun.size, depth=self._queue))
        place = walker.place
        fits = Signal(reset_less=True)
        legal = Signal()
        accepted = Signal()
        bad_chip, bad_region = data_register(m, self.bad_chip), data_register(m, self.bad_region)
        m.d.comb += [
            walker.start.eq(self.start),
            walker.fields.eq(self.fields),
            walker.banked.eq(self.banked),
            walker.advance.eq(accepted),
            legal.eq(fits & ~place.offset[-1] & ~self.stop),
            accepted.eq(self.request.valid & self.request.ready),
            self.request.payload.region.eq(self.fields.region),
            self.request.payload.offset.eq(place.offset),
            self.request.payload.words.eq(self.fields.n0),
            queue.w_en.eq(accepted),
            queue.w_data.eq(place.chip),
            self.chip.valid.eq(queue.r_rdy),
            self.chip.payload.eq(queue.r_data),
            queue.r_en.eq(self.chip.ready),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"), m.If(self.start):
                m.d.sync += [bad_chip.eq(0), bad_region.eq(0)]
                m.next = "CHECK"
            with m.State("CHECK"):
                m.d.sync += fits.eq(place.chip.addr + self.fields.n0 <= self.size)
                m.next = "REQUEST"
            with m.State("REQUEST"):
                m.d.comb += self.request.valid.eq(legal & queue.w_rdy)
                with m.If(~legal):
                    m.d.sync += [bad_chip.eq(~fits), bad_region.eq(place.offset[-1])]
                    m.next = "IDLE"
                with m.Elif(accepted):
                    m.next = "CHECK"
                    with m.If(walker.last):
                        m.next = "IDLE"
        m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m


def join_loop(m: Module, loop: RunLoop, command: wiring.PureInterface, fields: data.View, master: wiring.PureInterface) -> None:
    """Give a loop its instruction's fields and its start, and the master its runs; the loop stops where the master fails."""
    m.d.comb += [
        loop.start.eq(command.start),
        *(loop.fields[name].eq(fields[name]) for name in TransferFields.members),
        loop.stop.eq(master.refused | master.failed),
        master.request.valid.eq(loop.request.valid),
        master.request.payload.eq(loop.request.payload),
        loop.request.ready.eq(master.request.ready),
    ]


def outcome(loop: RunLoop, master: wiring.PureInterface, bus_error: ErrorCode, otherwise: ValueLike) -> Value:
    """The error code of a transfer of which nothing is outstanding: the first error in the order of the runs.

    Every run that reached the bus is earlier than one that was refused or did not fit, so ``bus_error`` comes first; and the
    loop may have found a run that does not fit while the master was still about to refuse the one before.
    """
    of_loop = Mux(loop.bad_chip, ErrorCode.BUFFER_RANGE, Mux(loop.bad_region, ErrorCode.REGION, otherwise))
    return Mux(master.failed, bus_error, Mux(master.refused, ErrorCode.REGION, of_loop))
