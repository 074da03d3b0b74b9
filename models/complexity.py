"""The cost of a network: the multiply-adds of one input."""

import copy
import math

import torch
from torch import Tensor, nn


@torch.no_grad()
def multiply_adds(network: nn.Module, shape: tuple[int, int]) -> int:
    """The multiply-adds in convolutions, linear maps and recurrences for an input (1, 1, F, T) of `shape` (F, T).

    Norms, activations, pools and sums are not counted, as is usual. Nothing is computed: the pass runs on torch's meta
    device.
    """
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += output.numel() * math.prod(module.weight.shape[1:])
        elif isinstance(module, nn.Linear):
            total += output.numel() * module.in_features
        else:
            steps = inputs[0].shape[1]  # batch first
            total += steps * sum(p.numel() for name, p in module.named_parameters() if "weight" in name)

    network = copy.deepcopy(network).to("meta").eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear | nn.RNNBase):
            module.register_forward_hook(count)
    network(torch.empty(1, 1, *shape, device="meta"))
    return total
