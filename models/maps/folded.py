"""Few channels, many images: pairs of utterances as one image of twice the channels.

Vectors of the processor hold 16 numbers. With 8 channels, convolutions on a CPU run several times slower than with 16;
so a cell of few channels lays `fold` utterances side by side along the channels, and repeats its kernels for each.
Whatever works channel by channel (pools, ReLU, depthwise convolutions, sums) never knows; a matrix on the channels
becomes block-diagonal, and the mean over a channel is the mean over its copies.

Shapes: N utterances, C channels, m = `fold`; maps (N, C, F, T), folded (N/m, mC, F, T), in channels_last memory format;
as a matrix of a row a pixel, (R, mC).
"""

import torch
import torch.distributed as dist
from torch import Tensor

from models.precision import at_least_float32

ENOUGH = 16  # channels

processes = 1  # that share their batch statistics: see `sync_batchnorm`


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
    """A matrix on the channels (C, C') for folded maps: (mC, mC'), block-diagonal."""
    return torch.block_diag(*[matrix] * m) if m > 1 else matrix


def block_sum(matrix: Tensor, m: int) -> Tensor:
    """The sum of the m blocks on the diagonal: (mC, mC') -> (C, C')."""
    return matrix.unflatten(1, (m, -1)).unflatten(0, (m, -1)).diagonal(dim1=0, dim2=2).sum(dim=2) if m > 1 else matrix


def moment(x: Tensor, y: Tensor, m: int) -> Tensor:
    """mean(x y^T) over all pixels of maps, (C, C'), in float32 at least."""
    x, y = (rows(maps).to(at_least_float32(maps)) for maps in (x, y))
    return over_processes(block_sum(x.T @ y, m) / (m * len(x)))


def mean(x: Tensor, m: int) -> Tensor:
    """The mean of each channel of folded maps over all utterances, (mC,): m copies of (C,)."""
    return over_copies(channel_mean(x), m)


def channel_mean(x: Tensor) -> Tensor:
    """The mean of each channel, in float32 at least."""
    return x.mean(dim=(0, 2, 3), dtype=at_least_float32(x))


def over_copies(statistic: Tensor, m: int) -> Tensor:
    """The mean of a statistic (mC,) over the copies of each channel, (mC,), and over the processes that share it."""
    statistic = over_processes(statistic)
    return copies(statistic.unflatten(0, (m, -1)).mean(dim=0), m) if m > 1 else statistic


def over_processes(statistic: Tensor) -> Tensor:
    """The mean of a statistic over the processes that share it."""
    if processes > 1:
        statistic = statistic / processes
        dist.all_reduce(statistic)
    return statistic
