"""Training graphs survive their files bit for bit; damaged, foreign and oversized files are refused in words."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sw.training_graph import TrainingGraph, TrainingGraphError, TrainingState
from tests.fuzz.file_damage import Chance, damaged_graph
from tests.sat.small_graphs import bias_state, random_batch, residual_network


def small() -> TrainingGraph:
    """Every kind of node and part, with -0, subnormals and extremes among the values."""
    graph = residual_network((2, 4), size=4, width=4)
    stem = graph.state.weights["stem"]
    stem.velocity.reshape(-1)[:4] = np.array([-0.0, 1e-45, -3.4e38, 1.1754942e-38], np.float32)
    return graph


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(contents: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def changed(**changes: Any) -> bytes:
    """The small graph's file with other members; a callable changes the manifest in place."""
    contents = members(small().to_bytes())
    for name, change in changes.items():
        if callable(change):
            manifest = json.loads(contents["manifest.json"])
            change(manifest)
            contents["manifest.json"] = json.dumps(manifest).encode()
        else:
            contents[name] = change
    return zipped({name: data for name, data in contents.items() if data is not None})


def test_a_graph_survives_its_file(tmp_path: Path) -> None:
    graph = small()
    graph.save(tmp_path / "net.training")
    loaded = TrainingGraph.load(tmp_path / "net.training")
    assert loaded.to_bytes() == graph.to_bytes() == (tmp_path / "net.training").read_bytes() == small().to_bytes()
    assert (loaded.batch, loaded.shape, loaded.nodes, loaded.output) == (graph.batch, graph.shape, graph.nodes, graph.output)
    before, after, compared = graph.state.arrays(), loaded.state.arrays(), 0
    assert set(before) == set(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name].view(np.uint32), array.view(np.uint32))
        compared += array.size
    images, _ = random_batch(graph)
    np.testing.assert_array_equal(loaded.infer(loaded.state, images), graph.infer(graph.state, images))
    assert compared > 500 and list(tmp_path.iterdir()) == [tmp_path / "net.training"]


def test_axes_in_another_order_in_memory_are_the_same_file() -> None:
    graph = small()
    stem = graph.state.weights["stem"]
    turned = replace(stem, master=np.asfortranarray(stem.master))
    other = replace(graph, state=replace(graph.state, weights={**graph.state.weights, "stem": turned}))
    assert not turned.master.flags.c_contiguous and other.to_bytes() == graph.to_bytes()


def test_damaged_files_are_refused_or_save_again_as_they_are() -> None:
    good, refused, accepted, different = small().to_bytes(), 0, 0, 0
    for number in range(500):
        damaged = damaged_graph(Chance(7, number), good)
        try:
            loaded = TrainingGraph.from_bytes(damaged)
        except TrainingGraphError as error:
            assert len(str(error)) > 40
            refused += 1
            continue
        saved = loaded.to_bytes()
        assert TrainingGraph.from_bytes(saved).to_bytes() == saved
        accepted, different = accepted + 1, different + (saved != good)
    assert refused > 250 and accepted > 20 and different > 1, (refused, accepted, different)


def set_node(place: int, **fields: Any) -> Callable[[Any], None]:
    return lambda manifest: manifest["nodes"][place].update(fields)


