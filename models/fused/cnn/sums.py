"""Sums over the pixels of maps and weighted sums of maps, by compiled code if possible (see `native`).

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded with m = `layout.fold` (see `layout`);
statistics (C,), or (mC,) with m equal copies. Statistics of 16-bit maps are float32.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from models.fused.cnn.layout import (
    Layout,
    block_diagonal,
    maps_to_matrix,
    matrix_to_maps,
    per_channel,
    repeat_channels,
    sum_blocks,
)
from models.fused.native import operations as native
from models.passes import at_least_float32

Term = tuple[Tensor, Tensor]
"""A map, and what it is multiplied by: a matrix on its channels (C', C), or one factor per channel (mC,)."""


def weighted_sum(constant: Tensor, terms: Sequence[Term], layout: Layout) -> Tensor:
    """A constant (mC,) for every pixel, plus each map times its matrix or factors: (N/m, mC, F, T)."""
    m, dtype = layout.fold, terms[0][0].dtype
    constant = constant.to(dtype)
    cast = [(x, factor.to(dtype)) for x, factor in terms]
    terms = [(x, block_diagonal(factor, m) if factor.dim() == 2 else factor) for x, factor in cast]
    if native.supports(*(x for x, _ in terms)):
        return native.weighted_sum(constant, terms, m)
    (x, factor), *others = terms
    if factor.dim() == 2:
        out = matrix_to_maps(torch.addmm(constant, maps_to_matrix(x), factor), x)
    else:
        out = torch.addcmul(per_channel(constant), x, per_channel(factor))
    for x, factor in others:
        if factor.dim() == 2:
            maps_to_matrix(out).addmm_(maps_to_matrix(x), factor)
        else:
            out.addcmul_(x, per_channel(factor))
    return out


def channel_mean(x: Tensor, layout: Layout) -> Tensor:
    """The mean of each channel over all pixels and utterances, (mC,)."""
    return channel_means(x, [], layout)[0]


def channel_means(x: Tensor, ys: Sequence[Tensor], layout: Layout) -> Tensor:
    """The means of x, and of x times each of K maps, over all pixels and utterances: (1 + K, mC)."""
    if native.supports(x, *ys):
        sums = native.channel_sums(x, ys)
    else:
        sums = torch.stack([total(each) for each in (x, *(x * y for y in ys))])
    sums = sums.unflatten(1, (layout.fold, -1)).sum(dim=1)
    means = mean_of_sums(sums, x, layout)
    return repeat_channels(means.T, layout.fold).T


def product_means(xs: Sequence[Tensor], ys: Sequence[Tensor], layout: Layout) -> Tensor:
    """mean(x y') over all pixels and utterances for K pairs of maps, (K, C, C')."""
    return mean_of_sums(product_sums(xs, ys, layout), xs[0], layout)


def first_and_second_moments(zs: Sequence[Tensor], layout: Layout) -> tuple[Tensor, Tensor]:
    """mean(z) and mean(z z') over all pixels and utterances for K maps: (K, C), (K, C, C)."""
    if native.supports(*zs):
        sums = native.product_sums(zs, zs, layout.fold)
        totals, products = sums[:, -1], sum_blocks(sums[:, :-1], layout.fold)
    else:
        totals, products = torch.stack([total(z) for z in zs]), product_sums(zs, zs, layout)
    totals = totals.unflatten(1, (layout.fold, -1)).sum(dim=1, keepdim=True)
    means = mean_of_sums(torch.cat([products, totals], dim=1), zs[0], layout)
    return means[:, -1], means[:, :-1]


def product_sums(xs: Sequence[Tensor], ys: Sequence[Tensor], layout: Layout) -> Tensor:
    """The sum of x y' over the pixels and utterances of this process for K pairs of maps, (K, C, C')."""
    if native.supports(*xs, *ys):
        return sum_blocks(native.product_sums(xs, ys, layout.fold)[:, :-1], layout.fold)
    dtype = at_least_float32(xs[0])
    sums = []
    for x, y in zip(xs, ys, strict=True):
        sums.append(maps_to_matrix(x).to(dtype).T @ maps_to_matrix(y).to(dtype))
    return sum_blocks(torch.stack(sums), layout.fold)


def total(x: Tensor) -> Tensor:
    """The sum of each channel, (mC,)."""
    return x.sum(dim=(0, 2, 3), dtype=at_least_float32(x))


def mean_of_sums(sums: Tensor, x: Tensor, layout: Layout) -> Tensor:
    """The means, over all processes, that belong to this process's sums over the maps x."""
    means = sums / values_per_channel(x, layout)
    if layout.processes > 1:
        means = means / layout.processes
        dist.all_reduce(means)
    return means


def pixels(x: Tensor) -> int:
    """The number of pixels of folded maps, over all images."""
    return x.numel() // x.shape[1]


def values_per_channel(x: Tensor, layout: Layout) -> int:
    """The number of values of a channel in this process, over all pixels and utterances."""
    return pixels(x) * layout.fold
