"""The quantised model: steps on named tensors, sharing groups of formats, and the four modes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hw.spec.fixed import FixedFormat, Rounding
from sw.quant.base import QuantOp
from sw.quant.fake import exact_power_of_two
from sw.quant.norm import FoldedNorm
from sw.quant.points import ActivationPoint, BinaryPoint, Mode
from sw.quant.shapes import QuantIdentity
from sw.quant.weighted import QuantLayer

__all__ = ["QuantModel", "Step"]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One layer call: ``name`` is the layer's place and the name of its output tensor."""

    name: str
    inputs: tuple[str, ...]


class QuantModel(nn.Module):
    """A network in fixed point; made by `sw.quant.quantize_model`.

    It takes and returns values, as the float model did, in every mode; `trace` gives the integer codes of every tensor.

    Parameters
    ----------
    layers : step name to layer
    steps : in execution order
    groups : tensor name to the key of its sharing group
    points : group key to its format
    outputs, flat : output tensors, and whether each is returned as (N, features)
    """

    def __init__(
        self, *, layers: Mapping[str, QuantOp], steps: Sequence[Step], groups: Mapping[str, str],
        points: Mapping[str, ActivationPoint], outputs: Sequence[str], flat: Sequence[bool], several: bool,
        rounding: Rounding, input_name: str,
    ) -> None:
        super().__init__()
        self.layers, self.points = nn.Module(), nn.ModuleDict({_key(k): v for k, v in points.items()})
        for name, layer in layers.items():
            _insert(self.layers, name, layer)
        self.input_layer = QuantIdentity()
        self.input_layer.rounding = rounding
        self.steps, self.groups = tuple(steps), dict(groups)
        self.outputs, self.flat, self.several = tuple(outputs), tuple(flat), several
        self.rounding, self.input_name, self.mode = rounding, input_name, Mode.FLOAT

    # -- structure ----------------------------------------------------------------------------------------------

    def layer(self, name: str) -> QuantOp:
        """The layer of a step, by its place in the model."""
        found = self.layers.get_submodule(name)
        assert isinstance(found, QuantOp)
        return found

    def point(self, tensor: str) -> ActivationPoint:
        """The format of a tensor's sharing group."""
        found = self.points[_key(self.groups[tensor])]
        assert isinstance(found, ActivationPoint)
        return found

    def formats(self) -> dict[str, FixedFormat]:
        """Every tensor's format as it stands now."""
        return {tensor: self.point(tensor).fmt for tensor in self.groups}

    def quant_layers(self) -> Iterator[tuple[str, QuantLayer]]:
        """The layers with weights, by name, in execution order."""
        for step in self.steps:
            if isinstance(layer := self.layer(step.name), QuantLayer):
                yield step.name, layer

    def binary_points(self) -> list[nn.Parameter]:
        """The integer bits that learn: of weights and of activations."""
        found = (m for m in self.modules() if isinstance(m, BinaryPoint))
        return [p.integer_bits for p in found if p.fixed is None]

    # -- modes --------------------------------------------------------------------------------------------------

    def set_mode(self, mode: Mode) -> None:
        """Change what the model computes; QAT needs calibration first. FROZEN is entered by `freeze`."""
        if mode is Mode.FROZEN:
            return self.freeze()
        if mode is Mode.QAT:
            self._check_ready()
        self._switch(mode)

    def _switch(self, mode: Mode) -> None:
        self.mode = mode
        for module in self.modules():
            if isinstance(module, (QuantOp, ActivationPoint)):
                module.mode = mode

    def _check_ready(self) -> None:
        points = ((n, m) for n, m in self.named_modules() if isinstance(m, BinaryPoint))
        if missing := [name for name, point in points if not bool(point.ready)]:
            raise ValueError(f"the model must be calibrated first, {len(missing)} binary points are not set "
                             f"({missing[0]}, ...): call calibrate() with a few batches")

    @torch.no_grad()
    def calibrate(self, batches: Iterable[Tensor], method: str = "mse") -> None:
        """Set all binary points from float batches and weights ("mse" or "minmax"); then enter QAT."""
        training = self.training
        self.eval()
        self._switch(Mode.CALIBRATE)
        for batch in batches:
            if batch.numel():
                self(batch)
        for group, point in self.points.items():
            assert isinstance(point, ActivationPoint)
            point.finish(self.rounding, method, group.replace("/", "."))
        for name, layer in self.quant_layers():
            with _naming(name):
                layer.fit(method)
        self.train(training)
        self.set_mode(Mode.QAT)

    def freeze(self) -> None:
        """Fix every integer; from now on the forward pass computes exactly the exported graph. Not differentiable."""
        self._check_ready()
        for step in self.steps:
            with _naming(step.name):
                self.layer(step.name).freeze(tuple(self.point(t).fmt for t in step.inputs), self.point(step.name).fmt)
        self._switch(Mode.FROZEN)

    def learn_points(self, learn: bool) -> None:
        """Let the binary points learn, or hold them."""
        for bits in self.binary_points():
            bits.requires_grad_(learn)

    def learn_statistics(self, learn: bool) -> None:
        """Let BatchNorms follow batch statistics while training, or hold their running statistics.

        At first folded ones hold them, and those that are layers of their own follow.
        """
        for module in self.modules():
            if isinstance(module, FoldedNorm):
                module.frozen_statistics = not learn

    # -- computing ----------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Values (N, C, H, W), or (N, features), to the values of the outputs."""
        values = self._frozen_values(x) if self.mode is Mode.FROZEN else self._values(x)
        found = tuple(v.flatten(1) if flat else v for v, flat in zip(values, self.flat, strict=True))
        return found if self.several else found[0]

    def _values(self, x: Tensor) -> list[Tensor]:
        tensors = {self.input_name: self.input_layer((_image(x),), (), self.point(self.input_name))}
        for step in self.steps:
            ins = tuple(self.point(t) for t in step.inputs)
            tensors[step.name] = self.layer(step.name)(tuple(tensors[t] for t in step.inputs), ins, self.point(step.name))
        return [tensors[t] for t in self.outputs]

    def _frozen_values(self, x: Tensor) -> list[Tensor]:
        tensors = self._codes(self.input_codes(x))
        scale = {t: exact_power_of_two(torch.tensor(-self.point(t).fmt.frac), x.dtype).to(x.device) for t in self.outputs}
        return [tensors[t].to(x.dtype) * scale[t] for t in self.outputs]

    @torch.no_grad()
    def input_codes(self, x: Tensor) -> Tensor:
        """The codes of an input, as integers in its float type."""
        point = self.point(self.input_name)
        return point.codes(_image(x), point.frac(*point.limits), self.input_layer.rounding)

    @torch.no_grad()
    def _codes(self, x: Tensor) -> dict[str, Tensor]:
        tensors = {self.input_name: x}
        for step in self.steps:
            tensors[step.name] = self.layer(step.name).codes(*(tensors[t] for t in step.inputs))
        return tensors

    def trace(self, x: Tensor) -> dict[str, Tensor]:
        """The codes (int64) of every tensor by name, input included; the model must be frozen."""
        if self.mode is not Mode.FROZEN:
            raise ValueError(f"trace needs the integers of a frozen model, not mode {self.mode.name}: call freeze() first")
        return {name: codes.to(torch.int64) for name, codes in self._codes(self.input_codes(x)).items()}


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    """Say of an error at which layer it arose."""
    try:
        yield
    except ValueError as error:
        error.args = (f"{place}: {error}",)
        raise


def _image(x: Tensor) -> Tensor:
    return x[:, :, None, None] if x.ndim == 2 else x


def _key(group: str) -> str:
    return group.replace(".", "/")  # module names have no dots


def _insert(root: nn.Module, place: str, layer: nn.Module) -> None:
    *parents, last = place.split(".")
    for name in parents:
        if name not in root._modules:
            root.add_module(name, nn.Module())
        root = root.get_submodule(name)
    root.add_module(last, layer)
