"""Fused optimisers change weights without counting it in the version counter (torch 2.13); a hook counts it for them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.autograd.graph import increment_version
from torch.optim.optimizer import register_optimizer_step_post_hook

__all__ = ["watch_fused_optimizers"]


@functools.cache
def watch_fused_optimizers() -> None:
    """From now on every fused optimiser of this process moves its parameters' version counters on; done once."""
    register_optimizer_step_post_hook(_count)


def _count(optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    increment_version(parameter)
