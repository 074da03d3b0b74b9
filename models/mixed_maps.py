"""The relaxed node of the CNN: what the edges out of one state have in common is computed once, the rest is fused.

Shapes: E edges, K ops; maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`).
"""

from collections.abc import Sequence
from functools import cached_property, reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.cells import Cell
from models.depthwise import CHANNELS_LAST
from models.folded import block_diagonal, fold, fold_of, unfold
from models.fused import Convolutions, ConvOp, WeightedSum, centred, convolved
from models.mixed_ops import MixedNode, MixedOp
from models.ops import ConvUnit, FactorizedReduce, Pool

Term = tuple[Tensor, Tensor | None]
"""A map, and the scale of the BatchNorm that is still due to it."""


class Source:
    """A state of a relaxed cell, and what the edges that leave it share. They all have the same stride."""

    def __init__(self, x: Tensor, channels: int):
        self.x, self.m = x, x.shape[1] // channels
        self.pools: dict[type, tuple[Term, nn.BatchNorm2d]] = {}

    @cached_property
    def positive(self) -> Tensor:
        return F.relu(self.x)

    @cached_property
    def even(self) -> Tensor:
        """The grid that an op of stride 2 and dilation 2 sees: all of its taps fall on it."""
        return self.positive[:, :, ::2, ::2].contiguous(memory_format=CHANNELS_LAST)

    @cached_property
    def both_grids(self) -> Tensor:
        """The even grid and the odd one side by side, for the factorised reduction."""
        odd = F.pad(self.positive, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        return torch.cat([self.even, odd], dim=1).contiguous(memory_format=CHANNELS_LAST)

    def term(self, op: nn.Module, recompute: bool) -> Term:
        """An op of this state."""
        if isinstance(op, nn.Identity):
            return self.x, None
        if isinstance(op, Pool):
            return self.pooled(op)
        if isinstance(op, FactorizedReduce):
            return convolved(self.both_grids, both_kernels(op, self.m), op.norm, self.m)
        return self.convolution([op] if isinstance(op, ConvUnit) else list(op), recompute)

    def convolution(self, units: Sequence[ConvUnit], recompute: bool) -> Term:
        first = units[0].depthwise
        stride, dilation, x = first.stride[0], first.dilation[0], self.positive
        if stride == dilation == 2:
            stride, dilation, x = 1, 1, self.even
        kernels = [kernel for unit in units for kernel in (unit.depthwise.weight, unit.pointwise.weight)]
        op = Convolutions([unit.norm for unit in units], stride, dilation, self.m, recompute)
        return ConvOp.apply(x, op, *kernels)

    def pooled(self, pool: Pool) -> Term:
        """All edges pool alike: it is done for the first, whose running statistics the others take over."""
        kind = type(pool.pooling)
        if kind not in self.pools:
            # the places of the maxima would take twice the memory of a map: they are found again
            pooled = checkpoint(pool.pooling, self.x, use_reentrant=False)
            self.pools[kind] = centred(pooled, pool.norm, self.m), pool.norm
        term, first = self.pools[kind]
        for mine, its in zip(pool.norm.buffers(), first.buffers(), strict=True):
            mine.copy_(its)
        return term


def both_kernels(op: FactorizedReduce, m: int) -> Tensor:
    """One pointwise kernel (mC, 2mC, 1, 1) on both grids: the first channels of each image see the even one alone."""
    even, odd = op.even.weight, op.odd.weight
    even, odd = F.pad(even, (0, 0) * 3 + (0, len(odd))), F.pad(odd, (0, 0) * 3 + (len(even), 0))
    return torch.cat([block_diagonal(even, m), block_diagonal(odd, m)], dim=1)


class MixedMaps(MixedNode):
    """The node of eq. 1 for feature maps: x_j = sum over edges (i, j) of sum_o softmax(alpha)_o o(x_i)."""

    def forward(self, states: Sequence[Source], weights: Tensor) -> Tensor:
        """`weights` (E, K): the softmaxed alphas of this node's edges."""
        edges = (self._edge(edge, x, w) for edge, x, w in zip(self.edges, states, weights, strict=True))
        return reduce(torch.add, edges)

    def _edge(self, edge: MixedOp, source: Source, weights: Tensor) -> Tensor:
        maps, scales = zip(*(source.term(op, edge.recompute) for op in edge.ops), strict=True)
        computed = weights[: len(maps)]  # all but that of `none`
        return WeightedSum.apply(computed, scales, self.training, source.m, *maps)


class RelaxedMapsCell(Cell):
    """A relaxed CNN cell on folded maps."""

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        channels = self.out_channels // len(self.concat)
        m = fold_of(len(s0), channels)
        states = [Source(fold(project(s), m), channels) for project, s in ((self.project0, s0), (self.project1, s1))]
        for node, w in zip(self.nodes, weights, strict=True):
            states.append(Source(node(states, w), channels))
        return torch.cat([unfold(states[i].x, channels) for i in self.concat], dim=1)
