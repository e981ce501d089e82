"""The command's functions: files there and back, refusals without a file, and what the package needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sw.bridges.errors import BridgeError
from sw.bridges.qonnx import differences
from sw.flow.bridges import export_onnx, import_onnx
from sw.graph import IntegerGraph
from tests.bridges.onnx_models import Model
from tests.bridges.onnx_networks import every_operation


def test_files_go_there_and_back(tmp_path: Path) -> None:
    graph, model, again = tmp_path / "g.graph", tmp_path / "m.onnx", tmp_path / "again.graph"
    every_operation().save(graph)
    told = export_onnx(graph, model)
    assert told["ok"] and told["form"] == "qonnx" and told["bytes"] == model.stat().st_size
    assert told["layers"] == len(every_operation().nodes)
    found = import_onnx(model, again)
    assert found["ok"] and found["exact"] and found["differences"] == [] and found["proven_sums"] > 10_000
    assert json.loads(again.with_name("again.graph.json").read_text())["sha256"] == found["sha256"]
    assert differences(IntegerGraph.load(graph), IntegerGraph.load(again)) == []
    assert export_onnx(graph, model, "qcdq")["form"] == "qcdq"
    with pytest.raises(BridgeError, match="form must be one of qonnx, qcdq"):
        export_onnx(graph, model, "other")


def test_refusals_leave_no_file(tmp_path: Path) -> None:
    m = Model(2, 4, 4)
    model, out = tmp_path / "m.onnx", tmp_path / "out.graph"
    model.write_bytes(m.model(m.node("Sigmoid", m.quant("x"))).SerializeToString())
    with pytest.raises(BridgeError, match="Sigmoid"):
        import_onnx(model, out)
    with pytest.raises(BridgeError, match=r"none\.onnx: No such file or directory"):
        import_onnx(tmp_path / "none.onnx", out)
    with pytest.raises(BridgeError, match="must be a file of at most"):
        import_onnx(tmp_path, out)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_the_package_imports_without_onnx_and_says_what_it_needs() -> None:
    code = ("import sys; sys.modules['onnx'] = None\nimport sw.bridges, sw.bridges.qonnx as q, sw.flow.bridges\n"
            "assert 'torch' not in sys.modules and 'qonnx' not in sys.modules\n"
            "try:\n    q.to_qonnx(None)\nexcept q.BridgeError as error:\n    print(error)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert "pip install 'onnx==1.22.0'" in done.stdout
