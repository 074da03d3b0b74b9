"""Few channels, many images: pairs of utterances as one image of twice the channels.

Vectors of the processor hold 16 numbers. With 8 channels, convolutions on a CPU run several times slower than with 16;
so a cell of few channels lays `fold` utterances side by side along the channels, and repeats its kernels for each.
Whatever works channel by channel (pools, ReLU, depthwise convolutions, sums) never knows; a matrix on the channels
becomes block-diagonal, and the mean over a channel is the mean over its copies.

Shapes: N utterances, C channels, m = `fold`; maps (N, C, F, T), folded (N/m, mC, F, T), in channels_last memory format;
as a matrix of a row a pixel, (R, mC).
"""

import torch
from torch import Tensor

ENOUGH = 16  # channels


def fold_of(utterances: int, channels: int) -> int:
    """How many utterances to fold: just enough for 16 channels, if they divide the batch."""
    return next((m for m in (1, 2, 4, 8) if channels * m >= ENOUGH and utterances % m == 0), 1)


def fold(x: Tensor, m: int) -> Tensor:
    """(N, C, F, T) -> (N/m, mC, F, T)."""
    n, c, f, t = x.shape
    x = x.contiguous(memory_format=torch.channels_last)
    grouped = x.permute(0, 2, 3, 1).reshape(n // m, m, f, t, c).permute(0, 2, 3, 1, 4)
    return grouped.reshape(n // m, f, t, m * c).permute(0, 3, 1, 2)


def unfold(x: Tensor, channels: int) -> Tensor:
    """(N/m, mC, F, T) -> (N, C, F, T)."""
    n, mc, f, t = x.shape
    grouped = x.permute(0, 2, 3, 1).reshape(n, f, t, mc // channels, channels).permute(0, 3, 1, 2, 4)
    return grouped.reshape(-1, f, t, channels).permute(0, 3, 1, 2)


def side_by_side(x: Tensor, y: Tensor, m: int) -> Tensor:
    """Maps joined along C: (N/m, mC, F, T) twice -> (N/m, m 2C, F, T)."""
    pixels = [z.permute(0, 2, 3, 1).unflatten(3, (m, -1)) for z in (x, y)]
    return torch.cat(pixels, dim=4).flatten(3).permute(0, 3, 1, 2)


def rows(x: Tensor) -> Tensor:
    """Maps as a matrix, a row a pixel: (N/m, mC, F, T) -> (R, mC); it shares their memory."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def maps(x: Tensor, like: Tensor) -> Tensor:
    """Rows as maps again, of as many and as large images as those of `like`."""
    n, _, f, t = like.shape
    return x.view(n, f, t, -1).permute(0, 3, 1, 2)


def copies(x: Tensor, m: int) -> Tensor:
    """A statistic (C,), or depthwise kernels (C, 1, k, k), for folded maps: m copies along C."""
    return torch.cat([x] * m)  # `repeat` takes several times as long


def blocks(matrix: Tensor, m: int) -> Tensor:
    """A matrix on the channels (C, C') for folded maps: (mC, mC'), block-diagonal. Factors (mC,) stay what they are."""
    return torch.block_diag(*[matrix] * m) if m > 1 and matrix.dim() == 2 else matrix


def block_sum(matrix: Tensor, m: int) -> Tensor:
    """The sum of the m blocks on the diagonal: (..., mC, mC') -> (..., C, C')."""
    if m == 1:
        return matrix
    return matrix.unflatten(-1, (m, -1)).unflatten(-3, (m, -1)).diagonal(dim1=-4, dim2=-2).sum(dim=-1)
