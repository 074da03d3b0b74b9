"""The ops of a relaxed CNN edge, o(x) = sum_k w_k BN(y_k), with what they add to it and their gradients (see `edge`).

A y is a map as it is (skip, pools), or the product of a pointwise kernel and a map z, as at the end of every
convolution; of the latter neither y nor BN(y) is computed (see `products`).

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded (see `folded`); z has C' channels where y has C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from models.fused.cnn.convolutions import Before, Made, Tensors, matrix
from models.fused.cnn.folded import copies
from models.fused.cnn.kernels import CHANNELS_LAST
from models.fused.cnn.products import Backward, Moments
from models.fused.cnn.sums import Term, affine, column, mean, means, pixels

Gradients = tuple[Tensor, list[Tensor | None]]
"""By the weights of the ops in the sum, and by each of their inputs; None where nobody wants it."""


def parted(items: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """A sequence in parts of these lengths."""
    ends = list(accumulate(lengths))
    return [items[end - length : end] for end, length in zip(ends, lengths, strict=True)]


class Added(NamedTuple):
    """What ops add; what they remember for backward; and the maps they store for it besides their inputs."""

    terms: Sequence[Term]
    constant: Tensor | float = 0.0
    """(mC,), of all of them."""
    remembered: Any = None
    stored: Tensors = ()


class Incoming:
    """The gradient by an edge's output."""

    def __init__(self, g: Tensor, m: int):
        self.maps, self.m = g.contiguous(memory_format=CHANNELS_LAST), m

    @cached_property
    def mean(self) -> Tensor:
        """(mC,): m copies."""
        return mean(self.maps, self.m)


@dataclass(frozen=True)
class MapOps:
    """P ops whose y is a map: skip, or with the scale of its BatchNorm (mC,) a pool. Inputs: the ys, less their means.

    s = mean(g y);  d/dw = R sum(r s),  d/dy = w r (g - mean(g) - r^2 s y), and in evaluation mode w r g.
    """

    scales: Sequence[Tensor | None]
    training: bool

    @property
    def count(self) -> int:
        return len(self.scales)

    def forward(self, w: Tensor, *ys: Tensor) -> Added:
        """`w` (P,): their weights."""
        factors = [each if r is None else each * r for each, r in zip(w, self.scales, strict=True)]
        return Added([(y, factor.expand(y.shape[1])) for y, factor in zip(ys, factors, strict=True)])

    def backward(
        self, g: Incoming, w: Tensor, ys: Tensors, _: None, __: Tensors, wanted: Sequence[bool]
    ) -> Gradients:
        """`wanted`: of each y."""
        of_g, *of_both = means(g.maps, ys, g.m)
        products = [s if r is None else r * s for s, r in zip(of_both, self.scales, strict=True)]
        d_w = torch.stack(products).sum(dim=1) * pixels(g.maps)
        cases = zip(w, ys, self.scales, of_both, wanted, strict=True)
        return d_w, [
            self._by_map(g, each, y, r, of_g, s) if asked else None for each, y, r, s, asked in cases
        ]

    def _by_map(self, g: Incoming, w: Tensor, y: Tensor, r: Tensor | None, of_g: Tensor, s: Tensor) -> Tensor:
        if r is None:
            return g.maps * w.to(y.dtype)
        gain = w * r
        if not self.training:
            return g.maps * column(gain).to(y.dtype)
        return affine(-gain * of_g, [(y, -gain * r.square() * s), (g.maps, gain)], g.m)


@dataclass(frozen=True)
class ProductOps:
    """P ops that end in y = W z, with W of one shape. The inputs of each: x, the kernels between x and z, and W."""

    norms: Sequence[nn.BatchNorm2d]
    before: Sequence[Before]
    """What makes z of x."""
    m: int
    recompute: bool
    """Whether backward makes z, and the maps on the way to it, again."""

    @property
    def count(self) -> int:
        return len(self.norms)

    def forward(self, w: Tensor, *inputs: Tensor) -> Added:
        """`w` (P,): their weights."""
        own = self._own(inputs)
        made = [make.forward(x, kernels) for make, (x, *kernels, _) in zip(self.before, own, strict=True)]
        weight = torch.stack([matrix(last) for *_, last in own])
        moments = Moments.of([each.z for each in made], weight, self.norms, self.m)
        gain = w[:, None] * moments.scale
        terms = [(each.z, a.T) for each, a in zip(made, gain[:, :, None] * weight, strict=True)]
        constant = copies(-(gain * moments.center).sum(dim=0), self.m)
        stored = [] if self.recompute else [(each.z, *each.maps) for each in made]
        remembered = moments, [each.statistics for each in made], [len(maps) for maps in stored]
        return Added(terms, constant, remembered, list(chain.from_iterable(stored)))

    def backward(
        self,
        g: Incoming,
        w: Tensor,
        inputs: Tensors,
        remembered: Any,
        stored: Tensors,
        wanted: Sequence[bool],
    ) -> Gradients:
        """`wanted`: of each input."""
        own, wanted, (moments, statistics, lengths) = self._own(inputs), self._own(wanted), remembered
        made = self._again(own, statistics) if self.recompute else self._stored(stored, statistics, lengths)
        weight = torch.stack([matrix(last) for *_, last in own])
        zs, mean_g = [each.z for each in made], g.mean[: weight.shape[1]]
        back = Backward(g.maps, mean_g, w, zs, weight, moments, self.m)
        d_weight = (
            back.by_weight()[..., None, None] if any(asked[-1] for asked in wanted) else [None] * self.count
        )
        d_inputs: list[Tensor | None] = []
        for k, (make, (x, *kernels, _), each, (*asked, _)) in enumerate(
            zip(self.before, own, made, wanted, strict=True)
        ):
            d_x, d_kernels = None, [None] * len(kernels)
            if any(asked):
                d_x, d_kernels = make.backward(back.by_z(k, each.z), x, kernels, each, asked)
            d_inputs += [d_x, *d_kernels, d_weight[k]]
        return back.by_w, d_inputs

    def _own(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        """What belongs to each op, of one item an input: x, the kernels that `before` takes, W."""
        return parted(items, [make.kernels + 2 for make in self.before])

    def _again(self, own: Sequence[Tensors], statistics: Sequence[Tensors]) -> list[Made]:
        steps = zip(self.before, own, statistics, strict=True)
        return [make.again(x, kernels, found) for make, (x, *kernels, _), found in steps]

    @staticmethod
    def _stored(stored: Tensors, statistics: Sequence[Tensors], lengths: Sequence[int]) -> list[Made]:
        kept = zip(parted(stored, lengths), statistics, strict=True)
        return [Made(z, found, maps) for (z, *maps), found in kept]
