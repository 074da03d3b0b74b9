"""One step of the weights, in the search and in the retraining."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models import passes
from training import distributed

Metrics = dict[str, Tensor]
Batch = tuple[Tensor, Tensor]
"""Inputs (N, 1, F, T) and class ids (N,)."""


def weight_step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    loss_function: Callable[[Any, Tensor], Tensor],
    clip: float,
    dtype: torch.dtype | None = None,
    parameters: Sequence[nn.Parameter] | None = None,
) -> Metrics:
    """One step of the optimizer on a batch; return the loss and the accuracy before the step.

    `clip` is the largest norm of the gradient. With `dtype`, the forward pass runs in it (see `models.passes`).
    `parameters` are those that change, by default all that the optimizer has.
    """
    x, y = batch
    if parameters is None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
    outputs = passes.forward_with(network, x, dtype=dtype)
    loss = loss_function(outputs, y)
    for p, d in zip(parameters, distributed.gradient(loss, parameters), strict=True):
        p.grad = d
    nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()
    optimizer.zero_grad()
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    accuracy = (logits.argmax(dim=1) == y).float().mean()
    return {"train/loss": loss.detach(), "train/wa": accuracy}


def mean_over_ranks(metrics: Metrics) -> Metrics:
    """The metrics of the whole batch."""
    return dict(zip(metrics, distributed.mean(list(metrics.values())), strict=True))
