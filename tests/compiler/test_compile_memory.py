"""Memory plan and its independent checker: planted faults are found, scratch is reused, transfers are long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import sw.compiler.plan as plan_module
from hw.spec.deform import DeformArch
from hw.spec.deform.instructions import MERGE_ADD, SPACES
from hw.spec.isa import Instruction
from hw.spec.ops import Concat, Upsample2x
from hw.spec.program import Program, build_image
from sw.compiler import compile_graph, listing
from sw.compiler.chipcheck import prove_feature_memory
from sw.compiler.emit import Axis, loops, merge_axes
from sw.compiler.memcheck import MemoryFault, prove_memory, touched
from sw.compiler.plan import Life, pack
from sw.graph import IntegerGraph
from tests.compiler.graphs import Builder, compare

ARCH = DeformArch()


def chain() -> IntegerGraph:
    """c reads a and b's result late, so that a must stay while b is written."""
    build = Builder(0)
    build.input("x", (16, 4, 4))
    build.conv("a", "x", 16)
    build.conv("b", "a", 32)
    build.conv("c", "a", 16)
    build.conv("d", "b", 16)
    return build.graph("c", "d")


def altered(program: Program, index: int, change: Callable[[Instruction], dict[str, int]]) -> Program:
    """The program with other fields in one instruction."""
    codes = [(i.name, {k: v for k, v in i.values.items() if k not in ("opcode", "version")}) for i in program.instructions()]
    codes[index][1].update(change(program.instructions()[index]))
    return replace(program, image=build_image(program.arch, [program.arch.instructions.encode(n, **v) for n, v in codes]))


def transfers(program: Program, name: str, layer: str, region: int) -> int:
    """Index of a layer's first transfer with a region."""
    found = [
        index for index, i in enumerate(program.instructions())
        if i.name == name and program.layers[index] == layer and i["region"] == region
    ]
    return found[0]


@pytest.mark.parametrize(
    ("name", "layer", "region", "fields", "message"),
    [
        ("STORE", "b", 3, {"offset": 16}, r"LOAD of c\) reads word 32 of region 3, .* but holds b from instruction 9"),
        ("LOAD", "b", 3, {"offset": 31}, r"LOAD of b\) reads word 31 of region 3, .* but holds nothing"),
        ("LOAD", "d", 3, {"offset": 16}, r"LOAD of d\) reads word 32 of region 3, which must hold \['b'\], but holds a"),
        ("LOAD", "d", 0, {"offset": 900}, r"accesses word 931 of region 0, which has 120 words"),
        ("STORE", "d", 2, {"offset": 17}, r"STORE of d\) accesses word 32 of region 2, which has 32 words"),
        ("STORE", "d", 2, {"offset": 0}, r"host for output c reads word 0 of region 2, .* but holds d from instruction 19"),
        ("STORE", "c", 2, {"region": 3, "offset": 32}, r"host for output c reads word 0 of region 2, .* but holds nothing"),
        ("STORE", "a", 3, {"region": 1, "offset": 0}, r"STORE of a\) writes to region 1, which holds input"),
        ("LOAD", "a", 1, {"region": 7}, r"accesses word 15 of region 7, which has 0 words"),
    ],
)
def test_planted_faults_are_found(name: str, layer: str, region: int, fields: dict[str, int], message: str) -> None:
    graph = chain()
    program = compile_graph(graph, DeformArch(regions=8, region_manager=(0,) * 8))
    assert prove_memory(program, graph) > 100
    with pytest.raises(MemoryFault, match=message):
        prove_memory(altered(program, transfers(program, name, layer, region), lambda _: fields), graph)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"out_addr": 0}, "PW of b.* writes a feature word that it also reads"),
        ({"out_pitch": 0}, "PW of b.* or writes one twice"),
        ({"in_addr": 1000}, "PW of b.* reads feature word 1000, which nothing has written"),
    ],
)
def test_faults_in_feature_memory_are_found(fields: dict[str, int], message: str) -> None:
    program = compile_graph(chain(), ARCH)
    assert prove_feature_memory(program) > 100
    index = next(k for k, i in enumerate(program.instructions()) if i.name == "PW" and program.layers[k] == "b")
    base = program.instructions()[index]["in_addr"]
    planted = {"out_addr": base} if "out_addr" in fields else fields
    with pytest.raises(MemoryFault, match=message):
        prove_feature_memory(altered(program, index, lambda _: planted))


