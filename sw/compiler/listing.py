"""A program as text: one line per instruction with its layer, operation, tokens and the fields that matter."""

from __future__ import annotations

from collections.abc import Callable

from hw.spec.deform.addresses import OFFSET_MODES
from hw.spec.deform.instructions import DW_SAMPLE, MERGE_ADD, MERGE_NONE, ROUNDING_CODES, SPACES
from hw.spec.isa import HEADER, Instruction
from hw.spec.program import Program
from hw.spec.training_program import PROGRAMS, TrainingProgram

_COMMON = {field.name for field in HEADER}
MODES = ("conv", "deform", "max", "sum", "sample")
ROUNDINGS = {code: name for name, code in ROUNDING_CODES.items()}


def listing(program: Program) -> str:
    """Header lines for regions and tensors, then a line per instruction."""
    lines = [f"; {program.arch.core} core, arch_id {program.arch.arch_id:016x}, {program.instruction_count} instructions"]
    lines += [f"; region {i} {region.name}: {region.size} bytes" for i, region in enumerate(program.regions)]
    for kind, layouts in (("input", program.inputs), ("output", program.outputs)):
        lines += [f"; {kind} {t.name}: {t.shape} {t.fmt} at {t.region}:{t.offset // 16}, {t.words} words" for t in layouts]
    width = max(map(len, program.layers), default=0)
    bodies = _BODIES.get(program.arch.core, {})
    for index, instruction in enumerate(program.instructions()):
        head = f"{index:5d}  {program.layers[index]:{width}s}  {instruction.name:5s}"
        lines.append(f"{head}  {bodies.get(instruction.name, _fields)(instruction)}{_tokens(instruction)}")
    return "\n".join(lines) + "\n"


def training_listing(program: TrainingProgram) -> str:
    """The programs of a training step, one after the other, and where its arrays lie."""
    lines = [f"; {place.name}: {place.kind} {place.shape} at {place.region}:{place.offset}" for place in program.places.values()]
    parts = (f"\n; program {name}\n{listing(program.program(name))}" for name in PROGRAMS)
    return "\n".join(lines) + "\n" + "".join(parts)


def _fields(i: Instruction) -> str:
    """Every field of an operation that is not 0, by its name in the instruction table."""
    return " ".join(f"{name}={value}" for name, value in i.values.items() if value and name not in _COMMON)


def _tokens(i: Instruction) -> str:
    masks = ((name, i[name]) for name in ("wait", "push"))
    return "".join(f"  {name} {','.join(str(t) for t in range(16) if mask >> t & 1)}" for name, mask in masks if mask)


def _memory(i: Instruction) -> str:
    return f"{i['region']}:{i['offset']}{_loops(i, '')}"


def _chip(i: Instruction, space: str) -> str:
    return f"{space}:{i['chip_addr']}{_loops(i, 'chip_')}"


def _loops(i: Instruction, of: str) -> str:
    """Planes, runs and words, the former with their strides, such as [3x+64 8x+16 2]."""
    text = f"{i['n0']}"
    for count, stride in (("n1", "stride1"), ("n2", "stride2")):
        if i[count] > 1:
            text = f"{i[count]}x+{i[of + stride]} {text}"
    return f"[{text}]"


def _load(i: Instruction) -> str:
    crc = f"  crc {i['crc']:08x}" if i["check_crc"] else ""
    return f"{_chip(i, SPACES[i['space']])} <- {_memory(i)}{crc}"


def _store(i: Instruction) -> str:
    return f"{_memory(i)} <- {_chip(i, 'fm')}"


def _requantise(i: Instruction) -> str:
    table = f" table {i['table'] - 1}" if i["table"] else ""
    return f"{'u8' if i['in_unsigned'] else 's8'} {ROUNDINGS[i['rounding']]} clip {i['clip_lo']}..{i['clip_hi']}{table}"


def _merge(i: Instruction) -> str:
    """What a result is merged with, such as zip @96+2 or add u8 @96+2 clip 0..255."""
    if i["merge"] == MERGE_NONE:
        return ""
    place = f"@{i['merge_addr']}+{i['merge_pitch']}"
    if i["merge"] != MERGE_ADD:
        return f" zip {place}"
    return f" add {'u8' if i['merge_unsigned'] else 's8'} {place} clip {i['merge_lo']}..{i['merge_hi']}"


def _window(i: Instruction) -> str:
    return f"k{i['kernel_h']}x{i['kernel_w']} s{i['stride']}"


def _pw(i: Instruction) -> str:
    source = f"{i['in_rows']}x{i['in_cols']}x{i['in_words']}w@{i['in_addr']}"
    target = f"{i['out_rows']}x{i['out_cols']}x{i['out_words']}w@{i['out_addr']}+{i['out_pitch']}"
    bits = "8-bit" if i["wide_weights"] else "4-bit"
    pad = f"p{i['pad_top']},{i['pad_left']}"
    return f"{target}{_merge(i)} <- {source} {_window(i)} {pad} {bits} wgt:{i['weight_addr']} par:{i['param_addr']} {_requantise(i)}"


def _dw(i: Instruction) -> str:
    source = f"{i['in_rows']}x{i['in_cols']}x{i['words']}w@row{i['row0']}:bank{i['bank0']}:{i['row0_addr']} col{i['col0']}"
    target = f"{i['out_rows']}x{i['out_cols']}x{i['words']}w@{i['out_addr']}+{i['out_pitch']}"
    offsets = f" s@{i['offset_addr']}+{i['offset_pitch']}" if i["mode"] in OFFSET_MODES else ""
    offsets += f":{i['offset_pair']}f{i['offset_frac']}" if i["mode"] == DW_SAMPLE else ""
    return f"{target} <- {MODES[i['mode']]} {source}{offsets} {_window(i)} par:{i['weight_addr']},{i['param_addr']} {_requantise(i)}"


_BODIES: dict[str, dict[str, Callable[[Instruction], str]]] = {"deform": {"LOAD": _load, "STORE": _store, "PW": _pw, "DW": _dw}}
"""What is written of an instruction, by core and operation; `_fields` of any other."""
