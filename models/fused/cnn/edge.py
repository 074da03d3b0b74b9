"""A relaxed CNN edge as one function with a gradient of its own: the weighted sum of its ops, each by its own rules.

Autograd sees one function an edge, whose inputs are the maps that leave the state and the kernels of all ops. Of the
maps in between it stores what the ops ask for (see `edge_ops`).

Shapes: K ops; maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`).
"""

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from models.fused.cnn.edge_ops import Incoming, MapOps, ProductOps, parted
from models.fused.cnn.sums import affine

Op = tuple[MapOps | ProductOps, Sequence[Tensor]]
"""An op of an edge, or several that are computed as one, and their inputs."""


def relaxed_edge(ops: Sequence[Op], weights: Tensor, channels: int, m: int) -> Tensor:
    """o(x) = sum_k w_k o_k(x) (Liu et al. 2019, eq. 2): `weights` (K,) -> (N/m, mC, F, T)."""
    kinds, inputs = zip(*ops, strict=True)
    counts = [len(own) for own in inputs]
    return RelaxedEdge.apply(kinds, counts, channels, m, weights, *chain.from_iterable(inputs))


class RelaxedEdge(torch.autograd.Function):
    """(ops, how many inputs each has, C, m, weights (K,), the inputs of all) -> o(x)."""

    @staticmethod
    def forward(
        ctx: Any,
        ops: Sequence[MapOps | ProductOps],
        counts: Sequence[int],
        channels: int,
        m: int,
        weights: Tensor,
        *inputs: Tensor,
    ) -> Tensor:
        shares = parted(weights, [op.count for op in ops])
        added = [op.forward(w, *own) for op, w, own in zip(ops, shares, parted(inputs, counts), strict=True)]
        ctx.ops, ctx.counts, ctx.m = ops, counts, m
        ctx.remembered, ctx.lengths = (
            [each.remembered for each in added],
            [len(each.stored) for each in added],
        )
        ctx.save_for_backward(weights, *inputs, *chain.from_iterable(each.stored for each in added))
        constant = sum((each.constant for each in added), start=weights.new_zeros(m * channels))
        return affine(constant, [term for each in added for term in each.terms], m)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        weights, *saved = ctx.saved_tensors
        inputs, stored = parted(saved, [sum(ctx.counts), sum(ctx.lengths)])
        owned = (
            parted(weights, [op.count for op in ctx.ops]),
            parted(inputs, ctx.counts),
            ctx.remembered,
            parted(stored, ctx.lengths),
            parted(ctx.needs_input_grad[5:], ctx.counts),
        )
        incoming = Incoming(g, ctx.m)
        found = [op.backward(incoming, *own) for op, *own in zip(ctx.ops, *owned, strict=True)]
        d_weights, d_inputs = zip(*found, strict=True)
        return None, None, None, None, torch.cat(d_weights), *chain.from_iterable(d_inputs)
