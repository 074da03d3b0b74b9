"""The weighted ops of a relaxed CNN edge, o(x) = sum_k w_k BN(y_k): what they add to it, and their gradients.

y_k is a map that is computed (skip connection, pools: `WeightedMaps`), or, for convolutions, the product of
a pointwise kernel and a map z (`WeightedProducts`), which is never computed (see `products`).

Shapes: P ops, w (P,) their weights; maps (N/m, mC, F, T) in channels_last memory format, folded with
m = `layout.fold` (see `layout`); R pixels; z has C' channels where y has C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.fused.cnn.layout import Layout, per_channel, repeat_channels
from models.fused.cnn.prefixes import Gradients, Prefix, Tensors, as_matrix
from models.fused.cnn.products import ProductGradients, product_statistics
from models.fused.cnn.sums import Term, channel_mean, channel_means, pixels, weighted_sum


def split_by_lengths(items: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """Split a sequence into parts of these lengths."""
    ends = accumulate(lengths)
    return [items[end - length : end] for end, length in zip(ends, lengths, strict=True)]


class EdgeTerms(NamedTuple):
    """What ops add to the output of an edge, and what they save for backward besides their inputs."""

    terms: Sequence[Term]
    constant: Tensor | float = 0.0
    """(mC,), added to every pixel."""
    statistics: Any = None
    maps: Tensors = ()


@dataclass(frozen=True)
class WeightedMaps:
    """Ops whose y is computed. The inputs are the ys, centered if a BatchNorm follows; r is its scale.

    s = mean(g y),    d/dw = R sum(r s),    d/dy = w r (g - mean(g) - r^2 s y)

    In evaluation mode d/dy = w r g. Without BatchNorm d/dw = R sum(s) and d/dy = w g.
    """

    scales: Sequence[Tensor | None]
    """The scale (mC,) of each BatchNorm; None for a skip connection."""
    training: bool
    layout: Layout

    def forward(self, w: Tensor, *ys: Tensor) -> EdgeTerms:
        terms = []
        for weight, scale, y in zip(w, self.scales, ys, strict=True):
            factor = weight if scale is None else weight * scale
            terms.append((y, factor.expand(y.shape[1])))
        return EdgeTerms(terms)

    def backward(
        self, g: Tensor, w: Tensor, ys: Tensors, statistics: None, maps: Tensors, needs: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        """The gradients of w and the ys, from the gradient g of the edge; `needs` says which are needed."""
        mean_g, *mean_products = channel_means(g, ys, self.layout)
        products, d_ys = [], []
        for k, (y, scale, s) in enumerate(zip(ys, self.scales, mean_products, strict=True)):
            products.append(s if scale is None else scale * s)
            d_ys.append(self._d_y(g, w[k], y, scale, mean_g, s) if needs[k] else None)
        d_w = torch.stack(products).sum(dim=1) * pixels(g)  # the sum is over all m copies of a channel
        return d_w, d_ys

    def _d_y(
        self, g: Tensor, w: Tensor, y: Tensor, scale: Tensor | None, mean_g: Tensor, s: Tensor
    ) -> Tensor:
        if scale is None:
            return g * w.to(y.dtype)
        gain = w * scale
        if not self.training:
            return g * per_channel(gain).to(y.dtype)
        return weighted_sum(-gain * mean_g, [(y, -gain * scale.square() * s), (g, gain)], self.layout)


@dataclass(frozen=True)
class WeightedProducts:
    """Ops that end in y = W z, with W of one shape. The inputs of each: x, the prefix's kernels, and W."""

    norms: Sequence[nn.BatchNorm2d]
    prefixes: Sequence[Prefix]
    """The layers that compute z from x."""
    layout: Layout
    recompute: bool
    """Whether backward recomputes the maps of the prefixes."""

    def forward(self, w: Tensor, *inputs: Tensor) -> EdgeTerms:
        ops = self._split(inputs)
        results = [
            prefix.forward(x, kernels) for prefix, (x, *kernels, _) in zip(self.prefixes, ops, strict=True)
        ]
        maps, prefix_statistics = zip(*results, strict=True)
        zs = [own[-1] for own in maps]
        weight = stack_weights(ops)
        statistics = product_statistics(zs, weight, self.norms, self.layout)
        gain = w[:, None] * statistics.scale
        terms = [(z, a.T) for z, a in zip(zs, gain[:, :, None] * weight, strict=True)]
        constant = repeat_channels(-(gain * statistics.mean_y).sum(dim=0), self.layout.fold)
        saved = [] if self.recompute else [*chain(*maps)]
        return EdgeTerms(terms, constant, (statistics, prefix_statistics), saved)

    def backward(
        self, g: Tensor, w: Tensor, inputs: Tensors, statistics: Any, maps: Tensors, needs: Sequence[bool]
    ) -> tuple[Tensor, Gradients]:
        """The gradients of w and the inputs, from the gradient g of the edge; `needs`: which are needed."""
        statistics, prefix_statistics = statistics
        ops, needs = self._split(inputs), self._split(needs)
        if self.recompute:
            cases = zip(self.prefixes, ops, prefix_statistics, strict=True)
            maps = [prefix.forward(x, kernels, found)[0] for prefix, (x, *kernels, _), found in cases]
        else:
            maps = split_by_lengths(maps, [prefix.maps for prefix in self.prefixes])
        zs = [own[-1] for own in maps]
        weight = stack_weights(ops)
        mean_g = channel_mean(g, self.layout)[: weight.shape[1]]
        products = ProductGradients(g, mean_g, w, zs, weight, statistics, self.layout)
        needs_weight = any(own[-1] for own in needs)
        d_weight = products.d_weight()[..., None, None] if needs_weight else [None] * len(ops)
        d_inputs: Gradients = []
        for k, prefix in enumerate(self.prefixes):
            (x, *kernels, _), (*needed, _) = ops[k], needs[k]
            gradients: Gradients = [None] * len(needed)
            if any(needed):
                gradients = prefix.backward(
                    products.d_z(k), x, kernels, maps[k], prefix_statistics[k], needed
                )
            d_inputs += [*gradients, d_weight[k]]
        return products.d_w, d_inputs

    def _split(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        """Split a list with one item per input by op: items for x, for the prefix's kernels, and for W."""
        return split_by_lengths(items, [prefix.kernels + 2 for prefix in self.prefixes])


def stack_weights(ops: Sequence[Tensors]) -> Tensor:
    """The last pointwise kernel of each op, (P, C, C')."""
    return torch.stack([as_matrix(own[-1]) for own in ops])
