"""The read and the write master as AXI4 managers, behind any bursts that a splitter may offer.

The splitter has a proof of its own (:mod:`tests.formal.bursts_proof`); here :class:`FreeBursts` takes its place, which offers any
bursts at all and keeps to no more than ``valid`` and payload until ``ready``. What the memory may do is assumed in :meth:`_memory`:
nothing but that it answers what was asked.
"""

from __future__ import annotations

from types import ModuleType
from unittest import mock

from amaranth.asserts import AnySeq
from amaranth.hdl import Array, Assume, C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hw.rtl.common.axi import BURST_INCR, CACHE_NORMAL, SIZE_WORD
from hw.rtl.common.bursts import Burst, BurstSplitter
from hw.rtl.common.interfaces import DATA_BITS
from hw.rtl.common.write import ALL_BYTES
from hw.rtl.formal import Harness
from hw.spec.arch import Arch
from tests.formal.streams_proof import drive_windows

COUNT_BITS = 8
"""Of the model's counts, more than the units have, so that an overflow would differ."""


class FreeBursts(wiring.Component):
    """Any bursts at any time in place of those of a ``BurstSplitter``; an offer stays until it is taken or cancelled."""

    def __init__(self, arch: Arch) -> None:
        self._managers = arch.managers
        super().__init__(BurstSplitter(arch).signature)

    def elaborate(self, platform: object) -> Module:
        m = Module()
        valid, payload, held = Signal(), Signal(Burst.size), Signal()
        last = Signal(Burst.size, reset_less=True)
        burst = self.burst.payload
        m.d.comb += [valid.eq(AnySeq(1)), payload.eq(AnySeq(Burst.size)), Value.cast(burst).eq(payload)]
        m.d.comb += [self.burst.valid.eq(valid & ~self.cancel), self.busy.eq(valid | AnySeq(1))]
        m.d.comb += [self.refused.eq(AnySeq(1)), self.request.ready.eq(AnySeq(1)), Assume(burst.manager < self._managers)]
        m.d.sync += [held.eq(self.burst.valid & ~self.burst.ready), last.eq(payload)]
        m.d.comb += Assume(~held | self.cancel | (valid & (payload == last)))
        return m


