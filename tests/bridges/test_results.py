"""The one rule of folders that bridges write: results are replaced, what is not theirs is never lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sw.bridges.errors import BridgeError
from sw.bridges.hls import save_hls
from sw.bridges.hls4ml import save_hls4ml
from sw.graph import IntegerGraph
from tests.bridges.test_bridge_commands import call
from tests.compiler.graphs import U8, Builder

Save = Callable[..., Path]
SAVES = {"hls": save_hls, "hls4ml": save_hls4ml}
MANIFESTS = {"hls": "manifest.json", "hls4ml": "bitloom.json"}
OURS = {"hls": "network.cpp", "hls4ml": "firmware/network.cpp"}


def small(name: str = "y") -> IntegerGraph:
    b = Builder(1)
    return b.graph(b.linear(name, b.input("x", (4, 1, 1), U8), 3))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=sorted(SAVES))
def bridge(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def refused(bridge: str, folder: Path, told: str, *, overwrite: bool = False, **options: str) -> str:
    """The words of a refusal that leaves everything as it was, beside the folder too."""
    before, beside = contents(folder), sorted(folder.parent.iterdir())
    with pytest.raises(BridgeError, match=told) as caught:
        SAVES[bridge](small(), folder, overwrite=overwrite, **options)
    assert contents(folder) == before and sorted(folder.parent.iterdir()) == beside
    return str(caught.value)


def test_missing_empty_and_unchanged_folders_are_written(bridge: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    SAVES[bridge](small(), out)
    first = contents(out)
    SAVES[bridge](small(), out)  # its own, as it was
    assert contents(out) == first
    SAVES[bridge](small("z"), out, name="other")
    (tmp_path / "empty").mkdir(mode=0o700)
    SAVES[bridge](small("z"), tmp_path / "empty", name="other")
    assert set(contents(out)) == set(contents(tmp_path / "empty")) and not {OURS[bridge]} & set(contents(out))
    (tmp_path / "link").symlink_to(out)
    SAVES[bridge](small(), tmp_path / "link")
    assert set(contents(out)) == set(first) and (tmp_path / "link").is_symlink() and [out] == list(out.parent.iterdir())


def test_what_was_changed_or_added_is_named_and_lost_only_where_it_was_written_here(bridge: str, tmp_path: Path) -> None:
    out = SAVES[bridge](small(), tmp_path / "out")
    whole = contents(out)
    (out / OURS[bridge]).write_text("changed")
    (out / "notes.txt").write_text("mine")
    (out / "mine" / "deep").mkdir(parents=True)
    (out / "mine" / "deep" / "a").write_text("a")
    (out / "mine" / "nowhere").symlink_to("/nowhere")
    (out / "elsewhere").symlink_to(tmp_path)
    out.chmod(0o750)
    told = refused(bridge, out, r"--overwrite")
    assert f"{OURS[bridge]} changed" in told and "elsewhere, mine/, notes.txt added" in told
    SAVES[bridge](small(), out, overwrite=True)
    kept = {"notes.txt": b"mine", "mine/deep/a": b"a"}
    assert contents(out) == whole | kept and (out / "elsewhere").is_symlink() and (out / "mine" / "nowhere").is_symlink()
    assert out.stat().st_mode & 0o777 == 0o750 and [out] == list(tmp_path.iterdir())
    assert " changed" not in refused(bridge, out, "added")
    SAVES[bridge](small("z"), out, overwrite=True, name="other")
    assert (out / "notes.txt").read_text() == "mine" and not (out / OURS[bridge]).exists()


def test_a_deleted_file_is_no_loss_and_a_changed_manifest_is(bridge: str, tmp_path: Path) -> None:
    out = SAVES[bridge](small(), tmp_path / "out")
    whole = contents(out)
    (out / OURS[bridge]).unlink()
    SAVES[bridge](small(), out)
    assert contents(out) == whole
    path = out / MANIFESTS[bridge]
    text = path.read_text()
    path.write_text(text.replace('"network"', '"mine"'))
    refused(bridge, out, f"{MANIFESTS[bridge]} changed")
    SAVES[bridge](small(), out, overwrite=True)
    assert contents(out) == whole


def test_other_folders_are_refused_whatever_is_said(bridge: str, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "theirs").write_text("x")
    mark = {"hls": "bitloom_hls", "hls4ml": "bitloom_hls4ml"}[bridge]
    for overwrite in (False, True):
        assert "(theirs)" in refused(bridge, foreign, "holds other files", overwrite=overwrite)
        for text in ("", "[]", "{}", json.dumps({mark: 1}), json.dumps({mark: 2}), json.dumps({mark: 2, "files": [], "products": 3})):
            (foreign / MANIFESTS[bridge]).write_text(text)
            refused(bridge, foreign, "holds other files|another version", overwrite=overwrite)
        named = {"files": {"../foreign/theirs": "0", "/x": "0"}, "products": [".."]}
        (foreign / MANIFESTS[bridge]).write_text(json.dumps({mark: 2, **named}))
        if not overwrite:
            refused(bridge, foreign, "theirs added")
        (foreign / MANIFESTS[bridge]).unlink()
    other = next(name for name in SAVES if name != bridge)
    refused(bridge, SAVES[other](small(), tmp_path / "other"), "holds other files", overwrite=True)
    with pytest.raises(BridgeError, match="it is a file"):
        SAVES[bridge](small(), foreign / "theirs")


def test_added_files_in_the_place_of_new_ones_stop_it(bridge: str, tmp_path: Path) -> None:
    out = SAVES[bridge](small(), tmp_path / "out")
    mine = out / OURS[bridge].replace("network", "other")
    mine.write_text("mine")
    refused(bridge, out, "in the place of new files", overwrite=True, name="other")
    mine.unlink()
    mine.mkdir()
    refused(bridge, out, "in the place of new files", overwrite=True, name="other")
    mine.rmdir()
    (out / OURS[bridge]).unlink()
    (out / OURS[bridge]).mkdir()
    refused(bridge, out, f"{OURS[bridge]}/ added")
    refused(bridge, out, "in the place of new files", overwrite=True)


def test_a_link_in_the_place_of_a_file_is_followed_by_no_one(bridge: str, tmp_path: Path) -> None:
    out = SAVES[bridge](small(), tmp_path / "out")
    mine = tmp_path / "mine.cpp"
    mine.write_text("mine")
    (out / OURS[bridge]).unlink()
    (out / OURS[bridge]).symlink_to(mine)
    refused(bridge, out, f"{OURS[bridge]} changed")
    SAVES[bridge](small(), out, overwrite=True)
    assert mine.read_text() == "mine" and not (out / OURS[bridge]).is_symlink()


def test_products_of_the_folder_s_own_build_go_with_the_result(bridge: str, tmp_path: Path) -> None:
    out = SAVES[bridge](small(), tmp_path / "out")
    content = json.loads((out / MANIFESTS[bridge]).read_text())
    for name in content["products"]:
        (out / name).write_text("built")
    (out / "network_prj").mkdir()  # a synthesis of hours is none of them
    assert "network_prj/ added" in (told := refused(bridge, out, "added")) and ".so" not in told and "_test" not in told
    (out / "network_prj").rmdir()
    SAVES[bridge](small("z"), out)
    assert not any((out / name).exists() for name in content["products"]) and len(content["products"]) > 2


@pytest.mark.parametrize(("bridge", "inside"), [("hls", False), ("hls", True), ("hls4ml", False)])
def test_an_interrupted_replacement_leaves_the_old_result(bridge: str, inside: bool, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Whichever of its renamings is stopped, before or after it was done."""
    out = SAVES[bridge](small(), tmp_path / "old")
    (out / "notes.txt").write_text("mine")
    monkeypatch.chdir(out if inside else tmp_path)
    before, replace, stopped = contents(out), os.replace, 0
    for failing in range(1, 60):
        done: list[tuple[str, ...]] = []

        def fails(*paths: str, failing: int = failing, done: list[tuple[str, ...]] = done) -> None:
            done.append(paths)
            if len(done) == failing // 2 + 1 and not failing % 2:
                raise KeyboardInterrupt
            replace(*paths)
            if len(done) == failing // 2 + 1 and failing % 2:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", fails)
            try:
                SAVES[bridge](small("z"), out, overwrite=True)
            except KeyboardInterrupt:
                stopped += 1
            else:
                break
        assert contents(out) == before and [out] == list(tmp_path.iterdir())
    assert stopped == failing - 1 >= (20 if inside else 3) and contents(out) != before and [out] == list(tmp_path.iterdir())


def test_the_folder_that_one_is_in_stays_the_same_one(bridge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    out.mkdir()
    small().save(tmp_path / "a.graph")
    monkeypatch.chdir(out)
    for name in ("first", "second"):
        assert call(tmp_path, bridge, "../a.graph", "-o", ".", "--name", name)[0] == 0
        assert os.path.samefile(".", out) and os.path.exists(OURS[bridge].replace("network", name))
    (out / "mine").mkdir()
    monkeypatch.chdir(out / "mine")
    code, output, _ = call(tmp_path, bridge, "../../a.graph", "-o", "..", "--overwrite")
    assert code == 1 and f"go to {out} first" in output


def test_the_command_says_what_it_does(bridge: str, tmp_path: Path) -> None:
    small().save(tmp_path / "a.graph")
    words = (bridge, "@a.graph", "-o", "@made")
    assert call(tmp_path, *words)[0] == call(tmp_path, *words)[0] == 0
    (tmp_path / "made" / "notes.txt").write_text("mine")
    code, output, _ = call(tmp_path, *words)
    assert code == 1 and "notes.txt added" in output and "--overwrite" in output
    assert call(tmp_path, *words, "--overwrite")[0] == 0 and (tmp_path / "made" / "notes.txt").read_text() == "mine"
