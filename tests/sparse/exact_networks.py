"""Small networks, optimisers and batches for the tests of the export and of exact training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sw.models.resnet import CifarResNet
from sw.models.vgg import Vgg
from sw.sparse import sparsify


class Forms(nn.Module):
    """(N, 2, 8, 8): what the other networks lack. Kernels that are not square, biases, functions, sums in both orders, every pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 8, (3, 5), padding="valid")
        self.norm = nn.BatchNorm2d(8, eps=1e-3, momentum=0.25)
        self.left = nn.Conv2d(8, 8, 3, padding="same")
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Identity(), nn.Dropout(0.0))
        self.relu, self.down = nn.ReLU(inplace=True), nn.Conv2d(8, 8, 2, stride=1, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = self.relu(torch.add(x, self.left(x)))
        short = self.right(x)
        short += x
        x = F.max_pool2d(short, (3, 2))
        x = torch.relu(self.down(x)).relu()
        x = F.avg_pool2d(x, (3, 1))
        x = F.dropout(x, 0.0, self.training)
        return self.head(x.mean((2, 3)).view(x.size(0), -1))


class Sums(nn.Module):
    """(N, 2, 8, 8): residual sums that no BatchNorm or bias takes in, and a maximum pool with padded windows that overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.branch, self.bare = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 1, bias=False)
        self.pool, self.head = nn.MaxPool2d(3, 2, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + F.relu(self.branch(x))
        x = F.relu(x + self.bare(x))
        x = self.pool(x)
        return self.head((x + x).mean((2, 3)))


def resnet() -> nn.Module:
    return CifarResNet(1, 8)


def vgg() -> nn.Module:
    """Its linear layer reads maps of 2 x 2."""
    return Vgg(((8, 1), (16, 2)), channels=2, size=8, classes=5)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int, int]]] = {
    "resnet": (resnet, (4, 3, 32, 32)), "vgg": (vgg, (6, 2, 8, 8)), "forms": (Forms, (6, 2, 8, 8)), "sums": (Sums, (6, 2, 8, 8)),
}  # fmt: skip
"""Name to the network and the shape of its batch."""


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.875, weight_decay=1e-3)


def network(name: str, method: str = "bdwp", n: int = 2, m: int = 4, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    make, _ = NETWORKS[name]
    return sparsify(make(), n, m, method)


def batch(name: str, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Images that FP16 holds exactly, and labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = NETWORKS[name][1]
    return torch.randn(shape, generator=generator).half().float(), torch.randint(0, 4, shape[:1], generator=generator)


def trained(name: str, method: str = "bdwp", steps: int = 2) -> tuple[nn.Module, torch.optim.SGD]:
    """A network after some steps of torch, so that momenta and running statistics are no longer what they began as."""
    model = network(name, method)
    optimizer = sgd(model)
    for step in range(steps):
        images, labels = batch(name, 10 + step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model, optimizer