BAD = {
    "a bomb": ({"0.master.npy": bytes(1 << 20)}, "at most 1000000 bytes"),
    "integers": ({"0.master.npy": npy(np.zeros((3, 3, 1, 4), np.int32))}, "must be float32, not int32"),
    "doubles": ({"0.master.npy": npy(np.zeros((3, 3, 1, 4)))}, "must be float32, not float64"),
    "big-endian": ({"0.master.npy": npy(np.zeros((3, 3, 1, 4), ">f4"))}, "must be float32, not >f4"),
    "another shape": ({"0.master.npy": npy(np.zeros((3, 1, 3, 4), np.float32))}, r"stem\.master must be finite float32 of shape"),
    "NaN": ({"0.master.npy": npy(np.full((3, 3, 1, 4), np.nan, np.float32))}, r"stem\.master must be finite"),
    "a missing array": ({"0.velocity.npy": None}, r"arrays \['0.velocity'\] are missing"),
    "an array that nothing uses": ({"2.master.npy": npy(np.zeros(3, np.float32))}, "no node uses"),
    "another file": ({"readme.txt": b"text"}, "neither manifest.json nor an array"),
    "an integer graph": ({"manifest.json": b'{"bitloom_graph": 2}'}, "it is an integer graph: its core is the inference core"),
    "a later version": ({"m": lambda m: m.update(bitloom_training_graph=2)}, "version must be 1, not 2"),
    "a key that nothing reads": ({"m": lambda m: m.update(comment="x")}, "does not write"),
    "an unknown kind": ({"m": set_node(0, kind="dense")}, "must be one of conv, channel, pool, sum, not 'dense'"),
    "a field too many": ({"m": set_node(0, groups=2)}, "node stem must have name"),
    "a fraction": ({"m": set_node(0, out_channels=4.0)}, "out_channels must be of type int, not 4.0"),
    "true for 1": ({"m": set_node(0, in_channels=True)}, "in_channels must be of type int"),
    "an infinite epsilon": ({"m": set_node(1, constants={"epsilon": float("inf"), "running_weight": 0.1})}, "of type float, not inf"),
    "no epsilon": ({"m": set_node(1, constants={"epsilon": 0.0, "running_weight": 0.1})}, "epsilon must be a normal FP32"),
    "a window of 0": (
        {"m": set_node(2, window={"kernel": [0, 2], "stride": [2, 2], "padding": [0, 0]})}, "kernel and stride must be at least 1"
    ),
    "a pattern that does not divide": ({"m": set_node(3, forward_pattern=[2, 8])}, "forward pattern must be"),
    "two nodes of one name": ({"m": set_node(3, name="stem")}, "names of their own"),
    "no batch": ({"m": lambda m: m.update(batch=0)}, "at least 1 image"),
    "no image": ({"m": lambda m: m.update(shape=[8, 0, 1])}, "each at least 1"),
    "a list": ({"manifest.json": b"[1]"}, "version must be 1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_files_are_refused_in_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sw.training_graph_file.MAX_TRAINING_GRAPH_BYTES", 1_000_000)
    changes, words = BAD[name]
    with pytest.raises(TrainingGraphError, match=words):
        TrainingGraph.from_bytes(changed(**changes))
    assert TrainingGraph.from_bytes(changed()).to_bytes() == small().to_bytes()


def test_what_could_not_be_loaded_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = small()
    more = {**graph.state.channels, "nobody": bias_state(np.random.default_rng(0), 3)}
    with pytest.raises(TrainingGraphError, match="no node uses its arrays"):
        replace(graph, state=TrainingState(weights=graph.state.weights, channels=more)).save(tmp_path / "a")
    with pytest.raises(TrainingGraphError, match=r"batch must be of type int, not 2\.0"):
        replace(graph, batch=2.0).save(tmp_path / "a")  # type: ignore[arg-type]
    with pytest.raises(TrainingGraphError, match=r"cannot be saved.*int64"):
        replace(graph, batch=np.int64(2)).save(tmp_path / "a")  # type: ignore[arg-type]
    monkeypatch.setattr("sw.training_graph_file.MAX_TRAINING_GRAPH_BYTES", 1000)
    with pytest.raises(TrainingGraphError, match="at most 1000 bytes"):
        graph.save(tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_file_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, good = tmp_path / "net.training", small().to_bytes()
    small().save(path)

    def full(self: Path, data: bytes) -> int:
        with open(self, "wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        residual_network(size=4).save(path)
    assert path.read_bytes() == good and list(tmp_path.iterdir()) == [path]
