"""Records: what cannot be recorded, what a changed file says, and which hash a refusal names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hw.spec.deform import DeformArch
from hw.spec.isa import seal
from hw.spec.program import Program, Region, build_image
from hw.spec.records import (
    DESIGN_CHECKS,
    PROGRAM_LINKS,
    TRAINING_LINKS,
    Check,
    DesignRecord,
    GateRefusal,
    ProgramRecord,
    RecordError,
    TrainingRecord,
    definition_sha256,
    parameters_sha256,
    require_arch,
    require_build,
    require_design,
    require_program,
)
from hw.spec.training_program import PROGRAMS

ARCH = DeformArch(rows=4)
VERILOG, OTHER = "a1" * 32, "b2" * 32


def check(name: str, **changes: Any) -> Check:
    return Check(**{"name": name, "compared": {"bytes": 7}, "mismatches": 0, "seeds": (1, 2), "seconds": 0.25, **changes})


def design(**changes: Any) -> DesignRecord:
    fields = {
        "verilog_sha256": VERILOG,
        "arch_id": ARCH.arch_id,
        "definition_sha256": definition_sha256(),
        "checks": tuple(map(check, DESIGN_CHECKS)),
        "coverage": {"LOAD": 3, "ending NONE": 1},
        "tools": {"numpy": "1.21.0"},
    }
    return DesignRecord(**{**fields, **changes})


def program() -> Program:
    image = build_image(ARCH, [ARCH.instructions.encode("LOAD"), ARCH.instructions.encode("STORE", region=1)])
    regions = (
        Region(name="weights", kind="parameters", size=32, data=bytes(range(32))),
        Region(name="out", kind="output", size=64),
    )
    return Program(arch=ARCH, image=image, regions=regions, inputs=(), outputs=())


def proven(of: Program | None = None, **changes: Any) -> ProgramRecord:
    of = of or program()
    fields = {
        "program_sha256": of.digest,
        "parameters_sha256": parameters_sha256(of),
        "verilog_sha256": VERILOG,
        "arch_id": ARCH.arch_id,
        "graph_sha256": OTHER,
        "images": 4,
        "links": tuple(map(check, PROGRAM_LINKS)),
        "tools": {},
    }
    return ProgramRecord(**{**fields, **changes})


def trained(**changes: Any) -> TrainingRecord:
    fields = {
        "program_sha256": OTHER,
        "verilog_sha256": VERILOG,
        "arch_id": ARCH.arch_id,
        "graph_sha256": OTHER,
        "steps": 3,
        "programs": dict.fromkeys(PROGRAMS, 3),
        "links": tuple(map(check, TRAINING_LINKS)),
        "tools": {},
    }
    return TrainingRecord(**{**fields, **changes})


RECORDS = {"design": design(), "program": proven(), "training": trained()}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_file_gives_the_record_back(kind: str, tmp_path: Path) -> None:
    record = RECORDS[kind]
    record.save(tmp_path / "record.json")
    loaded = type(record).load(tmp_path / "record.json")
    assert loaded == record and loaded.digest == record.digest and loaded.to_bytes() == record.to_bytes()
    assert json.loads(record.to_bytes())["digest"] == record.digest
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"]


@pytest.mark.parametrize("kind", RECORDS)
def test_every_change_of_one_byte_is_refused(kind: str) -> None:
    record, refused = RECORDS[kind], 0
    data = record.to_bytes()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 1 + position % 255
        with pytest.raises(RecordError, match="run 'bitloom"):
            type(record).from_bytes(bytes(changed), "r.json")
        refused += 1
    assert refused == len(data) > 600


@pytest.mark.parametrize("kind", RECORDS)
def test_a_changed_number_is_named_with_both_digests(kind: str) -> None:
    record = RECORDS[kind]
    data = record.to_bytes().replace(b'"bytes": 7', b'"bytes": 8', 1)
    with pytest.raises(RecordError, match=rf"r\.json was changed .*SHA-256 of the record: it says {record.digest[:12]}"):
        type(record).from_bytes(data, "r.json")


def test_a_record_that_is_laid_out_otherwise_is_refused() -> None:
    compact = json.dumps(json.loads(design().to_bytes())).encode()
    with pytest.raises(RecordError, match="not its canonical form"):
        DesignRecord.from_bytes(compact)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="must be a design record, not 'program'"):
        DesignRecord.from_bytes(proven().to_bytes())
    for data in (b"", b"{}", b"[1]", b"\xff\xfe", b'{"digest": 1}'):
        with pytest.raises(RecordError, match=r"is not a record, or is damaged|was changed"):
            DesignRecord.from_bytes(data)
    with pytest.raises(GateRefusal, match=r"there is no program record .*none\.json: run 'bitloom verify"):
        ProgramRecord.load(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mismatches": 1}, "'timing' must have 0 mismatches to be recorded, not 1"),
        ({"compared": {}}, "'timing' must have compared something"),
        ({"compared": {"bytes": 5, "programs": 0}}, "'timing' must have compared something of each kind"),
    ],
)
def test_a_check_that_did_not_pass_cannot_be_recorded(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        check("timing", **changes)


@pytest.mark.parametrize("name", DESIGN_CHECKS)
def test_a_design_record_needs_every_check(name: str) -> None:
    checks = tuple(check(each) for each in DESIGN_CHECKS if each != name)
    with pytest.raises(RecordError, match=f"there is no .*{name}"):
        design(checks=checks)


@pytest.mark.parametrize("name", PROGRAM_LINKS)
def test_a_program_record_needs_every_link(name: str) -> None:
    with pytest.raises(RecordError, match=f"there is no .*{name}"):
        proven(links=tuple(check(each) for each in PROGRAM_LINKS if each != name))


@pytest.mark.parametrize("name", TRAINING_LINKS)
def test_a_training_record_needs_every_link(name: str) -> None:
    with pytest.raises(RecordError, match=f"there is no .*{name}"):
        trained(links=tuple(check(each) for each in TRAINING_LINKS if each != name))


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_training_record_needs_every_program(name: str) -> None:
    with pytest.raises(RecordError, match=rf"of every program of a step; \['{name}'\] did not run"):
        trained(programs={**dict.fromkeys(PROGRAMS, 3), name: 0})


def test_incomplete_records_are_refused() -> None:
    with pytest.raises(RecordError, match=r"no empty coverage bin, not \['STORE'\]"):
        design(coverage={"LOAD": 1, "STORE": 0})
    with pytest.raises(RecordError, match="must have coverage bins"):
        design(coverage={})
    with pytest.raises(RecordError, match="each check once"):
        design(checks=tuple(map(check, (*DESIGN_CHECKS, "timing"))))
    with pytest.raises(RecordError, match="verilog_sha256 must be 64 hexadecimal digits"):
        design(verilog_sha256="12")
    with pytest.raises(RecordError, match="at least 1 image"):
        proven(images=0)
    with pytest.raises(RecordError, match="at least 1 step"):
        trained(steps=0)


def test_the_build_id_is_the_start_of_the_digest() -> None:
    record = design()
    assert f"{record.build_id:016x}" == record.digest[:16]
    assert design(tools={"numpy": "1.22.0"}).build_id != record.build_id
    require_build(record, record.build_id)
    with pytest.raises(
        GateRefusal, match=rf"build_id: the record says {record.digest[:16]}, here it is 0{{15}}1\): run 'bitloom build'"
    ):
        require_build(record, 1)


def differing(error: pytest.ExceptionInfo[GateRefusal]) -> list[str]:
    return [difference.name for difference in error.value.differences]


def test_what_is_unchanged_is_accepted() -> None:
    require_design(design(), VERILOG, ARCH)
    require_program(proven(), program(), design())


def test_another_design_is_refused_by_the_hash_that_differs() -> None:
    with pytest.raises(
        GateRefusal, match=r"SHA-256 of the Verilog: the record says a1a1a1a1a1a1\.\.\., here it is b2b2"
    ) as one:
        require_design(design(), OTHER, ARCH)
    assert differing(one) == ["SHA-256 of the Verilog"] and "run 'bitloom prove" in str(one.value)
    other = replace(ARCH, rows=5)
    with pytest.raises(
        GateRefusal, match=f"arch_id: the record says {ARCH.arch_id:016x}, here it is {other.arch_id:016x}"
    ) as two:
        require_design(design(), VERILOG, other)
    assert differing(two) == ["arch_id"]


def test_another_program_is_refused_by_the_hash_that_differs() -> None:
    good = program()
    word = bytearray(good.image[-64:-4])
    word[8] ^= 2
    changed = replace(good, image=good.image[:-64] + seal(bytes(word)))
    with pytest.raises(GateRefusal, match=f"SHA-256 of the program: the record says {good.digest[:12]}") as error:
        require_program(proven(good), changed, design())
    assert differing(error) == ["SHA-256 of the program"] and changed.digest[:12] in str(error.value)


def test_other_weights_are_named_as_such() -> None:
    good = program()
    data = bytearray(good.regions[0].data)
    data[17] ^= 1
    changed = replace(good, regions=(replace(good.regions[0], data=bytes(data)), *good.regions[1:]))
    with pytest.raises(GateRefusal, match="weights") as error:
        require_program(proven(good), changed, design())
    assert differing(error) == ["SHA-256 of the weights (parameter regions)", "SHA-256 of the program"]


def test_a_program_that_was_proven_on_another_design_is_refused() -> None:
    with pytest.raises(GateRefusal) as error:
        require_program(proven(verilog_sha256=OTHER), program(), design())
    assert differing(error) == ["SHA-256 of the design's Verilog"]


# the words of a refusal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[]", "it holds no table of entries"),
        (b"{}", "it has no digest"),
        (b"[" * 100_000, "it is no JSON text, or was cut off"),
    ],
)
def test_what_is_no_record_is_told_in_words(data: bytes, words: str) -> None:
    with pytest.raises(RecordError) as error:
        DesignRecord.from_bytes(data, "r.json")
    assert str(error.value) == f"r.json is not a record, or is damaged ({words}): run '{DesignRecord.command}'"


@pytest.mark.parametrize("entry", [3, [3], ["x"], [{}], None, {"a": 1}])
def test_an_entry_of_a_wrong_form_is_told_in_words(entry: Any) -> None:
    """With a digest that fits, which no run of ours writes."""
    content = {**json.loads(design().to_bytes()), "checks": entry}
    del content["digest"]
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    with pytest.raises(RecordError, match=r"r\.json does not hold a valid record \((an entry of it has a wrong form|a design rec.*)\)"):
        DesignRecord.from_bytes(json.dumps({**content, "digest": digest}).encode(), "r.json")


def test_a_caller_may_know_a_better_way_out(tmp_path: Path) -> None:
    with pytest.raises(GateRefusal) as missing:
        DesignRecord.load(tmp_path / "none.json")
    with pytest.raises(RecordError) as damaged:
        DesignRecord.from_bytes(b"", "r.json")
    for error, what in ((missing.value, f"there is no design record {tmp_path}/none.json"), (damaged.value, damaged.value.what)):
        assert str(error) == f"{what}: run '{DesignRecord.command}'"
        error.advise("name it")
        assert str(error) == f"{what}: name it"


def test_another_architecture_is_known_without_the_verilog() -> None:
    require_arch(design(), ARCH)
    other = replace(ARCH, rows=5)
    with pytest.raises(GateRefusal, match=f"of another architecture .arch_id: the record says {ARCH.arch_id:016x}") as error:
        require_arch(design(), other)
    assert differing(error) == ["arch_id"]
