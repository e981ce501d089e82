"""The losses against scalar loops in float64, which sum in another order (1e-12), their gradients against finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sw.detect.losses import detection_loss, focal_loss, masked_l1
from sw.detect.targets import Targets, encode


def example(seed: int = 1) -> tuple[list[Tensor], Targets]:
    """Random float64 outputs for two images of 24 x 40 with four objects."""
    random = torch.Generator().manual_seed(seed)
    boxes = [torch.tensor([[2.0, 3, 30, 29], [18.0, 4, 37, 20], [3.0, 7, 14, 19]]), torch.tensor([[1.0, 1, 30, 20]])]
    found = encode(boxes, [torch.tensor([0, 1, 1]), torch.tensor([1])], 2, 24, 40, min_overlap=0.3)
    targets = Targets(heat=found.heat.double(), size=found.size.double(), shift=found.shift.double(), mask=found.mask)
    outputs = [torch.randn(t.shape, generator=random, dtype=torch.float64) * 2 for t in (targets.heat, targets.size, targets.shift)]
    return outputs, targets


def slow_focal(logits: Tensor, heat: Tensor) -> float:
    total, centres = 0.0, 0
    for z, y in zip(logits.flatten().tolist(), heat.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        if y == 1:
            total -= (1 - p) ** 2 * math.log(p)
            centres += 1
        else:
            total -= (1 - y) ** 4 * p**2 * math.log(1 - p)
    return total / max(1, centres)


def slow_l1(values: Tensor, target: Tensor, mask: Tensor) -> float:
    differences = [abs(float(values[n, k, r, c] - target[n, k, r, c])) for n, r, c in mask.nonzero().tolist() for k in range(2)]
    return sum(differences) / len(differences) if differences else 0.0


@pytest.mark.parametrize("seed", range(3))
def test_against_scalar_loops(seed: int) -> None:
    outputs, targets = example(seed)
    assert ((targets.heat > 0) & (targets.heat < 1)).any() and int(targets.mask.sum()) == 4
    found = detection_loss(outputs, targets)
    heat = slow_focal(outputs[0], targets.heat)
    size, shift = slow_l1(outputs[1], targets.size, targets.mask), slow_l1(outputs[2], targets.shift, targets.mask)
    for value, wanted in zip(found, (heat + 0.1 * size + shift, heat, size, shift), strict=True):
        assert float(value) == pytest.approx(wanted, rel=1e-12)


def test_images_without_objects() -> None:
    outputs, _ = example()
    targets = encode([torch.zeros(0, 4)] * 2, [torch.zeros(0, dtype=torch.int64)] * 2, 2, 24, 40)
    found = detection_loss(outputs, targets)
    assert float(found.heat) == pytest.approx(slow_focal(outputs[0], targets.heat), rel=1e-12)
    assert float(found.size) == float(found.shift) == 0


def test_gradients_are_those_of_finite_differences() -> None:
    outputs, targets = example()
    leaves = [values.requires_grad_() for values in outputs]
    assert torch.autograd.gradcheck(lambda *given: detection_loss(given, targets).total, leaves)
    assert torch.autograd.gradcheck(lambda logits: focal_loss(logits, targets.heat), leaves[0])
    assert torch.autograd.gradcheck(lambda size: masked_l1(size, targets.size, targets.mask), leaves[1])


@pytest.mark.parametrize("z", [-200.0, -30.0, 30.0, 200.0])
def test_extreme_logits_in_float32_stay_finite(z: float) -> None:
    logits = torch.full((1, 1, 2, 2), z, requires_grad=True)
    heat = torch.tensor([[[[1.0, 0.5], [0.0, 0.99]]]])
    loss = focal_loss(logits, heat)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()  # type: ignore[union-attr, arg-type]
    wanted = -z if z < 0 else z * (0.5**4 + 1 + 0.01**4)  # where the sigmoid is 0 or 1; float32 and its tails differ
    assert float(loss.detach()) == pytest.approx(wanted, rel=1e-4)


def test_shapes_that_do_not_fit_are_refused() -> None:
    outputs, targets = example()
    with pytest.raises(ValueError, match="heat, size and shift, not 2"):
        detection_loss(outputs[:2], targets)
    with pytest.raises(ValueError, match=r"output size must be of shape \(2, 2, 6, 10\), not \(2, 2, 6, 9\)"):
        detection_loss([outputs[0], outputs[1][..., :-1], outputs[2]], targets)
