"""The last layers of convolution ops, y_k = W_k z_k and BatchNorm, in a weighted sum: sum_k w_k BN(W_k z_k).

No y is computed. BatchNorm needs only the mean and the variance of y, which follow from those of z.
Means are over all R pixels and utterances; a prime transposes.

    S = mean(z z') - mean(z) mean(z)'
    mean(y) = W mean(z),    var(y) = diag(W S W'),    r = 1 / sqrt(var(y) + eps)

So the sum is one of products of z with the matrix A = w r W. Backward, from the gradient g of the sum:

    Q = mean(g z'),    s = diag(Q W') - mean(g) mean(y) = mean(g (y - mean(y)))
    d/dw = R sum(r s)
    d/dW = R w r (Q - mean(g) mean(z)' - r^2 s W S)
    d/dz = A' (g - mean(g)) - B (z - mean(z)),    B = W' r^2 s A

In evaluation mode, r and mean(y) are constants, and the terms that come from their gradients are left out.

Shapes: P products; maps z (N/m, mC', F, T) and g (N/m, mC, F, T), folded with m = `layout.fold` (see
`layout`); weights W (P, C, C'); w (P,).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.fused.cnn.batchnorm import update_running_statistics
from models.fused.cnn.layout import Layout, repeat_channels
from models.fused.cnn.sums import first_and_second_moments, product_means, values_per_channel, weighted_sum


@dataclass(frozen=True)
class ProductStatistics:
    """mean(y) and r (P, C); R in this process; in training also mean(z) (P, C') and S (P, C', C')."""

    mean_y: Tensor
    scale: Tensor
    count: int
    mean_z: Tensor | None = None
    covariance: Tensor | None = None


def product_statistics(
    zs: Sequence[Tensor], weight: Tensor, norms: Sequence[nn.BatchNorm2d], layout: Layout
) -> ProductStatistics:
    """The statistics of the batch, which update the running ones; in evaluation mode the running ones."""
    count, eps = values_per_channel(zs[0], layout), norms[0].eps
    if not norms[0].training:
        mean_y = torch.stack([norm.running_mean for norm in norms])
        variance = torch.stack([norm.running_var for norm in norms])
        return ProductStatistics(mean_y, torch.rsqrt(variance + eps), count)
    weight = weight.to(norms[0].running_var.dtype)
    mean_z, second_moment = first_and_second_moments(zs, layout)
    covariance = second_moment - mean_z[:, :, None] * mean_z[:, None, :]
    mean_y = (weight @ mean_z[:, :, None])[:, :, 0]
    variance = ((weight @ covariance) * weight).sum(dim=2)
    variance.clamp_(min=0)  # rounding can make the variance of a constant negative
    update_running_statistics(norms, mean_y, variance, count * layout.processes)
    return ProductStatistics(mean_y, torch.rsqrt(variance + eps), count, mean_z, covariance)


@dataclass
class ProductGradients:
    """The gradients of w (`d_w`), W and each z, from the gradient g of the sum; `mean_g` (C,) is its mean."""

    g: Tensor
    mean_g: Tensor
    w: Tensor
    zs: Sequence[Tensor]
    weight: Tensor
    statistics: ProductStatistics
    layout: Layout

    def __post_init__(self):
        scale = self.statistics.scale
        self.weight = self.weight.to(self.mean_g.dtype)
        self.q = product_means([self.g] * len(self.zs), self.zs, self.layout)
        s = (self.q * self.weight).sum(dim=2) - self.mean_g * self.statistics.mean_y
        self.d_w = self.statistics.count * (scale * s).sum(dim=1)  # (P,)
        self.gain = (self.w[:, None] * scale)[:, :, None]  # w r
        self.slope = (scale.square() * s)[:, :, None]  # r^2 s

    def d_weight(self) -> Tensor:
        """With respect to W, (P, C, C')."""
        statistics, q = self.statistics, self.q
        if statistics.mean_z is not None:
            constant = self.mean_g[:, None] * statistics.mean_z[:, None, :]
            q = q - constant - self.slope * (self.weight @ statistics.covariance)
        return statistics.count * self.gain * q

    def d_z(self, k: int) -> Tensor:
        """With respect to the k-th z, (N/m, mC', F, T)."""
        z, a, statistics = self.zs[k], self.gain[k] * self.weight[k], self.statistics
        if statistics.mean_z is None:
            return weighted_sum(a.new_zeros(z.shape[1]), [(self.g, a)], self.layout)
        b = self.weight[k].T @ (self.slope[k] * a)  # symmetric
        constant = repeat_channels(b.mv(statistics.mean_z[k]) - a.T.mv(self.mean_g), self.layout.fold)
        return weighted_sum(constant, [(z, -b), (self.g, a)], self.layout)
