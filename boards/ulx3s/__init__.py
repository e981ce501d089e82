"""ULX3S: an ECP5 board without memory of its own for the core, driven over its serial line."""
