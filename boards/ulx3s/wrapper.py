"""The wrapper of the ULX3S's design: clock, reset, pins and the build's identity, in Verilog.

It is the one part with initial values (the reset's registers, which configuration clears) and with a vendor's primitive, the PLL; a
simulation puts a stand-in in the PLL's place (``boards/ulx3s/pll_model.v``).
"""

from __future__ import annotations

from boards.board import Board, Pll

RESET_CYCLES = 16


def wrapper_verilog(board: Board, *, system: str, build_id: int) -> str:
    """Text of the top module, which has the module ``system`` inside."""
    return f"""\
// {board.title}: clock, reset and pins. Written from board.toml.
module {board.top}(clk_25mhz, reset_button, ftdi_txd, ftdi_rxd, led, wifi_gpio0);
  input clk_25mhz;
  input reset_button;
  input ftdi_txd;
  output ftdi_rxd;
  output [7:0] led;
  output wifi_gpio0;
  wire clk;
  wire locked;
{_clock(board.pll)}
  // Held until {RESET_CYCLES} cycles after the clock is stable and the button is up.
  reg [1:0] steady = 2'b00;
  reg [3:0] waited = 4'd0;
  reg rst = 1'b1;
  always @(posedge clk) begin
    steady <= {{steady[0], locked & ~reset_button}};
    waited <= !steady[1] ? 4'd0 : &waited ? waited : waited + 4'd1;
    rst <= !(steady[1] & (&waited));
  end

  assign wifi_gpio0 = 1'b1;  // low would let the ESP32 reboot the board
  {system} system (
    .clk(clk),
    .rst(rst),
    .build_id(64'h{build_id:016x}),
    .uart_rx(ftdi_txd),
    .uart_tx(ftdi_rxd),
    .led(led)
  );
endmodule
"""


def _clock(pll: Pll | None) -> str:
    if pll is None:
        return "  assign clk = clk_25mhz;\n  assign locked = 1'b1;\n"
    return f"""\
  (* ICP_CURRENT="12" *) (* LPF_RESISTOR="8" *)
  EHXPLLL #(
    .CLKI_DIV({pll.input_divider}),
    .CLKFB_DIV({pll.feedback_divider}),
    .CLKOP_DIV({pll.output_divider}),
    .CLKOP_CPHASE({pll.output_divider - 1}),
    .CLKOP_FPHASE(0),
    .CLKOP_ENABLE("ENABLED"),
    .FEEDBK_PATH("CLKOP"),
    .PLLRST_ENA("DISABLED"),
    .STDBY_ENABLE("DISABLED"),
    .DPHASE_SOURCE("DISABLED")
  ) pll (
    .CLKI(clk_25mhz),
    .CLKFB(clk),
    .CLKOP(clk),
    .LOCK(locked),
    .RST(1'b0),
    .STDBY(1'b0),
    .PHASESEL0(1'b0),
    .PHASESEL1(1'b0),
    .PHASEDIR(1'b1),
    .PHASESTEP(1'b1),
    .PHASELOADREG(1'b1),
    .PLLWAKESYNC(1'b0),
    .ENCLKOP(1'b0)
  );
"""
