"""A pass in 16 bits: the weights and the maps of a network in bfloat16, what normalises and decides in float32.

A pass is lent its weights as bfloat16, and all that follows takes the type of what it is given. The weights themselves
stay float32: gradients come to them through the cast. (The fused functions have gradients of their own, of which
torch's autocast knows nothing.) BatchNorm's weights and statistics, the alphas and the logits stay float32.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

LOWERED = nn.Conv2d, nn.Linear, nn.LayerNorm, nn.RNNBase


class Float32Linear(nn.Linear):
    """The linear map to logits: in the type of its weights, whatever that of its input; no pass lowers them."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.weight.dtype))


def lowered(
    network: nn.Module, weights: Mapping[str, Tensor], dtype: torch.dtype | None
) -> dict[str, Tensor]:
    """Cast the weights of LOWERED modules, except `Float32Linear`, to `dtype`; with None, return them unchanged."""
    if dtype is None:
        return dict(weights)
    low = {
        name
        for name, m in network.named_modules()
        if isinstance(m, LOWERED) and not isinstance(m, Float32Linear)
    }
    return {name: w.to(dtype) if name.rpartition(".")[0] in low else w for name, w in weights.items()}


def in_type(network: nn.Module, dtype: torch.dtype | None) -> Callable[[Tensor], Any]:
    """A network as a function whose passes run in `dtype`; None: as it is."""
    if dtype is None:
        return network
    return lambda x: functional_call(
        network, lowered(network, dict(network.named_parameters()), dtype), (x.to(dtype),)
    )


def at_least_float32(x: Tensor) -> torch.dtype:
    """The type of a statistic of x."""
    return torch.promote_types(x.dtype, torch.float32)
