"""A relaxed CNN edge as one autograd function: the weighted sum of its ops, o(x) = sum_k w_k o_k(x).

Autograd records one function per edge, whose inputs are the maps that leave the state, the weights w and the
kernels of all ops. The ops compute their terms and their gradients (see `weighted_ops`) and choose which
maps to store for backward. The terms of all ops are added up in one pass over the memory.

Shapes: K ops; maps (N/m, mC, F, T) in channels_last memory format, folded (see `layout`).
"""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.fused.cnn.layout import Layout
from models.fused.cnn.sums import weighted_sum
from models.fused.cnn.weighted_ops import WeightedMaps, WeightedProducts, split_by_lengths

EdgeOps = tuple[WeightedMaps | WeightedProducts, Sequence[Tensor], int]
"""Ops that are computed together, their inputs, and how many ops they are."""


def relaxed_edge(groups: Sequence[EdgeOps], weights: Tensor, channels: int, layout: Layout) -> Tensor:
    """o(x) = sum_k w_k o_k(x) (Liu et al. 2019, eq. 2). `weights` (K,) are in the order of the ops."""
    ops, inputs, op_counts = zip(*groups, strict=True)
    counts = op_counts, [len(own) for own in inputs]
    return RelaxedEdge.apply(ops, counts, channels, layout, weights, *chain(*inputs))


class RelaxedEdge(torch.autograd.Function):
    """(groups of ops, (numbers of ops, of inputs), C, layout, weights (K,), all inputs) -> o(x)."""

    @staticmethod
    def forward(ctx, groups, counts, channels, layout, weights: Tensor, *inputs: Tensor) -> Tensor:
        op_counts, input_counts = counts
        group_inputs = split_by_lengths(inputs, input_counts)
        cases = zip(groups, split_by_lengths(weights, op_counts), group_inputs, strict=True)
        added = [group.forward(w, *own) for group, w, own in cases]
        ctx.groups, ctx.counts = groups, counts
        ctx.statistics = [each.statistics for each in added]
        ctx.map_counts = [len(each.maps) for each in added]
        ctx.save_for_backward(weights, *inputs, *chain(*(each.maps for each in added)))
        constant = sum((each.constant for each in added), start=weights.new_zeros(layout.fold * channels))
        return weighted_sum(constant, [*chain(*(each.terms for each in added))], layout)

    @staticmethod
    @once_differentiable
    def backward(ctx, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *tensors = ctx.saved_tensors
        op_counts, input_counts = ctx.counts
        inputs, maps = split_by_lengths(tensors, [sum(input_counts), sum(ctx.map_counts)])
        cases = zip(
            ctx.groups,
            split_by_lengths(weights, op_counts),
            split_by_lengths(inputs, input_counts),
            ctx.statistics,
            split_by_lengths(maps, ctx.map_counts),
            split_by_lengths(ctx.needs_input_grad[5:], input_counts),
            strict=True,
        )
        g = g.contiguous(memory_format=torch.channels_last)
        gradients = [group.backward(g, *arguments) for group, *arguments in cases]
        d_weights, d_inputs = zip(*gradients, strict=True)
        return None, None, None, None, torch.cat(d_weights), *chain(*d_inputs)
