"""N:M sparse training in torch: BDWP and the methods it is compared with; and its way to the training core and back."""

from sw.kernels.products import ordered_products
from sw.sparse.choose import Choice
from sw.sparse.convert import choices, densify, set_step, sparsify, step_of
from sw.sparse.exact import CheckpointError, ExactTrainer
from sw.sparse.export import export, load_into
from sw.sparse.layers import SparseConv2d, SparseLinear, refresh
from sw.sparse.macs import LayerMacs, Report, report
from sw.sparse.problems import UnsupportedTrainingError
from sw.sparse.rates import hyper_of
from sw.sparse.rules import METHODS, Rule
from sw.sparse.scaling import DivergedError, LossScaling
from sw.sparse.select import NonFiniteError
from sw.sparse.sgd import ExactSGD
from sw.tracing.problems import Problem

__all__ = [
    "METHODS",
    "CheckpointError",
    "Choice",
    "DivergedError",
    "ExactSGD",
    "ExactTrainer",
    "LayerMacs",
    "LossScaling",
    "NonFiniteError",
    "Problem",
    "Report",
    "Rule",
    "SparseConv2d",
    "SparseLinear",
    "UnsupportedTrainingError",
    "choices",
    "densify",
    "export",
    "hyper_of",
    "load_into",
    "ordered_products",
    "refresh",
    "report",
    "set_step",
    "sparsify",
    "step_of",
]
