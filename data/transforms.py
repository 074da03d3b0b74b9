"""What training does to a batch of standardised features and a test never does."""

import torch
from torch import Tensor
from torchaudio.functional import mask_along_axis_iid


def cutout(x: Tensor, length: int) -> Tensor:
    """Blank one random square of side `length` per utterance (DeVries and Taylor 2017).

    x (N, 1, F, T), standardised, so that 0 is the mean. A square may reach over the edge.
    """
    if length == 0:
        return x
    n, _, *size = x.shape
    inside = []
    for axis, extent in enumerate(size):
        centre = torch.randint(extent, (n, 1), device=x.device)
        distance = (
            torch.arange(extent, device=x.device) - centre + length // 2
        )  # 0 at the square's first line
        shape = (n, 1, -1, 1) if axis == 0 else (n, 1, 1, -1)
        inside.append(((distance >= 0) & (distance < length)).view(shape))
    return x.masked_fill(inside[0] & inside[1], 0.0)


def spec_augment(x: Tensor, coefficients: int, frames: int) -> Tensor:
    """Blank one band of fewer than `coefficients` and one stretch of fewer than `frames` an utterance; 0 blanks none.

    x (N, 1, F, T), standardised. The masks of SpecAugment (Park et al., Interspeech 2019), without its time warping.
    """
    for axis, width in ((2, coefficients), (3, frames)):
        if width:
            x = mask_along_axis_iid(x, width, 0.0, axis)
    return x


def mixup(x: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Blend each input with another of its batch (Zhang et al. 2018): share * x + (1 - share) * x[partner].

    Returns the blends, `partner` (N,), and `share`, one draw from Beta(alpha, alpha) for the batch.
    """
    share = torch.distributions.Beta(alpha, alpha).sample()
    partner = torch.randperm(len(x), device=x.device)
    return torch.lerp(x[partner], x, share.to(x.device, non_blocking=x.is_cuda)), partner, share
