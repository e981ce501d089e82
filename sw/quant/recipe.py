"""The recipe: how a model is quantised, as one validated value; from Python or from TOML."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hw.spec.fixed import FixedFormat, Rounding
from hw.spec.ops import CORE_ROUNDINGS
from sw.quant.hot import DIGIT_KINDS

__all__ = ["ACTIVATION_FRAC", "BATCH_NORMS", "LayerRecipe", "Recipe", "RecipeError", "parse_format"]

ACTIVATION_FRAC = (-16, 24)
"""Binary points that an activation may have; weights then keep every requantise shift in the core's range."""

BATCH_NORMS = ("fold", "layer")
"""A BatchNorm after a convolution: folded into its weights, or a fixed-point layer of its own."""

_WEIGHT_FRAC = (-32, 48)


class RecipeError(ValueError):
    """A recipe that cannot be used; the message says which entry, why and what to write instead."""


def _bits(name: str, value: Any, least: int = 2) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= 8:
        raise RecipeError(f"{name} must be an integer of {least}..8 bits, not {value!r}")


def _weight_bits(name: str, value: Any) -> None:
    _bits(name, value, 1)


def _digits(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 8:
        raise RecipeError(f"{name} must be K, the most digits of a weight, 1..8, or 0 for no limit, not {value!r}")


def _flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise RecipeError(f"{name} must be true or false, not {value!r}")


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RecipeError(f"{name} must be one of {', '.join(choices)}, not {value!r}")


def _rounding(name: str, value: Any) -> Rounding:
    names = ", ".join(mode.name for mode in CORE_ROUNDINGS)
    if isinstance(value, str) and value in Rounding.__members__:
        value = Rounding[value]
    if value not in CORE_ROUNDINGS:
        raise RecipeError(f"{name} must be one of {names} (what a core rounds by), not {value!r}")
    return Rounding(value)


def parse_format(name: str, value: Any) -> FixedFormat:
    """A format, given as one, as its text ("s8f4") or as ``fixed<W, I>`` and ``ufixed<W, I>``: W bits, I of them integer."""
    if isinstance(value, FixedFormat):
        return value
    try:
        if isinstance(value, str) and (match := _FIXED.fullmatch(value)):
            width, integer = int(match["width"]), int(match["integer"])
            return FixedFormat(width, width - integer, match["unsigned"] is None)
        return FixedFormat.parse(value)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{name} must be a FixedFormat or text such as 'u8f4' or 'fixed<8, 4>': {error}") from error


_FIXED = re.compile(r"(?P<unsigned>u)?fixed<\s*(?P<width>[0-9]{1,3})\s*,\s*(?P<integer>-?[0-9]{1,3})\s*>")


def _held(name: str, value: Any, frac: tuple[int, int]) -> FixedFormat:
    """A format of 2..8 bits with a binary point in ``frac``: what the core's bytes and shifts hold."""
    fmt = parse_format(name, value)
    if not 2 <= fmt.width <= 8 or not frac[0] <= fmt.frac <= frac[1]:
        raise RecipeError(f"{name} must have 2..8 bits and {frac[0]}..{frac[1]} fraction bits (what the core holds), not {fmt}")
    return fmt


def _weight_format(name: str, value: Any) -> FixedFormat:
    fmt = _held(name, value, _WEIGHT_FRAC)
    if not fmt.signed:
        raise RecipeError(f"{name} must be signed, as the core's weights are, not {fmt}")
    return fmt


@dataclass(frozen=True, kw_only=True)
class LayerRecipe:
    """What one layer does differently; None leaves the recipe's own value.

    ``weight_format`` and ``activation_format`` (of the layer's output) give a whole format, whose binary point then does not
    learn; they replace the bits. ``weight_digits`` 0 lifts the recipe's limit. The rest is as in `Recipe`.
    """

    weight_bits: int | None = None
    activation_bits: int | None = None
    rounding: Rounding | None = None
    weight_format: FixedFormat | None = None
    activation_format: FixedFormat | None = None
    weight_digits: int | None = None
    digit_kind: str | None = None
    per_channel: bool | None = None
    batch_norm: str | None = None

    def __post_init__(self) -> None:
        for name, check in _LAYER_CHECKS.items():
            if (value := getattr(self, name)) is not None:
                made = check(f"override {name}", value)
                object.__setattr__(self, name, value if made is None else made)
        for what in ("weight", "activation"):
            fmt, bits = getattr(self, f"{what}_format"), getattr(self, f"{what}_bits")
            if fmt is not None and bits not in (None, fmt.width):
                raise RecipeError(f"override {what}_bits must be {fmt.width}, as in {what}_format {fmt}, or left out, "
                                  f"not {bits}")


_LAYER_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "weight_bits": _weight_bits, "activation_bits": _bits, "rounding": _rounding, "weight_digits": _digits,
    "digit_kind": lambda name, value: _choice(name, value, tuple(DIGIT_KINDS)),
    "per_channel": _flag, "batch_norm": lambda name, value: _choice(name, value, BATCH_NORMS),
    "weight_format": _weight_format,
    "activation_format": lambda name, value: _held(name, value, ACTIVATION_FRAC),
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a model is quantised.

    Parameters
    ----------
    weight_bits, first_layer_weight_bits : 1..8; codes are symmetric, so 4 bits are -7..7, and 1 bit is -1 or 1, without a 0
    activation_bits : 2..8; unsigned where all tensors of a sharing group are non-negative
    rounding : TRN, RND or RND_CONV, of every requantisation
    input_format : the format of the model's input, such as ``FixedFormat(8, 4, False)``, "u8f4" or "ufixed<8, 4>"; None
        learns a signed one from the calibration data
    weight_digits, digit_kind : every weight has at most so many digits, 1..8 (0: no limit), so that a product is as many shifts
        and additions: one bits of the magnitude ("k_hot") or signed powers of two ("signed")
    per_channel : a binary point for each output channel's weights, or one for the whole tensor
    batch_norm : "fold" into the weights before it, or a fixed-point "layer" of its own
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
    weight_digits: int = 0
    digit_kind: str = "k_hot"
    per_channel: bool = True
    batch_norm: str = "fold"

    def __post_init__(self) -> None:
        for name, check in (("weight_bits", _weight_bits), ("activation_bits", _bits), ("first_layer_weight_bits", _weight_bits)):
            check(name, getattr(self, name))
        if self.weight_digits is None:
            object.__setattr__(self, "weight_digits", 0)
        for name in ("weight_digits", "digit_kind", "per_channel", "batch_norm"):
            _LAYER_CHECKS[name](name, getattr(self, name))
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
        return cls.from_toml_text(Path(path).read_bytes(), str(path))

    @classmethod
    def from_toml_text(cls, text: str | bytes, name: str = "recipe") -> Recipe:
        """A recipe from TOML (bytes are UTF-8); ``name`` is what errors call it."""
        try:
            import tomllib
        except ImportError as error:
            raise RecipeError("reading TOML needs Python 3.11 or newer: use Recipe.from_dict") from error
        try:
            return cls.from_dict(tomllib.loads(text if isinstance(text, str) else text.decode("utf-8")))
        except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number without end, nested without end
            raise RecipeError(f"{name}: {error}") from error

    def layer(self, name: str, *, first: bool = False) -> LayerRecipe:
        """The complete recipe of one layer; later patterns win."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _SHARED}
        values["weight_bits"] = self.first_layer_weight_bits if first else self.weight_bits
        for pattern, entry in self.overrides.items():
            if fnmatch.fnmatchcase(name, pattern):
                values.update(_given(entry))
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


_SHARED = ("activation_bits", "rounding", "weight_digits", "digit_kind", "per_channel", "batch_norm")
"""Fields that a layer has from the recipe."""


def _given(entry: LayerRecipe) -> dict[str, Any]:
    """What an override sets; a format sets the bits, and bits alone undo a format of an earlier pattern."""
    values = {k: v for k, v in vars(entry).items() if v is not None}
    for what in ("weight", "activation"):
        if f"{what}_format" in values:
            values[f"{what}_bits"] = values[f"{what}_format"].width
        elif f"{what}_bits" in values:
            values[f"{what}_format"] = None
    return values


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
    fmt = parse_format("input_format", value)
    if fmt.width > 8 or abs(fmt.frac) > 24:
        raise RecipeError(f"input_format must have at most 8 bits and a binary point in -24..24, not {fmt}")
    return fmt
