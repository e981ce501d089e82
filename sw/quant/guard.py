"""Integer products by a float matrix product, and the probe that the back end of this machine computes them exactly.

A float product of integers is exact where no partial sum leaves the mantissa, *if* the library multiplies and adds what it
was given. Some do not: reduced-precision modes (TF32, bfloat16) and transform algorithms round in between. So before a
product of a new shape, type and device is believed, the same product of known integers is compared with int64.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["InexactBackendError", "exact_product"]

_LARGEST = {torch.float32: 2**24, torch.float64: 2**53}
_COLUMNS = 64
"""Columns of the first and of the last image that a probe compares, its two ends included."""

_probed: set[tuple[object, ...]] = set()


class InexactBackendError(RuntimeError):
    """This machine's matrix product is not exact on integers; the message says where it was seen."""


def backend_product(weight: Tensor, columns: Tensor) -> Tensor:
    """The product under test: weight (G, OC, K) and columns (N, G, K, P) to (N, G, OC, P), in their float type."""
    with torch.autocast(columns.device.type, enabled=False):
        return weight @ columns


def exact_product(weight: Tensor, columns: Tensor) -> Tensor:
    """`backend_product` of integers; each (shapes, type, device) is probed once.

    The caller has proven that no partial sum leaves the float type's exact integers. Raises InexactBackendError where the
    probe differs from int64.
    """
    key = (weight.shape, columns.shape, columns.dtype, columns.device, torch.get_float32_matmul_precision())
    if key not in _probed:
        _probe(weight, columns)
        _probed.add(key)
    return backend_product(weight, columns)


@torch.no_grad()
def _probe(weight: Tensor, columns: Tensor) -> None:
    """Compare one product of random integers, of sums up to the exact limit, with int64."""
    codes, values = _operands(weight, columns)
    found = backend_product(codes.to(weight), values.to(columns))
    images = sorted({0, columns.shape[0] - 1})
    places = torch.linspace(0, columns.shape[3] - 1, min(_COLUMNS, columns.shape[3])).round().to(torch.int64)
    expected = codes @ values[images][..., places]
    wrong = int((found[images][..., places.to(found.device)].cpu().to(torch.float64) != expected.to(torch.float64)).sum())
    if wrong:
        raise InexactBackendError(
            f"a {columns.dtype} product of {tuple(weight.shape)} by {tuple(columns.shape)} on {columns.device} must equal "
            f"integers, but {wrong} of {expected.numel()} results differ: this back end rounds inside (reduced precision or "
            "a transform algorithm); run the frozen model on the CPU, or turn such modes off")


def _operands(weight: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Random int64 operands whose sums stay within the exact integers: as wide as codes get, if the depth allows."""
    depth = max(1, int(weight.shape[2]))
    limit = _LARGEST[columns.dtype]
    high = max(1, min(255, limit // depth))
    wide = max(1, min(127, limit // (depth * high)))
    random = torch.Generator().manual_seed(depth)
    return (torch.randint(-wide, wide + 1, weight.shape, generator=random),
            torch.randint(-high, high + 1, columns.shape, generator=random))
