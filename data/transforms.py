"""Random changes of training batches: cutout, SpecAugment and mixup. Tests never use them.

Shapes: N utterances, F coefficients, T frames; features are standardised, so that 0 is the mean.
"""

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid


def cutout(x: Tensor, length: int) -> Tensor:
    """Set one random square of side `length` to 0 in each utterance of x (N, 1, F, T); 0 changes nothing.

    The centre is uniform over the input, so that a square may reach over its edge (DeVries and
    Taylor 2017).
    """
    if length == 0:
        return x
    n, _, coefficients, frames = x.shape
    rows = _random_interval(n, coefficients, length, x.device).view(n, 1, -1, 1)
    columns = _random_interval(n, frames, length, x.device).view(n, 1, 1, -1)
    return x.masked_fill(rows & columns, 0.0)


def _random_interval(n: int, size: int, length: int, device: torch.device) -> Tensor:
    """(n, size) bool: true in one random interval of `length` per row; it may reach over the edge."""
    centre = torch.randint(size, (n, 1), device=device)
    distance = torch.arange(size, device=device) - centre + length // 2  # from the start of the interval
    return (distance >= 0) & (distance < length)


def spec_augment(x: Tensor, coefficients: int, frames: int) -> Tensor:
    """Set a band of coefficients and a band of frames to 0 in each utterance of x (N, 1, F, T).

    The bands are narrower than `coefficients` and `frames`; 0 masks none. These are the masks of
    SpecAugment (Park et al., Interspeech 2019), without its time warping.
    """
    for axis, width in ((2, coefficients), (3, frames)):
        if width:
            x = mask_along_axis_iid(x, width, 0.0, axis)
    return x


def mixup(x: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each input with another input of the batch (Zhang et al., ICLR 2018).

    Returns share * x + (1 - share) * x[partner], `partner` (N,) and `share` from Beta(alpha, alpha).
    """
    share = torch.distributions.Beta(alpha, alpha).sample()
    partner = torch.randperm(len(x), device=x.device)
    return torch.lerp(x[partner], x, share.to(x.device, non_blocking=x.is_cuda)), partner, share
