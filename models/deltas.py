"""Deltas along time as further channels of a network's input.

Shapes: N utterances, C channels, F coefficients, T frames.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class AppendDeltas(nn.Module):
    """The input, its deltas, the deltas of these, and so on, `count` times: (N, 1, F, T) -> (N, 1 + count, F, T)."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        channels = [x]
        for _ in range(self.count):
            channels.append(delta(channels[-1]))
        return torch.cat(channels, dim=1)


def delta(x: Tensor) -> Tensor:
    """The slopes of lines fitted to five frames each, times sqrt(10): (N, C, F, T) -> (N, C, F, T).

    The slope at frame t is the sum over n = 1, 2 of n (x[t + n] - x[t - n]), divided by 2 (1 + 4) = 10 (Young et al.,
    The HTK Book, section 5.9). The first and the last frame are repeated beyond the ends. With the factor sqrt(10), the
    delta of white noise has the variance of the noise; the delta of that delta has about twice as much.
    """
    frames = x.shape[-1]
    padded = F.pad(x, (2, 2, 0, 0), mode="replicate")
    before2, before1, _, after1, after2 = (padded.narrow(-1, start, frames) for start in range(5))
    return (after1 - before1 + 2 * (after2 - before2)) / math.sqrt(10)
