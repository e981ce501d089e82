"""What runs in an environment with ``pynq``: user code on a simulated board, one scenario after another.

``main(folder)`` writes folder/results.json: by scenario what it found, or the error. The folder holds what was compiled outside
(``tests.pynq.case``). Neither torch nor the compiler is imported here.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hw.sim.pynq.bitstream import write_bitstream
from hw.sim.pynq.device import SimulatedBoard
from hw.spec.program import Program
from sw.runtime.device import Device
from sw.runtime.pynq import open_pynq
from tests.pynq.case import Case

Result = dict[str, Any]
Scenario = Callable[[Case], Result]
SCENARIOS: dict[str, Scenario] = {}
MEMORY = 1 << 19
FOREIGN = (DeprecationWarning, ResourceWarning)
"""Warnings that PYNQ's releases give for reasons of their own."""


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


@contextmanager
def board(case: Case, **options: Any) -> Iterator[SimulatedBoard]:
    with SimulatedBoard(case.build, **options) as simulated:
        yield simulated


def bitstream(case: Case, name: str = "bitloom", hwh: str = "board.hwh") -> Path:
    """A bitstream of the case's core."""
    text = (case.folder / hwh).read_text()
    return write_bitstream(case.folder / f"{name}.bit", text, verilog_sha256=case.build.verilog_sha256)


def compare(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> Result:
    """How many numbers were compared, and how many differ."""
    assert found.keys() == wanted.keys()
    return {
        "compared": sum(codes.size for codes in wanted.values()),
        "mismatches": sum(int((found[name] != codes).sum()) for name, codes in wanted.items()),
    }


def run(case: Case, device: Device, program: Program | None = None) -> Result:
    outputs, counters = device.run(program or case.program, case.inputs)
    return compare(outputs, case.outputs) | {"counters": counters}


def words(case: Case, action: Callable[[], Any]) -> str:
    """Class and message of the error that an action ends with, without the folder's name."""
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(str(case.folder.resolve()), "FOLDER").replace(
            str(case.folder), "FOLDER"
        )
    return "no error"


@scenario
def interrupts(case: Case) -> Result:
    """The notebook's lines, on PYNQ as it is installed; its versions, the clock that the overlay set, and what it says of the core."""
    import pynq

    with board(case) as simulated, open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
        found = run(case, device)
        again = run(case, device)
        ip = device.overlay.core_0
        found |= {"again": again, "raised": simulated.controller.raised, "accesses": simulated.clocked.accesses}
        found |= {"interrupt_kept": device.board.interrupt is not None, "identity": int(ip.register_map.IDENTITY)}
        found |= {"registers": device.overlay.ip_dict["core_0"]["registers"], "clock_mhz": pynq.Clocks.fclk0_mhz}
        found |= {"loaded": simulated.downloads, "build_id": device.driver.identity.build_id}
    return found | {"pynq": pynq.__version__, "numpy": np.__version__, "python": list(sys.version_info[:2])}


@scenario
def polling(case: Case) -> Result:
    with board(case) as simulated, open_pynq(str(bitstream(case)), memory_bytes=MEMORY, poll=True) as device:
        return run(case, device) | {"raised": simulated.controller.raised}


@scenario
def whole_buffers(case: Case) -> Result:
    """As the newer releases sync: always the whole buffer, whatever part is asked for."""
    with board(case, whole=True), open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
        return run(case, device)


@scenario
def inside_a_loop(case: Case) -> Result:
    """As in a notebook, whose own loop runs while a cell does; and outside of it once more."""
    import asyncio

    async def cell() -> Result:
        with board(case), open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
            return run(case, device) | {"interrupt_kept": device.board.interrupt is not None}

    found = asyncio.run(cell())
    with board(case), open_pynq(bitstream(case), memory_bytes=MEMORY) as device:
        return found | {"after": run(case, device)}


@scenario
def own_use_of_the_ip(case: Case) -> Result:
    """The user has the core's PYNQ object too, with its interrupt, made on a loop of the user's."""
    import asyncio

    with board(case), open_pynq(bitstream(case), memory_bytes=MEMORY) as device:

        async def touch() -> bool:
            return hasattr(device.overlay.core_0, "irq")

        return {"has_irq": asyncio.run(touch())} | run(case, device)


@scenario
def registers_in_one_transaction(case: Case) -> Result:
    """An access is one transaction: no more of them than the driver asks for, and none twice."""
    with board(case, cycles_between=0) as simulated, open_pynq(bitstream(case), memory_bytes=MEMORY, poll=True) as device:
        before = simulated.clocked.accesses
        device.board.write_register(0x38, 0xDEADBEEF)
        read = device.board.read_register(0x38)
        return {"value": read, "accesses": simulated.clocked.accesses - before}


def main(folder: Path) -> None:
    from tests.pynq import on_board_faults, on_board_refusals, on_board_training, on_board_uio  # noqa: F401, they have scenarios too

    case, results = Case.load(folder), {}
    for name, function in SCENARIOS.items():
        start = time.monotonic()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                found = function(case)
            except Exception:
                found = {"error": traceback.format_exc()}
        heard = sorted({f"{w.category.__name__}: {w.message}" for w in told if w.category not in FOREIGN})
        results[name] = found | {"seconds": round(time.monotonic() - start, 2), "warnings": heard}
    (folder / "results.json").write_text(json.dumps(results, default=int))
