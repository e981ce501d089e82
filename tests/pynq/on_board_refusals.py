"""Scenarios of what is refused when a device is opened: files, overlays, cores and memory that do not fit."""

from __future__ import annotations

import dataclasses
from unittest import mock

from hw.sim.pynq.bitstream import bit_file, payload, write_bitstream
from hw.sim.pynq.registers import Held
from sw.runtime.pynq import open_pynq
from tests.pynq.case import Case
from tests.pynq.on_board import MEMORY, Result, bitstream, board, run, scenario, words


@scenario
def refused_files(case: Case) -> Result:
    """By what is wrong, the message. No memory may be left allocated."""
    good = bitstream(case)
    text = good.with_suffix(".hwh").read_text()
    alone = case.folder / "alone.bit"
    alone.write_bytes(good.read_bytes())
    garbage = write_bitstream(case.folder / "garbage.bit", text, verilog_sha256="00" * 32)
    garbage.write_bytes(b"no bitstream at all, and longer than a header")
    part = write_bitstream(
        case.folder / "part.bit", text, verilog_sha256=case.build.verilog_sha256, part="xczu7ev-ffvc1156-2-e"
    )
    other = write_bitstream(case.folder / "other_core.bit", text, verilog_sha256="ab" * 32)
    short = case.folder / "short.bit"
    short.write_bytes(good.read_bytes()[:-4])
    short.with_suffix(".hwh").write_text(text)
    broken = case.folder / "broken.bit"
    broken.write_bytes(bit_file(payload(case.build.verilog_sha256, "<EDK")))
    broken.with_suffix(".hwh").write_text("<EDK")
    paths = {"missing": case.folder / "missing.bit", "without_hwh": alone, "garbage": garbage, "wrong_part": part,
             "other_core": other, "short": short, "broken_hwh": broken}  # fmt: skip
    with board(case) as simulated:
        said = {name: words(case, lambda path=path: open_pynq(path, memory_bytes=MEMORY)) for name, path in paths.items()}
        return {"said": said, "spans": len(simulated.copies.spans), "downloads": simulated.downloads}


@scenario
def refused_cores(case: Case) -> Result:
    """The core is not there, is none of ours, has no interrupt, or is of another architecture than the program."""
    other = dataclasses.replace(case.program, arch=dataclasses.replace(case.program.arch, rows=3))
    said: dict[str, str] = {}
    with board(case) as simulated:
        said["name"] = words(case, lambda: open_pynq(bitstream(case), core="core_1", memory_bytes=MEMORY))
        said["processor"] = words(case, lambda: open_pynq(bitstream(case), core="ps", memory_bytes=MEMORY))
        said["controller"] = words(case, lambda: open_pynq(bitstream(case), core="interrupts", memory_bytes=MEMORY, poll=True))
        with mock.patch.object(simulated.clocked, "read", Held().read):
            said["nothing"] = words(case, lambda: open_pynq(bitstream(case), memory_bytes=MEMORY, poll=True))
        straight = bitstream(case, "straight", "straight.hwh")
        said["no_interrupt"] = words(case, lambda: open_pynq(straight, memory_bytes=MEMORY))
        with open_pynq(straight, memory_bytes=MEMORY, poll=True) as device:
            polled = run(case, device)
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            said["other_arch"] = words(case, lambda: device.run(other, case.inputs))
        return {"said": said, "polled": polled, "spans": len(simulated.copies.spans)}


@scenario
def refused_memory(case: Case) -> Result:
    with board(case, memory_bytes=1 << 20) as simulated:
        said = {
            str(count): words(case, lambda count=count: open_pynq(bitstream(case), memory_bytes=count))
            for count in (0, 100, 1 << 21)
        }
        with open_pynq(bitstream(case), memory_bytes=4096) as device:
            said["program"] = words(case, lambda: device.run(case.program, case.inputs))
            said["outside"] = words(case, lambda: device.read_memory(device.memory_base + 4090, 7))
        with mock.patch.object(simulated.copies, "base", simulated.copies.base + 64):
            said["unaligned"] = words(case, lambda: open_pynq(bitstream(case), memory_bytes=4096))
        with mock.patch("pynq.Interrupt", side_effect=ValueError("no UIO device")):
            said["uio"] = words(case, lambda: open_pynq(bitstream(case), memory_bytes=4096))
        return {"said": said, "spans": len(simulated.copies.spans)}


@scenario
def opened_by_kind(case: Case) -> Result:
    """Through the gate, as every user opens it: nothing without records, a warning without proof, only the recorded core with it."""
    from hw.spec.records import DesignRecord, GateRefusal, ProgramRecord
    from sw.runtime import Proof, open_device

    path = bitstream(case)
    proof = Proof(
        design=DesignRecord.load(case.folder / "design.json"), program=ProgramRecord.load(case.folder / "program.json")
    )
    said = {"without": words(case, lambda: open_device("pynq", bitstream=path))}
    with board(case) as simulated:
        try:
            open_device("pynq", bitstream=path, memory_bytes=MEMORY, proof=proof)
        except GateRefusal as refusal:  # as long as it is looked at, nothing is given back by itself
            said["another"], spans = f"GateRefusal: {refusal}", len(simulated.copies.spans)
        with open_device("pynq", bitstream=path, memory_bytes=MEMORY, without_proof=True) as device:
            unproven = run(case, device)
    with board(case, build_id=proof.design.build_id):
        with open_device("pynq", bitstream=path, memory_bytes=MEMORY, proof=proof) as device:
            proven = run(case, device)
            other = dataclasses.replace(case.program, layers=("other",) * len(case.program.layers))
            said["other_program"] = words(case, lambda: device.run(other, case.inputs))
    return {"said": said, "spans": spans, "unproven": unproven, "proven": proven}


@scenario
def one_user(case: Case) -> Result:
    """A second device on the same board; the first goes on, and its end, good or bad, lets the next one in."""
    with board(case) as simulated:
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            said = words(case, lambda: open_pynq(bitstream(case), memory_bytes=MEMORY))
            downloads, found = simulated.downloads, run(case, device)
        missing = words(case, lambda: open_pynq(bitstream(case), core="none", memory_bytes=MEMORY))
        with open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            return found | {"said": said, "missing": missing, "downloads": downloads, "again": run(case, device)}
