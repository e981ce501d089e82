"""The recipe: how a model is quantised, as one validated value; from Python or from TOML."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import CORE_ROUNDINGS

__all__ = ["LayerRecipe", "Recipe", "RecipeError"]


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says which entry, why and what to write instead."""


def _bits(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= 8:
        raise RecipeError(f"{name} must be an integer of 2..8 bits, not {value!r}")


def _rounding(name: str, value: Any) -> Rounding:
    names = ", ".join(mode.name for mode in CORE_ROUNDINGS)
    if isinstance(value, str) and value in Rounding.__members__:
        value = Rounding[value]
    if value not in CORE_ROUNDINGS:
        raise RecipeError(f"{name} must be one of {names} (what a core rounds by), not {value!r}")
    return Rounding(value)


@dataclass(frozen=True, kw_only=True)
class LayerRecipe:
    """What one layer does differently; None leaves the recipe's own value."""

    weight_bits: int | None = None
    activation_bits: int | None = None
    rounding: Rounding | None = None

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits"):
            if getattr(self, name) is not None:
                _bits(f"override {name}", getattr(self, name))
        if self.rounding is not None:
            object.__setattr__(self, "rounding", _rounding("override rounding", self.rounding))


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is quantised.

    Parameters
    ----------
    weight_bits, first_layer_weight_bits : 2..8; codes are symmetric, so 4 bits are -7..7
    activation_bits : 2..8; unsigned where all tensors of a sharing group are non-negative
    rounding : TRN, RND or RND_CONV, of every requantisation
    input_format : the format of the model's input, such as ``FixedFormat(8, 4, False)`` or "u8f4"; None learns
        a signed one from the calibration data
    overrides : layer name pattern (as in a shell: ``stage2.*``) to `LayerRecipe` or a mapping of its fields
    exclude : name patterns of layers that the integer network leaves out, such as a final softmax; their input
        passes unchanged
    """

    weight_bits: int = 4
    activation_bits: int = 8
    first_layer_weight_bits: int = 8
    rounding: Rounding = Rounding.RND
    input_format: FixedFormat | None = None
    overrides: Mapping[str, LayerRecipe] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("weight_bits", "activation_bits", "first_layer_weight_bits"):
            _bits(name, getattr(self, name))
        object.__setattr__(self, "rounding", _rounding("rounding", self.rounding))
        object.__setattr__(self, "input_format", _input_format(self.input_format))
        if not isinstance(self.exclude, (list, tuple)) or not all(isinstance(p, str) for p in self.exclude):
            raise RecipeError(f"exclude must be a list of name patterns, not {self.exclude!r}")
        object.__setattr__(self, "exclude", tuple(self.exclude))
        if not isinstance(self.overrides, Mapping):
            raise RecipeError(f"overrides must map name patterns to layer recipes, not {self.overrides!r}")
        if unnamed := [pattern for pattern in self.overrides if not isinstance(pattern, str)]:
            raise RecipeError(f"overrides must map name patterns to layer recipes, and {unnamed} are no patterns")
        made = {pattern: _layer(pattern, entry) for pattern, entry in self.overrides.items()}
        object.__setattr__(self, "overrides", made)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Recipe:
        """A recipe from plain data, as a TOML file holds it; unknown keys raise."""
        return cls(**_known(cls, data, "recipe"))

    @classmethod
    def from_toml(cls, path: str | Path) -> Recipe:
        """A recipe from a TOML file with the fields as keys and overrides as tables ``[overrides."pattern"]``."""
        try:
            import tomllib
        except ImportError as error:
            raise RecipeError("reading TOML needs Python 3.11 or newer: use Recipe.from_dict") from error
        try:
            return cls.from_dict(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number without end, nested without end
            raise RecipeError(f"{path}: {error}") from error

    def layer(self, name: str, *, first: bool = False) -> LayerRecipe:
        """The complete recipe of one layer; later patterns win."""
        bits = self.first_layer_weight_bits if first else self.weight_bits
        values: dict[str, Any] = {"weight_bits": bits, "activation_bits": self.activation_bits, "rounding": self.rounding}
        for pattern, entry in self.overrides.items():
            if fnmatch.fnmatchcase(name, pattern):
                values.update({k: v for k, v in vars(entry).items() if v is not None})
        return LayerRecipe(**values)

    def excludes(self, name: str) -> bool:
        """Whether the integer network leaves this layer out."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.exclude)

    def check_patterns(self, names: Iterable[str]) -> None:
        """Raise RecipeError for a pattern that matches none of the layers: a typing error would pass in silence."""
        names = list(names)
        for pattern in (*self.overrides, *self.exclude):
            if not fnmatch.filter(names, pattern):
                raise RecipeError(f"pattern {pattern!r} matches no layer; the layers are: {', '.join(names)}")


def _known(cls: type, data: Mapping[str, Any], what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise RecipeError(f"{what} must be a table, not {data!r}")
    allowed = {f.name for f in dataclasses.fields(cls)}
    if unknown := sorted(set(data) - allowed, key=str):
        raise RecipeError(f"{what} has unknown keys {unknown}; known are {sorted(allowed)}")
    return dict(data)


def _layer(pattern: str, entry: Any) -> LayerRecipe:
    if isinstance(entry, LayerRecipe):
        return entry
    if not isinstance(entry, Mapping):
        raise RecipeError(f"override {pattern!r} must be a LayerRecipe or a table, not {entry!r}")
    return LayerRecipe(**_known(LayerRecipe, entry, f"override {pattern!r}"))


def _input_format(value: Any) -> FixedFormat | None:
    if value is None:
        return None
    try:
        fmt = value if isinstance(value, FixedFormat) else FixedFormat.parse(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"input_format must be a FixedFormat or text such as 'u8f4': {error}") from error
    if fmt.width > 8 or abs(fmt.frac) > 24:
        raise RecipeError(f"input_format must have at most 8 bits and a binary point in -24..24, not {fmt}")
    return fmt
