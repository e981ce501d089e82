"""N:M sparsity: in each group of M neighbours along an axis, the N of largest magnitude stay.

- `nm_mask`   which values stay
- `compress`  the values that stay and their positions in their groups
- `expand`    back to a dense array, zeros where nothing was kept

Groups begin at index 0 of the axis and do not overlap. Among equal magnitudes the lowest index wins; -0 and +0 are equal,
so a group of fewer than N non-zeros keeps zeros, and every group keeps exactly N values.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["compress", "expand", "nm_mask"]

Array = npt.NDArray[Any]
LARGEST_M = 256
"""Positions in a group are uint8."""


def nm_mask(values: npt.ArrayLike, n: int, m: int, axis: int) -> npt.NDArray[np.bool_]:
    """True where a value stays; the shape of ``values``.

    ``values`` are real floats or integers of any shape with the given axis; infinities are the largest magnitudes. Raises
    ValueError for NaN, for an axis that the array lacks or whose length M does not divide, and unless 1 <= N <= M <= 256.
    """
    grouped, axis = _grouped(np.asarray(values), n, m, axis)
    mask = np.zeros(grouped.shape, bool)
    np.put_along_axis(mask, _order(grouped)[..., :n], True, axis=-1)
    return _ungrouped(mask, axis)


def compress(values: npt.ArrayLike, n: int, m: int, axis: int) -> tuple[Array, npt.NDArray[np.uint8]]:
    """The values of `nm_mask` and their positions 0..M-1 in their groups, ascending within each group.

    Both have N * length / M entries along the axis, group after group, and otherwise the shape of ``values``. Errors are
    those of `nm_mask`.
    """
    grouped, axis = _grouped(np.asarray(values), n, m, axis)
    places = np.sort(_order(grouped)[..., :n], axis=-1)
    kept = np.take_along_axis(grouped, places, axis=-1)
    return _ungrouped(kept, axis), _ungrouped(places.astype(np.uint8), axis)


def expand(kept: npt.ArrayLike, indices: npt.ArrayLike, n: int, m: int, axis: int) -> Array:
    """The dense array of M * length / N entries along the axis: ``kept`` at their positions, +0 elsewhere.

    Raises ValueError if the shapes differ, N does not divide the axis, or the positions of a group are not integers in
    0..M-1 in ascending order.
    """
    values, places = np.asarray(kept), np.asarray(indices)
    if values.shape != places.shape:
        raise ValueError(f"kept and indices must have one shape, not {values.shape} and {places.shape}")
    if places.dtype.kind not in "iu":
        raise ValueError(f"indices must be integers, not {places.dtype}")
    axis = _checked(values, n, m, axis, divisor=n)
    grouped, spots = _split(values, axis, n), _split(places, axis, n).astype(np.int64)
    if spots.size and (spots.min() < 0 or spots.max() >= m):
        raise ValueError(f"indices must be positions 0..{m - 1} of a group of {m}, not {spots.min()}..{spots.max()}")
    if not (np.diff(spots, axis=-1) > 0).all():
        raise ValueError("indices must ascend within each group: two values of a group cannot share a position")
    dense = np.zeros((*grouped.shape[:-1], m), values.dtype)
    np.put_along_axis(dense, spots, grouped, axis=-1)
    return _ungrouped(dense, axis)


def _grouped(values: Array, n: int, m: int, axis: int) -> tuple[Array, int]:
    """The array as (..., groups, M), the axis moved last, and that axis counted from 0."""
    if values.dtype.kind not in "fiu":
        raise ValueError(f"values must be real floats or integers, not {values.dtype}")
    axis = _checked(values, n, m, axis, divisor=m)
    if values.dtype.kind == "f" and (wrong := int(np.isnan(values).sum())):
        raise ValueError(f"values must be numbers, and {wrong} of {values.size} are NaN: a magnitude cannot be compared with it")
    return _split(values, axis, m), axis


def _checked(values: Array, n: int, m: int, axis: int, *, divisor: int) -> int:
    n, m, axis = operator.index(n), operator.index(m), operator.index(axis)
    if not 1 <= n <= m <= LARGEST_M:
        raise ValueError(f"n and m must be 1 <= n <= m <= {LARGEST_M}, not n = {n} and m = {m}")
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"axis must be one of the {values.ndim} axes of an array of shape {values.shape}, not {axis}")
    if values.shape[axis] % divisor:
        raise ValueError(f"the length of axis {axis} must be a multiple of {divisor}, not {values.shape[axis]}; "
                         "pad it or leave this tensor dense")
    return axis % values.ndim


def _split(values: Array, axis: int, size: int) -> Array:
    moved = np.moveaxis(values, axis, -1)
    return moved.reshape(*moved.shape[:-1], moved.shape[-1] // size, size)


def _ungrouped(grouped: Array, axis: int) -> Array:
    *rest, groups, size = grouped.shape
    return np.ascontiguousarray(np.moveaxis(grouped.reshape(*rest, groups * size), -1, axis))


def _order(grouped: Array) -> npt.NDArray[np.intp]:
    """Positions of each group by falling magnitude; a stable sort of the reversed group puts the lowest index first."""
    magnitude = np.abs(grouped)
    if grouped.dtype.kind == "i":
        magnitude = magnitude.view(f"u{grouped.dtype.itemsize}")  # the most negative integer has no positive twin
    rising = np.argsort(magnitude[..., ::-1], axis=-1, kind="stable")
    return grouped.shape[-1] - 1 - rising[..., ::-1]
