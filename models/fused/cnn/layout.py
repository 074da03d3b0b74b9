"""How a batch of feature maps is laid out in memory, and conversions between layouts.

A vector register of a CPU holds up to 16 float32 numbers: convolutions of 8 channels run several times
slower than those of 16. So a cell with few channels folds its batch: `fold` utterances lie side by side
along the channel axis, as one image, and kernels are repeated for each. Operations on single channels
(pools, ReLU, depthwise convolutions, sums) give the same numbers in this layout. A matrix on the channels
becomes block-diagonal, and the mean of a channel is the mean over its m copies.

Shapes: N utterances, C channels, F coefficients, T frames, m = `Layout.fold`, R pixels; maps (N, C, F, T),
folded (N/m, mC, F, T), both in channels_last memory format; as a matrix (R, mC).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

VECTOR_CHANNELS = 16


@dataclass(frozen=True)
class Layout:
    """`fold` utterances in one image; statistics of a batch are taken over `processes` processes."""

    fold: int = 1
    processes: int = 1


def choose_fold(utterances: int, channels: int) -> int:
    """The smallest fold that fills a vector register, if it divides the batch; else 1."""
    for m in (1, 2, 4, 8):
        if channels * m >= VECTOR_CHANNELS and utterances % m == 0:
            return m
    return 1


def fold_maps(x: Tensor, m: int) -> Tensor:
    """(N, C, F, T) -> (N/m, mC, F, T)."""
    n, c, f, t = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    grouped = x.permute(0, 2, 3, 1).reshape(n // m, m, f, t, c).permute(0, 2, 3, 1, 4)
    return grouped.reshape(n // m, f, t, m * c).permute(0, 3, 1, 2)


def unfold_maps(x: Tensor, channels: int) -> Tensor:
    """(N/m, mC, F, T) -> (N, C, F, T)."""
    n, mc, f, t = x.shape
    grouped = x.permute(0, 2, 3, 1).reshape(n, f, t, mc // channels, channels).permute(0, 3, 1, 2, 4)
    return grouped.reshape(-1, f, t, channels).permute(0, 3, 1, 2)


def concatenate_channels(x: Tensor, y: Tensor, m: int) -> Tensor:
    """Concatenate folded maps along C: twice (N/m, mC, F, T) -> (N/m, m 2C, F, T)."""
    pixels = [z.permute(0, 2, 3, 1).unflatten(3, (m, -1)) for z in (x, y)]
    return torch.cat(pixels, dim=4).flatten(3).permute(0, 3, 1, 2)


def maps_to_matrix(x: Tensor) -> Tensor:
    """(N/m, mC, F, T) -> (R, mC), one row per pixel; a view."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def matrix_to_maps(x: Tensor, like: Tensor) -> Tensor:
    """(R, mC) -> (N/m, mC, F, T) with the N, F and T of the maps `like`; a view."""
    n, _, f, t = like.shape
    return x.view(n, f, t, -1).permute(0, 3, 1, 2)


def repeat_channels(x: Tensor, m: int) -> Tensor:
    """Repeat a statistic (C,) or depthwise kernels (C, 1, k, k) m times along C, for folded maps."""
    return torch.cat([x] * m)  # several times as fast as `repeat`


def per_channel(statistic: Tensor) -> Tensor:
    """(mC,) -> (1, mC, 1, 1), to be broadcast over maps."""
    return statistic.view(1, -1, 1, 1)


def block_diagonal(matrix: Tensor, m: int) -> Tensor:
    """A matrix on the channels, for folded maps: (C, C') -> (mC, mC')."""
    return torch.block_diag(*[matrix] * m) if m > 1 else matrix


def sum_blocks(matrix: Tensor, m: int) -> Tensor:
    """The sum of the m blocks on the diagonal: (..., mC, mC') -> (..., C, C')."""
    if m == 1:
        return matrix
    return matrix.unflatten(-1, (m, -1)).unflatten(-3, (m, -1)).diagonal(dim1=-4, dim2=-2).sum(dim=-1)
