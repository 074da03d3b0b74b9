"""The relaxed CNN cell: what the edges out of one state share is computed once, the rest edge by edge.

Shared are the pooled maps and the grids that ops of stride 2 read. Each edge is one autograd function
(see `edge`). A cell computes on folded maps (see `layout`); its inputs and its output are ordinary maps.

Shapes: E edges, K ops; maps (N/m, mC, F, T) in channels_last memory format, folded with m = `layout.fold`.
"""

from collections.abc import Sequence
from functools import cached_property, reduce
from itertools import chain, groupby

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models.cells import Cell
from models.fused.cnn.batchnorm import center_and_scale
from models.fused.cnn.edge import EdgeOps, relaxed_edge
from models.fused.cnn.layout import Layout, choose_fold, concatenate_channels, fold_maps, unfold_maps
from models.fused.cnn.prefixes import Prefix
from models.fused.cnn.sync_batchnorm import processes_of
from models.fused.cnn.weighted_ops import WeightedMaps, WeightedProducts
from models.mixed_ops import MixedNode, MixedOp
from models.ops import ConvUnit, FactorizedReduce, Pool
from models.recompute import recompute_in_backward


class FusedCnnCell(Cell):
    """A relaxed CNN cell on folded maps."""

    def forward(self, s0: Tensor, s1: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """`weights`: the weights of the ops of each node, (edges, ops)."""
        channels = self.out_channels // len(self.concat)
        layout = Layout(choose_fold(len(s0), channels), processes_of(self))
        states = []
        for project, s in ((self.project0, s0), (self.project1, s1)):
            states.append(State(fold_maps(project(s), layout.fold), channels, layout))
        for node, w in zip(self.nodes, weights, strict=True):
            states.append(State(relaxed_node(node, states, w), channels, layout))
        return torch.cat([unfold_maps(states[i].x, channels) for i in self.concat], dim=1)


class State:
    """A state of a relaxed cell, with what its outgoing edges share. They all have the same stride."""

    def __init__(self, x: Tensor, channels: int, layout: Layout):
        self.x = x
        self.channels = channels
        self.layout = layout
        self.pools: dict[type, tuple[Tensor, Tensor, nn.BatchNorm2d]] = {}

    @cached_property
    def even_grid(self) -> Tensor:
        """Every other row and column: all that an op of stride 2 and dilation 2 reads."""
        return self.x[:, :, ::2, ::2].contiguous(memory_format=torch.channels_last)

    @cached_property
    def both_grids(self) -> Tensor:
        """The input of `FactorizedReduce`'s convolutions: relu(even, odd grid), (N/m, m 2C, F/2, T/2)."""
        odd_grid = F.pad(self.x, (0, 1, 0, 1))[:, :, 1::2, 1::2]
        return F.relu(concatenate_channels(self.even_grid, odd_grid, self.layout.fold))

    def output_of(self, op: nn.Module, recompute: bool) -> tuple[Tensor, Tensor | None]:
        """The output of an op and no scale; for a pool, its centered output and the scale of its BatchNorm.

        An op that this module has no fast code for is computed by its own `forward`.
        """
        if isinstance(op, nn.Identity):
            return self.x, None
        if isinstance(op, Pool):
            return self.pooled(op)
        x = unfold_maps(self.x, self.channels)
        y = recompute_in_backward(op, x) if recompute else op(x)
        return fold_maps(y, self.layout.fold), None

    def pooled(self, op: Pool) -> tuple[Tensor, Tensor]:
        """The pooled and centered map, and the scale of the pool's BatchNorm.

        Edges out of one state pool the same map. It is pooled once, for the first edge; the other edges copy
        the running statistics of the first.
        """
        kind = type(op.pooling)
        if kind not in self.pools:
            # recomputed in backward: the indices of the maxima would take twice the memory of a map
            pooled = checkpoint(op.pooling, self.x, use_reentrant=False, preserve_rng_state=False)
            self.pools[kind] = *center_and_scale(pooled, op.norm, self.layout), op.norm
        centered, scale, first_norm = self.pools[kind]
        for buffer, first_buffer in zip(op.norm.buffers(), first_norm.buffers(), strict=True):
            buffer.copy_(first_buffer)
        return centered, scale


def relaxed_node(node: MixedNode, states: Sequence[State], weights: Tensor) -> Tensor:
    """`MixedNode.forward` (eq. 1), the sum of the relaxed edges. `weights` (E, K): those of the ops."""
    edges = zip(node.edges, states, weights, strict=True)
    return reduce(torch.add, (relaxed_op(edge, state, w) for edge, state, w in edges))


def relaxed_op(edge: MixedOp, state: State, weights: Tensor) -> Tensor:
    """`MixedOp.forward` (eq. 2). `weights` (K,): the weights of its ops.

    Consecutive ops of one group are computed together. `none`, the last op, is not computed.
    """
    groups: list[EdgeOps] = []
    for kind, members in groupby(edge.ops, group_of):
        modules = list(members)
        if kind == "maps":
            ys, scales = zip(*(state.output_of(op, edge.recompute) for op in modules), strict=True)
            groups.append((WeightedMaps(scales, edge.training, state.layout), ys, len(modules)))
        else:
            parts = [product_op(op, state) for op in modules]
            norms, prefixes, inputs = zip(*parts, strict=True)
            products = WeightedProducts(norms, prefixes, state.layout, edge.recompute)
            groups.append((products, [*chain(*inputs)], len(modules)))
    return relaxed_edge(groups, weights[: len(edge.ops)], state.channels, state.layout)


def group_of(op: nn.Module) -> str:
    """The group of ops that an op can be computed with: ops that end in weights of one shape, or in none."""
    if isinstance(op, FactorizedReduce):
        return "reductions"
    return "convolutions" if has_fast_code(op) else "maps"


def has_fast_code(op: nn.Module) -> bool:
    """Whether an op is one `ConvUnit`, or two without dilation, with kernels of side 3 or 5."""
    units = [op] if isinstance(op, ConvUnit) else list(op) if isinstance(op, nn.Sequential) else []
    if len(units) not in (1, 2) or not all(isinstance(unit, ConvUnit) for unit in units):
        return False
    kernels = {unit.depthwise.kernel_size for unit in units}
    dilated = any(unit.depthwise.dilation != (1, 1) for unit in units)
    return kernels <= {(3, 3), (5, 5)} and not (dilated and len(units) == 2)


def product_op(op: nn.Module, state: State) -> tuple[nn.BatchNorm2d, Prefix, list[Tensor]]:
    """The last BatchNorm of a convolution op, its prefix, and its inputs: x and all kernels."""
    if isinstance(op, FactorizedReduce):
        return op.norm, Prefix(state.layout, units=0), [state.both_grids, joint_kernel(op)]
    units = [op] if isinstance(op, ConvUnit) else list(op)
    first, x = units[0].depthwise, state.x
    stride, dilation = first.stride[0], first.dilation[0]
    if stride == dilation == 2:
        stride, dilation, x = 1, 1, state.even_grid
    prefix = Prefix(state.layout, len(units), stride, dilation, units[0].norm)
    kernels = chain(*((unit.depthwise.weight, unit.pointwise.weight) for unit in units))
    return units[-1].norm, prefix, [x, *kernels]


def joint_kernel(op: FactorizedReduce) -> Tensor:
    """Both pointwise convolutions of a factorized reduction as one kernel (C, 2C, 1, 1), block-diagonal."""
    even, odd = op.even.weight, op.odd.weight
    return torch.block_diag(even[:, :, 0, 0], odd[:, :, 0, 0])[:, :, None, None]
