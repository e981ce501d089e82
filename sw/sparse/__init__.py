"""N:M sparse training in torch: BDWP and the methods it is compared with."""

from sw.sparse.choose import Choice
from sw.sparse.convert import choices, densify, set_step, sparsify, step_of
from sw.sparse.layers import SparseConv2d, SparseLinear, refresh
from sw.sparse.rules import METHODS, Rule
from sw.sparse.select import NonFiniteError

__all__ = [
    "METHODS",
    "Choice",
    "NonFiniteError",
    "Rule",
    "SparseConv2d",
    "SparseLinear",
    "choices",
    "densify",
    "refresh",
    "set_step",
    "sparsify",
    "step_of",
]
