"""The compiler: an integer graph in, a program for the inference core out."""

from sw.compiler.compile import check_graph, compile_graph
from sw.compiler.listing import listing
from sw.compiler.problems import CompileError, Problem

__all__ = ["CompileError", "Problem", "check_graph", "compile_graph", "listing"]
