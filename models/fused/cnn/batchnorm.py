"""BatchNorm without affine, split into steps that the fused edges merge with their other operations.

    BN(y) = r (y - mean(y)),    r = 1 / sqrt(var(y) + eps)

y - mean(y) is the centered map, r the scale. In training, mean and variance are those of the batch, and the
running statistics are updated; in evaluation they are the running statistics.

Shapes: maps (N/m, mC, F, T) in channels_last memory format, folded with m = `layout.fold` (see `layout`);
statistics (C,), or (mC,) with m equal copies. Statistics of 16-bit maps are float32.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.fused.cnn.layout import Layout, per_channel, repeat_channels
from models.fused.cnn.sums import channel_mean, channel_means, values_per_channel, weighted_sum


def center_and_scale(y: Tensor, norm: nn.BatchNorm2d, layout: Layout) -> tuple[Tensor, Tensor]:
    """The centered map, and the scale (mC,).

    Autograd sees the mean as a constant. That is exact because the gradient that a BatchNorm passes on has a
    mean of zero (see `batchnorm_backward`).
    """
    running_mean = repeat_channels(norm.running_mean, layout.fold)
    mean = channel_mean(y.detach(), layout) if norm.training else running_mean
    centered = y - per_channel(mean).to(y.dtype)
    return centered, scale_of(centered, mean, norm, layout)


@torch.no_grad()
def scale_of(centered: Tensor, mean: Tensor, norm: nn.BatchNorm2d, layout: Layout) -> Tensor:
    """The scale (mC,) for a centered map; `mean` (mC,) was subtracted from it."""
    if norm.training:
        channels = slice(norm.num_features)
        variance = channel_means(centered, [centered], layout)[1, channels]
        count = values_per_channel(centered, layout) * layout.processes
        update_running_statistics([norm], mean[None, channels], variance[None], count)
    else:
        variance = norm.running_var
    return repeat_channels(torch.rsqrt(variance + norm.eps), layout.fold)


def update_running_statistics(
    norms: Sequence[nn.BatchNorm2d], mean: Tensor, variance: Tensor, count: int
) -> None:
    """Update P BatchNorms of one momentum, as `nn.BatchNorm2d` does.

    `mean` and `variance` (P, C) are those of a batch of `count` values per channel.
    """
    momentum = norms[0].momentum
    unbiased = variance * (count / max(count - 1, 1))
    torch._foreach_add_([norm.num_batches_tracked for norm in norms], 1)
    torch._foreach_lerp_([norm.running_mean for norm in norms], list(mean), momentum)
    torch._foreach_lerp_([norm.running_var for norm in norms], list(unbiased), momentum)


def batchnorm_backward(g: Tensor, centered: Tensor, scale: Tensor, layout: Layout) -> Tensor:
    """The gradient with respect to y: g - mean(g) - r^2 (y - mean(y)) mean(g (y - mean(y))).

    g is the gradient with respect to BN(y), already multiplied by the scale r.
    """
    mean_g, mean_product = channel_means(g, [centered], layout)
    terms = [(g, torch.ones_like(mean_g)), (centered, -scale.square() * mean_product)]
    return weighted_sum(-mean_g, terms, layout)
