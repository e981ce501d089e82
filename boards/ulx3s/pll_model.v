// Stand-in for the ECP5's PLL in simulation: the output is the input, whatever the dividers say, and lock comes after 8 cycles.
// So one cycle of clk_25mhz in simulation is one cycle of the design's clock.
module EHXPLLL(CLKI, CLKFB, CLKOP, LOCK, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP, PHASELOADREG, PLLWAKESYNC, ENCLKOP);
  parameter CLKI_DIV = 1;
  parameter CLKFB_DIV = 1;
  parameter CLKOP_DIV = 8;
  parameter CLKOP_CPHASE = 0;
  parameter CLKOP_FPHASE = 0;
  parameter CLKOP_ENABLE = "ENABLED";
  parameter FEEDBK_PATH = "CLKOP";
  parameter PLLRST_ENA = "DISABLED";
  parameter STDBY_ENABLE = "DISABLED";
  parameter DPHASE_SOURCE = "DISABLED";
  input CLKI, CLKFB, RST, STDBY, PHASESEL0, PHASESEL1, PHASEDIR, PHASESTEP, PHASELOADREG, PLLWAKESYNC, ENCLKOP;
  output CLKOP, LOCK;
  reg [3:0] count = 4'd0;
  always @(posedge CLKI) if (!count[3]) count <= count + 4'd1;
  assign CLKOP = CLKI;
  assign LOCK = count[3];
endmodule
