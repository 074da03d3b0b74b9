"""The relaxed node of the CNN: what the edges out of one state have in common is computed once, the rest is fused.

Shapes: E edges, K ops; maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`).
"""

from collections.abc import Sequence
from functools import cached_property, reduce
from itertools import chain, groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.cells import Cell
from models.fused.cnn.batchnorm import centred
from models.fused.cnn.convolutions import Before, Depthwise, Given, Separable
from models.fused.cnn.edge import Op, relaxed_edge
from models.fused.cnn.edge_ops import MapOps, ProductOps
from models.fused.cnn.folded import fold, fold_of, side_by_side, unfold
from models.fused.cnn.kernels import CHANNELS_LAST
from models.mixed_ops import MixedNode, MixedOp
from models.ops import ConvUnit, FactorizedReduce, Pool


class Source:
    """A state of a relaxed cell, and what the edges that leave it share. They all have the same stride."""

    def __init__(self, x: Tensor, channels: int):
        self.x, self.channels, self.m = x, channels, x.shape[1] // channels
        self.pools: dict[type, tuple[Tensor, Tensor, nn.BatchNorm2d]] = {}

    @cached_property
    def even(self) -> Tensor:
        """The grid that an op of stride 2 and dilation 2 sees: all of its taps fall on it."""
        return self.x[:, :, ::2, ::2].contiguous(memory_format=CHANNELS_LAST)

    @cached_property
    def both_grids(self) -> Tensor:
        """The even grid and the odd one side by side, for factorised reduction past its ReLU: (N/m, m 2C, F/2, T/2)."""
        odd = F.pad(self.x, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        return F.relu(side_by_side(self.even, odd, self.m))

    def ops(self, modules: Sequence[nn.Module], recompute: bool) -> list[Op]:
        """The ops of an edge that leaves this state: convolutions that follow each other are computed together."""
        found: list[Op] = []
        for kind, members in groupby(modules, form):
            if kind == "map":
                found.append(self.maps(list(members)))
            else:
                ends = [self.product(module) for module in members]
                norms, before, inputs = zip(*ends, strict=True)
                found.append(
                    (ProductOps(norms, before, self.m, recompute), list(chain.from_iterable(inputs)))
                )
        return found

    def maps(self, modules: Sequence[nn.Module]) -> Op:
        """Ops that put out maps: skip, and pools."""
        found = [
            (self.x, None) if isinstance(module, nn.Identity) else self.pooled(module) for module in modules
        ]
        ys, scales = zip(*found, strict=True)
        return MapOps(scales, modules[0].training), ys

    def product(self, module: nn.Module) -> tuple[nn.BatchNorm2d, Before, list[Tensor]]:
        """An op that ends in a pointwise convolution: its last BatchNorm, what comes before, its inputs."""
        if isinstance(module, FactorizedReduce):
            return module.norm, Given(), [self.both_grids, both_kernels(module)]
        units = [module] if isinstance(module, ConvUnit) else list(module)
        first, x = units[0].depthwise, self.x
        stride, dilation = first.stride[0], first.dilation[0]
        if stride == dilation == 2:
            stride, dilation, x = 1, 1, self.even
        one = len(units) == 1
        before = Depthwise(self.m, stride, dilation) if one else Separable(self.m, stride, units[0].norm)
        kernels = [kernel for unit in units for kernel in (unit.depthwise.weight, unit.pointwise.weight)]
        return units[-1].norm, before, [x, *kernels]

    def pooled(self, pool: Pool) -> tuple[Tensor, Tensor]:
        """The pooled map, less its mean, and its scale.

        All edges pool alike: it is done for the first, whose running statistics the others take over.
        """
        kind = type(pool.pooling)
        if kind not in self.pools:
            # the places of the maxima would take twice the memory of a map: they are found again
            pooled = checkpoint(pool.pooling, self.x, use_reentrant=False, preserve_rng_state=False)
            self.pools[kind] = *centred(pooled, pool.norm, self.m), pool.norm
        y, scale, first = self.pools[kind]
        for mine, its in zip(pool.norm.buffers(), first.buffers(), strict=True):
            mine.copy_(its)
        return y, scale


def form(module: nn.Module) -> str:
    """Which ops can be computed together: those whose matrices are of one shape."""
    if isinstance(module, nn.Identity | Pool):
        return "map"
    return "reduction" if isinstance(module, FactorizedReduce) else "products"


def both_kernels(op: FactorizedReduce) -> Tensor:
    """One pointwise kernel (C, 2C, 1, 1) on both grids: the first channels of each image see the even one alone."""
    even, odd = op.even.weight, op.odd.weight
    return torch.block_diag(even[:, :, 0, 0], odd[:, :, 0, 0])[:, :, None, None]


class FusedCnnCell(Cell):
    """A relaxed CNN cell on folded maps."""

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """`weights`: the softmaxed alphas of each node, (edges, ops)."""
        channels = self.out_channels // len(self.concat)
        m = fold_of(len(s0), channels)
        states = [
            Source(fold(project(s), m), channels) for project, s in ((self.project0, s0), (self.project1, s1))
        ]
        for node, w in zip(self.nodes, weights, strict=True):
            states.append(Source(relaxed_node(node, states, w), channels))
        return torch.cat([unfold(states[i].x, channels) for i in self.concat], dim=1)


def relaxed_node(node: MixedNode, sources: Sequence[Source], weights: Tensor) -> Tensor:
    """`MixedNode.forward` (eq. 1): the sum of the relaxed edges. `weights` (E, K): their softmaxed alphas."""
    edges = zip(node.edges, sources, weights, strict=True)
    return reduce(torch.add, (relaxed_op(edge, source, w) for edge, source, w in edges))


def relaxed_op(edge: MixedOp, source: Source, weights: Tensor) -> Tensor:
    """`MixedOp.forward` (eq. 2). `weights` (K,): the softmaxed alphas of the edge."""
    computed = weights[: len(edge.ops)]  # without that of `none`
    return relaxed_edge(source.ops(edge.ops, edge.recompute), computed, source.channels, source.m)
