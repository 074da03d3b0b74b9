"""Sums over the pixels of maps, and weighted sums of maps: compiled where they can be (`native`), else by the library.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`), of R pixels each; statistics (C,)
or, as m copies of them, (mC,). Maps may be of 16 bits, statistics are float32 then.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from models.bf16 import at_least_float32
from models.fused.cnn.folded import block_sum, blocks, copies, maps, rows
from models.fused.native import maps as native

processes = 1  # that share their batch statistics: see `sync_batchnorm`

Term = tuple[Tensor, Tensor]
"""A map, and what it is multiplied by: a matrix on its channels (C', C), or a factor for each (mC,)."""


def affine(constant: Tensor, terms: Sequence[Term], m: int) -> Tensor:
    """A constant (mC,) for every pixel + the sum of the terms."""
    dtype = terms[0][0].dtype
    constant, terms = constant.to(dtype), [(x, blocks(factor.to(dtype), m)) for x, factor in terms]
    if native.usable(*(x for x, _ in terms)):
        return native.affine(constant, terms, m)
    (x, factor), *others = terms
    if factor.dim() == 2:
        out = maps(torch.addmm(constant, rows(x), factor), x)
    else:
        out = torch.addcmul(column(constant), x, column(factor))
    for x, factor in others:
        if factor.dim() == 2:
            rows(out).addmm_(rows(x), factor)
        else:
            out.addcmul_(x, column(factor))
    return out


def mean(x: Tensor, m: int) -> Tensor:
    """The mean of each channel over all pixels and utterances, (mC,)."""
    return means(x, [], m)[0]


def means(x: Tensor, ys: Sequence[Tensor], m: int) -> Tensor:
    """Those of x, and of x times each of K maps: (1 + K, mC)."""
    if native.usable(x, *ys):
        sums = native.dots(x, ys)
    else:
        dtype = at_least_float32(x)
        sums = torch.stack([each.sum(dim=(0, 2, 3), dtype=dtype) for each in (x, *(x * y for y in ys))])
    sums = sums.unflatten(1, (m, -1)).sum(dim=1)
    return copies(over_processes(sums / (m * pixels(x))).T, m).T


def moments(xs: Sequence[Tensor], ys: Sequence[Tensor], m: int) -> Tensor:
    """Of K pairs of maps mean(x y'), (K, C, C')."""
    return over_processes(of_products(xs, ys, m) / (m * pixels(xs[0])))


def means_and_moments(zs: Sequence[Tensor], m: int) -> tuple[Tensor, Tensor]:
    """Of K maps mean(z) and mean(z z'): (K, C), (K, C, C')."""
    if native.usable(*zs):
        sums = native.moments(zs, zs, m)
        totals, products = sums[:, -1], block_sum(sums[:, :-1], m)
    else:
        totals = torch.stack([z.sum(dim=(0, 2, 3), dtype=at_least_float32(z)) for z in zs])
        products = of_products(zs, zs, m)
    totals = totals.unflatten(1, (m, -1)).sum(dim=1, keepdim=True)
    found = over_processes(torch.cat([products, totals], dim=1) / (m * pixels(zs[0])))
    return found[:, -1], found[:, :-1]


def of_products(xs: Sequence[Tensor], ys: Sequence[Tensor], m: int) -> Tensor:
    """Of K pairs of maps the sums over all pixels and utterances of this process of x y', (K, C, C')."""
    if native.usable(*xs, *ys):
        return block_sum(native.moments(xs, ys, m)[:, :-1], m)
    dtype = at_least_float32(xs[0])
    pairs = [(rows(x).to(dtype), rows(y).to(dtype)) for x, y in zip(xs, ys, strict=True)]
    return block_sum(torch.stack([x.T @ y for x, y in pairs]), m)


def over_processes(statistic: Tensor) -> Tensor:
    """The mean of a statistic over the processes that share it."""
    if processes > 1:
        statistic = statistic / processes
        dist.all_reduce(statistic)
    return statistic


def pixels(x: Tensor) -> int:
    """How many each channel of maps has."""
    return x.numel() // x.shape[1]


def column(statistic: Tensor) -> Tensor:
    """(mC,) for maps."""
    return statistic.view(1, -1, 1, 1)
