"""cocotb bench of a whole core, run by bench/simulation_speed.py: one program, its buses served by cocotbext-axi.

With ``checked`` the buses are also watched in every cycle (VALID and payload hold), as the C++ loop always does.
"""

import json
import os
import time
from pathlib import Path

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam

from hw.sim.bus_checks import PortChecker
from hw.spec.regs import BY_NAME, region_registers

PERIOD_NS = 10


@cocotb.test()
async def program(dut) -> None:
    """Load memory, run the program to its interrupt, and report cycles, seconds and the output's bytes."""
    given = json.loads(os.environ["BENCH_PARAMETERS"])
    cocotb.start_soon(Clock(dut.clk, PERIOD_NS, unit="ns").start())
    host = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi", bus_separator="__"), dut.clk, dut.rst)
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi_0", bus_separator="__"), dut.clk, dut.rst, size=given["memory_bytes"])
    ram.write(0, Path(given["memory"]).read_bytes())
    dut.build_id.value = 0
    dut.rst.value = 1
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    for offset, value in settings(given):
        await host.write_dword(offset, value)
    checkers = [PortChecker(dut, port) for port in ("s_axi", "m_axi_0")]
    if given["checked"]:
        cocotb.start_soon(watch(dut, checkers))
    start, cycles = time.perf_counter(), get_sim_time("ns")
    await host.write_dword(BY_NAME["CONTROL"].offset, BY_NAME["CONTROL"].mask("START"))
    await RisingEdge(dut.irq)
    seconds, cycles = time.perf_counter() - start, (get_sim_time("ns") - cycles) / PERIOD_NS
    error = await host.read_dword(BY_NAME["ERROR_CODE"].offset)
    output = ram.read(given["output"], given["output_bytes"])
    problems = [words for port in checkers for channel in port.checkers.values() for words in channel.problems]
    report = {"cycles": cycles, "seconds": seconds, "error": error, "problems": problems, "output": output.hex()}
    Path(os.environ["BENCH_REPORT"]).write_text(json.dumps(report))


async def watch(dut, checkers: list[PortChecker]) -> None:
    """Both sides have settled at the falling edge."""
    while True:
        await FallingEdge(dut.clk)
        for checker in checkers:
            checker.step()


def settings(given: dict) -> list[tuple[int, int]]:
    """Register writes that prepare the start."""
    writes = [(BY_NAME["PROGRAM_ADDR_LO"].offset, given["program"]), (BY_NAME["PROGRAM_ADDR_HI"].offset, 0),
              (BY_NAME["PROGRAM_LENGTH"].offset, given["program_length"]), (BY_NAME["IRQ_ENABLE"].offset, 1)]  # fmt: skip
    for number, (base, size) in enumerate(given["regions"]):
        values = (base, 0, size, 0)
        writes += [(register.offset, value) for register, value in zip(region_registers(number), values, strict=True)]
    return writes