def test_a_plan_without_lifetimes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "pack", lambda tensors: {t.name: 0 for t in tensors})
    with pytest.raises(MemoryFault, match="but holds b"):
        compile_graph(chain(), ARCH)


def test_scratch_is_reused_in_a_long_chain() -> None:
    build = Builder(0)
    tensor = build.input("x", (16, 4, 4))
    for i in range(10):
        tensor = build.conv(f"c{i}", tensor, 16)
    program, _ = compare(build.graph(tensor), ARCH)
    assert program.regions[3].size == 2 * 16 * 16


def test_packed_tensors_never_overlap_while_in_use() -> None:
    rng, pairs = np.random.default_rng(0), 0
    for _ in range(20):
        lives = []
        for i in range(12):
            first = int(rng.integers(0, 20))
            lives.append(Life(name=f"t{i}", words=int(rng.integers(1, 50)), first=first, last=first + int(rng.integers(0, 6))))
        places = pack(lives)
        for i, a in enumerate(lives):
            for b in lives[:i]:
                together = a.first <= b.last and b.first <= a.last
                apart = places[a.name] >= places[b.name] + b.words or places[b.name] >= places[a.name] + a.words
                assert apart or not together
                pairs += together
        assert max(places[t.name] + t.words for t in lives) < sum(t.words for t in lives)
    assert pairs > 100


def words_in_order(axes: list[Axis]) -> list[tuple[int, int]]:
    """(memory, chip) of every word of nested loops."""
    found = [(0, 0)]
    for axis in axes:
        found = [(m + i * axis.memory, c + i * axis.chip) for m, c in found for i in range(axis.count)]
    return found


def test_merged_loops_move_the_same_words() -> None:
    rng, merged = np.random.default_rng(2), 0
    for _ in range(200):
        counts = [int(n) for n in rng.integers(1, 5, 3)]
        pitch = counts[2] + int(rng.integers(0, 2))
        row = counts[1] * pitch + int(rng.integers(0, 2)) * 3
        axes = [
            Axis(count=counts[0], memory=row, chip=counts[1] * counts[2]),
            Axis(count=counts[1], memory=pitch, chip=counts[2]),
            Axis(count=counts[2], memory=1, chip=1),
        ]
        fields = loops(axes)
        nested = [
            Axis(count=fields["n2"], memory=fields["stride2"], chip=fields["chip_stride2"]),
            Axis(count=fields["n1"], memory=fields["stride1"], chip=fields["chip_stride1"]),
            Axis(count=fields["n0"], memory=1, chip=1),
        ]
        assert words_in_order(nested) == words_in_order(axes)
        merged += len(merge_axes(axes)) == 1
    assert merged > 10


def test_runs_stay_within_their_fields() -> None:
    fields = loops([Axis(count=300, memory=300, chip=300), Axis(count=300, memory=1, chip=1)])
    assert (fields["n0"], fields["n1"], fields["n2"]) == (300, 300, 1)


def test_contiguous_tensors_move_in_one_run() -> None:
    graph = chain()
    loads = [i for i in compile_graph(graph, ARCH).instructions() if i.name == "LOAD"]
    assert len(loads) == 12
    assert all(i["n1"] == i["n2"] == 1 and len(touched(i)) == i["n0"] for i in loads)


def test_tokens_hand_over_from_engine_to_engine() -> None:
    """Each change of engine pushes one token and the next instruction takes it: none is left, none is outstanding twice."""
    program = compile_graph(chain(), ARCH)
    instructions = program.instructions()
    changes = 0
    for before, after in pairwise(instructions):
        changed = before.name != after.name
        assert (before["push"] != 0) == changed
        assert before["push"] == after["wait"]
        assert before["push"].bit_count() == changed
        changes += changed
    assert instructions[0]["wait"] == instructions[-1]["push"] == 0
    assert changes == 4 * 3 - 1


def test_parameters_are_loaded_with_their_checksum() -> None:
    for instruction in compile_graph(chain(), ARCH).instructions():
        if instruction.name == "LOAD":
            assert instruction["check_crc"] == (instruction["region"] == 0)


