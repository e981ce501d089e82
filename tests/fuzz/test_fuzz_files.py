"""Damaged files end in the error of their loader, in words, or load and save again as the same thing."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from hw.spec.arch import Arch
from hw.spec.program import Program, ProgramError
from sw.graph import MAX_GRAPH_BYTES, GraphError, IntegerGraph
from sw.quant.recipe import Recipe, RecipeError
from tests.fuzz.file_campaign import FileCampaign, FileReport, formats, small_graph
from tests.fuzz.file_damage import saved


def _check(report: FileReport, count: int) -> None:
    assert not report.failures, report.failures[:5]
    assert sum(report.files.values()) == count == sum(report.refused.values()) + sum(report.accepted.values())
    assert report.unexercised() == [] and all(report.refused[kind] > count // 8 for kind in formats())
    assert all(report.accepted_different[kind] for kind in ("program", "recipe", "architecture"))
    assert report.slowest_seconds < 20 and report.grown_megabytes < 400


@pytest.mark.parametrize("seed", [1, 2])
def test_damaged_files_are_refused_or_save_again_as_they_are(seed: int) -> None:
    _check(FileCampaign(seed).run(1200), 1200)


@pytest.mark.slow
def test_many_damaged_files() -> None:
    _check(FileCampaign(100).run(20_000), 20_000)


def test_a_loader_that_raises_something_else_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sw.graph._UNUSABLE", (zipfile.BadZipFile,))
    failures = FileCampaign(1).run(400).failures
    assert any("raised KeyError" in failure or "raised TypeError" in failure for failure in failures)


def _repacked(**members: bytes) -> bytes:
    """The small graph's file with members replaced or added; None removes one."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(small_graph().to_bytes())) as old, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as new:
        for name in [*old.namelist(), *(m for m in members if m not in old.namelist())]:
            new.writestr(name, members.get(name, b"") or old.read(name))
    return stream.getvalue()


def _manifest(**changes: object) -> bytes:
    with zipfile.ZipFile(io.BytesIO(small_graph().to_bytes())) as archive:
        return json.dumps(json.loads(archive.read("manifest.json")) | changes).encode()


HUGE_HEADER = saved(np.zeros(4, np.int64)).replace(b"(4,), }" + b" " * 9, b"(99999999999,), }", 1)

BAD_GRAPHS = {
    "a bomb": ({"0.weight.npy": bytes(MAX_GRAPH_BYTES)}, "at most 268435456 bytes"),
    "a header that promises too much": ({"0.weight.npy": HUGE_HEADER}, "must hold .* values"),
    "floats": ({"0.weight.npy": saved(np.zeros((16, 3, 3, 3)))}, "must be integers"),
    "pickles": ({"0.weight.npy": saved(np.array([{}], object))}, "must be integers"),
    "64 unsigned bits": ({"0.weight.npy": saved(np.full((16, 3, 3, 3), 2**64 - 1, np.uint64))}, "must be integers"),
    "an array that nothing uses": ({"more.npy": saved(np.zeros(3, np.int64))}, "no node uses"),
    "another file": ({"readme.txt": b"text"}, "neither manifest.json nor an array"),
    "a key that nothing reads": ({"manifest.json": _manifest(comment="x")}, "does not write"),
    "a number as a name": ({"manifest.json": _manifest(inputs=[1])}, "must be a list of names"),
    "a list": ({"manifest.json": b"[1]"}, "graph version"),
    "nested without end": ({"manifest.json": b"[" * 200_000}, "recursion"),
    "a key twice": ({"manifest.json": b'{"a": 1, "a": 2}'}, "key twice"),
}


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_graph_files_are_refused_in_words(name: str) -> None:
    members, words = BAD_GRAPHS[name]
    with pytest.raises(GraphError, match=words):
        IntegerGraph.from_bytes(_repacked(**members))


def test_a_graph_that_could_not_be_loaded_is_not_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sw.graph.MAX_GRAPH_BYTES", 1000)
    with pytest.raises(GraphError, match="at most 1000 bytes"):
        small_graph().to_bytes()


def test_a_program_is_only_read_from_the_bytes_that_it_writes() -> None:
    from tests.fuzz.file_damage import _sealed

    data = formats()["program"].good
    start = 16
    end = start + int.from_bytes(data[8:16], "little")
    text = json.dumps(json.loads(data[start:end])).encode()
    with pytest.raises(ProgramError, match="not written as this version writes it"):
        Program.from_bytes(_sealed(data[:8] + len(text).to_bytes(8, "little") + text + data[end:-4]))
    assert Program.from_bytes(data).to_bytes() == data


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "must be a table"),
        ({"core": "deform", "rows": "4"}, "rows must be of type int"),
        ({"core": "deform", "rows": True}, "rows must be of type int"),
        ({"core": "deform", "region_manager": None}, "region_manager must be of type tuple"),
        ({"core": "deform", "region_manager": [0, 0, 0, 0.0]}, "one manager below 1"),
        ({"core": "deform", 5: 1, "x": 2}, "no parameter"),
    ],
)
def test_architectures_of_wrong_types_are_refused(data: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Arch.from_dict(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe", "utf-8"),
        (b"a=" + b"[" * 9999, "recursion"),
        (b"a=" + b"9" * 5000, "4300 digits"),
        (b"exclude = 5", "list of name"),
    ],
)
def test_recipes_are_refused_in_words(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "recipe.toml").write_bytes(data)
    with pytest.raises(RecipeError, match=words):
        Recipe.from_toml(tmp_path / "recipe.toml")