class MasterProof(Harness):
    """What both masters do alike; ``channel`` is ``ar`` or ``aw``.

    Checks: ``address``, exactly the bursts taken from the splitter are offered, each once, in order, by the port of its manager, with
    the attributes that are the same for all; ``address_holds`` unchanged until ready; ``address_room``, none is overwritten;
    ``in_flight``, there are never more than ``outstanding`` that were not answered; ``one_manager``, nor of two managers at
    once; ``failed``, from the first ``clear`` on: an error response came since the last; ``idle``, only when nothing is left;
    ``counted`` is an invariant.
    """

    channel = ""

    def __init__(self, module: ModuleType, arch: Arch) -> None:
        self._module, self._arch = module, arch

    def start(self, master: str) -> None:
        m = self.m
        with mock.patch.object(self._module, "BurstSplitter", FreeBursts):
            self.dut = dut = getattr(self._module, master)(self._arch)
            self.inside = self.part(dut)
        drive_windows(self, dut, self._arch)
        self.drain, self.clear = self.any(1, "drain"), self.any(1, "clear")
        m.d.comb += [dut.drain.eq(self.drain), dut.runs.clear.eq(self.clear), dut.runs.request.valid.eq(self.any(1, "request"))]
        self.ports = list(dut.axi)
        self._inputs()
        self._addresses()

    def _inputs(self) -> None:
        outputs = {name for name, member in self.ports[0].signature.members.items() if member.flow is Out}
        for number, port in enumerate(self.ports):
            for name in sorted(set(port.signature.members) - outputs):
                signal = getattr(port, name)
                self.m.d.comb += signal.eq(self.any(len(signal), f"{name}_{number}"))

    def at(self, name: str) -> list[Value]:
        return [getattr(port, name) for port in self.ports]

    def both(self, name: str, valid: str, ready: str) -> list[Signal]:
        """For each port whether there is a transfer."""
        pairs = zip(self.at(valid), self.at(ready), strict=True)
        return [self.named(f"{name}_{number}", v & r) for number, (v, r) in enumerate(pairs)]

    def counts(self, name: str, up: list[Signal], down: list[Signal]) -> list[Signal]:
        """For each port how many more ``up`` than ``down``."""
        counts = [Signal(COUNT_BITS, name=f"{name}_{number}") for number in range(len(self.ports))]
        for count, more, less in zip(counts, up, down, strict=True):
            self.m.d.sync += count.eq(count + more - less)
        return counts

    def _addresses(self) -> None:
        m, ch = self.m, self.channel
        offered = Value.cast(self.inside["splitter.burst__payload"])
        self.issue = self.named("issues", self.inside["splitter.burst__valid"] & self.inside["burst__ready"])
        self.there, self.burst = Signal(name="there"), Signal(Burst, name="taken_burst")
        self.sent = self.both(f"{ch}_sent", f"{ch}valid", f"{ch}ready")
        leaves = Cat(self.sent).any()
        m.d.sync += self.there.eq(self.issue | (self.there & ~leaves))
        with m.If(self.issue):
            m.d.sync += Value.cast(self.burst).eq(offered)
        self.check("address_room", ~self.issue | ~self.there | leaves)
        self.check("address", Cat(self._port_offers(number) for number in range(len(self.ports))).all())
        self.check("address_holds", Cat(self.holds(f"{ch}valid", f"{ch}ready", (f"{ch}addr", f"{ch}len"))).all())

    def _port_offers(self, number: int) -> Value:
        port, ch = self.ports[number], self.channel
        fields = {"addr": Cat(C(0, SIZE_WORD), self.burst.addr), "len": self.burst.length, "size": SIZE_WORD,
                  "burst": BURST_INCR, "cache": CACHE_NORMAL, "prot": 0, "lock": 0, "id": 0}  # fmt: skip
        valid = getattr(port, f"{ch}valid")
        same = Cat(getattr(port, f"{ch}{name}") == value for name, value in fields.items()).all()
        return (valid == (self.there & (self.burst.manager == number))) & (~valid | same)

    def holds(self, valid: str, ready: str, payload: tuple[str, ...]) -> list[Value]:
        """For each port: what was offered and not taken is offered again, unchanged."""
        result = []
        for number, port in enumerate(self.ports):
            offers, taken = getattr(port, valid), getattr(port, ready)
            content = Cat(getattr(port, name) for name in payload)
            stayed = self.since_reset(1) & self.past(offers & ~taken, f"stayed_{valid}_{number}")
            result.append(~stayed | (offers & (content == self.past(content, f"{valid}_{number}"))))
        return result

    def finish(self, owed: list[Signal], answered: list[Signal], failed: list[Value]) -> None:
        """The checks about what is in flight. ``owed``: accepted addresses without an answer."""
        m, dut, there = self.m, self.dut, self.there
        in_flight = self.named("model_in_flight", sum(owed) + there)
        self.check("in_flight", in_flight <= self._arch.outstanding)
        using = [(count != 0) | (there & (self.burst.manager == number)) for number, count in enumerate(owed)]
        self.check("one_manager", sum(using) <= 1)
        error, cleared = Signal(name="model_failed"), Signal(name="cleared")
        with m.If(self.clear):
            m.d.sync += [error.eq(0), cleared.eq(1)]
        with m.Elif(Cat(a & f for a, f in zip(answered, failed, strict=True)).any()):
            m.d.sync += error.eq(1)
        self.check("failed", ~cleared | (dut.runs.failed == error))
        registered = Value.cast(self.inside["address"])
        selected = [(count == 0) | (self.manager == number) for number, count in enumerate(owed)]
        counted = (self.inside["in_flight"] == in_flight) & (self.inside["pending"] == there) & Cat(selected).all()
        counted = counted & ((in_flight == 0) | (self.manager < len(self.ports)))
        self.invariant("counted", counted & (~there | (registered == Value.cast(self.burst))))
        self.cover("full", in_flight == self._arch.outstanding)
        if len(self.ports) > 1:
            self.cover(
                "other_manager",
                self.issue
                & (Burst(self.inside["splitter.burst__payload"]).manager != self.manager)
                & (self.past(in_flight, "flying") != 0),
            )

    @property
    def manager(self) -> Value:
        """The port that the unit's address register selects."""
        return Burst(Value.cast(self.inside["address"])).manager if len(self.ports) > 1 else C(0, 1)


