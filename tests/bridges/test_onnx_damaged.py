"""Damaged models: an error in words or the numbers that qonnx computes from the same bytes; no crash, partial file or much memory."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest

from sw.bridges.errors import BridgeError
from sw.bridges.qonnx import from_qonnx, read_qonnx, same_graph
from sw.bridges.qonnx.values import QonnxImport
from sw.flow.bridges import import_onnx
from sw.graph import IntegerGraph
from tests.bridges.onnx_bombs import BOMBS
from tests.bridges.onnx_damages import CASES, base, data, rewired
from tests.bridges.onnx_networks import random_values, run_qonnx

MOST_MEMORY = 64 << 20
MOST_SECONDS = 20
"""Of one core, for one file; most take milliseconds."""

def outcome(damaged: bytes, folder: Path) -> str:
    """"refused", the "same" graph, or "equal" to qonnx' own execution; "unchecked" where qonnx cannot execute it. Fails otherwise.

    A refused file leaves nothing behind, and none takes longer than MOST_SECONDS.
    """
    path, out, start = folder / "m.onnx", folder / "out.graph", time.process_time()
    path.write_bytes(damaged)
    try:
        import_onnx(path, out)
    except BridgeError as error:
        assert 20 < len(str(error)) < 20_000 and [p.name for p in folder.iterdir()] == ["m.onnx"]
        return "refused"
    finally:
        assert time.process_time() - start < MOST_SECONDS
    found = read_qonnx(damaged)
    assert same_graph(found.graph, IntegerGraph.load(out))
    for made in (out, folder / "out.graph.json"):
        made.unlink()
    return "same" if same_graph(found.graph, base()) else _executed(damaged, found)


def _executed(damaged: bytes, found: QonnxImport) -> str:
    """The imported graph against qonnx' execution of the same bytes."""
    graph = found.graph
    values = {k: (v * float(found.scales[k])).astype(np.float32) for k, v in random_values(graph, 1).items()}
    try:
        theirs = run_qonnx(onnx.ModelProto.FromString(damaged), values)
    except Exception:  # what its executor raises is its own affair
        return "unchecked"
    codes = graph(found.input_codes(values))
    for name, each in zip(graph.outputs, theirs, strict=True):
        ours = (codes[name].reshape(each.shape) * float(found.scales[name])).astype(np.float32)
        assert np.array_equal(ours, each), f"{name} is neither refused nor equal"
    return "equal"


def counted(found: list[str]) -> dict[str, int]:
    return {kind: found.count(kind) for kind in ("refused", "same", "equal", "unchecked")}


def test_truncated_files_are_refused(tmp_path: Path) -> None:
    whole = data()
    places = sorted({0, 1, 2, len(whole) - 1, *np.random.default_rng(0).integers(0, len(whole), 90).tolist()})
    found = [outcome(whole[:place], tmp_path) for place in places]
    assert outcome(whole, tmp_path) == "same"
    assert set(found) == {"refused"} and len(found) > 80


def flipped(seed: int) -> bytes:
    """One to three bits turned over."""
    random, damaged = np.random.default_rng(seed), bytearray(data())
    for place in random.integers(0, len(damaged), random.integers(1, 4)).tolist():
        damaged[place] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def test_turned_bits_are_refused_or_computed_alike(tmp_path: Path) -> None:
    counts = counted([outcome(flipped(seed), tmp_path) for seed in range(120)])
    assert sum(counts.values()) == 120 and counts["refused"] > 20 and counts["same"] + counts["equal"] > 20
    assert counts["unchecked"] < 12, counts


@pytest.mark.slow
def test_many_turned_bits(tmp_path: Path) -> None:
    counts = counted([outcome(flipped(seed), tmp_path) for seed in range(1000, 3000)])
    assert counts["unchecked"] < 200 and counts["refused"] > 300, counts


@pytest.mark.parametrize("seeds", [range(100), pytest.param(range(1000, 2500), marks=pytest.mark.slow)], ids=["some", "many"])
def test_rewired_models_are_refused_or_computed_alike(seeds: range, tmp_path: Path) -> None:
    """Models that parse, with one to three of their inputs, numbers, attributes or nodes exchanged."""
    counts = counted([outcome(rewired(seed), tmp_path) for seed in seeds])
    assert sum(counts.values()) == len(seeds) and counts["refused"] > len(seeds) // 4, counts
    assert counts["same"] + counts["equal"] > len(seeds) // 10 and counts["unchecked"] < len(seeds) // 5, counts


# -- damage with a meaning ----------------------------------------------------------------------------------------------


COMPUTED = {"integer weights"}
"""Changes that leave a model, if another one."""


def test_there_are_many_cases() -> None:
    assert len(CASES) >= 110 and len(BOMBS) >= 7 and not set(CASES) & set(BOMBS)


@pytest.mark.parametrize("name", [*CASES, *BOMBS])
def test_damage_is_refused_without_a_file_or_much_memory(name: str, tmp_path: Path) -> None:
    model, path, out = onnx.ModelProto.FromString(data()), tmp_path / "m.onnx", tmp_path / "out.graph"
    (CASES.get(name) or BOMBS[name])(model)
    path.write_bytes(model.SerializeToString())
    start = time.process_time()
    tracemalloc.start()
    try:
        if name in COMPUTED:
            assert import_onnx(path, out)["ok"]
        else:
            with pytest.raises(BridgeError) as caught:
                import_onnx(path, out)
            assert len(str(caught.value)) < 60_000
            assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (MOST_MEMORY if name in CASES else 6 * MOST_MEMORY), peak
    assert time.process_time() - start < MOST_SECONDS


@pytest.mark.parametrize(("name", "words"), [
    ("external data", "keeps its data in another file"), ("dims without data", "has data for 72 elements"),
    ("cycle", "before anything writes it"), ("reversed nodes", "before anything writes it"), ("huge image", "beyond 16777216 elements"),
])  # fmt: skip
def test_guards_speak_before_anything_behind_them_does(name: str, words: str) -> None:
    """What lies behind would refuse these too, but later, or in words that do not help."""
    model = onnx.ModelProto.FromString(data())
    CASES[name](model)
    with pytest.raises(BridgeError, match=words):
        read_qonnx(model)


def test_other_files_are_refused(tmp_path: Path) -> None:
    graph = tmp_path / "g.graph"
    base().save(graph)
    contents = [graph.read_bytes(), b"", b"\0" * 1000, b"\xff" * 1000, b"not a model at all", np.random.default_rng(0).bytes(5000)]
    for index, content in enumerate(contents):
        path = tmp_path / f"{index}.onnx"
        path.write_bytes(content)
        with pytest.raises(BridgeError):
            import_onnx(path, tmp_path / "out.graph")
        with pytest.raises(BridgeError):
            from_qonnx(content)
    for value in (None, 3, [b"x"]):
        with pytest.raises(BridgeError, match="path, bytes or a ModelProto"):
            from_qonnx(value)
    assert not (tmp_path / "out.graph").exists()


def test_files_beyond_the_limit_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate((1 << 28) + 1)
    with pytest.raises(BridgeError, match="at most 268435456 bytes"):
        from_qonnx(path)
