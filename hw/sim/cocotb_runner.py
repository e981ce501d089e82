"""Runs a cocotb bench on an emitted design; the simulator is kept in the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from importlib.metadata import version
from pathlib import Path
from unittest import mock

from cocotb_tools.config import libs_dir
from cocotb_tools.runner import Verilator, get_results

from hw.rtl.emit import EmittedVerilog
from hw.sim.cache import cache_root, cached_folder, drop_oldest
from hw.sim.verilator_root import verilator_environment, verilator_root, verilator_version

KEPT = 10
_FLAGS = ("--no-timing", "-Wno-fatal", "-O3", "-MAKEFLAGS", "OPT_FAST=-O1")


class _Verilator(Verilator):
    """cocotb's runner makes every net of the design public, which slows it down many times; the ports are enough."""

    def _build_command(self):
        return [[word for word in command if word != "--public-flat-rw"] for command in super()._build_command()]


def run_bench(emitted: EmittedVerilog, module: str, folder: Path, parameters: dict[str, object]) -> dict[str, object]:
    """Run all tests of a cocotb module; returns the report that the bench wrote as JSON to the file $BENCH_REPORT.

    ``parameters`` reach the bench as JSON in $BENCH_PARAMETERS. AssertionError where a test failed or none ran.
    """
    build, report = _build(emitted), folder / "report.json"
    environment = {"BENCH_REPORT": str(report), "BENCH_PARAMETERS": json.dumps(parameters), "COCOTB_LOG_LEVEL": "WARNING"}
    results, log = folder / "results.xml", folder / "log.txt"
    # The runner leaves with SystemExit where a test fails; the results say more.
    with contextlib.suppress(SystemExit):
        _Verilator().test(
            test_module=module,
            hdl_toplevel=emitted.name,
            hdl_toplevel_lang="verilog",
            build_dir=build,
            test_dir=folder,
            results_xml=str(results),
            extra_env=environment,
            log_file=log,
        )
    tests, failed = get_results(results)
    assert tests > 0 and failed == 0, log.read_text()[-5000:]
    return json.loads(report.read_text())


def _build(emitted: EmittedVerilog) -> Path:
    root = verilator_root()
    # The simulator is linked to cocotb's libraries by their path, so each environment has one of its own.
    parts = [emitted.sha256, _FLAGS, verilator_version(), version("cocotb"), str(libs_dir)]
    folder = cache_root() / "cocotb" / hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]

    def make(target: Path) -> None:
        source, control = target / "design.v", target / "ports.vlt"
        source.write_text(emitted.text)
        ports = (f'public_flat_rw -module "{emitted.name}" -var "{port.name}"' for port in emitted.ports)
        control.write_text("\n".join(("`verilator_config", *ports, "")))
        with mock.patch.dict(os.environ, verilator_environment(root)):
            _Verilator().build(
                sources=[control, source],
                hdl_toplevel=emitted.name,
                build_dir=target,
                build_args=list(_FLAGS),
                log_file=target / "build.txt",
            )

    if cached_folder(folder, make):
        drop_oldest(folder.parent, KEPT)
    return folder
