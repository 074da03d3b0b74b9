"""A relaxed CNN edge as one autograd function: the weighted sum of its ops, o(x) = sum_k w_k o_k(x).

Autograd records one function per edge, whose inputs are the maps that leave the state, the weights w
and the kernels of all ops. The ops compute their terms and their gradients (see `weighted_ops`) and
choose which maps to store for backward; the terms of all ops are added up in one pass over the memory.

Shapes: K ops; maps (N/m, mC, F, T) in channels_last memory format, folded with m = `layout.fold` (see
`layout`).
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.fused.cnn.layout import Layout
from models.fused.cnn.sums import weighted_sum
from models.fused.cnn.weighted_ops import (
    OutputGradient,
    Saved,
    WeightedMaps,
    WeightedProducts,
    split_by_lengths,
)

WeightedOps = WeightedMaps | WeightedProducts


def relaxed_edge(
    ops: Sequence[tuple[WeightedOps, Sequence[Tensor]]], weights: Tensor, channels: int, layout: Layout
) -> Tensor:
    """o(x) = sum_k w_k o_k(x) (Liu et al. 2019, eq. 2), (N/m, mC, F, T).

    `ops` are groups of ops, each with its inputs; `weights` (K,) those of all groups in this order.
    """
    groups, inputs = zip(*ops, strict=True)
    counts = [len(each) for each in inputs]
    return RelaxedEdge.apply(groups, counts, channels, layout, weights, *chain.from_iterable(inputs))


class RelaxedEdge(torch.autograd.Function):
    """(groups of ops, number of inputs of each, C, layout, weights (K,), all inputs) -> o(x)."""

    @staticmethod
    def forward(
        ctx: Any,
        groups: Sequence[WeightedOps],
        counts: Sequence[int],
        channels: int,
        layout: Layout,
        weights: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        group_weights = split_by_lengths(weights, [group.count for group in groups])
        group_inputs = split_by_lengths(inputs, counts)
        cases = zip(groups, group_weights, group_inputs, strict=True)
        added = [group.forward(w, *own) for group, w, own in cases]
        ctx.groups, ctx.counts, ctx.layout = groups, counts, layout
        ctx.statistics = [each.saved.statistics for each in added]
        ctx.map_counts = [len(each.saved.maps) for each in added]
        maps = chain.from_iterable(each.saved.maps for each in added)
        ctx.save_for_backward(weights, *inputs, *maps)
        constant = weights.new_zeros(layout.fold * channels)
        for each in added:
            constant = constant + each.constant
        return weighted_sum(constant, [term for each in added for term in each.terms], layout)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *tensors = ctx.saved_tensors
        inputs, maps = split_by_lengths(tensors, [sum(ctx.counts), sum(ctx.map_counts)])
        saved = map(Saved, ctx.statistics, split_by_lengths(maps, ctx.map_counts))
        cases = zip(
            ctx.groups,
            split_by_lengths(weights, [group.count for group in ctx.groups]),
            split_by_lengths(inputs, ctx.counts),
            saved,
            split_by_lengths(ctx.needs_input_grad[5:], ctx.counts),
            strict=True,
        )
        gradient = OutputGradient(g.contiguous(memory_format=torch.channels_last), ctx.layout)
        d_weights: list[Tensor] = []
        d_inputs: list[Tensor | None] = []
        for group, *arguments in cases:
            d_w, d_own = group.backward(gradient, *arguments)
            d_weights.append(d_w)
            d_inputs += d_own
        return None, None, None, None, torch.cat(d_weights), *d_inputs
