"""Bridges from the integer graph to other tools' formats and back. Each bridge is a package of its own, imported by name."""