class ReadProof(MasterProof):
    """``ReadMaster``. The memory sends R beats only of bursts that it accepted.

    Further checks: ``ready``, R beats are refused only while a word is held back; ``word``, exactly the beats that were taken come out,
    each once, in order, with their data, the cycle after, but for those of a ``drain``; ``word_holds``; ``word_room``.
    """

    channel = "ar"

    def describe(self) -> None:
        self.start("ReadMaster")
        m, dut = self.m, self.dut
        taken = self.any(1, "taken")
        m.d.comb += dut.runs.data.ready.eq(taken)
        beats = self.both("beat", "rvalid", "rready")
        ends = [self.named(f"end_{i}", beat & last) for i, (beat, last) in enumerate(zip(beats, self.at("rlast"), strict=True))]
        owed = self.counts("owed", self.sent, ends)
        self.assume(Cat(~v | (count != 0) for v, count in zip(self.at("rvalid"), owed, strict=True)).all())
        self._words(beats, owed, taken)
        self.finish(owed, beats, [resp[1] for resp in self.at("rresp")])
        left = Cat(count != 0 for count in owed).any() | self.there | dut.runs.data.valid | self.inside["splitter.busy"]
        self.check("idle", ~dut.runs.idle | ~left)

    def _words(self, beats: list[Signal], owed: list[Signal], taken: Signal) -> None:
        m, out = self.m, self.dut.runs.data
        there, word = Signal(name="word_there"), Signal(DATA_BITS, name="word")
        beat = self.named("beats", Cat(beats).any())
        m.d.sync += there.eq(~self.drain & (beat | (there & ~taken)))
        for number, port in enumerate(self.ports):
            with m.If(beats[number]):
                m.d.sync += word.eq(port.rdata)
        self.check("word", (out.valid == there) & (~there | (out.payload == word)) & (self.dut.beat == beat))
        self.check("word_room", ~beat | ~there | taken | self.drain)
        stayed = self.since_reset(1) & self.past(out.valid & ~taken & ~self.drain, "stayed_word")
        self.check("word_holds", ~stayed | (out.valid & (out.payload == self.past(out.payload, "offered_word"))))
        free = ~there | taken | self.drain
        self.check("ready", Cat((count == 0) | (r == free) for count, r in zip(owed, self.at("rready"), strict=True)).all())
        self.cover("held_back", there & ~taken & self.past(beat & there, "second"))


