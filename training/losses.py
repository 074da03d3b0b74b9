"""The losses: class-weighted cross-entropy, and in the retraining the auxiliary head's where there is one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights that make every class count the same: n / (classes n_c), (classes,); 0 for a class that is absent."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def cross_entropy(logits: Tensor, y: Tensor, weight: Tensor | None) -> Tensor:
    """The weighted mean, sum_i w_i l_i / sum_i w_i, of a share of a batch, scaled so that the mean over processes is
    that of the whole batch: the shares may weigh differently."""
    loss = F.cross_entropy(logits, y, weight)
    if weight is None or distributed.world_size() == 1:
        return loss
    own = weight[y].sum()
    return loss * (own / distributed.mean([own])[0])


class JointLoss(nn.Module):
    """Cross-entropy of the logits, plus `aux_weight` times that of the auxiliary logits where there are some."""

    def __init__(self, weight: Tensor | None, aux_weight: float):
        """`weight` (classes,): as `class_weights` gives it; None: all classes weigh the same."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.aux_weight = aux_weight

    def forward(self, outputs: Tensor | tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return cross_entropy(outputs, y, self.weight)
        losses = [cross_entropy(logits, y, self.weight) for logits in outputs]
        return losses[0] + self.aux_weight * losses[1]


def blend(
    criterion: Callable[[Any, Tensor], Tensor], partner: Tensor, share: Tensor
) -> Callable[[Any, Tensor], Tensor]:
    """The loss of mixup's blends: as much of each label's loss as there is of its input (Zhang et al. 2018)."""
    return lambda outputs, y: share * criterion(outputs, y) + (1 - share) * criterion(outputs, y[partner])
