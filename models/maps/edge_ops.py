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

from models.maps.batchnorm import column
from models.maps.convolutions import Before, Made, Tensors, matrix
from models.maps.folded import blocks, copies, mean, rows
from models.maps.kernels import CHANNELS_LAST
from models.maps.products import Backward, Moments

Gradients = tuple[Tensor, list[Tensor | None]]
"""By the weights of the ops in the sum, and by each of their inputs; None where nobody wants it."""


def parted(items: Sequence[Any], lengths: Sequence[int]) -> list[Sequence[Any]]:
    """A sequence in parts of these lengths."""
    ends = list(accumulate(lengths))
    return [items[end - length : end] for end, length in zip(ends, lengths, strict=True)]


class Part(NamedTuple):
    """What an op adds to its edge: factor * maps. The factor is a number, (mC,), or a matrix (mC, mC')."""

    maps: Tensor
    factor: Tensor

    def add_to(self, out: Tensor) -> None:
        factor = self.factor.to(out.dtype)
        if factor.dim() == 2:
            rows(out).addmm_(rows(self.maps), factor.T)
        else:
            out.addcmul_(self.maps, column(factor))


class Added(NamedTuple):
    """What ops add; what they remember for backward; and the maps they store for it besides their inputs."""

    parts: Sequence[Part]
    constant: Tensor | float = 0.0
    """(mC,), of all parts."""
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
class MapOp:
    """An op whose y is a map: skip, or with the scale of its BatchNorm (mC,) a pool. Its input: y, less its mean.

    s = mean(g y);  d/dw = R sum(r s),  d/dy = w r (g - mean(g) - r^2 s y), and in evaluation mode w r g.
    """

    scale: Tensor | None = None
    training: bool = False

    count = 1

    def forward(self, w: Tensor, y: Tensor) -> Added:
        """`w` (1,): its weight."""
        return Added([Part(y, w if self.scale is None else w * self.scale)])

    def backward(
        self, g: Incoming, w: Tensor, inputs: Tensors, _: None, __: Tensors, wanted: Sequence[bool]
    ) -> Gradients:
        """`wanted`: of each input."""
        (y,), r = inputs, self.scale
        if r is None:
            d_w = torch.dot(rows(g.maps).flatten(), rows(y).flatten()).to(w.dtype).view(1)
            return d_w, [g.maps * column(w).to(y.dtype) if wanted[0] else None]
        s = mean(g.maps * y, g.m)
        d_w = (r * s).sum().view(1) * (y.numel() // len(s))
        if not wanted[0]:
            return d_w, [None]
        if not self.training:
            return d_w, [g.maps * column(w * r).to(y.dtype)]
        constant, by_y, by_g = (column(each).to(y.dtype) for each in (-w * r * g.mean, -w * r**3 * s, w * r))
        return d_w, [torch.addcmul(constant, y, by_y).addcmul_(g.maps, by_g)]


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
        parts = [Part(each.z, blocks(a, self.m)) for each, a in zip(made, gain[:, :, None] * weight, strict=True)]
        constant = copies(-(gain * moments.center).sum(dim=0), self.m)
        stored = [] if self.recompute else [(each.z, *each.maps) for each in made]
        remembered = moments, [each.statistics for each in made], [len(maps) for maps in stored]
        return Added(parts, constant, remembered, list(chain.from_iterable(stored)))

    def backward(
        self, g: Incoming, w: Tensor, inputs: Tensors, remembered: Any, stored: Tensors, wanted: Sequence[bool]
    ) -> Gradients:
        """`wanted`: of each input."""
        own, wanted, (moments, statistics, lengths) = self._own(inputs), self._own(wanted), remembered
        made = self._again(own, statistics) if self.recompute else self._stored(stored, statistics, lengths)
        weight = torch.stack([matrix(last) for *_, last in own])
        zs, mean_g = [each.z for each in made], g.mean[: weight.shape[1]]
        back = Backward(g.maps, mean_g, w, zs, weight, moments, self.m)
        d_weight = back.by_weight()[..., None, None] if any(asked[-1] for asked in wanted) else [None] * self.count
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
