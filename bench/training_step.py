"""Cost of a fixed-point training step of ResNet-20: ours against float32 and Brevitas, eager and compiled, interleaved.

    python bench/training_step.py [--batch 32] [--repeats 15] [--threads 1] [--skip NAME ...] [--json FILE]

A step is forward, cross entropy, backward and one SGD update on (batch, 3, 32, 32). In every fixed-point network all tensors
are quantised to 8 bits: the input, each convolution's weights, bias and result, each residual sum, the mean and the scores;
binary points are learned, all scales are powers of two. Two float baselines: ``float`` is the ordinary network with BatchNorm
in training, ``float_folded`` has every BatchNorm folded into the convolution before it, as the fixed-point networks do, and
so computes the same layers as they.

The candidates take turns, so that a busy machine slows all of them. Times are CPU times of the step's thread; each ratio is
the median over the turns of the ratio within a turn.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import torch
from step_cost import WARM_UP, Step, measure, options, ratio, stepper, summary, write
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sw.kernels import available
from sw.models.resnet import resnet20
from sw.quant import Recipe, quantize_model


def folded(model: nn.Module) -> nn.Module:
    """The network with every BatchNorm folded into the convolution before it; all of it learns."""
    model = copy.deepcopy(model).eval()
    for parent in list(model.modules()):
        before: tuple[str, nn.Module] | None = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and before is not None and isinstance(before[1], nn.Conv2d):
                setattr(parent, before[0], fuse_conv_bn_eval(before[1], child))
                setattr(parent, name, nn.Identity())
            before = name, child
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.train()


def ours(model: nn.Module, images: Tensor) -> nn.Module:
    """Our fixed-point network, calibrated, training; BatchNorm is folded on every step, its parameters learn."""
    fixed = quantize_model(model, Recipe(weight_bits=8, activation_bits=8))
    fixed.calibrate([images])
    return fixed.train()


def brevitas(model: nn.Module, images: Tensor) -> nn.Module:
    """The folded network in Brevitas with the same tensors quantised, past its statistics phase."""
    import brevitas.nn as qnn
    from brevitas.quant import Int32Bias
    from brevitas.quant.fixed_point import (
        Int8ActPerTensorFixedPoint,
        Int8WeightPerChannelFixedPoint,
        Uint8ActPerTensorFixedPoint,
    )

    def identity(quant: Any = Int8ActPerTensorFixedPoint) -> nn.Module:
        return qnn.QuantIdentity(act_quant=quant, return_quant_tensor=True, collect_stats_steps=1)

    def conv(source: Any) -> nn.Module:
        made = qnn.QuantConv2d(source.in_channels, source.out_channels, source.kernel_size, stride=source.stride,
                               padding=source.padding, weight_quant=Int8WeightPerChannelFixedPoint, bias_quant=Int32Bias)
        made.load_state_dict(source.state_dict())
        return made

    class Join(nn.Module):
        """Both sides in one format, and the sum in the next layer's, after the ReLU."""

        def __init__(self, block: Any) -> None:
            super().__init__()
            self.first, self.second = conv(block.first[0]), conv(block.second[0])
            self.shortcut = None if isinstance(block.shortcut, nn.Identity) else conv(block.shortcut[0])
            self.first_relu, self.sides, self.sum_relu = relu(), identity(), relu()

        def forward(self, x: Any) -> Any:
            short = x if self.shortcut is None else self.shortcut(x)
            return self.sum_relu(self.sides(self.second(self.first_relu(self.first(x)))) + self.sides(short))

    def relu() -> nn.Module:
        return qnn.QuantReLU(act_quant=Uint8ActPerTensorFixedPoint, return_quant_tensor=True, collect_stats_steps=1)

    source: Any = folded(model)
    head = qnn.QuantLinear(source.head.in_features, source.head.out_features, bias=True, bias_quant=Int32Bias,
                           weight_quant=Int8WeightPerChannelFixedPoint)
    head.load_state_dict(source.head.state_dict())
    blocks = [Join(block) for stage in source.stages for block in stage]
    made = nn.Sequential(identity(), conv(source.stem[0]), relu(), *blocks, nn.AdaptiveAvgPool2d(1),
                         identity(Uint8ActPerTensorFixedPoint), nn.Flatten(), head,
                         qnn.QuantIdentity(act_quant=Int8ActPerTensorFixedPoint, collect_stats_steps=1))
    made.train()
    for _ in range(WARM_UP):
        made(images)
    return made


def candidates(batch: int, skip: list[str]) -> dict[str, Step]:
    """Every network's step by name."""
    torch.manual_seed(0)
    images, labels = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    model = resnet20()
    with torch.no_grad():
        for _ in range(3):
            model.train()(images)  # BatchNorm statistics that fit, so that folding gives a sane network
    makers: dict[str, Callable[[], tuple[nn.Module, bool]]] = {
        "float": lambda: (copy.deepcopy(model).train(), False),
        "float_folded": lambda: (folded(model), False),
        "ours": lambda: (ours(model, images), False),
        "brevitas": lambda: (brevitas(model, images), False),
        "float_compiled": lambda: (copy.deepcopy(model).train(), True),
        "float_folded_compiled": lambda: (folded(model), True),
        "ours_compiled": lambda: (ours(model, images), True),
    }
    return {name: stepper(made[0], images, labels, 1e-4, made[1])
            for name, maker in makers.items() if name not in skip and (made := maker())}


RATIOS = (("ours", "float"), ("ours", "float_folded"), ("ours", "brevitas"), ("brevitas", "float"),
          ("ours_compiled", "float_compiled"), ("ours_compiled", "float_folded_compiled"))


def report(times: dict[str, list[float]], batch: int, threads: int) -> dict[str, Any]:
    """The summary and the ratios of those that were measured."""
    ratios = {f"{a}/{b}": ratio(times, a, b) for a, b in RATIOS if a in times and b in times}
    return {**summary(times, batch, threads), "kernels": available(), "ratios": ratios}


def main() -> None:
    args = options(__doc__).parse_args()
    torch.set_num_threads(args.threads)
    found = report(measure(candidates(args.batch, args.skip), args.repeats), args.batch, args.threads)
    print(json.dumps(found, indent=1))
    write(args.json, found)


if __name__ == "__main__":
    main()