class WriteProof(MasterProof):
    """``WriteMaster``. The memory answers with B only bursts whose address and last beat it accepted.

    One burst, picked at an arbitrary moment, is followed from the splitter to its last beat. Further checks: ``last``, WLAST is on
    exactly its beat number AWLEN + 1, by the port of its manager; ``owed``, there is no beat without a burst; ``beat_holds``, data,
    strobes and WLAST stay until WREADY; ``word``, exactly the words that were taken are sent with all bytes, each once, in order,
    the cycle after; ``blank``, other beats strobe no byte and were begun during a ``drain``; ``answers``, B is always taken. The
    invariants are ``lengths`` (the queue of lengths has room and is no more than the bursts in flight) and ``stage`` (where the
    followed burst is).
    """

    channel = "aw"

    def describe(self) -> None:
        self.start("WriteMaster")
        m, dut = self.m, self.dut
        m.d.comb += [dut.runs.data.valid.eq(self.any(1, "given")), dut.runs.data.payload.eq(self.any(DATA_BITS, "data"))]
        self.beats = self.both("beat", "wvalid", "wready")
        answers = self.both("answer", "bvalid", "bready")
        ends = [self.named(f"end_{i}", b & last) for i, (b, last) in enumerate(zip(self.beats, self.at("wlast"), strict=True))]
        self.end = self.named("ends", Cat(ends).any())
        owed, done = self.counts("owed", self.sent, answers), self.counts("done", ends, answers)
        pairs = list(zip(self.at("bvalid"), owed, done, strict=True))
        self.assume(Cat(~v | ((o != 0) & (d != 0)) for v, o, d in pairs).all())
        self.check("answers", Cat(~v | r for v, r in zip(self.at("bvalid"), self.at("bready"), strict=True)).all())
        self.unsent = Signal(COUNT_BITS, name="unsent")
        m.d.sync += self.unsent.eq(self.unsent + self.issue - self.end)
        self.valid = self.named("valid", Cat(self.at("wvalid")).any())
        self._words()
        self._lengths(done)
        self._follow()
        self.finish(owed, answers, [resp[1] for resp in self.at("bresp")])
        left = Cat(count != 0 for count in owed).any() | self.there | (self.unsent != 0) | self.inside["splitter.busy"]
        self.check("idle", ~dut.runs.idle | ~left)

    def _words(self) -> None:
        m, source = self.m, self.dut.runs.data
        taken, beat = source.valid & source.ready, Cat(self.beats).any()
        there, word = Signal(name="word_there"), Signal(DATA_BITS, name="word")
        m.d.sync += there.eq(taken | (there & ~beat))
        with m.If(taken):
            m.d.sync += word.eq(source.payload)
        strobes = self.ports[0].wstrb
        whole = self.named("whole", self.valid & (strobes == ALL_BYTES))
        same = Cat(data == word for data in self.at("wdata")).all()
        self.check("word", (whole == there) & (~there | same) & (self.dut.beat == beat))
        self.check("word_room", ~taken | ~there | beat)
        begun = self.valid & ~whole & self.since_reset(1) & self.past(~self.valid | beat, "free")
        self.check("blank", (whole | ~self.valid | (strobes == 0)) & (~begun | self.past(self.drain, "drained")))
        self.check("beat_holds", Cat(self.holds("wvalid", "wready", ("wdata", "wstrb", "wlast"))).all())
        self.check("owed", ~self.valid | (self.unsent != 0))
        self.check("one_port", sum(self.at("wvalid")) <= 1)
        self.cover("blank_last", self.end & (strobes == 0) & self.past(whole, "before"))

    def _lengths(self, done: list[Signal]) -> None:
        state, depth = self.inside, self._arch.outstanding
        level, produce, consume = (state[f"lengths.{name}"] for name in ("level", "produce", "consume"))
        self.held_last = self.named("held_last", self.valid & self.ports[0].wlast)
        queued = (level + state["active"] + self.held_last == self.unsent) & (self.unsent + sum(done) == state["in_flight"])
        begun = (state["valid"] == self.valid) & (~self.valid | self.held_last | state["active"])
        room = ~self.issue | (level != depth)
        same = Cat((count == 0) | (self.manager == number) for number, count in enumerate(done)).all()
        self.invariant("lengths", queued & begun & room & same & ((consume + level - produce) % depth == 0) & (level <= depth))

    def _follow(self) -> None:
        m, state, depth = self.m, self.inside, self._arch.outstanding
        followed, length, manager = Signal(name="followed"), Signal(8, name="length"), Signal(2, name="of_manager")
        ahead, beats = Signal(COUNT_BITS, name="ahead"), Signal(9, name="beats_sent")
        place, stage = Signal(range(depth), name="place"), Signal(2, name="stage")
        mine = self.named("mine", followed & (ahead == 0))
        beat, marked = Cat(self.beats).any(), self.issue & self.any(1, "mark")
        offered = Burst(Value.cast(state["splitter.burst__payload"]))
        with m.If(followed):
            m.d.sync += [ahead.eq(ahead - (~mine & self.end)), beats.eq(beats + (mine & beat)), followed.eq(~(mine & self.end))]
        with m.Elif(marked):
            m.d.sync += [followed.eq(1), length.eq(offered.length), manager.eq(offered.manager), beats.eq(0)]
            m.d.sync += [ahead.eq(self.unsent - self.end), place.eq(state["lengths.produce"]), stage.eq(0)]
        right = (self.ports[0].wlast == (beats == length)) & (beats <= length)
        ports = Cat(~v | (manager == number) for number, v in enumerate(self.at("wvalid"))).all()
        self.check("last", ~mine | ~self.valid | (right & ports))
        self._stage(followed, stage, place, (ahead, beats, length, manager))
        self.cover("long", mine & self.end & (length == 2))
        self.cover("behind_another", followed & (ahead == 1) & self.end)

    def _stage(self, followed: Signal, stage: Signal, place: Signal, numbers: tuple[Signal, ...]) -> None:
        """Where the followed burst is: its length in the queue, its beats being loaded, or its last beat on W."""
        m, state = self.m, self.inside
        ahead, beats, length, manager = numbers
        loads_last = state["load"] & (state["left"] == 0) & state["active"]
        next_length = (~state["active"] | loads_last) & (state["lengths.level"] != 0)
        with m.If(followed & (stage == 0) & next_length & (state["lengths.consume"] == place)):
            m.d.sync += stage.eq(1)
        with m.If((stage == 1) & loads_last & followed):
            m.d.sync += stage.eq(2)
        depth = self._arch.outstanding
        distance = self.named("distance", (place - state["lengths.consume"]) % depth)
        rows = Array(state[f"lengths.storage[{row}]"] for row in range(depth))
        queued = (distance < state["lengths.level"]) & (ahead == distance + state["active"] + self.held_last)
        queued = queued & (rows[place] == length) & (beats == 0)
        on_w = self.valid & ~self.held_last
        loading = state["active"] & (ahead == self.held_last) & ((ahead == 0) | (beats == 0))
        loading = loading & (state["left"] + beats + on_w == length)
        sending = self.held_last & (ahead == 0) & (beats == length)
        where = Mux(stage == 0, queued, Mux(stage == 1, loading, (stage == 2) & sending))
        self.invariant("stage", ~followed | (where & (manager == self.manager)))
