"""The compilers: an integer graph in, a program for the inference core out; a training graph in, programs for the training core."""

from sw.compiler.compile import check_graph, compile_graph
from sw.compiler.listing import listing, training_listing
from sw.compiler.problems import CompileError, Problem
from sw.compiler.training import compile_training

__all__ = ["CompileError", "Problem", "check_graph", "compile_graph", "compile_training", "listing", "training_listing"]
