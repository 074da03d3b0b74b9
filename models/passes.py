"""Forward passes with other weights than the network's own, or in bfloat16.

The pass uses bf16 copies of the weights; the float32 weights receive the gradients through the
cast. BatchNorm's weights and statistics, the alphas and the logits stay float32. (torch's autocast
does not know the autograd functions of `models.fused`.)
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

CAST_MODULES = nn.Conv2d, nn.Linear, nn.LayerNorm, nn.RNNBase
"""Modules whose weights are cast, except `Float32Linear`."""


class Float32Linear(nn.Linear):
    """A linear map to logits, which stays float32 in a bf16 pass."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def forward_with(
    network: nn.Module,
    x: Tensor,
    weights: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Return `network(x)`, computed with the tensors in `weights` in place of the network's own of these names.

    With a `dtype`, x and the weights of `CAST_MODULES` are cast to it.
    """
    if weights is None and dtype is None:
        return network(x)
    tensors = {**dict(network.named_parameters()), **(weights or {})}
    return functional_call(network, cast_weights(network, tensors, dtype), (x.to(dtype),))


def cast_weights(
    network: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Cast those of the named weights that belong to `CAST_MODULES` to `dtype`; None: return all unchanged."""
    if dtype is None:
        return dict(weights)
    cast = {
        name
        for name, module in network.named_modules()
        if isinstance(module, CAST_MODULES) and not isinstance(module, Float32Linear)
    }
    return {name: w.to(dtype) if name.rpartition(".")[0] in cast else w for name, w in weights.items()}


def at_least_float32(x: Tensor) -> torch.dtype:
    """The dtype of a statistic of x."""
    return torch.promote_types(x.dtype, torch.float32)
