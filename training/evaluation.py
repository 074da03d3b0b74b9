"""What a network makes of data when it is not trained: logits, of recordings too, and their loss."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.precision import true_float32


@torch.no_grad()
def logits_of(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The logits (N, classes), on the CPU, in evaluation mode; the network is left in the mode it was in."""
    training = network.training
    network.eval()
    with true_float32():
        logits = torch.cat([network(x) for x, _ in batches]).float().cpu()
    network.train(training)
    return logits


def pooled(logits: Tensor, clips: Sequence[int]) -> Tensor:
    """The log of the mean probability of each recording (R, classes), which has so many `clips` of the logits' rows."""
    parts = logits.log_softmax(dim=1).split(list(clips))
    return torch.stack([part.logsumexp(dim=0) - math.log(len(part)) for part in parts])


def cross_entropy(logits: Tensor, labels: Any) -> float:
    """The mean loss of logits (N, classes) on the CPU, for the record."""
    return float(F.cross_entropy(logits, torch.as_tensor(labels)))