def test_the_listing_shows_every_instruction() -> None:
    build = Builder(0)
    build.input("x", (32, 4, 4))
    build.conv("c", "x", 16, kernel=(3, 3), padding=1, peak=127)
    build.conv("s", "c", 1)
    build.deform("d", "c", "s")
    program = compile_graph(build.graph("d"), ARCH)
    lines = listing(program).splitlines()
    body = [line for line in lines if not line.startswith(";")]
    assert len(body) == program.instruction_count == len(program.layers)
    assert body[3].split()[:3] == ["3", "c", "PW"]
    for text in ("k3x3 s1 p1,1 8-bit", "s8"):
        assert text in body[3]
    assert any("deform 4x4x1w@row0:bank0:0 col0 s@0+1" in line for line in body)
    assert sum("crc" in line for line in body) == 5
    assert "; region 3 scratch:" in listing(program)


def merged() -> IntegerGraph:
    """A concatenation in place, a doubled store, a table and a sum; two layers may stand for several nodes."""
    build = Builder(2)
    build.input("x", (16, 4, 4))
    build.conv("a", "x", 16)
    build.table("t", build.conv("b", "x", 16))
    build.sum("s", "a", "t")
    build.add("cat", Concat(), "a", "s")
    build.add("up", Upsample2x(), build.conv("c", "cat", 16))
    build.conv("d", "up", 16, kernel=(3, 3), padding=1)
    return build.graph("d", "t")


@pytest.mark.parametrize(
    ("name", "layer", "region", "fields", "message"),
    [
        ("STORE", "c", 3, {"stride1": 1}, r"STORE of c\) writes a word of region 3 that c has written already"),
        ("STORE", "s", 3, {"offset": 64}, r"LOAD of c\) reads word 65 of region 3, which must hold \['a', 's'\], but holds nothing"),
        ("STORE", "s", 3, {"n1": 15}, r"LOAD of c\) reads word 95 of region 3, .* but holds nothing"),
        ("LOAD", "s", 3, {"offset": 1}, r"LOAD of s\) reads word 1 of region 3, .* but holds nothing"),
    ],
)
def test_planted_faults_in_merged_layers_are_found(name: str, layer: str, region: int, fields: dict[str, int], message: str) -> None:
    graph = merged()
    program = compile_graph(graph, ARCH)
    assert prove_memory(program, graph) > 200
    with pytest.raises(MemoryFault, match=message):
        prove_memory(altered(program, transfers(program, name, layer, region), lambda _: fields), graph)


def test_instructions_of_no_node_are_found() -> None:
    graph = merged()
    program = compile_graph(graph, ARCH)
    strange = replace(program, layers=("nobody", *program.layers[1:]))
    with pytest.raises(MemoryFault, match="instructions of nobody, which is no node of the graph"):
        prove_memory(strange, graph)


def test_a_table_that_nothing_has_loaded_is_found() -> None:
    program = compile_graph(merged(), ARCH)
    used = next(k for k, i in enumerate(program.instructions()) if i.name == "PW" and i["table"])
    with pytest.raises(MemoryFault, match="uses table 1, which nothing has loaded whole"):
        prove_feature_memory(altered(program, used, lambda _: {"table": 2}))
    load = next(k for k, i in enumerate(program.instructions()) if i.name == "LOAD" and SPACES[i["space"]] == "tbl")
    with pytest.raises(MemoryFault, match="uses table 0, which nothing has loaded whole"):
        prove_feature_memory(altered(program, load, lambda _: {"n0": 15, "check_crc": 0}))


def test_the_sum_of_a_merge_is_proven_to_be_there() -> None:
    program = compile_graph(merged(), ARCH)
    index = next(k for k, i in enumerate(program.instructions()) if i.name == "PW" and i["merge"] == MERGE_ADD)
    fields = program.instructions()[index]
    for planted, message in (
        ({"merge_addr": 1000}, "reads feature word 1000, which nothing has written"),
        ({"out_addr": fields["merge_addr"]}, "writes a feature word that it also reads"),
    ):
        with pytest.raises(MemoryFault, match=message):
            prove_feature_memory(altered(program, index, lambda _, planted=planted: planted))


def test_the_listing_shows_merges_and_tables() -> None:
    lines = listing(compile_graph(merged(), ARCH)).splitlines()
    assert sum(" add s8 @" in line and "clip -128..127" in line for line in lines) == 1
    assert sum(line.endswith("table 0") or " table 0 " in line for line in lines) == 1
    assert sum("tbl:0[16] <- 0:" in line for line in lines) == 1
