"""The losses: class-weighted cross-entropy, and for retraining that of the auxiliary head and of mixup."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed


def class_weights(labels: np.ndarray, classes: int) -> Tensor:
    """Weights (classes,) that give every class the same total: n / (classes * n_c); 0 for an absent class."""
    counts = np.bincount(labels, minlength=classes)
    weights = np.divide(len(labels), classes * counts, out=np.zeros(classes), where=counts > 0)
    return torch.from_numpy(weights.astype(np.float32))


def weighted_cross_entropy(
    logits: Tensor, y: Tensor, weight: Tensor | None, label_smoothing: float = 0.0
) -> Tensor:
    """The weighted mean over the batch, sum_i w_i l_i / sum_i w_i, where l_i is the cross-entropy of utterance i.

    `label_smoothing` is the share of the target that is spread evenly over the classes (Szegedy et al., CVPR 2016);
    each class of the target then counts with its own weight: l_i w_i becomes the sum over c of t_ic w_c (-log p_ic).

    Each rank computes it on its share, scaled so that the mean over the ranks is the value of the whole batch: the
    weights of the shares may add up to different sums.
    """
    loss = F.cross_entropy(logits, y, weight, label_smoothing=label_smoothing)
    if weight is None or distributed.world_size() == 1:
        return loss
    own = weight[y].sum()
    return loss * (own / distributed.mean([own])[0])


class ClassificationLoss(nn.Module):
    """Cross-entropy of the logits, plus `aux_weight` times that of the auxiliary logits, if there are any."""

    def __init__(self, weight: Tensor | None, aux_weight: float = 0.0, label_smoothing: float = 0.0):
        """`weight` (classes,): see `class_weights`; None: all classes have weight 1."""
        super().__init__()
        self.register_buffer("weight", weight)
        self.aux_weight = aux_weight
        self.label_smoothing = label_smoothing

    def forward(self, outputs: Tensor | tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        if isinstance(outputs, Tensor):
            return self.cross_entropy(outputs, y)
        logits, auxiliary_logits = outputs
        return self.cross_entropy(logits, y) + self.aux_weight * self.cross_entropy(auxiliary_logits, y)

    def cross_entropy(self, logits: Tensor, y: Tensor) -> Tensor:
        """The loss of one head."""
        return weighted_cross_entropy(logits, y, self.weight, self.label_smoothing)


class MixupLoss(nn.Module):
    """The loss of mixed inputs: the losses of both labels, in the proportion of the inputs (Zhang et al. 2018)."""

    def __init__(self, loss: nn.Module, partner: Tensor, share: Tensor):
        """`share` of each input i comes from utterance i, the rest from utterance `partner[i]`."""
        super().__init__()
        self.loss = loss
        self.partner = partner
        self.share = share

    def forward(self, outputs: Tensor | tuple[Tensor, Tensor], y: Tensor) -> Tensor:
        own = self.loss(outputs, y)
        other = self.loss(outputs, y[self.partner])
        return self.share * own + (1 - self.share) * other
