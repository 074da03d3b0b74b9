"""The ends of convolution ops, y = W z and its BatchNorm, in a weighted sum: sum_k w_k BN(W_k z_k), with no y computed.

Means are over all pixels. What BatchNorm needs of y, z tells, with S = mean(z z') - mean(z) mean(z)' (a prime
transposes):

    mean(y) = W mean(z),    var(y) = diag(W S W'),    r = 1 / sqrt(var(y) + eps)

so that the sum is one of products of z with the matrix A = w r W. Backward, of R pixels, from the gradient g:

    Q = mean(g z'),    s = diag(Q W') - mean(g) mean(y) = mean(g (y - mean(y)))
    d/dw = R sum(r s),    d/dW = R w r (Q - mean(g) mean(z)' - r^2 s W S),
    d/dz = A' (g - mean(g)) - B (z - mean(z)) with B = W' r^2 s A

In evaluation mode r and the mean of y are constants, and what comes of their gradients is left out.

Shapes: P products; maps z (N/m, mC', F, T) and g (N/m, mC, F, T), folded (see `folded`); weights (P, C, C').
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fused.cnn.batchnorm import tracked
from models.fused.cnn.folded import copies
from models.fused.cnn.sums import affine, means_and_moments, moments, pixels


@dataclass(frozen=True)
class Moments:
    """Of the z means (P, C') and S (P, C', C'), in training only; of the y means and r, (P, C); R."""

    mean: Tensor | None
    spread: Tensor | None
    center: Tensor
    scale: Tensor
    pixels: int

    @classmethod
    def of(cls, zs: Sequence[Tensor], weight: Tensor, norms: Sequence[nn.BatchNorm2d], m: int) -> "Moments":
        """Of the batch, and then tracked; in evaluation mode the running ones."""
        count, weight = pixels(zs[0]) * m, weight.to(norms[0].running_var.dtype)
        if not norms[0].training:
            center, variance = (
                torch.stack([getattr(n, name) for n in norms]) for name in ("running_mean", "running_var")
            )
            return cls(None, None, center, torch.rsqrt(variance + norms[0].eps), count)
        of_z, of_both = means_and_moments(zs, m)
        spread = of_both - of_z[:, :, None] * of_z[:, None, :]
        center = (weight @ of_z[:, :, None])[:, :, 0]
        variance = (
            ((weight @ spread) * weight).sum(dim=2).clamp_(min=0)
        )  # rounding may take that of a constant below
        return cls(of_z, spread, center, tracked(norms, center, variance, count), count)


class Backward:
    """The gradients of such a sum, from that by the sum."""

    def __init__(
        self, g: Tensor, mean_g: Tensor, w: Tensor, zs: Sequence[Tensor], weight: Tensor, of: Moments, m: int
    ):
        """`mean_g` (C,): the mean of g; `w` (P,): the weights of the sum."""
        self.g, self.mean_g, self.of, self.m = g, mean_g, of, m
        self.weight = weight = weight.to(mean_g.dtype)
        self.q = moments([g] * len(zs), zs, m)
        s = (self.q * weight).sum(dim=2) - mean_g * of.center
        self.by_w = of.pixels * (of.scale * s).sum(dim=1)
        self.gain = (w[:, None] * of.scale)[:, :, None]
        self.slope = (of.scale.square() * s)[:, :, None]

    def by_weight(self) -> Tensor:
        """(P, C, C')."""
        of, q = self.of, self.q
        if of.mean is not None:
            q = q - self.mean_g[:, None] * of.mean[:, None, :] - self.slope * (self.weight @ of.spread)
        return of.pixels * self.gain * q

    def by_z(self, k: int, z: Tensor) -> Tensor:
        """Of the k-th product."""
        a, of = self.gain[k] * self.weight[k], self.of
        if of.mean is None:
            return affine(a.new_zeros(z.shape[1]), [(self.g, a)], self.m)
        b = self.weight[k].T @ (self.slope[k] * a)  # symmetric
        constant = copies(b.mv(of.mean[k]) - a.T.mv(self.mean_g), self.m)
        return affine(constant, [(z, -b), (self.g, a)], self.m)
