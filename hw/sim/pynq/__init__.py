"""A simulated board under PYNQ: the real ``pynq`` package over the Verilator model of a core.

    with SimulatedBoard(build, memory_bytes=1 << 20) as board:
        path = write_bitstream(folder / "bitloom.bit", hwh_text, verilog_sha256=build.verilog_sha256, part=PART)
        with open_pynq(path, memory_bytes=1 << 19) as device:
            ...

``device`` (what PYNQ takes for the board), ``memory`` (its two copies: the processor's cache and the memory behind it), ``registers``
(what answers at which address), ``bitstream`` (a .bit file that holds no configuration). None of it is in the walls of the runtime,
which knows ``pynq`` only. What it cannot show is said in ``device``.
"""
