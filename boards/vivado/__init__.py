"""Boards that the vendor's Vivado builds: everything up to its door, as texts that depend on the board's data and the core alone."""
