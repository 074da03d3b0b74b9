"""Where an input holds sound and where it is padding, so that summaries over time leave padding out.

Shapes: N utterances, C channels, F coefficients, T frames or time steps.
"""

import torch
from torch import Tensor


def steps_of_sound(x: Tensor, steps: int) -> Tensor:
    """Which of so many time steps of a network hold sound, (N, steps) bool, for its input x (N, 1, F, T).

    All coefficients of padding are 0, as in the frames that SpecAugment masks; a frame of sound has others.
    """
    is_sound = (x != 0).flatten(1, 2).any(dim=1)  # (N, T)
    first_frames = torch.arange(steps, device=x.device) * x.shape[-1] // steps
    return is_sound[:, first_frames]


def mean_over_sound(h: Tensor, is_sound: Tensor) -> Tensor:
    """The mean over the time steps with sound: h (N, T, C), is_sound (N, T) -> (N, C)."""
    weights = is_sound.to(h.dtype).unsqueeze(2)
    return (weights * h).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
